//! `GET /` and `GET /config`: two texts.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::typed_response;
use crate::app::App;
use crate::texts;

pub(crate) async fn index() -> Response {
    typed_response("text/plain; charset=utf-8", texts::INDEX)
}

/// The effective configuration, secrets masked.
pub(crate) async fn config(State(app): State<Arc<App>>) -> Response {
    typed_response("application/yaml", app.config_yaml.clone())
}
