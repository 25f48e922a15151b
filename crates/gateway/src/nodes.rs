//! The nodes as all threads see them: state, requests in flight, latency. Atomics, because every
//! request reads and writes them; the state machine behind a lock is only touched when something
//! fails or a probe ends.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use http::HeaderValue;

use crate::balancer::{self, Estimate, View};
use crate::config::{self, Class};
use crate::ejection::{Event, Health, State, Thresholds};
use crate::metrics::NodeMetrics;

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// The name as the value of `Bingo-Node`.
    pub(crate) label: HeaderValue,
    pub(crate) metrics: NodeMetrics,
    state: AtomicU8,
    in_flight: AtomicU32,
    /// Answers' heads so far: shows that a node whose probe timed out is alive.
    answers: AtomicU64,
    latency: [AtomicU64; Class::ALL.len()],
    health: Mutex<Health>,
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    list: Vec<Node>,
    thresholds: Thresholds,
    started: Instant,
}

impl Nodes {
    pub(crate) fn new(
        nodes: &[config::Node],
        thresholds: Thresholds,
        metrics: impl Fn(&str) -> NodeMetrics,
        started: Instant,
    ) -> Self {
        let list = nodes
            .iter()
            .map(|node| Node {
                name: node.name.clone(),
                address: node.address.clone(),
                label: HeaderValue::from_str(&node.name).unwrap_or(HeaderValue::from_static("?")),
                metrics: metrics(&node.name),
                state: AtomicU8::new(State::Unknown as u8),
                in_flight: AtomicU32::new(0),
                answers: AtomicU64::new(0),
                latency: Default::default(),
                health: Mutex::default(),
            })
            .collect();
        Self {
            list,
            thresholds,
            started,
        }
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Node> {
        self.list.iter()
    }

    /// `None` for an index that `choose` did not return.
    pub(crate) fn get(&self, index: usize) -> Option<&Node> {
        self.list.get(index)
    }

    /// The node that takes a request of this class; `None` only without nodes.
    pub(crate) fn choose(
        &self,
        class: Class,
        avoid: Option<usize>,
        random: u64,
        now: Instant,
    ) -> Option<usize> {
        let now_ms = self.clock(now);
        let views = self.list.iter().map(|node| node.view(class, now_ms));
        balancer::choose(views, avoid, random)
    }

    pub(crate) fn any_usable(&self) -> bool {
        self.list.iter().any(|node| node.state().is_usable())
    }

    /// Takes in what was learned about a node; logs and counts a change of its state.
    pub(crate) fn learn(&self, index: usize, event: Event) {
        let Some(node) = self.list.get(index) else {
            return;
        };
        let mut health = node.health.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(change) = health.apply(event, self.thresholds) else {
            return;
        };
        node.state.store(change.to as u8, Relaxed);
        node.metrics.show_state(change.to);
        if change.to == State::Ejected {
            let reason = change.reason.unwrap_or("unknown");
            node.metrics.ejected(reason);
            tracing::warn!(
                node = node.name,
                from = change.from.name(),
                reason,
                "node ejected"
            );
        } else {
            if change.from == State::Ejected {
                // Most likely another process: what was measured before says nothing about it.
                node.forget_latency();
            }
            let (from, to) = (change.from.name(), change.to.name());
            tracing::info!(node = node.name, from, to, "node changed state");
        }
    }

    /// Notes that a request of this class on a node took `seconds` to the end of its body.
    pub(crate) fn measured(
        &self,
        index: usize,
        class: Class,
        seconds: f32,
        failed: bool,
        now: Instant,
    ) {
        let slot = self
            .list
            .get(index)
            .and_then(|node| node.latency.get(class as usize));
        if let Some(slot) = slot {
            // Two threads at once may lose one of two measurements: cheaper than a lock.
            let estimate = Estimate::from_bits(slot.load(Relaxed));
            let estimate = estimate.after(seconds, failed, self.clock(now));
            slot.store(estimate.to_bits(), Relaxed);
        }
    }

    /// The estimate of a class in seconds, for the status page.
    pub(crate) fn latency(&self, node: &Node, class: Class, now: Instant) -> Option<f32> {
        node.view(class, self.clock(now)).latency
    }

    /// Milliseconds since the start; wraps after 49 days, when estimates look fresh for a while.
    fn clock(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.started).as_millis() as u32
    }
}

impl Node {
    pub(crate) fn state(&self) -> State {
        State::from_u8(self.state.load(Relaxed))
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// A request was given to this node; `end` must follow.
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// The head of an answer came.
    pub(crate) fn answered(&self) {
        self.answers.fetch_add(1, Relaxed);
    }

    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Relaxed)
    }

    fn view(&self, class: Class, now_ms: u32) -> View {
        let bits = self
            .latency
            .get(class as usize)
            .map_or(0, |slot| slot.load(Relaxed));
        View {
            state: self.state(),
            latency: Estimate::from_bits(bits).at(now_ms),
            in_flight: self.in_flight(),
        }
    }

    fn forget_latency(&self) {
        for slot in &self.latency {
            slot.store(Estimate::NONE.to_bits(), Relaxed);
        }
    }
}
