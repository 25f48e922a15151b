//! What the node knows of its database, as metrics. Storage is asked when somebody scrapes, not all
//! the time: the figures are states, and between two scrapes nobody looks at them.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use storage::{Observed, Role};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HostLabels {
    host: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabels {
    host: String,
    role: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    host: String,
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    host: String,
    class: &'static str,
    state: &'static str,
}

/// One set of figures for each host of the cluster.
pub(crate) struct DatabaseMetrics {
    role: Family<RoleLabels, Gauge>,
    round_trip: Family<HostLabels, Gauge<f64, AtomicU64>>,
    lag: Family<HostLabels, Gauge<f64, AtomicU64>>,
    connections: Family<ConnectionLabels, Gauge>,
    connections_max: Family<PoolLabels, Gauge>,
    waiting: Family<PoolLabels, Gauge>,
}

impl DatabaseMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            role: Family::default(),
            round_trip: Family::default(),
            lag: Family::default(),
            connections: Family::default(),
            connections_max: Family::default(),
            waiting: Family::default(),
        };
        registry.register(
            "bingo_database_role",
            "1 for the role that the host has now: primary, replica or away",
            metrics.role.clone(),
        );
        registry.register(
            "bingo_database_round_trip_seconds",
            "Time of a trivial query, smoothed; absent while the host is away",
            metrics.round_trip.clone(),
        );
        registry.register(
            "bingo_database_lag_seconds",
            "How far the host is behind the primary; absent while that is not known",
            metrics.lag.clone(),
        );
        registry.register(
            "bingo_database_connections",
            "Connections to the host for a class of work: idle or busy",
            metrics.connections.clone(),
        );
        registry.register(
            "bingo_database_connections_max",
            "The limit of connections to the host for a class of work",
            metrics.connections_max.clone(),
        );
        registry.register(
            "bingo_database_waiting",
            "Requests that wait for a connection to the host",
            metrics.waiting.clone(),
        );
        metrics
    }

    /// Shows what is known now, and nothing of before.
    pub(crate) fn show(&self, observed: &Observed) {
        self.round_trip.clear();
        self.lag.clear();
        for found in &observed.hosts {
            let host = &found.host;
            for role in Role::ALL {
                let labels = RoleLabels {
                    host: host.clone(),
                    role: role.name(),
                };
                let is_so = i64::from(role == found.role);
                self.role.get_or_create(&labels).set(is_so);
            }
            let labels = HostLabels { host: host.clone() };
            if let Some(time) = found.round_trip {
                self.round_trip
                    .get_or_create(&labels)
                    .set(time.as_secs_f64());
            }
            if let Some(time) = found.lag {
                self.lag.get_or_create(&labels).set(time.as_secs_f64());
            }
            for pool in &found.pools {
                let busy = pool.connections.saturating_sub(pool.idle);
                for (state, count) in [("idle", pool.idle), ("busy", busy)] {
                    let labels = ConnectionLabels {
                        host: host.clone(),
                        class: pool.class,
                        state,
                    };
                    self.connections.get_or_create(&labels).set(gauge(count));
                }
                let labels = PoolLabels {
                    host: host.clone(),
                    class: pool.class,
                };
                let max = self.connections_max.get_or_create(&labels);
                max.set(gauge(pool.connections_max));
                drop(max);
                self.waiting.get_or_create(&labels).set(gauge(pool.waiting));
            }
        }
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A primary that was seen, for the reference page.
pub(crate) fn example() -> Observed {
    Observed {
        hosts: vec![storage::HostObserved {
            host: "db-1:5432".to_owned(),
            role: Role::Primary,
            round_trip: Some(std::time::Duration::from_micros(300)),
            lag: Some(std::time::Duration::ZERO),
            pools: vec![storage::PoolObserved {
                class: "points",
                connections_max: 8,
                connections: 3,
                idle: 2,
                waiting: 0,
            }],
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_shows_its_role_and_nothing_that_it_no_longer_is() {
        let mut registry = Registry::default();
        let metrics = DatabaseMetrics::register(&mut registry);
        let mut observed = example();
        metrics.show(&observed);
        let text = chassis::metrics::encode(&registry);
        for line in [
            "bingo_database_role{host=\"db-1:5432\",role=\"primary\"} 1",
            "bingo_database_role{host=\"db-1:5432\",role=\"away\"} 0",
            "bingo_database_lag_seconds{host=\"db-1:5432\"} 0",
            "bingo_database_connections{host=\"db-1:5432\",class=\"points\",state=\"busy\"} 1",
            "bingo_database_waiting{host=\"db-1:5432\",class=\"points\"} 0",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        observed.hosts[0].role = Role::Away;
        observed.hosts[0].round_trip = None;
        metrics.show(&observed);
        let text = chassis::metrics::encode(&registry);
        assert!(text.contains("role=\"primary\"} 0"), "{text}");
        assert!(
            !text.contains("bingo_database_round_trip_seconds{"),
            "{text}"
        );
    }
}
