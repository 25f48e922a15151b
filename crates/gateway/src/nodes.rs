//! The nodes as all threads see them: state, requests in flight, latency. Atomics, because every
//! request reads and writes them; the state machine behind a lock is only touched when something
//! fails or a probe ends.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use serde_json::json;

use crate::allowance::Allowance;
use crate::balancer::{self, Drawn, Estimate, Home, View};
use crate::config::{self, Class};
use crate::ejection::{Event, Health, Reason, State, Thresholds, Wanted};
use crate::events::Events;
use crate::fingerprint::Fingerprint;
use crate::metrics::{Metrics, NodeMetrics};
use crate::outliers::{Place, Tally};

/// Routes that are counted apart; those beyond it count as one.
const ROUTES_MAX: usize = 64;

/// Tells a node from every other that this process has known, whatever their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(u64);

impl NodeId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// The name as the value of `Bingo-Node`.
    pub(crate) label: HeaderValue,
    pub(crate) metrics: NodeMetrics,
    /// Estimates count their time from here; the same for all nodes.
    started: Instant,
    /// What probes and requests say.
    state: AtomicU8,
    /// What an operator wants.
    wanted: AtomicU8,
    /// It is no longer in the configuration; what is in flight on it ends.
    retired: AtomicBool,
    in_flight: AtomicU32,
    /// Suspects that are tried on it.
    trials: AtomicU32,
    /// When it was ejected last; 0: never.
    lost_ms: AtomicU32,
    /// When it came back last; 0: never.
    back_ms: AtomicU32,
    /// It said that it is ending, and no probe has been good since.
    is_ending: AtomicBool,
    /// A probe found it out of order, and not only a request whose connection broke.
    is_lost: AtomicBool,
    /// How often probes found it gone.
    life: AtomicU32,
    /// How often it was found dead, more than once in each death.
    deaths: AtomicU32,
    /// What it is given, once it has refused. Behind the flag, because hardly any node ever does.
    is_limited: AtomicBool,
    allowance: Mutex<Option<Allowance>>,
    /// Answers' heads so far: shows that a node whose probe timed out is alive.
    answers: AtomicU64,
    latency: [AtomicU64; Class::ALL.len()],
    /// By route: requests that it answered well (lower half) and badly since the last look.
    tallies: [AtomicU64; ROUTES_MAX],
    place: AtomicU8,
    health: Mutex<Health>,
}

/// The nodes of one configuration.
#[derive(Debug)]
pub(crate) struct Nodes {
    list: Vec<Arc<Node>>,
}

impl Nodes {
    /// A node that `known` has under the same name and address is that very node; another begins with
    /// what an operator wants of its name.
    pub(crate) fn new(
        nodes: &[config::Node],
        known: Option<&Self>,
        wanted: impl Fn(&str) -> Wanted,
        metrics: &Metrics,
        started: Instant,
    ) -> Self {
        let list = nodes.iter().map(|node| {
            let same = |one: &&Arc<Node>| one.name == node.name && one.address == node.address;
            match known.and_then(|known| known.iter().find(same)) {
                Some(same) => Arc::clone(same),
                None => Arc::new(Node::new(node, wanted(&node.name), metrics, started)),
            }
        });
        Self {
            list: list.collect(),
        }
    }

    /// For the reference page.
    pub(crate) fn none() -> Self {
        Self { list: Vec::new() }
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Arc<Node>> {
        self.list.iter()
    }

    pub(crate) fn has(&self, id: NodeId) -> bool {
        self.list.iter().any(|node| node.id == id)
    }

    pub(crate) fn by_id(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.list.iter().find(|node| node.id == id)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<Node>> {
        self.list.iter().find(|node| node.name == name)
    }

    /// The node that takes a request of this class; `None` where an operator took all out.
    pub(crate) fn choose(
        &self,
        class: Class,
        avoid: Option<NodeId>,
        random: u64,
        now: Instant,
    ) -> Option<&Arc<Node>> {
        let avoid = avoid.and_then(|id| self.list.iter().position(|node| node.id == id));
        let views = self.list.iter().map(|node| node.view(class, now));
        self.list.get(balancer::choose(views, avoid, random)?)
    }

    /// The home of a request with this fingerprint.
    pub(crate) fn home(&self, class: Class, who: Fingerprint, now: Instant) -> Home {
        let drawn = self.list.iter().map(|node| Drawn {
            draw: who.draw(&node.name),
            view: node.view(class, now),
            lost_for: node.lost_for(now),
        });
        balancer::home(&drawn.collect::<Vec<_>>())
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Arc<Node>> {
        self.list.get(index)
    }

    pub(crate) fn any_usable(&self) -> bool {
        self.list.iter().any(|node| node.state().is_usable())
    }
}

impl Node {
    fn new(node: &config::Node, wanted: Wanted, metrics: &Metrics, started: Instant) -> Self {
        Self {
            id: NodeId::next(),
            name: node.name.clone(),
            address: node.address.clone(),
            label: HeaderValue::from_str(&node.name).unwrap_or(HeaderValue::from_static("?")),
            metrics: metrics.of_node(&node.name),
            started,
            state: AtomicU8::new(State::Unknown as u8),
            wanted: AtomicU8::new(wanted as u8),
            retired: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            trials: AtomicU32::new(0),
            lost_ms: AtomicU32::new(0),
            back_ms: AtomicU32::new(0),
            is_ending: AtomicBool::new(false),
            is_lost: AtomicBool::new(false),
            life: AtomicU32::new(0),
            deaths: AtomicU32::new(0),
            is_limited: AtomicBool::new(false),
            allowance: Mutex::default(),
            answers: AtomicU64::new(0),
            latency: Default::default(),
            tallies: [const { AtomicU64::new(0) }; ROUTES_MAX],
            place: AtomicU8::new(Place::In as u8),
            health: Mutex::default(),
        }
    }

    /// Where it stands, all things considered.
    pub(crate) fn state(&self) -> State {
        let health = match State::from_u8(self.state.load(Relaxed)) {
            State::Unknown | State::Healthy if self.is(Place::Out) => State::Ejected,
            health => health,
        };
        self.wanted().with(health)
    }

    fn is(&self, place: Place) -> bool {
        self.place.load(Relaxed) == place as u8
    }

    /// It fails requests that other nodes answer, or does so no more.
    pub(crate) fn set_place(&self, place: Place, events: &Events) {
        let _health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        self.place.store(place as u8, Relaxed);
        self.metrics.show_state(self.state());
        let name = &self.name;
        match place {
            Place::Out => {
                self.metrics.ejected(Reason::Outlier);
                tracing::warn!(
                    node = name,
                    "node ejected: it fails requests that others answer"
                );
                let data = json!({"node": name, "reason": Reason::Outlier.name()});
                events.push("node_ejected", data);
            }
            Place::HalfOpen => {
                tracing::info!(node = name, "node is tried again, one request at a time");
            }
            Place::In => {
                tracing::info!(node = name, "node answers again as others do");
                let data = json!({"node": name, "from": "outlier", "to": self.state().name()});
                events.push("node_changed", data);
            }
        }
    }

    /// A request of the route with this number ended.
    pub(crate) fn tally(&self, route: usize, well: bool) {
        if let Some(tally) = self.tallies.get(route.min(ROUTES_MAX - 1)) {
            tally.fetch_add(if well { 1 } else { 1 << 32 }, Relaxed);
        }
    }

    /// What was counted since the last call, by the number of the route.
    pub(crate) fn take_tallies(&self) -> Vec<(usize, Tally)> {
        let counted = self
            .tallies
            .iter()
            .enumerate()
            .filter_map(|(route, tally)| {
                // Nothing to take is the usual case.
                let bits = match tally.load(Relaxed) {
                    0 => return None,
                    _ => tally.swap(0, Relaxed),
                };
                let (good, bad) = (bits as u32 as f32, (bits >> 32) as f32);
                Some((route, Tally { good, bad }))
            });
        counted.collect()
    }

    pub(crate) fn wanted(&self) -> Wanted {
        Wanted::from_u8(self.wanted.load(Relaxed))
    }

    /// Obeys an operator; false where nothing changes.
    pub(crate) fn want(&self, wanted: Wanted, events: &Events) -> bool {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.wanted();
        if before == wanted {
            return false;
        }
        if before == Wanted::Maintenance {
            *health = Health::after_maintenance();
            self.state.store(health.state as u8, Relaxed);
            self.forget_latency();
        }
        self.wanted.store(wanted as u8, Relaxed);
        self.metrics.show_state(self.state());
        let (name, before, wanted) = (&self.name, before.name(), wanted.name());
        tracing::info!(
            node = name,
            from = before,
            to = wanted,
            "node set by an operator"
        );
        let data = json!({"node": name, "from": before, "to": wanted});
        events.push("node_set", data);
        true
    }

    /// Takes in what was learned about the node; logs and counts a change of its state. A node that
    /// is no longer in the configuration learns nothing: another may have its name by now.
    pub(crate) fn learn(&self, event: Event, thresholds: Thresholds, events: &Events) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_retired() || self.wanted() == Wanted::Maintenance {
            return;
        }
        let change = health.apply(event, thresholds);
        self.judge_loss(event, health.state);
        let Some(change) = change else {
            return;
        };
        self.state.store(change.to as u8, Relaxed);
        self.metrics.show_state(self.state());
        let (from, to) = (change.from.name(), change.to.name());
        if let Some(reason) = change.reason {
            self.metrics.ejected(reason);
            self.lost_ms
                .store(self.clock(Instant::now()).max(1), Relaxed);
            let reason = reason.name();
            tracing::warn!(node = self.name, from, reason, "node ejected");
            let data = json!({"node": self.name, "from": from, "reason": reason});
            events.push("node_ejected", data);
        } else {
            if change.from == State::Ejected {
                // Most likely another process: what was measured before says nothing about it.
                self.forget_latency();
                self.back_ms
                    .store(self.clock(Instant::now()).max(1), Relaxed);
            }
            tracing::info!(node = self.name, from, to, "node changed state");
            let data = json!({"node": self.name, "from": from, "to": to});
            events.push("node_changed", data);
        }
    }

    /// One broken connection takes a node out until probes are good again; only a probe says that what
    /// it has is lost.
    fn judge_loss(&self, event: Event, state: State) {
        match event {
            Event::ProbeBad { reason } => {
                if reason == Reason::Unreachable {
                    self.refuses();
                }
                let is_new = state == State::Ejected && !self.is_lost.swap(true, Relaxed);
                if is_new && reason != Reason::Status {
                    self.life.fetch_add(1, Relaxed);
                }
            }
            Event::ProbeGood | Event::Draining => {
                self.is_ending.store(event == Event::Draining, Relaxed);
                self.is_lost.store(false, Relaxed);
            }
            Event::Broken { .. } => {}
        }
    }

    /// It has said that it is ending, or an operator wants it to.
    pub(crate) fn ends_by_choice(&self) -> bool {
        self.is_ending.load(Relaxed) || self.wanted() != Wanted::Active
    }

    /// It is out of rotation, and a probe found it so: what is in flight there goes elsewhere.
    pub(crate) fn is_lost(&self) -> bool {
        self.state() == State::Ejected && self.is_lost.load(Relaxed)
    }

    /// Nobody listens there any more: it has died, but where it ends by choice.
    pub(crate) fn refuses(&self) {
        if !self.ends_by_choice() {
            self.deaths.fetch_add(1, Relaxed);
        }
    }

    /// Another number whenever it was found dead.
    pub(crate) fn deaths(&self) -> u32 {
        self.deaths.load(Relaxed)
    }

    /// Another number after each time that probes found it gone.
    pub(crate) fn life(&self) -> u32 {
        self.life.load(Relaxed)
    }

    /// Shows the state in the metrics, which know the node from now on.
    pub(crate) fn show(&self) {
        let _health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        self.metrics.show_state(self.state());
    }

    /// It is no longer in the configuration.
    pub(crate) fn retire(&self) {
        // Under the lock: whoever is learning has ended, and nobody begins.
        let _health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        self.retired.store(true, Relaxed);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// It answered 429: it is given less from now on.
    pub(crate) fn refused(&self, retry_after: Option<Duration>, now: Instant) {
        let mut allowance = self.allowance();
        let known = allowance.get_or_insert_with(|| Allowance::new(now));
        known.refused(retry_after, now);
        self.is_limited.store(true, Relaxed);
    }

    /// How long it is left alone from now; nothing for nearly every node at nearly any time.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        if !self.is_limited.load(Relaxed) {
            return Duration::ZERO;
        }
        let mut allowance = self.allowance();
        match &mut *allowance {
            Some(known) if !known.is_forgiven(now) => known.wait(now),
            _ => {
                *allowance = None;
                self.is_limited.store(false, Relaxed);
                Duration::ZERO
            }
        }
    }

    fn allowance(&self) -> MutexGuard<'_, Option<Allowance>> {
        self.allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A suspect is tried on it: others stay away where they can. `end_trial` must follow.
    pub(crate) fn begin_trial(&self) {
        self.trials.fetch_add(1, Relaxed);
    }

    pub(crate) fn end_trial(&self) {
        self.trials.fetch_sub(1, Relaxed);
    }

    pub(crate) fn is_on_trial(&self) -> bool {
        self.trials.load(Relaxed) > 0
    }

    /// How long ago it was ejected last.
    fn lost_for(&self, now: Instant) -> Option<Duration> {
        let lost = self.lost_ms.load(Relaxed);
        let age = self.clock(now).saturating_sub(lost);
        (lost > 0).then(|| Duration::from_millis(u64::from(age)))
    }

    /// A request was given to this node; `end` must follow.
    pub(crate) fn begin(&self, now: Instant) {
        if self.is_limited.load(Relaxed)
            && let Some(allowance) = &mut *self.allowance()
        {
            allowance.sent(now);
        }
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

    /// Notes that a request of this class took `seconds` to the end of its body.
    pub(crate) fn measured(&self, class: Class, seconds: f32, failed: bool, now: Instant) {
        if let Some(slot) = self.latency.get(class as usize) {
            // Two threads at once may lose one of two measurements: cheaper than a lock.
            let estimate = Estimate::from_bits(slot.load(Relaxed));
            let estimate = estimate.after(seconds, failed, self.clock(now));
            slot.store(estimate.to_bits(), Relaxed);
        }
    }

    /// Notes that a request of this class was given up that had waited since `since`: the node takes so
    /// long at least.
    pub(crate) fn waited(&self, class: Class, since: Instant, now: Instant) {
        let seconds = now.saturating_duration_since(since).as_secs_f32();
        if self.latency(class, now).is_none_or(|known| seconds > known) {
            self.measured(class, seconds, false, now);
        }
    }

    /// The estimate of a class in seconds, for the status page.
    pub(crate) fn latency(&self, class: Class, now: Instant) -> Option<f32> {
        self.view(class, now).latency
    }

    fn view(&self, class: Class, now: Instant) -> View {
        let bits = self
            .latency
            .get(class as usize)
            .map_or(0, |slot| slot.load(Relaxed));
        View {
            state: self.state(),
            taken_out: self.wanted() != Wanted::Active,
            latency: Estimate::from_bits(bits).at(self.clock(now)),
            in_flight: self.in_flight(),
            on_trial: self.is_on_trial(),
            half_open: self.is(Place::HalfOpen),
            paused: !self.wait(now).is_zero(),
            back_for: self.back_for(now),
        }
    }

    fn back_for(&self, now: Instant) -> Option<f32> {
        let back = self.back_ms.load(Relaxed);
        let seconds = self.clock(now).saturating_sub(back) as f32 / 1000.0;
        (back > 0 && seconds < balancer::SLOW_START_SECONDS).then_some(seconds)
    }

    fn forget_latency(&self) {
        for slot in &self.latency {
            slot.store(Estimate::NONE.to_bits(), Relaxed);
        }
    }

    /// Milliseconds since the start; wraps after 49 days, when estimates look fresh for a while.
    fn clock(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.started).as_millis() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, address: &str) -> config::Node {
        config::Node {
            name: name.to_owned(),
            address: address.to_owned(),
        }
    }

    fn nodes(list: &[config::Node], known: Option<&Nodes>, metrics: &Metrics) -> Nodes {
        Nodes::new(list, known, |_| Wanted::Active, metrics, Instant::now())
    }

    fn states(metrics: &Metrics) -> Vec<String> {
        chassis::metrics::encode(&metrics.registry)
            .lines()
            .filter(|line| line.starts_with("bingo_node_state{") && line.ends_with(" 1"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_node_of_the_same_name_and_address_is_the_same_and_any_other_is_new_and_unknown() {
        let (metrics, events) = (Metrics::new(), Events::default());
        let thresholds = Thresholds { rise: 2, fall: 1 };
        let old = [node("a", "h:1"), node("b", "h:2"), node("c", "h:3")];
        let old = nodes(&old, None, &metrics);
        for node in old.iter() {
            node.learn(Event::ProbeGood, thresholds, &events);
        }
        let new = [node("c", "h:3"), node("b", "h:9"), node("d", "h:1")];
        let new = nodes(&new, Some(&old), &metrics);
        let of = |nodes: &Nodes, name: &str| nodes.by_name(name).unwrap().clone();
        assert_eq!(of(&new, "c").id, of(&old, "c").id);
        assert_eq!(of(&new, "c").state(), State::Healthy);
        for name in ["b", "d"] {
            assert_eq!(of(&new, name).state(), State::Unknown, "{name}");
            assert!(!old.has(of(&new, name).id), "{name}");
        }
        assert!(!new.has(of(&old, "a").id));
    }

    #[test]
    fn a_retired_node_learns_nothing_so_its_successor_of_the_same_name_is_not_blamed() {
        let (metrics, events) = (Metrics::new(), Events::default());
        let old = nodes(&[node("a", "h:1")], None, &metrics);
        let new = nodes(&[node("a", "h:2")], Some(&old), &metrics);
        old.by_name("a").unwrap().retire();
        new.by_name("a").unwrap().show();
        let thresholds = Thresholds { rise: 2, fall: 1 };
        let draining = Event::Draining;
        old.by_name("a")
            .unwrap()
            .learn(draining, thresholds, &events);
        assert_eq!(
            states(&metrics),
            ["bingo_node_state{node=\"a\",state=\"unknown\"} 1"]
        );
        metrics.forget_node("a");
        assert_eq!(states(&metrics), [""; 0]);
    }
}
