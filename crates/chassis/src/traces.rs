//! Traces: what a process does for a request, as spans of OpenTelemetry, sent to a collector by OTLP
//! over HTTP. A request that names its trace (W3C Trace Context) joins it; any other begins one.
//!
//! All of it is behind the cargo feature `otel`, which is off by default: it brings a dozen crates for
//! something that most installations do not use. Without it the functions here do nothing, so callers
//! need no feature of their own, and asking for traces is refused with the reason.
//!
//! A span has the fields of its log lines and the lines themselves as events, hence nothing that a log
//! may not have. Spans are `info`: a log level above that silences them as well.

#[cfg(feature = "otel")]
mod otlp;

use tracing::Span;

use crate::Failure;

/// The connection to the collector.
#[derive(Clone, Debug)]
pub struct Traces {
    #[cfg(feature = "otel")]
    provider: opentelemetry_sdk::trace::SdkTracerProvider,
}

impl Traces {
    /// `endpoint` is the collector's address, like `http://127.0.0.1:4318`; `service` names this process
    /// there. Connects to nothing yet. Fails on an address that cannot be meant, and always where the
    /// binary was built without traces (exit 64).
    pub fn start(endpoint: &str, service: &'static str) -> Result<Self, Failure> {
        #[cfg(feature = "otel")]
        let traces = otlp::start(endpoint, service);
        #[cfg(not(feature = "otel"))]
        let traces = Err(without(endpoint, service));
        traces
    }

    /// Sends what is left, for a few seconds at most. Blocks: not for asynchronous code.
    pub fn finish(&self) {
        #[cfg(feature = "otel")]
        otlp::finish(self);
    }
}

/// Lets a span join the trace that its request came with: the values of the headers `traceparent` and
/// `tracestate`. To be called before anything happens in the span.
pub fn join(span: &Span, traceparent: Option<&str>, tracestate: Option<&str>) {
    #[cfg(feature = "otel")]
    otlp::join(span, traceparent, tracestate);
    #[cfg(not(feature = "otel"))]
    let _ = (span, traceparent, tracestate);
}

/// Tells a span of a request how that was answered, in the names of OpenTelemetry's HTTP conventions.
pub fn answered(span: &Span, method: &'static str, status: u16) {
    #[cfg(feature = "otel")]
    otlp::answered(span, method, status);
    #[cfg(not(feature = "otel"))]
    let _ = (span, method, status);
}

#[cfg(not(feature = "otel"))]
fn without(endpoint: &str, service: &str) -> Failure {
    Failure::configuration(
        format!("send the traces of {service} to {endpoint}"),
        "this binary was built without OpenTelemetry",
        "build it with `cargo build --release -p bingo --features otel`, or leave out --otlp-endpoint \
         and BINGO_OTLP_ENDPOINT",
    )
}
