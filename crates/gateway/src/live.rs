//! What a reload may change, in one value that is swapped whole: a request sees one configuration
//! from its head to its end, never half of two. Nodes that stay keep their identity, so that what was
//! learned about them, and the connections to them, outlive the change.
//!
//! Not in here: what a process is born with (`fixed`).

use std::path::PathBuf;
use std::time::Instant;

use http::HeaderValue;
use serde_json::json;

use crate::access_log::Terms;
use crate::admin::Hosts;
use crate::cache::config::ValidCache;
use crate::ejection::Wanted;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::picture::config::Sources;
use crate::router::Router;
use crate::valid::{Valid, ValidLimits, ValidProbe, ValidSpool};

/// A configuration in use. Immutable but for what nodes learn.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) nodes: Nodes,
    pub(crate) router: Router,
    pub(crate) probe: ValidProbe,
    pub(crate) limits: ValidLimits,
    pub(crate) cache: ValidCache,
    pub(crate) spool: ValidSpool,
    pub(crate) expose_node: bool,
    /// What answers over TLS say of HTTP/3.
    pub(crate) alt_svc: Option<HeaderValue>,
    /// By which names the admin listener may be asked for.
    pub(crate) hosts: Hosts,
    /// Where the token for changes stands; without it there are none.
    pub(crate) token_file: Option<PathBuf>,
    /// Where what operators want of nodes is shared with other gateways.
    pub(crate) state_file: Option<PathBuf>,
    pub(crate) access_log: Terms,
    /// Where the page's picture comes from.
    pub(crate) sources: Sources,
}

impl Live {
    /// Prepares a configuration; nothing of it shows before `replaces`. `old` is the one in use:
    /// nodes with the same name and address are taken over from it. `wanted` is what operators want of
    /// nodes, by name.
    pub(crate) fn new(
        config: &Valid,
        old: Option<&Self>,
        wanted: impl Fn(&str) -> Wanted,
        metrics: &Metrics,
        started: Instant,
    ) -> Self {
        let known = old.map(|old| &old.nodes);
        Self {
            nodes: Nodes::new(&config.nodes, known, wanted, metrics, started),
            router: Router::new(&config.routes),
            probe: config.probe.clone(),
            limits: config.limits.clone(),
            cache: config.cache,
            spool: config.spool.clone(),
            expose_node: config.expose_node,
            alt_svc: config.alt_svc.clone(),
            hosts: config.hosts.clone(),
            token_file: config.token_file.clone(),
            state_file: config.state_file.clone(),
            access_log: config.access_log,
            sources: config.sources.clone(),
        }
    }

    /// To be called when this configuration has taken the place of `old`: nodes that are gone take
    /// nothing in any more and leave the metrics, new ones are shown.
    pub(crate) fn replaces(&self, old: &Self, metrics: &Metrics, events: &Events) {
        for gone in old.nodes.iter().filter(|node| !self.nodes.has(node.id)) {
            gone.retire();
            if self.nodes.by_name(&gone.name).is_none() {
                metrics.forget_node(&gone.name);
            }
            let (node, address) = (&gone.name, &gone.address);
            tracing::info!(node, address, "node removed");
            let data = json!({"node": node, "address": address});
            events.push("node_removed", data);
        }
        for new in self.nodes.iter().filter(|node| !old.nodes.has(node.id)) {
            new.show();
            let (node, address, wanted) = (&new.name, &new.address, new.wanted().name());
            tracing::info!(node, address, wanted, "node added");
            let data = json!({"node": node, "address": address, "wanted": wanted});
            events.push("node_added", data);
        }
    }
}
