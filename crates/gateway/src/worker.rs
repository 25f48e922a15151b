//! What one worker thread owns, and what all of them share. A thread has its own pool of node
//! connections, retry budget and random numbers, so that a request takes no lock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};

use crate::access_log::Lines;
use crate::account::Flight;
use crate::admission::Admission;
use crate::cache::Store;
use crate::ejection::{Event, Wanted};
use crate::events::Events;
use crate::listener::PerClient;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::nodes::{Node, NodeId};
use crate::pool::Pool;
use crate::quarantine::Quarantine;
use crate::request_id::RequestIds;
use crate::retry::{Budget, HEDGE_SHARE, RETRY_SHARE};
use crate::router::Route;
use crate::traffic::Traffic;
use crate::valid::Valid;
use crate::wants::{self, Wants};

/// Repetitions a second that all threads together may do without any traffic.
pub(crate) const STEADY_RETRIES_PER_SECOND: f64 = 10.0;

/// Requests that ask by themselves how a node is, at once; more wait for their turn.
const LOOKS_MAX: usize = 32;

/// What every thread of a gateway sees.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) started: Instant,
    pub(crate) metrics: Metrics,
    pub(crate) events: Events,
    /// What was served since the history took it over.
    pub(crate) traffic: Traffic,
    pub(crate) threads: usize,
    /// How many lines the access log has of this second.
    pub(crate) lines: Lines,
    /// A permit per client connection.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) admission: Admission,
    pub(crate) cache: Arc<Store>,
    pub(crate) per_client: PerClient,
    pub(crate) quarantine: Quarantine,
    /// A permit per request that asks by itself how a node is.
    pub(crate) looks: Semaphore,
    /// Requests that wait for a node to come back.
    pub(crate) held: AtomicUsize,
    /// Bytes in all spools.
    pub(crate) spooled: Arc<AtomicU64>,
    /// Those of them that are in memory.
    pub(crate) spooled_in_memory: Arc<AtomicU64>,
    /// Says to the prober that there are other nodes, or that they are to be probed otherwise.
    pub(crate) nodes_changed: Notify,
    live: ArcSwap<Live>,
    /// What operators want of nodes, by name; outlives the nodes themselves, so that one that is
    /// removed and comes back is still in maintenance. Held while anything changes: one change at a
    /// time.
    wanted: Mutex<Wants>,
}

impl Shared {
    pub(crate) fn new(config: &Valid) -> Self {
        let started = Instant::now();
        let mut metrics = Metrics::new();
        let file = match &config.events_file {
            Some(path) => chassis::events::Events::to_file(path, &config.name),
            None => chassis::events::Events::default(),
        };
        file.register(&mut metrics.registry);
        let wanted = config.state_file.as_deref().map(wants::read);
        // One that cannot be read is told by whoever watches it.
        let wanted = wanted.and_then(Result::ok).unwrap_or_default();
        let of = |name: &str| wanted.get(name).copied().unwrap_or_default();
        let live = Live::new(config, None, of, &metrics, started);
        for node in live.nodes.iter() {
            node.show();
        }
        Self {
            started,
            admission: Admission::new(&config.admission, &metrics.admission),
            cache: Store::new(
                config.cache.bytes_max,
                metrics.limit_counter("cache_bytes_max"),
            ),
            looks: Semaphore::new(LOOKS_MAX),
            quarantine: Quarantine::new(metrics.quarantine.clone()),
            metrics,
            events: Events::new(file),
            lines: Lines::new(started),
            traffic: Traffic::default(),
            threads: config.threads.unwrap_or_else(cores),
            connections: Arc::new(Semaphore::new(config.limits.connections_max)),
            per_client: PerClient::default(),
            held: AtomicUsize::new(0),
            spooled: Arc::default(),
            spooled_in_memory: Arc::default(),
            nodes_changed: Notify::new(),
            live: ArcSwap::from_pointee(live),
            wanted: Mutex::new(wanted),
        }
    }

    /// The configuration of this moment. What must not change its mind keeps it.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Puts a configuration in the place of the one in use, at once and whole. Requests that have
    /// begun end by the old one; no connection is closed. Must be called inside a runtime.
    pub(crate) fn replace(&self, config: &Valid) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |name: &str| wanted.get(name).copied().unwrap_or_default();
        let old = self.live();
        let new = Live::new(config, Some(&old), of, &self.metrics, self.started);
        let new = Arc::new(new);
        self.live.store(Arc::clone(&new));
        new.replaces(&old, &self.metrics, &self.events);
        self.admission.set_bounds(&config.admission);
        self.resize(old.limits.connections_max, new.limits.connections_max);
        self.nodes_changed.notify_one();
    }

    /// What `/metrics` answers: content type and text.
    pub(crate) fn scrape(&self, accept: Option<&str>) -> (&'static str, String) {
        let held = self.held.load(Relaxed);
        let (spooled, in_memory) = (&self.spooled, &self.spooled_in_memory);
        let (spooled, in_memory) = (spooled.load(Relaxed), in_memory.load(Relaxed));
        let nodes = &self.live().nodes;
        self.metrics.show(held, spooled, in_memory, nodes);
        chassis::metrics::answer(&self.metrics.registry, accept)
    }

    /// Client connections that are open now.
    pub(crate) fn open_connections(&self) -> usize {
        // Every thread holds a permit for the connection that it waits for.
        let free = self.connections.available_permits() + self.threads;
        self.live().limits.connections_max.saturating_sub(free)
    }

    /// Milliseconds since the start.
    pub(crate) fn clock(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.started).as_millis() as u32
    }

    /// Takes in what was learned about a node.
    pub(crate) fn learn(&self, node: &Node, event: Event) {
        let thresholds = self.live.load().probe.thresholds;
        node.learn(event, thresholds, &self.events);
    }

    /// Does with a node what an operator wants. To take out the last one in rotation must be forced.
    pub(crate) fn want(&self, name: &str, to: Wanted, force: bool) -> Result<Set, NotSet> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live();
        let node = live.nodes.by_name(name).ok_or(NotSet::Unknown)?;
        let mut others = live.nodes.iter().filter(|other| other.id != node.id);
        let last = to != Wanted::Active && !others.any(|other| other.state().is_usable());
        if last && !force {
            return Err(NotSet::Last);
        }
        wanted.insert(name.to_owned(), to);
        if node.want(to, &self.events) {
            self.nodes_changed.notify_one();
        }
        let noted = live
            .state_file
            .as_deref()
            .map(|path| wants::note(path, name, to));
        let untold = noted.and_then(Result::err);
        if let Some(error) = &untold {
            tracing::error!(%error, "other gateways cannot be told what is wanted of a node");
        }
        let node = Arc::clone(node);
        Ok(Set { node, last, untold })
    }

    /// Does with all nodes what operators told any gateway.
    pub(crate) fn agree(&self, wants: &Wants) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        for node in self.live().nodes.iter() {
            let to = wants.get(&node.name).copied().unwrap_or_default();
            if node.want(to, &self.events) {
                self.nodes_changed.notify_one();
            }
        }
        wanted.clone_from(wants);
    }

    /// Where there are more connections than are allowed now, none is closed; as they end, their
    /// permits are kept.
    fn resize(&self, from: usize, to: usize) {
        self.connections.add_permits(to.saturating_sub(from));
        let Ok(less @ 1..) = u32::try_from(from.saturating_sub(to)) else {
            return;
        };
        let permits = Arc::clone(&self.connections).acquire_many_owned(less);
        tokio::spawn(async move {
            // An error would mean that the semaphore was closed, which nobody does.
            if let Ok(permits) = permits.await {
                permits.forget();
            }
        });
    }
}

/// An operator's wish was obeyed.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) node: Arc<Node>,
    /// No other node is in rotation.
    pub(crate) last: bool,
    /// Why other gateways do not learn of it.
    pub(crate) untold: Option<std::io::Error>,
}

/// Why it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSet {
    /// There is no such node.
    Unknown,
    /// No other node is in rotation, and it was not forced.
    Last,
}

/// A thread per core, where the configuration names no number.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One thread's own things.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    pub(crate) request_ids: RequestIds,
    /// Set when the process was asked to end: every answer closes its connection.
    pub(crate) draining: Cell<bool>,
    retries: RefCell<Budget>,
    hedges: RefCell<Budget>,
    /// Requests since the budgets were last asked.
    live: Cell<u32>,
    random: Cell<u64>,
}

impl Worker {
    /// `seed` may be any number; two threads should not share one.
    pub(crate) fn new(shared: Arc<Shared>, seed: u64) -> Self {
        let steady = STEADY_RETRIES_PER_SECOND / shared.threads as f64;
        Self {
            pool: Pool::default(),
            request_ids: RequestIds::new(seed),
            draining: Cell::new(false),
            retries: RefCell::new(Budget::new(RETRY_SHARE, steady, Duration::ZERO)),
            hedges: RefCell::new(Budget::new(HEDGE_SHARE, steady, Duration::ZERO)),
            live: Cell::new(0),
            random: Cell::new(seed | 1),
            shared,
        }
    }

    /// Chooses a node for a request of this class and counts the request in on it; `None` where an
    /// operator took all out, `Err` with how long none can take any. The nodes are those of this moment.
    pub(crate) fn choose(
        self: &Rc<Self>,
        route: &Route,
        avoid: Option<NodeId>,
        now: Instant,
    ) -> Result<Option<Flight>, Duration> {
        let live = self.shared.live.load();
        let Some(node) = live.nodes.choose(route.class, avoid, self.random(), now) else {
            return Ok(None);
        };
        let wait = node.wait(now);
        match wait.is_zero() {
            true => Ok(Some(Flight::begin(self, node, route, now))),
            false => Err(wait),
        }
    }

    /// The same for a request that is at the node `first` already: another node in rotation, as far as
    /// the budget allows.
    pub(crate) fn choose_other(
        self: &Rc<Self>,
        route: &Route,
        first: NodeId,
        now: Instant,
    ) -> Option<Flight> {
        let live = self.shared.live.load();
        let node = live
            .nodes
            .choose(route.class, Some(first), self.random(), now)?;
        let other = node.id != first && node.state().is_usable();
        (other && self.take_hedge()).then(|| Flight::begin(self, node, route, now))
    }

    /// Whether another node is in rotation.
    pub(crate) fn any_other_usable(&self, node: NodeId) -> bool {
        let live = self.shared.live.load();
        let mut others = live.nodes.iter().filter(|other| other.id != node);
        others.any(|other| other.state().is_usable())
    }

    /// Whether a node is in rotation.
    pub(crate) fn any_usable(&self) -> bool {
        self.shared.live.load().nodes.any_usable()
    }

    /// Looks through the idle connections to nodes, tells the retry budget and shows the size of the
    /// cache; due about once a second.
    pub(crate) fn sweep(&self) {
        let live = self.shared.live();
        let idle_timeout = live.limits.node_idle_timeout;
        self.pool.sweep(idle_timeout, &live.nodes, Instant::now());
        self.earn();
        self.shared.metrics.cache.show(&self.shared.cache);
    }

    /// Counts a live request towards the retry budget.
    pub(crate) fn count_live(&self) {
        self.live.set(self.live.get().saturating_add(1));
    }

    /// Passes the live requests on to the budgets.
    fn earn(&self) {
        let (requests, now) = (self.live.replace(0), self.shared.started.elapsed());
        self.retries.borrow_mut().earn(requests, now);
        self.hedges.borrow_mut().earn(requests, now);
    }

    /// Takes one repetition out of the budget, if there is one.
    pub(crate) fn take_retry(&self) -> bool {
        self.take(&self.retries, "retry_budget")
    }

    /// As `take_retry`, for one that was told already that there is none.
    pub(crate) fn take_retry_after_all(&self) -> bool {
        self.draw(&self.retries)
    }

    /// Takes one request to a second node out of the budget, if there is one.
    pub(crate) fn take_hedge(&self) -> bool {
        self.take(&self.hedges, "hedge_budget")
    }

    fn take(&self, budget: &RefCell<Budget>, name: &'static str) -> bool {
        let taken = self.draw(budget);
        if !taken {
            self.shared.metrics.limit_hit(name);
        }
        taken
    }

    fn draw(&self, budget: &RefCell<Budget>) -> bool {
        self.earn();
        budget.borrow_mut().take(self.shared.started.elapsed())
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
