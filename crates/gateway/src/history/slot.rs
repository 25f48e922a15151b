//! What happened in one span of time, as numbers that add up: spans into longer ones, gateways into
//! one picture. Endpoints and nodes stand in it by their number in the tables of `History`. Pure.

use serde::{Deserialize, Serialize};

use super::latency::Latency;

/// The versions of HTTP that are told apart.
pub(crate) const PROTOCOLS: [&str; 4] = ["1.0", "1.1", "2", "3"];

/// The requests of one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) requests: u32,
    /// Answered 4xx, or the client left: nothing that the service did wrong.
    pub(crate) refused: u32,
    /// Answered 5xx.
    pub(crate) errors: u32,
    pub(crate) latency: Latency,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.refused = self.refused.saturating_add(other.refused);
        self.errors = self.errors.saturating_add(other.errors);
        self.latency.add(&other.latency);
    }
}

/// What was sent to one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempts {
    pub(crate) requests: u32,
    /// Without a whole answer below 500; those that were never sent are left out.
    pub(crate) failed: u32,
}

impl Attempts {
    fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failed = self.failed.saturating_add(other.failed);
    }
}

/// What the gateways did beside plain forwarding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extras {
    pub(crate) retries: u32,
    pub(crate) hedges: u32,
    pub(crate) holds: u32,
    pub(crate) sheds: u32,
    pub(crate) cache_hits: u32,
    pub(crate) cache_misses: u32,
}

impl Extras {
    fn add(&mut self, other: Self) {
        let fields = [
            (&mut self.retries, other.retries),
            (&mut self.hedges, other.hedges),
            (&mut self.holds, other.holds),
            (&mut self.sheds, other.sheds),
            (&mut self.cache_hits, other.cache_hits),
            (&mut self.cache_misses, other.cache_misses),
        ];
        for (own, more) in fields {
            *own = own.saturating_add(more);
        }
    }
}

/// One span of time. That there is one means that a gateway was there to count: zero is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot {
    /// Its first second, since 1970.
    pub(crate) at: u64,
    /// Endpoints with requests, by number.
    pub(crate) endpoints: Vec<(u16, Tally)>,
    /// In the order of `PROTOCOLS`.
    pub(crate) protocols: [u32; PROTOCOLS.len()],
    /// Nodes with requests, by number.
    pub(crate) nodes: Vec<(u16, Attempts)>,
    pub(crate) extras: Extras,
}

impl Slot {
    /// Adds another one's numbers, whatever its time.
    pub(crate) fn add(&mut self, other: &Self) {
        for (number, tally) in &other.endpoints {
            match self.endpoints.binary_search_by_key(number, |(own, _)| *own) {
                Ok(at) => {
                    if let Some((_, own)) = self.endpoints.get_mut(at) {
                        own.add(tally);
                    }
                }
                Err(at) => self.endpoints.insert(at, (*number, tally.clone())),
            }
        }
        for (number, attempts) in &other.nodes {
            match self.nodes.binary_search_by_key(number, |(own, _)| *own) {
                Ok(at) => {
                    if let Some((_, own)) = self.nodes.get_mut(at) {
                        own.add(*attempts);
                    }
                }
                Err(at) => self.nodes.insert(at, (*number, *attempts)),
            }
        }
        for (own, more) in self.protocols.iter_mut().zip(other.protocols) {
            *own = own.saturating_add(more);
        }
        self.extras.add(other.extras);
    }
}
