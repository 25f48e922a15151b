//! How long questions to the database wait and take, by class of work. Counted where they are asked,
//! because only there is it known what was waiting and what was the statement; shown by whoever has
//! the registry.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// In seconds; a read by key takes less than a millisecond.
const BOUNDS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabels {
    class: &'static str,
    result: &'static str,
}

#[derive(Clone, Copy, Debug, Default)]
struct Durations;

impl MetricConstructor<Histogram> for Durations {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BOUNDS)
    }
}

/// Cloned freely: clones count together.
#[derive(Clone, Debug)]
pub(crate) struct QueryMetrics {
    wait: Family<ClassLabels, Histogram, Durations>,
    duration: Family<QueryLabels, Histogram, Durations>,
}

impl QueryMetrics {
    pub(crate) fn new() -> Self {
        Self {
            wait: Family::new_with_constructor(Durations),
            duration: Family::new_with_constructor(Durations),
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "bingo_database_wait_seconds",
            "Time that a question waited for a server and a connection, in seconds",
            self.wait.clone(),
        );
        registry.register(
            "bingo_database_query_duration_seconds",
            "Time of a statement to its last row, of a list to its first, in seconds; failed: it has \
             no answer, whatever the reason",
            self.duration.clone(),
        );
    }

    pub(crate) fn waited(&self, class: &'static str, waited: Duration) {
        let wait = self.wait.get_or_create(&ClassLabels { class });
        wait.observe(waited.as_secs_f64());
    }

    pub(crate) fn asked(&self, class: &'static str, answered: bool, took: Duration) {
        let result = if answered { "answered" } else { "failed" };
        let duration = self.duration.get_or_create(&QueryLabels { class, result });
        duration.observe(took.as_secs_f64());
    }

    /// One of everything, for the reference page.
    pub(crate) fn example() -> Self {
        let metrics = Self::new();
        metrics.waited("points", Duration::ZERO);
        metrics.asked("points", true, Duration::ZERO);
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_and_a_failed_statement_show_in_the_buckets_of_their_time() {
        let metrics = QueryMetrics::new();
        metrics.waited("lists", Duration::from_millis(3));
        metrics.asked("lists", false, Duration::from_secs(2));
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let text = chassis::metrics::encode(&registry);
        for line in [
            "bingo_database_wait_seconds_bucket{le=\"0.0025\",class=\"lists\"} 0",
            "bingo_database_wait_seconds_bucket{le=\"0.005\",class=\"lists\"} 1",
            "bingo_database_query_duration_seconds_bucket{le=\"1.0\",class=\"lists\",result=\"failed\"} 0",
            "bingo_database_query_duration_seconds_count{class=\"lists\",result=\"failed\"} 1",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
