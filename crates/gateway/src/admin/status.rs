//! What the admin listener shows of the gateway: in two words for machines (`/health`), in full for
//! people (`/api/v1/status`).

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Answer, json_answer};
use crate::config::Class;
use crate::nodes::Node;
use crate::worker::Shared;

/// 200 while at least one node is in rotation.
pub(super) fn health(shared: &Shared) -> Answer {
    let live = shared.live();
    let node = |node: &Node| json!({"name": node.name, "state": node.state().name()});
    let nodes: Vec<Value> = live.nodes.iter().map(|one| node(one)).collect();
    let (status, word) = if live.nodes.any_usable() {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    };
    json_answer(status, &json!({"state": word, "nodes": nodes}))
}

pub(super) fn status(shared: &Shared) -> Answer {
    let live = shared.live();
    let now = Instant::now();
    let nodes: Vec<Value> = live.nodes.iter().map(|one| node(one, now)).collect();
    let body = json!({
        "role": "gateway",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": shared.started.elapsed().as_secs(),
        "active_requests": shared.metrics.http.active.get(),
        "held_requests": shared.held.load(Relaxed),
        "connections": shared.open_connections(),
        "nodes": nodes,
    });
    json_answer(StatusCode::OK, &body)
}

/// One node, as the status page and the answer to a change show it.
pub(super) fn node(node: &Node, now: Instant) -> Value {
    let latency: Map<String, Value> = Class::ALL
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
        "wanted": node.wanted().name(),
        "in_flight": node.in_flight(),
        "answers": node.answers(),
        "latency_seconds": latency,
    })
}
