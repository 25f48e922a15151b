//! `POST /operation`: repeats its number with the node's name and clock. It stores nothing, so it
//! may be sent again. Content types are not looked at: `curl -d` sends a form's.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::body::{self, Member};
use super::{here_and_now, read_body};
use crate::app::App;
use crate::error::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    operation: Number,
}

/// Of 0..2^63-1.
#[derive(Deserialize)]
#[serde(try_from = "i64")]
struct Number(i64);

impl TryFrom<i64> for Number {
    type Error = &'static str;

    fn try_from(value: i64) -> Result<Self, Self::Error> {
        match value {
            0.. => Ok(Self(value)),
            _ => Err("it is negative"),
        }
    }
}

const MEMBERS: [Member; 1] = [("operation", "an integer of 0..2^63-1", |value: &Value| {
    value.as_i64().is_some_and(|value| value >= 0)
})];

pub(crate) async fn post(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = read_body(&app, &headers, body).await?;
    let Operation {
        operation: Number(operation),
    } = body::read(&body, &MEMBERS)?;
    if let Err(instead) = app.faults.operation(operation) {
        return Ok(*instead);
    }
    Ok(here_and_now(&app, &format!("\"operation\":{operation},")))
}
