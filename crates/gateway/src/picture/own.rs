//! What this gateway says of itself: to the page, and to its peers, which show it beside themselves.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use super::host::Host;
use super::since::Since;
use crate::config::Class;
use crate::history::{Attempts, Extras, Second};
use crate::nodes::NodeId;
use crate::worker::Shared;

/// One gateway, as it sees itself and the nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Own {
    /// Differs from that of every other run.
    pub(crate) run: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// RFC 3339.
    pub(crate) since: String,
    pub(crate) active_requests: i64,
    pub(crate) held_requests: u64,
    pub(crate) connections: u64,
    pub(crate) cache_bytes: u64,
    pub(crate) cache_entries: u64,
    pub(crate) nodes: Vec<SeenNode>,
    pub(crate) host: Option<Host>,
    /// It takes changes from whoever has the token.
    pub(crate) takes_changes: bool,
}

/// A node as one gateway sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeenNode {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) state: String,
    pub(crate) wanted: String,
    /// RFC 3339.
    pub(crate) since: String,
    pub(crate) reason: Option<String>,
    pub(crate) in_flight: u32,
}

/// Describes this gateway now. `since` learns of nodes that changed.
pub(crate) fn describe(
    shared: &Shared,
    (run, name): (&str, &str),
    host: Option<Host>,
    since: &mut Since,
) -> Own {
    let live = shared.live();
    let nodes = live.nodes.iter().map(|node| {
        let state = node.state().name();
        let stands = since.of(&node.name, state);
        SeenNode {
            name: node.name.clone(),
            address: node.address.clone(),
            state: state.to_owned(),
            wanted: node.wanted().name().to_owned(),
            since: stands.since,
            reason: stands.reason,
            in_flight: node.in_flight(),
        }
    });
    let nodes = nodes.collect();
    let (cache_bytes, cache_entries) = shared.cache.size();
    let started = jiff::Timestamp::now().checked_sub(shared.started.elapsed());
    Own {
        run: run.to_owned(),
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since: started.map(super::text).unwrap_or_default(),
        active_requests: shared.metrics.http.active.get(),
        held_requests: shared.held.load(Relaxed) as u64,
        connections: shared.open_connections() as u64,
        cache_bytes,
        cache_entries,
        nodes,
        host,
        takes_changes: live.token_file.is_some(),
    }
}

/// Takes what was counted since the last call.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    nodes: HashMap<NodeId, (u64, u64)>,
    extras: [u64; 6],
}

impl Counter {
    pub(crate) fn take(&mut self, shared: &Shared) -> Second {
        let (endpoints, protocols) = shared.traffic.take();
        let live = shared.live();
        let mut nodes = Vec::new();
        let mut known = HashMap::new();
        for node in live.nodes.iter() {
            let (requests, failed) = node.metrics.attempts();
            let before = self.nodes.get(&node.id).copied().unwrap_or_default();
            known.insert(node.id, (requests, failed));
            let attempts = Attempts {
                requests: difference(requests, before.0),
                failed: difference(failed, before.1),
            };
            if attempts.requests > 0 {
                nodes.push((node.name.clone(), attempts));
            }
        }
        self.nodes = known;
        Second {
            endpoints,
            nodes,
            protocols,
            extras: self.extras(shared),
        }
    }

    fn extras(&mut self, shared: &Shared) -> Extras {
        let metrics = &shared.metrics;
        let (retries, hedges) = metrics.extra_attempts();
        let sheds = Class::ALL.map(|(_, class)| metrics.admission.of_class(class).0.get());
        let (mut hits, mut misses) = (0, 0);
        for route in shared.live().router.cached() {
            let (hit, missed) = metrics.cache.answered(route);
            hits += hit;
            misses += missed;
        }
        let now = [
            retries,
            hedges,
            metrics.holds.get(),
            sheds.into_iter().sum(),
            hits,
            misses,
        ];
        let mut counted = [0; 6];
        for ((counted, now), before) in counted.iter_mut().zip(now).zip(self.extras) {
            *counted = difference(now, before);
        }
        self.extras = now;
        let [retries, hedges, holds, sheds, cache_hits, cache_misses] = counted;
        Extras {
            retries,
            hedges,
            holds,
            sheds,
            cache_hits,
            cache_misses,
        }
    }
}

fn difference(now: u64, before: u64) -> u32 {
    u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX)
}
