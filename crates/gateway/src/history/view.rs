//! A history as graphs want it: columns, one entry per slot. Endpoints and nodes without a request in
//! the span are left out; a percentile without requests is null and not zero. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::slot::{PROTOCOLS, Slot, Tally};
use super::{Endpoint, Extras};

/// Columns of equal length.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct View {
    /// Seconds of one slot.
    step: u64,
    /// The first second of each, since 1970; where some are missing nobody counted.
    at: Vec<u64>,
    total: Columns,
    endpoints: Vec<EndpointColumns>,
    nodes: Vec<NodeColumns>,
    /// Requests by version of HTTP.
    protocols: BTreeMap<&'static str, Vec<u32>>,
    extras: Vec<Extras>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct EndpointColumns {
    #[serde(flatten)]
    endpoint: Endpoint,
    #[serde(flatten)]
    columns: Columns,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct NodeColumns {
    name: String,
    requests: Vec<u32>,
    failed: Vec<u32>,
}

/// Requests per slot and, in seconds, how long they took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Columns {
    requests: Vec<u32>,
    refused: Vec<u32>,
    errors: Vec<u32>,
    p50: Vec<Option<f64>>,
    p90: Vec<Option<f64>>,
    p99: Vec<Option<f64>>,
}

impl Columns {
    fn push(&mut self, tally: &Tally) {
        self.requests.push(tally.requests);
        self.refused.push(tally.refused);
        self.errors.push(tally.errors);
        let quantile = |share| tally.latency.quantile(share).map(rounded);
        self.p50.push(quantile(0.5));
        self.p90.push(quantile(0.9));
        self.p99.push(quantile(0.99));
    }
}

impl View {
    pub(super) fn new(step: u64, slots: &[&Slot], names: &[Endpoint], nodes: &[String]) -> Self {
        let nothing = Tally::default();
        let mut total = Columns::default();
        for slot in slots {
            let mut sum = Tally::default();
            for (_, tally) in &slot.endpoints {
                sum.add(tally);
            }
            total.push(&sum);
        }
        let endpoints = used(names, slots, |slot| &slot.endpoints);
        let endpoints = endpoints.map(|(endpoint, tallies)| {
            let mut columns = Columns::default();
            for tally in tallies {
                columns.push(tally.unwrap_or(&nothing));
            }
            EndpointColumns { endpoint, columns }
        });
        let nodes = used(nodes, slots, |slot| &slot.nodes).map(|(name, attempts)| {
            let attempts: Vec<_> = attempts
                .into_iter()
                .map(|one| one.copied().unwrap_or_default())
                .collect();
            NodeColumns {
                name,
                requests: attempts.iter().map(|one| one.requests).collect(),
                failed: attempts.iter().map(|one| one.failed).collect(),
            }
        });
        let protocols = PROTOCOLS.iter().enumerate().map(|(index, protocol)| {
            let counts = slots.iter().map(|slot| slot.protocols.get(index));
            let counts = counts.map(|count| count.copied().unwrap_or_default());
            (*protocol, counts.collect())
        });
        Self {
            step,
            at: slots.iter().map(|slot| slot.at).collect(),
            total,
            endpoints: endpoints.collect(),
            nodes: nodes.collect(),
            protocols: protocols.collect(),
            extras: slots.iter().map(|slot| slot.extras).collect(),
        }
    }
}

impl View {
    /// The last second that it begins a slot with.
    pub(crate) fn last(&self) -> Option<u64> {
        self.at.last().copied()
    }
}

/// Each name that has an entry in any slot, with its entries in all of them.
fn used<'a, N: Clone + 'a, T>(
    names: &'a [N],
    slots: &'a [&'a Slot],
    entries: impl Fn(&'a Slot) -> &'a [(u16, T)] + Copy + 'a,
) -> impl Iterator<Item = (N, Vec<Option<&'a T>>)> + 'a
where
    T: 'a,
{
    (0_u16..).zip(names).filter_map(move |(number, name)| {
        let entry = |slot: &&'a Slot| {
            let entries = entries(slot);
            let at = entries.binary_search_by_key(&number, |(own, _)| *own);
            at.ok()
                .and_then(|at| entries.get(at))
                .map(|(_, entry)| entry)
        };
        let column: Vec<Option<&T>> = slots.iter().map(entry).collect();
        let is_used = column.iter().any(Option::is_some);
        is_used.then(|| (name.clone(), column))
    })
}

/// Tenths of a millisecond are enough for people.
fn rounded(seconds: f64) -> f64 {
    (seconds * 10_000.0).round() / 10_000.0
}
