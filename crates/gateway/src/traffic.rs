//! What this gateway served since it was last asked, by endpoint: for the page, beside the metrics,
//! whose histograms are too coarse for percentiles and cannot be taken apart by second. A request
//! costs a look into a table and a few atomic additions.
//!
//! Bounded by the routes of the configuration: a path that none names is `other`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use crate::history::latency::{BUCKETS, Latency, bucket};
use crate::history::{Endpoint, PROTOCOLS, Tally};

/// Endpoints that are counted apart, those of earlier configurations included; the rest are one.
const ENDPOINTS_MAX: usize = 256;

type Name = (&'static str, &'static str);

/// Counts of one process.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    endpoints: RwLock<HashMap<Name, Arc<Counts>>>,
    protocols: [AtomicU32; PROTOCOLS.len()],
}

#[derive(Debug)]
struct Counts {
    requests: AtomicU32,
    refused: AtomicU32,
    errors: AtomicU32,
    latency: [AtomicU32; BUCKETS],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            requests: AtomicU32::default(),
            refused: AtomicU32::default(),
            errors: AtomicU32::default(),
            latency: [const { AtomicU32::new(0) }; BUCKETS],
        }
    }
}

impl Traffic {
    /// A request of a method and a route ended.
    pub(crate) fn count(&self, name: Name, status: u16, protocol: &str, seconds: f64) {
        let counts = self.of(name);
        counts.requests.fetch_add(1, Relaxed);
        match status {
            400..=499 => counts.refused.fetch_add(1, Relaxed),
            500.. => counts.errors.fetch_add(1, Relaxed),
            _ => 0,
        };
        if let Some(count) = counts.latency.get(bucket(seconds)) {
            count.fetch_add(1, Relaxed);
        }
        let protocols = PROTOCOLS.iter().zip(&self.protocols);
        if let Some((_, count)) = protocols.into_iter().find(|(one, _)| **one == protocol) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// All that was counted since the last call, endpoints without requests left out.
    pub(crate) fn take(&self) -> (Vec<(Endpoint, Tally)>, [u32; PROTOCOLS.len()]) {
        let endpoints = self.endpoints.read();
        let endpoints = endpoints.unwrap_or_else(PoisonError::into_inner);
        let taken = endpoints.iter().filter_map(|((method, route), counts)| {
            let tally = counts.take();
            (tally.requests > 0).then(|| (Endpoint::new(method, route), tally))
        });
        let mut protocols = [0; PROTOCOLS.len()];
        for (taken, count) in protocols.iter_mut().zip(&self.protocols) {
            *taken = count.swap(0, Relaxed);
        }
        (taken.collect(), protocols)
    }

    fn of(&self, name: Name) -> Arc<Counts> {
        let known = self.endpoints.read();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = known.get(&name) {
            return Arc::clone(counts);
        }
        let is_full = known.len() >= ENDPOINTS_MAX;
        drop(known);
        let name = if is_full { ("other", "other") } else { name };
        let endpoints = self.endpoints.write();
        let mut endpoints = endpoints.unwrap_or_else(PoisonError::into_inner);
        Arc::clone(endpoints.entry(name).or_default())
    }
}

impl Counts {
    /// The number of requests is that of the buckets: one that is being counted is in both or neither.
    fn take(&self) -> Tally {
        let requests = self.requests.swap(0, Relaxed);
        Tally {
            requests,
            refused: self.refused.swap(0, Relaxed),
            errors: self.errors.swap(0, Relaxed),
            latency: match requests {
                0 => Latency::default(),
                _ => Latency::of(self.latency.iter().map(|count| count.swap(0, Relaxed))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::lasting;

    #[test]
    fn what_was_taken_is_not_counted_again() {
        let traffic = Traffic::default();
        for (status, protocol) in [(200, "1.1"), (404, "2"), (499, "3"), (503, "3")] {
            traffic.count(("GET", "/a"), status, protocol, 0.01);
        }
        let (endpoints, protocols) = traffic.take();
        let [(endpoint, tally)] = endpoints.as_slice() else {
            panic!("{endpoints:?}");
        };
        assert_eq!(*endpoint, Endpoint::new("GET", "/a"));
        assert_eq!((tally.requests, tally.refused, tally.errors), (4, 2, 1));
        assert_eq!(tally.latency.count(), 4);
        assert_eq!(protocols, [0, 1, 1, 2]);
        assert_eq!(traffic.take(), (Vec::new(), [0; 4]));
    }

    #[test]
    fn more_routes_than_there_is_room_for_count_as_one() {
        let traffic = Traffic::default();
        for number in 0..ENDPOINTS_MAX + 50 {
            let route = lasting(&format!("/traffic/{number}"));
            traffic.count(("GET", route), 200, "1.1", 0.01);
        }
        let (endpoints, _) = traffic.take();
        assert_eq!(endpoints.len(), ENDPOINTS_MAX + 1);
        let other = Endpoint::new("other", "other");
        let other = endpoints.iter().find(|(endpoint, _)| *endpoint == other);
        assert_eq!(other.unwrap().1.requests, 50);
    }
}
