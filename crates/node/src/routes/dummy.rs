//! `GET /db_dummy` and `GET /long_dummy`: answers that take time, in the database and here. Only
//! the second may be cached, for at most a minute.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderValue;
use http::header::CACHE_CONTROL;

use super::here_and_now;
use crate::app::App;
use crate::error::Problem;

pub(crate) async fn db(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    app.storage.pause().await?;
    Ok(here_and_now(&app, ""))
}

pub(crate) async fn long(State(app): State<Arc<App>>) -> Response {
    tokio::time::sleep(app.config.long_dummy_duration).await;
    let mut response = here_and_now(&app, "");
    response.headers_mut().insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=60"),
    );
    response
}
