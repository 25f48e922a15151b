//! The node's metrics: those of every HTTP server of ours, a count of limits that were hit, which faults
//! are on, what `database_metrics` shows of the database, and what storage counts by itself.

use chassis::events::Events;
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
    /// `faults`: each one's name and whether it is on. `others` registers what others count.
    pub(crate) fn new(faults: &[(&'static str, bool)], others: impl FnOnce(&mut Registry)) -> Self {
        let mut registry = Registry::default();
        let http = HttpServer::register(&mut registry);
        chassis::metrics::register_build_info(&mut registry);
        let limit_hits = Family::<LimitLabels, Counter>::default();
        registry.register(
            "bingo_limit_hits",
            "Requests or connections that met a limit of the configuration",
            limit_hits.clone(),
        );
        let limit = "connections_max";
        drop(limit_hits.get_or_create_owned(&LimitLabels { limit }));
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
        others(&mut registry);
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

    /// What `/metrics` answers, with what is known of the database: content type and text.
    pub(crate) fn answer(
        &self,
        observed: &Observed,
        accept: Option<&str>,
    ) -> (&'static str, String) {
        self.database.show(observed);
        chassis::metrics::answer(&self.registry, accept)
    }
}

/// A scrape after one of everything had happened, for the reference page: an empty family is not
/// encoded.
pub fn example() -> String {
    let metrics = NodeMetrics::new(&[("operation", true)], |registry| {
        storage::register_example_metrics(registry);
        Events::default().register(registry);
    });
    metrics.http.observe(&RequestLabels::example(), 0.1);
    metrics.database.show(&crate::database_metrics::example());
    chassis::metrics::encode(&metrics.registry)
}
