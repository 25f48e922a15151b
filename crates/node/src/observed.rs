//! One request from its head to the end of its answer's body: counted, timed and logged when the
//! body ends or is dropped, whichever comes first. A list that a client leaves half-way is so told
//! apart from one that it read.
//!
//! The log line has the fields of its span (request id, route, and the trace id where the client sent
//! one), status, duration in seconds and, after a failure, its cause. The route is the template, never
//! the path or the query: ids and cursors are the client's own. Failures and anything slower than a
//! second are logged at info, all else at debug.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use chassis::metrics::{RequestLabels, method_label};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use http_body::{Frame, SizeHint};
use tracing::Span;

use crate::app::App;
use crate::error::Problem;

/// Slower than this is worth a line of the log.
const SLOW: Duration = Duration::from_secs(1);
/// The status under which a request is counted whose client left before its answer began; nginx's.
const CLIENT_LEFT: u16 = 499;

/// A request that is being served. Dropping it ends it.
pub(crate) struct Observation {
    app: Arc<App>,
    labels: RequestLabels,
    /// Everything that the request does is logged inside it.
    pub(crate) span: Span,
    start: Instant,
    cause: Option<String>,
    /// The whole answer was handed to the connection.
    complete: bool,
    /// Probes are left out of the metrics.
    is_probe: bool,
}

/// A body that ends its observation with itself.
pub(crate) struct Observed {
    body: Body,
    observation: Observation,
}

impl Observation {
    pub(crate) fn start(
        app: &Arc<App>,
        request: &Request,
        route: &'static str,
        request_id: &HeaderValue,
    ) -> Self {
        let is_probe = matches!(route, "/ping" | "/ready");
        if !is_probe {
            app.metrics.http.active.inc();
        }
        let header = |name| request.headers().get(name)?.to_str().ok();
        let span = tracing::info_span!(
            "request",
            request_id = request_id.to_str().unwrap_or_default(),
            route,
            trace_id = trace_id(request.headers()),
        );
        chassis::traces::join(&span, header("traceparent"), header("tracestate"));
        Self {
            app: app.clone(),
            labels: RequestLabels {
                http_route: route,
                http_request_method: method_label(request.method().as_str()),
                http_response_status_code: CLIENT_LEFT,
                network_protocol_version: version_label(request.version()),
            },
            span,
            start: Instant::now(),
            cause: None,
            complete: false,
            is_probe,
        }
    }

    pub(crate) fn fail(&mut self, problem: &Problem) {
        self.cause.clone_from(&problem.cause);
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.labels.http_response_status_code = status.as_u16();
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let elapsed = self.start.elapsed();
        if !self.is_probe {
            self.app.metrics.http.active.dec();
            self.app
                .metrics
                .http
                .observe(&self.labels, elapsed.as_secs_f64());
        }
        let status = self.labels.http_response_status_code;
        let failed = status >= 500 || !self.complete;
        let method = self.labels.http_request_method;
        let is_slow = elapsed > SLOW;
        let what = match (status, self.complete) {
            (CLIENT_LEFT, _) => "was given up by its client",
            (500.., _) => "failed",
            (_, false) => "was broken off",
            _ if is_slow => "was slow",
            _ => "was answered",
        };
        let (duration, cause) = (elapsed.as_secs_f64(), self.cause.as_deref());
        chassis::traces::answered(&self.span, method, status);
        let _inside = self.span.enter();
        if is_slow || (failed && !self.is_probe) {
            tracing::info!(status, duration, cause, "{method} request {what}");
        } else {
            tracing::debug!(status, duration, cause, "{method} request {what}");
        }
    }
}

impl Observed {
    pub(crate) fn new(body: Body, mut observation: Observation) -> Self {
        // A body without bytes (HEAD, 204) may never be polled.
        observation.complete = http_body::Body::is_end_stream(&body)
            || observation.labels.http_request_method == "HEAD";
        Self { body, observation }
    }
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        match &frame {
            Some(Err(error)) => this.observation.cause = Some(error.to_string()),
            None => this.observation.complete = true,
            Some(Ok(_)) => this.observation.complete = this.body.is_end_stream(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The trace of W3C Trace Context, level 1, section 3.2 `traceparent`: version, trace, parent, flags.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (_version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_id = trace.len() == 32 && is_hex(trace) && parent.len() == 16 && is_hex(parent);
    is_id.then_some(trace)
}

fn version_label(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_from_a_well_formed_header_alone() {
        let of = |text: &str| {
            let value = HeaderValue::from_str(text).unwrap();
            let headers =
                HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), value)]);
            trace_id(&headers).map(str::to_owned)
        };
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            of(&format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(),
            Some(trace)
        );
        for wrong in ["", "00-x-y-01", trace, &format!("00-{trace}-x-01")] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
