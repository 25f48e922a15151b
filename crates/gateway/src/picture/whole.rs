//! Puts what was seen into the one JSON value that the page, the terminal and tests read
//! (`/api/v1/picture`). Gateways are in the order of their names, and what they say of a node is
//! merged, so that it makes no difference who is asked. Pure.

use std::collections::BTreeMap;

use chassis::events::Told;
use serde_json::{Value, json};

use super::own::{Own, SeenNode};
use super::peers::Known;
use super::problems;
use super::processes::Processes;
use crate::history::{Endpoint, Extras, History, SETTLE_SECONDS, Tally};
use crate::retry::{HEDGE_SHARE, RETRY_SHARE};
use crate::router::Router;
use crate::worker::STEADY_RETRIES_PER_SECOND;

/// What "now" is in figures: the last seconds, all that is known of which has arrived.
const NOW_SECONDS: u64 = 10;
const MINUTES_5: u64 = 300;
const DAY_SECONDS: u64 = 86_400;

/// What was seen in one look.
pub(super) struct Seen<'a> {
    /// RFC 3339.
    pub(super) now: &'a str,
    /// The second that has just begun.
    pub(super) second: u64,
    pub(super) own: &'a Own,
    pub(super) peers: &'a [Known],
    /// None: no file is named.
    pub(super) processes: Option<&'a Result<Processes, String>>,
    pub(super) databases: Vec<Value>,
    pub(super) quarantine: Value,
    pub(super) happened: &'a [Told],
}

/// The whole picture.
pub(super) fn put_together(seen: &Seen<'_>, history: &History, router: &Router) -> Value {
    let settled = seen.second.saturating_sub(SETTLE_SECONDS);
    let lately = history.sums(settled.saturating_sub(NOW_SECONDS), settled);
    let gateways = gateways(seen);
    let answering: Vec<&Own> = answering(seen);
    let processes = match seen.processes {
        None => json!({ "unknown": "this gateway is told of no processes (admin.processes_file)" }),
        Some(Err(why)) => json!({ "unknown": why }),
        Some(Ok(processes)) => processes.shown(),
    };
    let all = served(&lately);
    let extras = history.extras(settled.saturating_sub(NOW_SECONDS), settled);
    let live = f64::from(all.requests) / NOW_SECONDS as f64;
    let mut picture = json!({
        "at": seen.now,
        "by": seen.own.name,
        "seconds": NOW_SECONDS,
        "history_begins": history.begins(),
        "now": rates(&lately),
        "total": rate(&all),
        "gateways": gateways,
        "nodes": nodes(&answering),
        "processes": processes,
        "databases": seen.databases,
        "hosts": hosts(&answering),
        "cache": cache(&answering, extras),
        "budgets": budgets(extras, live, answering.len()),
        "held": answering.iter().map(|own| own.held_requests).sum::<u64>(),
        "sheds": extras.sheds,
        "quarantine": seen.quarantine,
        "objectives": objectives(history, router, settled),
        "events": seen.happened,
        "takes_changes": seen.own.takes_changes,
    });
    let problems = problems::find(&picture);
    if let Some(members) = picture.as_object_mut() {
        members.insert("problems".to_owned(), json!(problems));
    }
    picture
}

/// This gateway and those that answer it, in the order of their names.
fn answering<'a>(seen: &'a Seen<'_>) -> Vec<&'a Own> {
    let others = seen.peers.iter().filter(|one| one.silent.is_none());
    let others = others.filter_map(|one| one.own.as_ref());
    let mut all: Vec<&Own> = others.filter(|own| own.run != seen.own.run).collect();
    all.push(seen.own);
    all.sort_by(|one, other| (&one.name, &one.run).cmp(&(&other.name, &other.run)));
    all
}

fn gateways(seen: &Seen<'_>) -> Vec<Value> {
    let processes = seen.processes.and_then(|read| read.as_ref().ok());
    let described = |own: &Own| {
        json!({
            "name": own.name, "state": "answers", "since": own.since, "version": own.version,
            "active_requests": own.active_requests, "connections": own.connections,
            "host": own.host.as_ref().map(|host| &host.name),
        })
    };
    let mut all: Vec<Value> = answering(seen).into_iter().map(described).collect();
    for one in seen.peers {
        let Some(why) = &one.silent else {
            continue;
        };
        let authority = &one.peer.authority;
        let known = one.own.as_ref().map(|own| own.name.as_str());
        let name = known.or_else(|| processes.and_then(|processes| processes.name_at(authority)));
        let name = name.unwrap_or(authority);
        // A predecessor that shares the address of this one is not silent: it ended.
        if one.is_self || processes.is_some() && name == seen.own.name {
            continue;
        }
        let answered = Some(&one.answered).filter(|at| !at.is_empty());
        let since = answered.unwrap_or(&seen.own.since);
        all.push(json!({
            "name": name, "state": "silent", "since": since, "reason": why,
            "last_answer": answered,
        }));
    }
    all.sort_by_key(|one| one["name"].to_string());
    all
}

/// Each node with the word of the first gateway, and those gateways that see it otherwise.
fn nodes(answering: &[&Own]) -> Vec<Value> {
    let mut by_name: BTreeMap<&str, Vec<(&str, &SeenNode)>> = BTreeMap::new();
    for own in answering {
        for node in &own.nodes {
            let views = by_name.entry(&node.name).or_default();
            views.push((&own.name, node));
        }
    }
    let nodes = by_name.into_iter().filter_map(|(name, views)| {
        let (_, first) = views.first()?;
        let others: BTreeMap<&str, &str> = views
            .iter()
            .filter(|(_, node)| node.state != first.state)
            .map(|(gateway, node)| (*gateway, node.state.as_str()))
            .collect();
        // A gateway that has just started has seen it for a moment only.
        let agreeing = views.iter().map(|(_, node)| *node);
        let agreeing = agreeing.filter(|node| node.state == first.state);
        let earliest = agreeing.min_by(|one, other| one.since.cmp(&other.since))?;
        Some(json!({
            "name": name,
            "address": first.address,
            "state": first.state,
            "wanted": first.wanted,
            "since": earliest.since,
            "reason": earliest.reason,
            "in_flight": views.iter().map(|(_, node)| node.in_flight).sum::<u32>(),
            "others_say": others,
        }))
    });
    nodes.collect()
}

/// Gateways on one machine see the same one.
fn hosts(answering: &[&Own]) -> Vec<Value> {
    let mut by_name = BTreeMap::new();
    for host in answering.iter().filter_map(|own| own.host.as_ref()) {
        by_name.entry(host.name.as_str()).or_insert(host);
    }
    by_name.into_values().map(|host| json!(host)).collect()
}

fn cache(answering: &[&Own], extras: Extras) -> Value {
    json!({
        "hits": extras.cache_hits,
        "misses": extras.cache_misses,
        "bytes": answering.iter().map(|own| own.cache_bytes).sum::<u64>(),
        "entries": answering.iter().map(|own| own.cache_entries).sum::<u64>(),
    })
}

/// How much of what may be sent again was sent again; `live` requests a second.
fn budgets(extras: Extras, live: f64, gateways: usize) -> Value {
    let steady = STEADY_RETRIES_PER_SECOND * gateways as f64;
    let of = |used: u32, share: f64| {
        let used = f64::from(used) / NOW_SECONDS as f64;
        json!({ "used_per_second": used, "per_second_max": live * share + steady, "share": share })
    };
    json!({
        "retry": of(extras.retries, RETRY_SHARE),
        "hedge": of(extras.hedges, HEDGE_SHARE),
    })
}

fn served(tallies: &BTreeMap<Endpoint, Tally>) -> Tally {
    let mut all = Tally::default();
    for tally in tallies.values() {
        all.add(tally);
    }
    all
}

fn rates(tallies: &BTreeMap<Endpoint, Tally>) -> Vec<Value> {
    let rates = tallies.iter().map(|(endpoint, tally)| {
        let mut rate = rate(tally);
        if let Some(members) = rate.as_object_mut() {
            members.insert("method".to_owned(), json!(endpoint.method));
            members.insert("route".to_owned(), json!(endpoint.route));
        }
        rate
    });
    rates.collect()
}

fn rate(tally: &Tally) -> Value {
    json!({
        "requests": tally.requests,
        "refused": tally.refused,
        "errors": tally.errors,
        "p50": tally.latency.quantile(0.5),
        "p90": tally.latency.quantile(0.9),
        "p99": tally.latency.quantile(0.99),
    })
}

/// What was promised: over all that is remembered, at most a day, and over the last five minutes.
fn objectives(history: &History, router: &Router, settled: u64) -> Vec<Value> {
    let day = history.sums(settled.saturating_sub(DAY_SECONDS), settled);
    let minutes = history.sums(settled.saturating_sub(MINUTES_5), settled);
    let nothing = Tally::default();
    let promised = router.objectives().map(|(method, route, objective)| {
        let endpoint = Endpoint::new(method.as_str(), route);
        let of = |tallies: &BTreeMap<Endpoint, Tally>| {
            objective.standing(tallies.get(&endpoint).unwrap_or(&nothing))
        };
        json!({
            "method": endpoint.method, "route": endpoint.route,
            "day": of(&day), "minutes": of(&minutes),
        })
    });
    promised.collect()
}
