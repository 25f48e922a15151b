//! `GET /ping`, `GET /ready` and, on the admin listener, `GET /metrics`.
//!
//! `/ping` says whether this process serves, and nothing of the database: a probe that failed with
//! it would have every node restarted, which mends nothing. `/ready` is the one that asks it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::typed_response;
use crate::app::App;
use crate::error::Problem;
use crate::texts;

/// Tells draining apart from sickness on the probe's 500.
const STATE: HeaderName = HeaderName::from_static("bingo-state");
/// How long the database may take to say that it is there.
const READY_LIMIT: Duration = Duration::from_secs(1);

pub(crate) async fn ping(State(app): State<Arc<App>>) -> Response {
    if !app.is_draining() && !app.is_starting() {
        return typed_response("text/plain", texts::HEALTHY);
    }
    let mut response = typed_response("text/plain", texts::UNHEALTHY);
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    if app.is_draining() {
        response
            .headers_mut()
            .insert(STATE, HeaderValue::from_static("draining"));
    }
    response
}

pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    if app.is_draining() {
        return Err(Problem::unavailable(
            "draining",
            "this node is about to end",
        ));
    }
    match tokio::time::timeout(READY_LIMIT, app.storage.ready()).await {
        Ok(answer) => answer?,
        Err(_) => {
            return Err(Problem::unavailable(
                "database-unavailable",
                "the database does not answer",
            ));
        }
    }
    Ok(typed_response("text/plain", "ready"))
}

pub(crate) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let (kind, text) = app.metrics.answer(&app.storage.observed(), accept);
    typed_response(kind, text)
}
