//! Admission: how many requests of a class may be at the nodes at once, how many wait for that, and
//! for how long; over that 503. One queue per class for all threads, because threads of their own
//! would serve one client's requests late while another's permits lie idle. What happens in a queue
//! is decided in `queue`.
//!
//! A permit is taken inside the call, after the cache, and given back at the end of the answer's body
//! (stack.md, traps 3 and 5): an idle connection holds none, a large list holds one to its end. A
//! request that is held because all nodes are gone keeps its permit, so that nodes that come back meet
//! `concurrent_max` requests and not all that waited. Probes pass: whoever asks whether the service
//! lives must not be answered by its queue.

pub(crate) mod config;
mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use crate::config::Class;
use crate::problem::Refusal;
pub(crate) use queue::Bounds;
use queue::{Queue, Ticket};

/// The bounds of a class that the file leaves out.
///
/// Two gateways with 64 each put 128 requests before the nodes at most: with nodes of 100 a second
/// each that is 0.64 s, far below their own limit of 10 s. 15 s of waiting outlast an outage of ten
/// and end before the deadline of 20.
pub(crate) const DEFAULT: Bounds = Bounds {
    concurrent_max: 64,
    queue_max: 1024,
    queue_timeout: Duration::from_secs(15),
};

/// Each list keeps a node's database busy for a fifth of a second: 32 of them are five seconds' work.
pub(crate) const LISTS: Bounds = Bounds {
    concurrent_max: 16,
    queue_max: 256,
    queue_timeout: DEFAULT.queue_timeout,
};

/// The gates of all classes.
#[derive(Debug)]
pub(crate) struct Admission {
    gates: [Arc<Gate>; Class::ALL.len()],
}

#[derive(Debug)]
struct Gate {
    queue: Mutex<Queue<oneshot::Sender<Permit>>>,
    sheds: Counter,
    in_flight: Gauge,
    queued: Gauge,
}

/// The right to be at a node; given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    /// Empty where the request needs none.
    gate: Option<Arc<Gate>>,
}

impl Admission {
    pub(crate) fn new(bounds: &[Bounds; Class::ALL.len()], metrics: &AdmissionMetrics) -> Self {
        let now = Instant::now();
        let gates = Class::ALL.map(|(class, name)| {
            let bounds = bounds.get(class as usize).copied().unwrap_or(DEFAULT);
            Arc::new(Gate::new(bounds, name, metrics, now))
        });
        Self { gates }
    }

    /// Waits for a permit, at most until `deadline`. Dropped while it waits, it leaves the queue.
    pub(crate) async fn enter(&self, class: Class, deadline: Instant) -> Result<Permit, Refusal> {
        match self.gates.get(class as usize) {
            Some(gate) => gate.enter(deadline).await,
            None => Ok(Permit::none()),
        }
    }

    /// Other bounds for what comes next; what is on its way stays.
    pub(crate) fn set_bounds(&self, bounds: &[Bounds; Class::ALL.len()]) {
        for (gate, bounds) in self.gates.iter().zip(bounds) {
            gate.set_bounds(*bounds);
        }
    }
}

impl Permit {
    /// For a request that is always let through.
    pub(crate) fn none() -> Self {
        Self { gate: None }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.release();
        }
    }
}

impl Gate {
    fn new(bounds: Bounds, class: &'static str, metrics: &AdmissionMetrics, now: Instant) -> Self {
        let (sheds, in_flight, queued) = metrics.of_class(class);
        Self {
            queue: Mutex::new(Queue::new(bounds, now)),
            sheds,
            in_flight,
            queued,
        }
    }

    async fn enter(self: &Arc<Self>, deadline: Instant) -> Result<Permit, Refusal> {
        let (waiter, timeout) = {
            let mut queue = self.lock();
            if queue.enter() {
                self.show(&queue);
                return Ok(self.permit());
            }
            let (turn, turned) = oneshot::channel();
            let (ticket, away) = queue.wait(Instant::now(), turn);
            self.show(&queue);
            self.shed(away.len());
            // Whoever was turned away sees its sender go.
            (
                Waiter {
                    gate: self,
                    ticket,
                    turned,
                },
                queue.bounds().queue_timeout,
            )
        };
        let until = deadline.min(Instant::now() + timeout);
        waiter.wait(until).await
    }

    fn release(self: &Arc<Self>) {
        // One that went away at this very moment gives its permit back, and the next one has it.
        while let Some(turn) = self.next() {
            let Err(mut permit) = turn.send(self.permit()) else {
                return;
            };
            permit.gate = None;
        }
    }

    fn next(&self) -> Option<oneshot::Sender<Permit>> {
        let mut queue = self.lock();
        let (next, away) = queue.release(Instant::now());
        self.show(&queue);
        self.shed(away.len());
        next
    }

    fn set_bounds(self: &Arc<Self>, bounds: Bounds) {
        let mut admitted = Vec::new();
        {
            let mut queue = self.lock();
            queue.set_bounds(bounds);
            while let Some(turn) = queue.admit(Instant::now()) {
                admitted.push(turn);
            }
            self.show(&queue);
        }
        for turn in admitted {
            // A permit that nobody takes any more is given back by its drop.
            let _ = turn.send(self.permit());
        }
    }

    fn permit(self: &Arc<Self>) -> Permit {
        Permit {
            gate: Some(Arc::clone(self)),
        }
    }

    fn shed(&self, count: usize) {
        self.sheds.inc_by(count as u64);
    }

    fn show(&self, queue: &Queue<oneshot::Sender<Permit>>) {
        self.in_flight.set(queue.in_flight() as i64);
        self.queued.set(queue.queued() as i64);
    }

    fn lock(&self) -> MutexGuard<'_, Queue<oneshot::Sender<Permit>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in the queue; leaves it when it is dropped.
struct Waiter<'a> {
    gate: &'a Gate,
    ticket: Ticket,
    turned: oneshot::Receiver<Permit>,
}

impl Waiter<'_> {
    async fn wait(mut self, until: Instant) -> Result<Permit, Refusal> {
        let until = tokio::time::Instant::from_std(until);
        match tokio::time::timeout_at(until, &mut self.turned).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Refusal::Shed { limit: "queue_max" }),
            Err(_) => self.expire(),
        }
    }

    fn expire(&mut self) -> Result<Permit, Refusal> {
        let waited = {
            let mut queue = self.gate.lock();
            let waited = queue.expire(self.ticket, Instant::now());
            self.gate.show(&queue);
            waited
        };
        if let (false, Ok(permit)) = (waited, self.turned.try_recv()) {
            return Ok(permit);
        }
        if waited {
            self.gate.shed(1);
        }
        Err(Refusal::Shed {
            limit: "queue_timeout",
        })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut queue = self.gate.lock();
        queue.leave(self.ticket);
        self.gate.show(&queue);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: &'static str,
}

/// What admission shows.
#[derive(Debug, Default)]
pub(crate) struct AdmissionMetrics {
    sheds: Family<ClassLabels, Counter>,
    in_flight: Family<ClassLabels, Gauge>,
    queued: Family<ClassLabels, Gauge>,
}

impl AdmissionMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "bingo_sheds",
            "Requests turned away with 503 because too many of their class waited, or for too long",
            metrics.sheds.clone(),
        );
        registry.register(
            "bingo_admission_in_flight",
            "Requests of a class that hold a permit, to the end of their answers' bodies",
            metrics.in_flight.clone(),
        );
        registry.register(
            "bingo_admission_queued",
            "Requests of a class that wait for a permit",
            metrics.queued.clone(),
        );
        metrics
    }

    /// The handles of one class: sheds, in flight, queued.
    pub(crate) fn of_class(&self, class: &'static str) -> (Counter, Gauge, Gauge) {
        let labels = ClassLabels { class };
        (
            self.sheds.get_or_create_owned(&labels),
            self.in_flight.get_or_create_owned(&labels),
            self.queued.get_or_create_owned(&labels),
        )
    }
}
