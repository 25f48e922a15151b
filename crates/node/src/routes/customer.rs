//! `GET /api/customer` and `GET /api/customer/{id}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::Method;

use super::{found_response, id};
use crate::app::App;
use crate::error::Problem;
use crate::listing::{Asked, rows_max, stream};

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    method: Method,
    asked: Asked,
) -> Result<Response, Problem> {
    let list = app.storage.customers(rows_max(asked, &method)?).await?;
    stream(&app, list).await
}

pub(crate) async fn one(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
) -> Result<Response, Problem> {
    found_response(app.storage.customer(id(&text)?).await?, "customer")
}
