//! The gateway's metrics (interfaces.md "Metrics"). Handles are looked up once, at the start, so
//! that counting costs a request one atomic addition. Counters whose labels are known beforehand begin
//! at 0: the first ejection, say, is then an increase, where a series that begins with it shows none.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{LazyLock, Mutex, PoisonError};

use chassis::metrics::{Durations, HttpServer, RequestLabels};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::admission::AdmissionMetrics;
use crate::cache::CacheMetrics;
use crate::connection_metrics::ConnectionMetrics;
use crate::ejection::{Reason, State};
use crate::nodes::Nodes;
use crate::quarantine::QuarantineMetrics;
use crate::retry::Failure;
use crate::tls::CertificateMetrics;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    node: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    node: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    node: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaceLabels {
    place: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Outcome {
    /// Answered below 500, whole body.
    Answered = 0,
    /// Answered 5xx, whole body.
    Answered5xx = 1,
    NeverSent = 2,
    NoAnswer = 3,
    BodyBroken = 4,
    OutOfTime = 5,
    /// The client went away.
    Cancelled = 6,
    /// Answered 429, which another node got then.
    Refused = 7,
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        let mut all = Self::ALL.into_iter();
        all.find(|(outcome, _)| *outcome == self)
            .map_or("", |(_, name)| name)
    }

    /// The node failed the request, whatever became of that afterwards.
    pub(crate) fn is_failure(self) -> bool {
        !matches!(self, Self::Answered | Self::Cancelled | Self::Refused)
    }

    const ALL: [(Self, &'static str); 8] = [
        (Self::Answered, "answered"),
        (Self::Answered5xx, "answered_5xx"),
        (Self::NeverSent, "never_sent"),
        (Self::NoAnswer, "no_answer"),
        (Self::BodyBroken, "body_broken"),
        (Self::OutOfTime, "out_of_time"),
        (Self::Cancelled, "cancelled"),
        (Self::Refused, "refused"),
    ];
}

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) http: HttpServer,
    pub(crate) admission: AdmissionMetrics,
    pub(crate) cache: CacheMetrics,
    pub(crate) quarantine: QuarantineMetrics,
    /// Requests that had to wait for a usable node.
    pub(crate) holds: Counter<u64, AtomicU64>,
    pub(crate) connections: ConnectionMetrics,
    pub(crate) quic_panics: Counter<u64, AtomicU64>,
    held: Gauge,
    spooled: Family<PlaceLabels, Gauge>,
    spools: Family<ResultLabels, Counter>,
    /// Nearly every request counts one of these.
    spooled_whole: Counter,
    node_in_flight: Family<NodeLabels, Gauge>,
    node_duration: Family<NodeLabels, Histogram, Durations>,
    node_state: Family<StateLabels, Gauge>,
    ejections: Family<ReasonLabels, Counter>,
    attempts: Family<OutcomeLabels, Counter>,
    retries: Family<RetryLabels, Counter>,
    hedges: Family<ResultLabels, Counter>,
    limit_hits: Family<LimitLabels, Counter>,
    pub(crate) certificate: CertificateMetrics,
    reloads: Family<ResultLabels, Counter>,
    /// All of them together, for the page; not registered.
    retries_all: Counter,
    hedges_all: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            http: HttpServer::register(&mut registry),
            admission: AdmissionMetrics::register(&mut registry),
            cache: CacheMetrics::register(&mut registry),
            quarantine: QuarantineMetrics::register(&mut registry),
            holds: Counter::default(),
            connections: ConnectionMetrics::register(&mut registry),
            quic_panics: Counter::default(),
            held: Gauge::default(),
            spooled: Family::default(),
            spools: Family::default(),
            spooled_whole: Counter::default(),
            node_in_flight: Family::default(),
            node_duration: Family::new_with_constructor(Durations),
            node_state: Family::default(),
            ejections: Family::default(),
            attempts: Family::default(),
            retries: Family::default(),
            hedges: Family::default(),
            limit_hits: Family::default(),
            certificate: CertificateMetrics::register(&mut registry),
            reloads: Family::default(),
            retries_all: Counter::default(),
            hedges_all: Counter::default(),
            registry: Registry::default(),
        };
        metrics.register(&mut registry);
        metrics.register_more(&mut registry);
        chassis::metrics::register_build_info(&mut registry);
        metrics.begin_at_zero();
        let whole = ResultLabels { result: "whole" };
        Self {
            registry,
            spooled_whole: metrics.spools.get_or_create_owned(&whole),
            ..metrics
        }
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "bingo_node_state",
            "1 for the state that this gateway sees a node in, else 0",
            self.node_state.clone(),
        );
        registry.register(
            "bingo_ejections",
            "Times that a node was taken out of rotation",
            self.ejections.clone(),
        );
        registry.register(
            "bingo_attempts",
            "Requests sent to nodes, by how they ended",
            self.attempts.clone(),
        );
        registry.register(
            "bingo_retries",
            "Requests given to another node, by the class of the failure before",
            self.retries.clone(),
        );
        registry.register(
            "bingo_hedges",
            "Requests that were sent to a second node as well: won by it, or lost",
            self.hedges.clone(),
        );
        registry.register(
            "bingo_holds",
            "Requests that waited for a node to come back",
            self.holds.clone(),
        );
        registry.register(
            "bingo_quic_panics",
            "Panics in the HTTP/3 library, each of which ended one connection or request",
            self.quic_panics.clone(),
        );
        registry.register(
            "bingo_limit_hits",
            "Times that a limit was hit, by its name in gateway.yaml",
            self.limit_hits.clone(),
        );
        registry.register(
            "bingo_reloads",
            "Reloads of the configuration that were done, or refused for its faults",
            self.reloads.clone(),
        );
    }

    fn register_more(&self, registry: &mut Registry) {
        registry.register(
            "bingo_node_in_flight",
            "Requests that this gateway has at a node now, to the end of their answers' bodies",
            self.node_in_flight.clone(),
        );
        registry.register(
            "bingo_attempt_duration_seconds",
            "Time of one attempt on a node, from its choice to the end of the answer's body, in seconds",
            self.node_duration.clone(),
        );
        registry.register(
            "bingo_held_requests",
            "Requests that wait now for a node to come back",
            self.held.clone(),
        );
        registry.register(
            "bingo_spooled_bytes",
            "Bytes of answers that were taken in and wait for their clients, in memory or in a file",
            self.spooled.clone(),
        );
        registry.register(
            "bingo_spools",
            "Answers that were taken in before their client got them: whole, streamed from where \
             there was no more room or time, or lost with their node",
            self.spools.clone(),
        );
    }

    fn begin_at_zero(&self) {
        for result in ["won", "lost"] {
            drop(self.hedges.get_or_create(&ResultLabels { result }));
        }
        for result in ["done", "refused"] {
            drop(self.reloads.get_or_create(&ResultLabels { result }));
        }
        for result in ["whole", "streamed", "lost"] {
            drop(self.spools.get_or_create(&ResultLabels { result }));
        }
        drop(self.limit_counter("connections_max"));
        for reason in Failure::ALL.map(Failure::name) {
            drop(self.retries.get_or_create(&RetryLabels { reason }));
        }
    }

    /// Takes over what is kept elsewhere; due before a scrape.
    pub(crate) fn show(&self, held: usize, spooled: u64, spooled_in_memory: u64, nodes: &Nodes) {
        self.held.set(held as i64);
        let in_files = spooled.saturating_sub(spooled_in_memory);
        for (place, bytes) in [("memory", spooled_in_memory), ("file", in_files)] {
            let gauge = self.spooled.get_or_create(&PlaceLabels { place });
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        for node in nodes.iter() {
            node.metrics.in_flight.set(i64::from(node.in_flight()));
        }
    }

    /// The handles of one node. Its state is shown with the first `show_state`.
    pub(crate) fn of_node(&self, node: &str) -> NodeMetrics {
        let states = State::ALL.map(|state| {
            let labels = StateLabels {
                node: node.to_owned(),
                state: state.name(),
            };
            (state, self.node_state.get_or_create(&labels).clone())
        });
        let outcomes = Outcome::ALL.map(|(_, outcome)| {
            let labels = OutcomeLabels {
                node: node.to_owned(),
                outcome,
            };
            self.attempts.get_or_create(&labels).clone()
        });
        let ejections = Reason::ALL.map(|(_, reason)| {
            let labels = ReasonLabels {
                node: node.to_owned(),
                reason,
            };
            self.ejections.get_or_create(&labels).clone()
        });
        let labels = NodeLabels {
            node: node.to_owned(),
        };
        NodeMetrics {
            states,
            outcomes,
            ejections,
            in_flight: self.node_in_flight.get_or_create_owned(&labels),
            duration: self.node_duration.get_or_create_owned(&labels),
        }
    }

    /// Takes the series of a node out that is no longer in the configuration. Handles that are still
    /// held count on, unseen.
    pub(crate) fn forget_node(&self, node: &str) {
        let node = || node.to_owned();
        for state in State::ALL {
            let state = state.name();
            let labels = StateLabels {
                node: node(),
                state,
            };
            self.node_state.remove(&labels);
        }
        for (_, outcome) in Outcome::ALL {
            let labels = OutcomeLabels {
                node: node(),
                outcome,
            };
            self.attempts.remove(&labels);
        }
        for (_, reason) in Reason::ALL {
            let labels = ReasonLabels {
                node: node(),
                reason,
            };
            self.ejections.remove(&labels);
        }
        let labels = NodeLabels { node: node() };
        self.node_in_flight.remove(&labels);
        self.node_duration.remove(&labels);
    }

    pub(crate) fn retried(&self, reason: &'static str) {
        self.retries_all.inc();
        self.retries.get_or_create(&RetryLabels { reason }).inc();
    }

    /// `result`: `won` or `lost` by the second node.
    pub(crate) fn hedged(&self, result: &'static str) {
        self.hedges_all.inc();
        self.hedges.get_or_create(&ResultLabels { result }).inc();
    }

    /// An answer was taken in to its end.
    pub(crate) fn spooled_whole(&self) {
        self.spooled_whole.inc();
    }

    /// `result`: `streamed` or `lost`.
    pub(crate) fn spooled(&self, result: &'static str) {
        self.spools.get_or_create(&ResultLabels { result }).inc();
    }

    /// Retries and hedges so far.
    pub(crate) fn extra_attempts(&self) -> (u64, u64) {
        (self.retries_all.get(), self.hedges_all.get())
    }

    /// `result`: `done` or `refused`.
    pub(crate) fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&ResultLabels { result }).inc();
    }

    /// `limit` is the key in `gateway.yaml`.
    pub(crate) fn limit_hit(&self, limit: &'static str) {
        self.limit_hits.get_or_create(&LimitLabels { limit }).inc();
    }

    /// What counts a limit that is hit where there are no metrics at hand.
    pub(crate) fn limit_counter(&self, limit: &'static str) -> Counter {
        self.limit_hits.get_or_create_owned(&LimitLabels { limit })
    }
}

/// A text that lives for ever, as labels of routes must: the same one each time, so that reloads
/// leak nothing.
pub(crate) fn lasting(text: &str) -> &'static str {
    static TEXTS: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = texts.get(text) {
        return known;
    }
    let leaked: &'static str = Box::leak(text.to_owned().into_boxed_str());
    texts.insert(leaked);
    leaked
}

/// A scrape after one of everything had happened, for the reference page: an empty family is not
/// encoded.
pub fn example() -> String {
    let mut metrics = Metrics::new();
    chassis::events::Events::default().register(&mut metrics.registry);
    metrics.http.observe(&RequestLabels::example(), 0.1);
    let node = metrics.of_node("node-1");
    node.show_state(State::Unknown);
    node.took(0.1);
    metrics.show(0, 0, 0, &Nodes::none());
    metrics.cache.count("/long_dummy", "hit");
    metrics.cache.served("/long_dummy", 1.0);
    metrics.admission.of_class("point");
    metrics.certificate.example();
    chassis::metrics::encode(&metrics.registry)
}

/// The metrics of one node.
#[derive(Debug)]
pub(crate) struct NodeMetrics {
    states: [(State, Gauge); State::ALL.len()],
    outcomes: [Counter; Outcome::ALL.len()],
    ejections: [Counter; Reason::ALL.len()],
    in_flight: Gauge,
    duration: Histogram,
}

impl NodeMetrics {
    pub(crate) fn show_state(&self, now: State) {
        for (state, gauge) in &self.states {
            gauge.set(i64::from(*state == now));
        }
    }

    pub(crate) fn ejected(&self, reason: Reason) {
        if let Some(counter) = self.ejections.get(reason as usize) {
            counter.inc();
        }
    }

    /// An attempt ended after so many seconds.
    pub(crate) fn took(&self, seconds: f64) {
        self.duration.observe(seconds);
    }

    /// Requests that it was sent and did not lose to another node or a client that left, and those of
    /// them that it failed.
    pub(crate) fn attempts(&self) -> (u64, u64) {
        const FAILED: [Outcome; 4] = [
            Outcome::Answered5xx,
            Outcome::NoAnswer,
            Outcome::BodyBroken,
            Outcome::OutOfTime,
        ];
        let of = |outcome| self.outcomes.get(outcome as usize).map_or(0, Counter::get);
        let failed = FAILED.into_iter().map(of).sum();
        (of(Outcome::Answered) + failed, failed)
    }

    pub(crate) fn attempted(&self, outcome: Outcome) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.inc();
        }
    }
}
