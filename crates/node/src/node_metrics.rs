//! The node's metrics: those of every HTTP server of ours, a count of limits that were hit, which faults
//! are on, and what `database_metrics` shows of the database.

use chassis::metrics::{HttpServer, RequestLabels};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use storage::Observed;

use crate::database_metrics::DatabaseMetrics;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    /// The key of the limit in the configuration.
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    fault: &'static str,
}

/// Shared by all requests of a node.
pub(crate) struct NodeMetrics {
    pub(crate) http: HttpServer,
    database: DatabaseMetrics,
    limit_hits: Family<LimitLabels, Counter>,
    registry: Registry,
}

impl NodeMetrics {
    /// `faults`: each one's name and whether it is on.
    pub(crate) fn new(faults: &[(&'static str, bool)]) -> Self {
        let mut registry = Registry::default();
        let http = HttpServer::register(&mut registry);
        let limit_hits = Family::<LimitLabels, Counter>::default();
        registry.register(
            "bingo_limit_hits",
            "Requests or connections that met a limit of the configuration",
            limit_hits.clone(),
        );
        let fault_enabled = Family::<FaultLabels, Gauge>::default();
        registry.register(
            "bingo_fault_enabled",
            "Whether a fault of the vendor's is turned on",
            fault_enabled.clone(),
        );
        for (fault, on) in faults {
            let labels = FaultLabels { fault };
            fault_enabled.get_or_create(&labels).set(i64::from(*on));
        }
        Self {
            http,
            database: DatabaseMetrics::register(&mut registry),
            limit_hits,
            registry,
        }
    }

    pub(crate) fn limit_hit(&self, limit: &'static str) {
        self.limit_hits.get_or_create(&LimitLabels { limit }).inc();
    }

    /// The text that Prometheus reads, with what is known of the database.
    pub(crate) fn encode(&self, observed: &Observed) -> String {
        self.database.show(observed);
        chassis::metrics::encode(&self.registry)
    }
}

/// A scrape after one of everything had happened, for the reference page: an empty family is not
/// encoded.
pub fn example() -> String {
    let metrics = NodeMetrics::new(&[("operation", true)]);
    metrics.http.observe(&RequestLabels::example(), 0.1);
    metrics.limit_hit("connections_max");
    metrics.encode(&crate::database_metrics::example())
}
