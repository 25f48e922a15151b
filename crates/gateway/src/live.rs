//! What a reload may change, in one value that is swapped whole: a request sees one configuration
//! from its head to its end, never half of two. Nodes that stay keep their identity, so that what was
//! learned about them, and the connections to them, outlive the change.
//!
//! Not in here: what threads are born with (`threads`) and sockets (`listen`, `admin.listen`).

use std::time::Instant;

use http::HeaderValue;

use crate::cache::config::ValidCache;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::router::Router;
use crate::valid::{Valid, ValidLimits, ValidProbe};

/// A configuration in use. Immutable but for what nodes learn.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) nodes: Nodes,
    pub(crate) router: Router,
    pub(crate) probe: ValidProbe,
    pub(crate) limits: ValidLimits,
    pub(crate) cache: ValidCache,
    pub(crate) expose_node: bool,
    /// What answers over TLS say of HTTP/3.
    pub(crate) alt_svc: Option<HeaderValue>,
}

impl Live {
    /// Prepares a configuration; nothing of it shows before `replaces`. `old` is the one in use:
    /// nodes with the same name and address are taken over from it.
    pub(crate) fn new(
        config: &Valid,
        old: Option<&Self>,
        metrics: &Metrics,
        started: Instant,
    ) -> Self {
        let known = old.map(|old| &old.nodes);
        Self {
            nodes: Nodes::new(&config.nodes, known, metrics, started),
            router: Router::new(&config.routes),
            probe: config.probe.clone(),
            limits: config.limits.clone(),
            cache: config.cache,
            expose_node: config.expose_node,
            alt_svc: config.alt_svc.clone(),
        }
    }

    /// To be called when this configuration has taken the place of `old`: nodes that are gone take
    /// nothing in any more and leave the metrics, new ones are shown.
    pub(crate) fn replaces(&self, old: &Self, metrics: &Metrics) {
        for gone in old.nodes.iter().filter(|node| !self.nodes.has(node.id)) {
            gone.retire();
            if self.nodes.by_name(&gone.name).is_none() {
                metrics.forget_node(&gone.name);
                tracing::info!(node = gone.name, address = gone.address, "node removed");
            }
        }
        for new in self.nodes.iter().filter(|node| !old.nodes.has(node.id)) {
            new.show();
            tracing::info!(node = new.name, address = new.address, "node added");
        }
    }
}
