//! `POST /operation`: repeats its number with the node's name and clock. It stores nothing, so it
//! may be sent again. Content types are not looked at: `curl -d` sends a form's.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;

use super::{here_and_now, read_body};
use crate::app::App;
use crate::error::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    operation: i64,
}

pub(crate) async fn post(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = read_body(&app, &headers, body).await?;
    match serde_json::from_slice(&body) {
        Ok(Operation { operation }) if operation >= 0 => {
            if let Err(instead) = app.faults.operation(operation) {
                return Ok(*instead);
            }
            Ok(here_and_now(&app, &format!("\"operation\":{operation},")))
        }
        _ => Err(Problem::bad_request(
            "the body is {\"operation\": n} with an integer n of 0..2^63-1",
        )),
    }
}
