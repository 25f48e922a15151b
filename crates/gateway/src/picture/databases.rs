//! The database hosts, as the nodes see them: gateways never talk to a database, and what counts is
//! whether nodes can. Read from the nodes' own metrics; a gateway knows where these are from the
//! supervisor's state file.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::since::Since;

/// Hosts that are shown; more are none of ours.
const HOSTS_MAX: usize = 32;

/// What one node says of one host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) role: String,
    pub(crate) lag_seconds: Option<f64>,
    pub(crate) round_trip_seconds: Option<f64>,
    pub(crate) busy_connections: u64,
    pub(crate) waiting: u64,
}

/// By host.
pub(crate) type Hosts = BTreeMap<String, Seen>;

/// The hosts in a node's metrics; empty where it tells of none.
pub(crate) fn parse(metrics: &str) -> Hosts {
    let mut hosts = Hosts::new();
    let lines = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("bingo_database_"));
    for line in lines {
        let Some((name, labels, value)) = sample(line) else {
            continue;
        };
        let Some(host) = labels.get("host") else {
            continue;
        };
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(*host) {
            continue;
        }
        let seen = hosts.entry((*host).to_owned()).or_default();
        match name {
            "role" if value > 0.0 => {
                seen.role = labels.get("role").copied().unwrap_or_default().to_owned();
            }
            "lag_seconds" => seen.lag_seconds = Some(value),
            "round_trip_seconds" => seen.round_trip_seconds = Some(value),
            "connections" if labels.get("state") == Some(&"busy") => {
                seen.busy_connections += value as u64;
            }
            "waiting" => seen.waiting += value as u64,
            _ => {}
        }
    }
    hosts.retain(|_, seen| !seen.role.is_empty());
    hosts
}

/// One line of the text format: name, labels, value. Label values of ours hold no quotes or commas.
fn sample(line: &str) -> Option<(&str, BTreeMap<&str, &str>, f64)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.split_once('}')?;
    let labels = labels.split(',').filter_map(|label| {
        let (name, value) = label.split_once('=')?;
        Some((name, value.trim_matches('"')))
    });
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some((name, labels.collect(), value))
}

/// All hosts with what each node says of them; the first node's word is shown first, and where others
/// say otherwise that is told.
pub(crate) fn shown(by_node: &BTreeMap<String, Hosts>, since: &mut Since) -> Vec<Value> {
    let mut names: Vec<&String> = by_node.values().flat_map(Hosts::keys).collect();
    names.sort();
    names.dedup();
    let hosts = names.into_iter().filter_map(|name| {
        let mut views = by_node
            .iter()
            .filter_map(|(node, hosts)| hosts.get(name).map(|seen| (node, seen)));
        let (_, first) = views.next()?;
        let others: BTreeMap<&String, &String> = views
            .filter(|(_, seen)| seen.role != first.role)
            .map(|(node, seen)| (node, &seen.role))
            .collect();
        let all = || by_node.values().filter_map(|hosts| hosts.get(name));
        let stands = since.of(&format!("database {name}"), &first.role);
        Some(json!({
            "host": name,
            "role": first.role,
            "since": stands.since,
            "others_say": others,
            "lag_seconds": first.lag_seconds,
            "round_trip_seconds": first.round_trip_seconds,
            "busy_connections": all().map(|seen| seen.busy_connections).sum::<u64>(),
            "waiting": all().map(|seen| seen.waiting).sum::<u64>(),
        }))
    });
    hosts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# TYPE bingo_database_role gauge
bingo_database_role{host=\"127.0.0.1:5432\",role=\"primary\"} 1
bingo_database_role{host=\"127.0.0.1:5432\",role=\"away\"} 0
bingo_database_role{host=\"127.0.0.1:5433\",role=\"primary\"} 0
bingo_database_role{host=\"127.0.0.1:5433\",role=\"away\"} 1
bingo_database_lag_seconds{host=\"127.0.0.1:5432\"} 0.25
bingo_database_connections{host=\"127.0.0.1:5432\",class=\"point\",state=\"busy\"} 2
bingo_database_connections{host=\"127.0.0.1:5432\",class=\"list\",state=\"busy\"} 1
bingo_database_connections{host=\"127.0.0.1:5432\",class=\"list\",state=\"idle\"} 9
other{a=\"b\"} 1
bingo_database_role{host=\"x\" oops";

    #[test]
    fn hosts_are_read_from_a_nodes_metrics() {
        let hosts = parse(METRICS);
        assert_eq!(hosts.len(), 2);
        let primary = &hosts["127.0.0.1:5432"];
        assert_eq!(primary.role, "primary");
        assert_eq!(primary.lag_seconds, Some(0.25));
        assert_eq!(primary.busy_connections, 3);
        assert_eq!(hosts["127.0.0.1:5433"].role, "away");
    }

    #[test]
    fn nodes_that_see_a_host_otherwise_are_named() {
        let (mut by_node, mut since) = (BTreeMap::new(), Since::default());
        by_node.insert("node-1".to_owned(), parse(METRICS));
        let mut other = parse(METRICS);
        other.get_mut("127.0.0.1:5432").unwrap().role = "away".to_owned();
        by_node.insert("node-2".to_owned(), other);
        since.begin("10:00");
        let shown = shown(&by_node, &mut since);
        assert_eq!(shown[0]["role"], "primary");
        assert_eq!(shown[0]["others_say"]["node-2"], "away");
        assert_eq!(shown[0]["busy_connections"], 6);
        assert_eq!(shown[1]["others_say"], json!({}));
    }
}
