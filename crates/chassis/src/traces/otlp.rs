//! The feature `otel`: spans in batches to a collector (OTLP 1.x, HTTP with protobuf).
//!
//! The HTTP client is ours over hyper: those that the exporter brings need another TLS library or the
//! process's own runtime. It speaks plain HTTP: a collector stands on the same machine or network, and
//! an agent there does the rest.
//!
//! Batches are sent by a thread of the SDK's own, which waits for each. A collector that is away costs
//! spans, never requests: what does not fit into the queue is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Status, TracerProvider};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider,
};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::registry::LookupSpan;

use super::Traces;
use crate::Failure;

/// Where a collector takes traces (OTLP, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";
/// Spans that wait to be sent; more are dropped. Too low: bursts are lost; too high: memory.
const QUEUE_SPANS: usize = 2048;
/// Between two batches. Too low: a request to the collector for every few spans; too high: traces come
/// late, and more of them are lost with the process.
const BATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long the collector may take for one batch.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of the collector's answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

pub(super) fn start(endpoint: &str, service: &'static str) -> Result<Traces, Failure> {
    let attempted = || format!("send traces to {endpoint}");
    let help = "give the address of a collector, like http://127.0.0.1:4318";
    let uri: Uri = endpoint
        .parse()
        .map_err(|error| Failure::configuration(attempted(), error, help))?;
    if uri.scheme_str() != Some("http") || uri.authority().is_none() {
        let why = "it is no http:// address";
        return Err(Failure::configuration(attempted(), why, help));
    }
    let address = match uri.path().ends_with(PATH) {
        true => endpoint.to_owned(),
        false => format!("{}{PATH}", endpoint.trim_end_matches('/')),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::default())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(address)
        .with_timeout(SEND_LIMIT)
        .build()
        .map_err(|error| Failure::configuration(attempted(), error, help))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_SPANS)
        .with_scheduled_delay(BATCH_INTERVAL)
        .build();
    let processor = BatchSpanProcessor::builder(exporter)
        .with_batch_config(batches)
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_resource(Resource::builder().with_service_name(service).build())
        .build();
    Ok(Traces { provider })
}

pub(super) fn finish(traces: &Traces) {
    if let Err(error) = traces.provider.shutdown_with_timeout(SEND_LIMIT) {
        tracing::warn!(%error, "the last traces were not sent");
    }
}

impl Traces {
    /// What makes spans of tracing's into spans of OpenTelemetry.
    pub(crate) fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracer(self.provider.tracer("bingo"))
    }
}

pub(super) fn join(span: &Span, traceparent: Option<&str>, tracestate: Option<&str>) {
    let headers = Headers {
        traceparent,
        tracestate,
    };
    let parent = TraceContextPropagator::new().extract(&headers);
    // Fails where no layer makes traces.
    let _ = span.set_parent(parent);
}

pub(super) fn answered(span: &Span, method: &'static str, status: u16) {
    span.set_attribute("http.request.method", method);
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set_status(Status::error(""));
    }
}

/// The two headers of W3C Trace Context.
struct Headers<'a> {
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.traceparent,
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// Sends one batch at a time, over a connection of its own.
#[derive(Debug, Default)]
struct Client {
    /// The last batch was not taken.
    is_away: AtomicBool,
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = send(request);
        match &answer {
            Ok(answer) if answer.status().is_success() => {
                if self.is_away.swap(false, Ordering::Relaxed) {
                    tracing::info!("the collector takes traces again");
                }
            }
            Ok(answer) => self.tell(&answer.status().to_string()),
            Err(error) => self.tell(&error.to_string()),
        }
        answer
    }
}

impl Client {
    /// Once, until it takes them again.
    fn tell(&self, error: &str) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(error, "the collector takes no traces");
        }
    }
}

/// The SDK's thread has no runtime, and is there to wait.
fn send(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { tokio::time::timeout(SEND_LIMIT, exchange(request)).await })?
}

async fn exchange(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let authority = request.uri().authority().ok_or("it names no host")?.clone();
    let port = authority.port_u16().unwrap_or(80);
    let host = authority.host().trim_matches(['[', ']']);
    let stream = tokio::net::TcpStream::connect((host, port)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = request.map(Full::new);
    let headers = request.headers_mut();
    headers.insert(
        http::header::HOST,
        HeaderValue::try_from(authority.as_str())?,
    );
    let path = request.uri().path().parse()?;
    *request.uri_mut() = path;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
    connection.abort();
    Ok(Response::from_parts(head, body.to_bytes()))
}
