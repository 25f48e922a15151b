//! What one worker thread owns, and what all of them share. A thread has its own pool of node
//! connections, retry budget and random numbers, so that a request takes no lock.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::pool::Pool;
use crate::request_id::RequestIds;
use crate::retry::Budget;
use crate::router::Router;
use crate::valid::{Valid, ValidLimits, ValidProbe};

/// Repetitions a second that all threads together may do without any traffic.
const STEADY_RETRIES_PER_SECOND: f64 = 10.0;

/// What every thread of a gateway sees.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) started: Instant,
    pub(crate) nodes: Nodes,
    pub(crate) router: Router,
    pub(crate) probe: ValidProbe,
    pub(crate) limits: ValidLimits,
    pub(crate) metrics: Metrics,
    pub(crate) threads: usize,
    pub(crate) expose_node: bool,
    /// A permit per client connection.
    pub(crate) connections: Arc<Semaphore>,
    /// Requests that wait for a node to come back.
    pub(crate) held: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(config: Valid) -> Self {
        let started = Instant::now();
        let metrics = Metrics::new();
        Self {
            started,
            nodes: Nodes::new(
                &config.nodes,
                config.probe.thresholds,
                |name| metrics.of_node(name),
                started,
            ),
            router: Router::new(config.routes),
            probe: config.probe,
            connections: Arc::new(Semaphore::new(config.limits.connections_max)),
            limits: config.limits,
            metrics,
            threads: config.threads,
            expose_node: config.expose_node,
            held: AtomicUsize::new(0),
        }
    }
}

/// One thread's own things.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    pub(crate) request_ids: RequestIds,
    /// Set when the process was asked to end: every answer closes its connection.
    pub(crate) draining: Cell<bool>,
    budget: RefCell<Budget>,
    /// Requests since the budget was last asked.
    live: Cell<u32>,
    random: Cell<u64>,
}

impl Worker {
    /// `seed` may be any number; two threads should not share one.
    pub(crate) fn new(shared: Arc<Shared>, seed: u64) -> Self {
        let steady = STEADY_RETRIES_PER_SECOND / shared.threads as f64;
        let nodes = shared.nodes.iter().count();
        Self {
            pool: Pool::new(nodes, shared.limits.node_idle_timeout),
            request_ids: RequestIds::new(seed),
            draining: Cell::new(false),
            budget: RefCell::new(Budget::new(steady, Duration::ZERO)),
            live: Cell::new(0),
            random: Cell::new(seed | 1),
            shared,
        }
    }

    /// Counts a live request towards the retry budget.
    pub(crate) fn count_live(&self) {
        self.live.set(self.live.get().saturating_add(1));
    }

    /// Passes the live requests on to the retry budget; due about once a second.
    pub(crate) fn earn_retries(&self) {
        let now = self.shared.started.elapsed();
        self.budget.borrow_mut().earn(self.live.replace(0), now);
    }

    /// Takes one repetition out of the budget, if there is one.
    pub(crate) fn take_retry(&self) -> bool {
        self.earn_retries();
        let taken = self.budget.borrow_mut().take(self.shared.started.elapsed());
        if !taken {
            self.shared.metrics.limit_hit("retry_budget");
        }
        taken
    }

    /// A random number good enough for breaking ties (xorshift64, Marsaglia 2003).
    pub(crate) fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }
}
