//! `GET /api/movie` and `GET /api/movie/{id}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::Method;
use storage::Place;

use super::{found_response, id};
use crate::app::App;
use crate::error::Problem;
use crate::listing::{Asked, Wanted, stream, unknown_cursor};

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    method: Method,
    asked: Asked,
) -> Result<Response, Problem> {
    let wanted = Wanted::check("/api/movie", asked, &method)?;
    let list = match wanted.page::<Place>()? {
        None => app.storage.movies(wanted.rows_read()).await?,
        Some(page) => {
            let list = app.storage.movies_page(&page).await?;
            list.ok_or_else(unknown_cursor)?
        }
    };
    stream(&app, &wanted, list).await
}

pub(crate) async fn one(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
) -> Result<Response, Problem> {
    found_response(app.storage.movie(id(&text)?).await?, "movie")
}
