//! The handlers, one file per resource, and what they share.

mod body;
pub(crate) mod customer;
pub(crate) mod dummy;
pub(crate) mod movie;
pub(crate) mod operation;
pub(crate) mod page;
pub(crate) mod probe;
pub(crate) mod session;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use storage::{Found, Record};

use crate::app::App;
use crate::error::Problem;
use crate::json::{WriteJson, write_string};

/// 200 with a JSON body.
pub(crate) fn json_response(body: Vec<u8>) -> Response {
    typed_response("application/json", body)
}

/// 200 with a body of this media type.
pub(crate) fn typed_response(media_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// 200 with the record, or 404.
fn found_response<R>(found: Option<Found<R>>, what: &str) -> Result<Response, Problem>
where
    R: Record,
    for<'a> R::View<'a>: WriteJson,
{
    let Some(found) = found else {
        return Err(Problem::not_found(format!(
            "there is no {what} with this id"
        )));
    };
    let mut body = Vec::with_capacity(512);
    found.view()?.write_json(&mut body);
    Ok(json_response(body))
}

/// `{…,"host":…,"time":…}`: the node's name and its clock, now. `before` is what stands in front.
fn here_and_now(app: &App, before: &str) -> Response {
    let mut body = format!("{{{before}\"host\":").into_bytes();
    write_string(&app.host, &mut body);
    let now = jiff::Timestamp::now();
    body.extend_from_slice(format!(",\"time\":\"{now:.6}\"}}").as_bytes());
    json_response(body)
}

/// An id of the path: decimal digits with at most a minus, within the range of its column.
fn id<T: std::str::FromStr>(text: &str) -> Result<T, Problem> {
    let plain = !text.starts_with('+');
    text.parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| Problem::bad_request("the id is no integer of its column's range"))
}

/// The request's body, within the limits of size and time.
async fn read_body(app: &App, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Problem> {
    let limits = &app.config.limits;
    let too_large = || {
        app.metrics.limit_hit("body_bytes_max");
        let max = chassis::config::format_size(limits.body_bytes_max);
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            format!("the body may have {max}"),
        )
    };
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > limits.body_bytes_max) {
        return Err(too_large());
    }
    let bytes_max = usize::try_from(limits.body_bytes_max).unwrap_or(usize::MAX);
    let whole = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(limits.body_timeout, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes().to_vec()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::bad_request("the body ended before its time")),
        Err(_) => {
            app.metrics.limit_hit("body_timeout");
            Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "request-timeout",
                "the body did not arrive in time",
            ))
        }
    }
}
