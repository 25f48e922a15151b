//! The node's metrics: those of every HTTP server of ours, and a count of limits that were hit.

use chassis::metrics::HttpServer;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    /// The key of the limit in the configuration.
    limit: &'static str,
}

/// Shared by all requests of a node.
pub(crate) struct NodeMetrics {
    pub(crate) http: HttpServer,
    limit_hits: Family<LimitLabels, Counter>,
    registry: Registry,
}

impl NodeMetrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let http = HttpServer::register(&mut registry);
        let limit_hits = Family::<LimitLabels, Counter>::default();
        registry.register(
            "bingo_limit_hits",
            "Requests or connections that met a limit of the configuration",
            limit_hits.clone(),
        );
        Self {
            http,
            limit_hits,
            registry,
        }
    }

    pub(crate) fn limit_hit(&self, limit: &'static str) {
        self.limit_hits.get_or_create(&LimitLabels { limit }).inc();
    }

    /// The text that Prometheus reads.
    pub(crate) fn encode(&self) -> String {
        chassis::metrics::encode(&self.registry)
    }
}
