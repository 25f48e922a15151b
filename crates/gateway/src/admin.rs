//! The admin listener: metrics and health for machines, status for people. Never routed to nodes
//! and never reachable over a public listener. Only reads; changes come with the admin API.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::config::Class;
use crate::worker::Shared;

/// Admin connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const JSON: &str = "application/json";

/// Serves one admin listener for ever.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let answer = answer(&shared, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let result = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = result {
                tracing::debug!(%error, "admin connection ended");
            }
        });
    }
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, kind, body) = match request.uri().path() {
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed")
        }
        "/metrics" => {
            let text = chassis::metrics::encode(&shared.metrics.registry);
            (StatusCode::OK, chassis::metrics::CONTENT_TYPE, text)
        }
        "/health" => health(shared),
        "/api/v1/status" => (StatusCode::OK, JSON, status(shared).to_string()),
        _ => problem(StatusCode::NOT_FOUND, "not-found"),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

fn problem(status: StatusCode, slug: &str) -> (StatusCode, &'static str, String) {
    let title = status.canonical_reason().unwrap_or_default();
    let body =
        json!({"type": format!("/problems/{slug}"), "title": title, "status": status.as_u16()});
    (status, "application/problem+json", body.to_string())
}

/// 200 while at least one node is in rotation.
fn health(shared: &Shared) -> (StatusCode, &'static str, String) {
    let live = shared.live();
    let nodes: Vec<Value> = live
        .nodes
        .iter()
        .map(|node| json!({"name": node.name, "state": node.state().name()}))
        .collect();
    let (status, word) = if live.nodes.any_usable() {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    };
    (
        status,
        JSON,
        json!({"state": word, "nodes": nodes}).to_string(),
    )
}

fn status(shared: &Shared) -> Value {
    let now = Instant::now();
    let live = shared.live();
    let nodes: Vec<Value> = live
        .nodes
        .iter()
        .map(|node| {
            let latency: serde_json::Map<String, Value> = Class::ALL
                .into_iter()
                .filter_map(|(class, name)| {
                    let seconds = node.latency(class, now)?;
                    Some((name.to_owned(), json!(f64::from(seconds))))
                })
                .collect();
            json!({
                "name": node.name,
                "address": node.address,
                "state": node.state().name(),
                "in_flight": node.in_flight(),
                "answers": node.answers(),
                "latency_seconds": latency,
            })
        })
        .collect();
    let open = live
        .limits
        .connections_max
        .saturating_sub(shared.connections.available_permits() + shared.threads);
    json!({
        "role": "gateway",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": shared.started.elapsed().as_secs(),
        "active_requests": shared.metrics.http.active.get(),
        "held_requests": shared.held.load(Relaxed),
        "connections": open,
        "nodes": nodes,
    })
}
