//! What every request and every answer gets around it: the deadline, the request id, the common
//! headers, the body of a problem, the metrics and the log line. Time is taken to the end of the
//! body: a list whose clock stopped at its headers would look free (stack.md, trap 5).
//!
//! One function instead of a stack of layers, so that the order is plain to read.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use tracing::Instrument;

use crate::app::App;
use crate::error::Problem;
use crate::faults::{Verbatim, is_probe};
use crate::observed::{Observation, Observed};
use crate::router::ROUTES;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Milliseconds that the gateway leaves us for the answer.
const TIMEOUT: HeaderName = HeaderName::from_static("bingo-timeout-ms");
/// Characters of a client's request id that we take over.
const REQUEST_ID_MAX: usize = 128;

/// Runs the handler and completes its answer.
pub(crate) async fn envelope(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let request_id = request_id(request.headers());
    let path = request.uri().path().to_owned();
    let limit = time_limit(request.headers(), app.config.limits.deadline);
    let route = route(&request);
    let mut observation = Observation::start(&app, &request, route, &request_id);

    let is_probe = is_probe(request.headers());
    let is_addressed = has_one_host(&request);
    let answer = async {
        if !is_addressed {
            let why = "a request has one Host, and no more than one (RFC 9112 section 3.2)";
            return Problem::bad_request(why).into_response();
        }
        match app.faults.admit(&path, is_probe).await {
            Ok(()) => next.run(request).await,
            Err(instead) => *instead,
        }
    };
    let until = Instant::now() + patience(limit, app.config.limits.database_wait);
    let answer = storage::deadline::until(until, answer);
    let answer = AssertUnwindSafe(answer)
        .catch_unwind()
        .instrument(observation.span.clone());
    let mut response = match tokio::time::timeout(limit, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Problem::internal("the handler panicked").into_response(),
        Err(_) => {
            app.metrics.limit_hit("deadline");
            Problem::deadline().into_response()
        }
    };
    if let Some(problem) = problem_of(&response) {
        *response.body_mut() = Body::from(problem.to_json(&path));
        let made = problem.clone().into_response();
        response.headers_mut().extend(made.headers().clone());
        observation.fail(&problem);
        if problem.is_of_absence() && Instant::now() >= until {
            app.metrics.limit_hit("database_wait");
        }
    }

    let is_wrong_method = response.status() == StatusCode::METHOD_NOT_ALLOWED;
    let headers = response.headers_mut();
    if is_wrong_method && let Some(methods) = allow(route) {
        headers.insert(ALLOW, methods);
    }
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, request_id);
    if app.is_draining() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    observation.answered(response.status());
    response.map(|body| Body::new(Observed::new(body, observation)))
}

/// HTTP/1.1 asks for one `Host`; two of them may mean one place here and another at a proxy.
fn has_one_host(request: &Request) -> bool {
    let hosts = request.headers().get_all(HOST).iter().count();
    hosts == 1 || (hosts == 0 && request.version() < Version::HTTP_11)
}

/// How long a request waits for a database that is away: so much less than it may take altogether,
/// that 503 and its `Retry-After` reach the client before the limit.
fn patience(limit: Duration, database_wait: Duration) -> Duration {
    limit.mul_f64(0.9).min(database_wait)
}

/// The methods of a route, spelt as gateways spell them (RFC 9110 section 10.2.1). Axum, which would
/// leave out the blanks, keeps a header that is there.
fn allow(route: &str) -> Option<HeaderValue> {
    let (_, methods) = ROUTES
        .into_iter()
        .find(|(template, _)| *template == route)?;
    let with_head = |method: &&'static str| match *method {
        "GET" => vec!["GET", "HEAD"],
        other => vec![other],
    };
    let methods: Vec<&str> = methods.iter().flat_map(with_head).collect();
    HeaderValue::try_from(methods.join(", ")).ok()
}

/// The problem that a handler answered, or one in its place where axum refused the request.
fn problem_of(response: &Response) -> Option<Problem> {
    let status = response.status();
    if let Some(problem) = response.extensions().get::<Problem>() {
        return Some(problem.clone());
    }
    let is_verbatim = response.extensions().get::<Verbatim>().is_some();
    (status.is_client_error() && !is_verbatim).then(|| Problem::of_status(status))
}

/// The route's template; `other` for a path that no route names.
fn route(request: &Request) -> &'static str {
    let matched = request.extensions().get::<MatchedPath>();
    ROUTES
        .into_iter()
        .find(|(template, _)| matched.is_some_and(|matched| matched.as_str() == *template))
        .map_or("other", |(template, _)| template)
}

/// The client's own id where it is short and plain, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=REQUEST_ID_MAX).contains(&bytes.len())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte))
    };
    headers
        .get(REQUEST_ID)
        .filter(sane)
        .cloned()
        .unwrap_or_else(|| {
            let id = uuid::Uuid::now_v7().to_string();
            HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
        })
}

/// The smaller of our limit and what the gateway leaves us; a header that is no number is ignored.
fn time_limit(headers: &HeaderMap, ours: Duration) -> Duration {
    headers
        .get(TIMEOUT)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse().ok())
        .map_or(ours, |milliseconds| {
            ours.min(Duration::from_millis(milliseconds))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_smaller_limit_of_time_wins() {
        let ours = Duration::from_secs(20);
        assert_eq!(time_limit(&HeaderMap::new(), ours), ours);
        assert_eq!(
            time_limit(&header(TIMEOUT, "150"), ours),
            Duration::from_millis(150)
        );
        assert_eq!(time_limit(&header(TIMEOUT, "60000"), ours), ours);
        assert_eq!(time_limit(&header(TIMEOUT, "soon"), ours), ours);
    }

    #[test]
    fn a_sane_request_id_is_taken_over_and_another_replaced() {
        assert_eq!(request_id(&header(REQUEST_ID, "abc-1")), "abc-1");
        for odd in ["", "a b", "x\"y", &"a".repeat(129)] {
            let id = request_id(&header(REQUEST_ID, odd));
            assert_eq!(id.len(), 36, "{odd}");
        }
    }
}
