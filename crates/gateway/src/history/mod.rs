//! What the gateways served in the last day: every second of the last ten minutes, every ten seconds
//! of the last two hours, every minute of the last day, by endpoint, node and protocol. One history for
//! all gateways: each keeps its own seconds for its peers and adds theirs to its own, so that every one
//! shows the same and one that starts anew takes it all over from another.
//!
//! Bounded whatever clients ask for: endpoints are routes of the configuration and never paths, those
//! beyond the limits count as `other`. In memory only; a database of metrics keeps more. Pure.

pub(crate) mod latency;
pub(crate) mod objective;
mod ring;
mod slot;
mod view;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use ring::Ring;
pub(crate) use slot::{Attempts, Extras, PROTOCOLS, Slot, Tally};
pub(crate) use view::View;

/// Endpoints that are told apart; those beyond it are one.
const ENDPOINTS_MAX: usize = 128;
/// Nodes that are told apart, those that are gone included; those beyond it are one.
const NODES_MAX: usize = 128;
/// Runs of gateways whose last second is remembered.
const RUNS_MAX: usize = 64;
/// Seconds that a gateway's numbers take to reach its peers: what is shown ends so long ago.
pub(crate) const SETTLE_SECONDS: u64 = 3;

const SECONDS: (u64, usize) = (1, 600);
const TENS: (u64, usize) = (10, 720);
const MINUTES: (u64, usize) = (60, 1440);

const OTHER: &str = "other";

/// A method on a route of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) method: String,
    pub(crate) route: String,
}

impl Endpoint {
    pub(crate) fn new(method: &str, route: &str) -> Self {
        let (method, route) = (method.to_owned(), route.to_owned());
        Self { method, route }
    }
}

/// One second of one gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Second {
    pub(crate) endpoints: Vec<(Endpoint, Tally)>,
    pub(crate) nodes: Vec<(String, Attempts)>,
    pub(crate) protocols: [u32; PROTOCOLS.len()],
    pub(crate) extras: Extras,
}

/// Seconds as one gateway tells them another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    endpoints: Vec<Endpoint>,
    nodes: Vec<String>,
    slots: Vec<Slot>,
}

/// A whole history, for a gateway that starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Whole {
    endpoints: Vec<Endpoint>,
    nodes: Vec<String>,
    rings: Vec<Vec<Slot>>,
    seen: BTreeMap<String, u64>,
}

impl Whole {
    /// Nobody was counted yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.rings.iter().all(Vec::is_empty)
    }
}

/// Names with their numbers; number 0 is all that found no room.
#[derive(Clone, Debug)]
struct Names<T> {
    names: Vec<T>,
    names_max: usize,
}

impl<T: Clone + PartialEq> Names<T> {
    fn new(other: T, names_max: usize) -> Self {
        Self {
            names: vec![other],
            names_max,
        }
    }

    fn number(&mut self, name: &T) -> u16 {
        let known = self.names.iter().position(|own| own == name);
        let number = known.unwrap_or_else(|| {
            if self.names.len() >= self.names_max {
                return 0;
            }
            self.names.push(name.clone());
            self.names.len() - 1
        });
        u16::try_from(number).unwrap_or_default()
    }
}

/// The history of all gateways, as this one knows it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    endpoints: Names<Endpoint>,
    nodes: Names<String>,
    /// This gateway's own seconds.
    own: Ring,
    /// Everybody's: seconds, tens, minutes.
    rings: [Ring; 3],
    /// The last second that is in it, by run of a gateway.
    seen: BTreeMap<String, u64>,
}

impl History {
    pub(crate) fn new() -> Self {
        let ring = |(step, slots_max)| Ring::new(step, slots_max);
        Self {
            endpoints: Names::new(Endpoint::new(OTHER, OTHER), ENDPOINTS_MAX),
            nodes: Names::new(OTHER.to_owned(), NODES_MAX),
            own: ring(SECONDS),
            rings: [ring(SECONDS), ring(TENS), ring(MINUTES)],
            seen: BTreeMap::new(),
        }
    }

    /// Adds what this gateway counted in the second that began at `at`.
    pub(crate) fn record(&mut self, run: &str, at: u64, second: &Second) {
        let mut slot = Slot {
            at,
            protocols: second.protocols,
            extras: second.extras,
            ..Slot::default()
        };
        for (endpoint, tally) in &second.endpoints {
            let endpoints = vec![(self.endpoints.number(endpoint), tally.clone())];
            slot.add(&Slot {
                endpoints,
                ..Slot::default()
            });
        }
        for (node, attempts) in &second.nodes {
            let nodes = vec![(self.nodes.number(node), *attempts)];
            slot.add(&Slot {
                nodes,
                ..Slot::default()
            });
        }
        self.own.add(&slot);
        self.add(&slot);
        self.saw(run, at);
    }

    /// This gateway's own seconds after one.
    pub(crate) fn own_after(&self, after: u64) -> Told {
        Told {
            endpoints: self.endpoints.names.clone(),
            nodes: self.nodes.names.clone(),
            slots: self
                .own
                .between(after.saturating_add(1), u64::MAX)
                .cloned()
                .collect(),
        }
    }

    /// Adds what a peer told; what is known of that run is left out.
    pub(crate) fn include(&mut self, run: &str, told: &Told) {
        let seen = self.last_of(run);
        for slot in told.slots.iter().filter(|slot| slot.at > seen) {
            let own = self.translated(slot, &told.endpoints, &told.nodes);
            self.add(&own);
            self.saw(run, slot.at);
        }
    }

    /// The last second that is known of a run; 0: none.
    pub(crate) fn last_of(&self, run: &str) -> u64 {
        self.seen.get(run).copied().unwrap_or_default()
    }

    pub(crate) fn whole(&self) -> Whole {
        let all = |ring: &Ring| ring.between(0, u64::MAX).cloned().collect();
        Whole {
            endpoints: self.endpoints.names.clone(),
            nodes: self.nodes.names.clone(),
            rings: self.rings.iter().map(all).collect(),
            seen: self.seen.clone(),
        }
    }

    /// Takes over another gateway's whole history; to be called before anything is recorded.
    pub(crate) fn adopt(&mut self, whole: &Whole) {
        for (index, slots) in whole.rings.iter().enumerate() {
            for slot in slots {
                let own = self.translated(slot, &whole.endpoints, &whole.nodes);
                if let Some(ring) = self.rings.get_mut(index) {
                    ring.add(&own);
                }
            }
        }
        for (run, second) in &whole.seen {
            self.saw(run, *second);
        }
    }

    /// What was served from one second on, before another, by endpoint: from the finest slots that
    /// reach so far back.
    pub(crate) fn sums(&self, from: u64, before: u64) -> BTreeMap<Endpoint, Tally> {
        let mut sums: BTreeMap<Endpoint, Tally> = BTreeMap::new();
        let slots = self
            .finest(before.saturating_sub(from))
            .between(from, before);
        for (number, tally) in slots.flat_map(|slot| &slot.endpoints) {
            if let Some(endpoint) = self.endpoints.names.get(usize::from(*number)) {
                sums.entry(endpoint.clone()).or_default().add(tally);
            }
        }
        sums
    }

    /// The same for what gateways did beside it.
    pub(crate) fn extras(&self, from: u64, before: u64) -> Extras {
        let mut sum = Slot::default();
        for slot in self
            .finest(before.saturating_sub(from))
            .between(from, before)
        {
            let extras = slot.extras;
            sum.add(&Slot {
                extras,
                ..Slot::default()
            });
        }
        sum.extras
    }

    /// The first second of the whole history.
    pub(crate) fn begins(&self) -> Option<u64> {
        let first = |ring: &Ring| ring.between(0, u64::MAX).next().map(|slot| slot.at);
        self.rings.iter().filter_map(first).min()
    }

    /// What is shown: `span` seconds before `now`, without those up to `after` and those that peers may
    /// still be telling about.
    pub(crate) fn view(&self, span: u64, after: u64, now: u64) -> View {
        let ring = self.finest(span);
        let settled = now.saturating_sub(SETTLE_SECONDS);
        // A slot that is still being filled would look like a fall.
        let before = settled - settled % ring.step();
        let from = before.saturating_sub(span).max(after.saturating_add(1));
        let slots: Vec<&Slot> = ring.between(from, before).collect();
        View::new(
            ring.step(),
            &slots,
            &self.endpoints.names,
            &self.nodes.names,
        )
    }

    fn finest(&self, span: u64) -> &Ring {
        let [seconds, tens, minutes] = &self.rings;
        if span <= seconds.span() {
            seconds
        } else if span <= tens.span() {
            tens
        } else {
            minutes
        }
    }

    fn add(&mut self, slot: &Slot) {
        for ring in &mut self.rings {
            ring.add(slot);
        }
    }

    fn saw(&mut self, run: &str, second: u64) {
        let last = self.seen.entry(run.to_owned()).or_default();
        *last = second.max(*last);
        while self.seen.len() > RUNS_MAX {
            let oldest = self.seen.iter().min_by_key(|(_, second)| **second);
            let Some(oldest) = oldest.map(|(run, _)| run.clone()) else {
                return;
            };
            self.seen.remove(&oldest);
        }
    }

    /// A peer's slot in our numbers; what has a number without a name is left out.
    fn translated(&mut self, slot: &Slot, endpoints: &[Endpoint], nodes: &[String]) -> Slot {
        let mut own = Slot {
            at: slot.at,
            protocols: slot.protocols,
            extras: slot.extras,
            ..Slot::default()
        };
        for (number, tally) in &slot.endpoints {
            if let Some(endpoint) = endpoints.get(usize::from(*number)) {
                let mut checked = Tally::default();
                checked.add(tally);
                let endpoints = vec![(self.endpoints.number(endpoint), checked)];
                own.add(&Slot {
                    endpoints,
                    ..Slot::default()
                });
            }
        }
        for (number, attempts) in &slot.nodes {
            if let Some(node) = nodes.get(usize::from(*number)) {
                let nodes = vec![(self.nodes.number(node), *attempts)];
                own.add(&Slot {
                    nodes,
                    ..Slot::default()
                });
            }
        }
        own
    }
}

#[cfg(test)]
mod tests;
