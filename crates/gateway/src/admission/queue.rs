//! Who may go on to a node, who waits, and who is turned away: one class of requests. Pure.
//!
//! In order of arrival, as long as that serves everybody. When the queue does not empty although
//! requests are being served, more come than can be served: then the newest goes first, because its
//! client is still there, and whoever comes after the overload is served as if there were no backlog
//! (B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015: adaptive LIFO and controlled delay). Once
//! somebody had to be turned away, the rest wait a moment only: an early 503 is worth more than a
//! late one.
//!
//! A stall is told apart from that: while nobody at all is served (the database is away, all nodes
//! are down), the queue grows without any overload, and afterwards the oldest go first, since each of
//! them can still be served within its time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A queue that has not been empty for so long while requests were served is one of an overload.
const STANDING: Duration = Duration::from_millis(200);
/// Nobody served for so long, with somebody waiting: a stall.
const STALL: Duration = Duration::from_secs(1);
/// How long one waits at most once an overload has turned somebody away.
const OVERLOAD_WAIT: Duration = Duration::from_millis(250);

/// Of as many as can be served at once, so many wait on in an overload whatever their time: with
/// answers that take longer than `OVERLOAD_WAIT`, a free permit would find nobody otherwise.
const STAYING_SHARE: usize = 16;

/// What one class may do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Requests on their way to and back from nodes, to the end of their answers' bodies.
    pub(crate) concurrent_max: usize,
    /// Requests that wait for that.
    pub(crate) queue_max: usize,
    /// How long each waits at most.
    pub(crate) queue_timeout: Duration,
}

/// A place in the queue; grows with the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// The state of one class. `T` is whatever tells a waiting request that its turn has come.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    bounds: Bounds,
    in_flight: usize,
    waiting: BTreeMap<Ticket, Waiting<T>>,
    next: u64,
    mode: Mode,
    /// Since when somebody has been waiting all the time.
    standing_since: Instant,
    /// When a request ended last, or when the queue began.
    served_at: Instant,
}

#[derive(Debug)]
struct Waiting<T> {
    since: Instant,
    who: T,
}

/// What the queue has been through since it was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Calm,
    /// A stall has ended: the oldest first, until all are served.
    Recovering,
    /// Somebody was turned away while others were served.
    Overloaded,
}

impl<T> Queue<T> {
    pub(crate) fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            bounds,
            in_flight: 0,
            waiting: BTreeMap::new(),
            next: 0,
            mode: Mode::Calm,
            standing_since: now,
            served_at: now,
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a permit, if there is one and nobody waits for it.
    pub(crate) fn enter(&mut self) -> bool {
        let free = self.in_flight < self.bounds.concurrent_max && self.waiting.is_empty();
        self.in_flight += usize::from(free);
        free
    }

    /// Queues a request that could not enter. Returns its place and whom it displaced, which with a
    /// `queue_max` of 0 is itself.
    pub(crate) fn wait(&mut self, now: Instant, who: T) -> (Ticket, Vec<T>) {
        if self.waiting.is_empty() {
            self.mode = Mode::Calm;
            self.standing_since = now;
            self.served_at = now;
        }
        let ticket = Ticket(self.next);
        self.next = self.next.wrapping_add(1);
        self.waiting.insert(ticket, Waiting { since: now, who });
        let mut away = Vec::new();
        while self.waiting.len() > self.bounds.queue_max {
            let Some((_, oldest)) = self.waiting.pop_first() else {
                break;
            };
            away.push(oldest.who);
            self.turned_away(now);
        }
        self.shed_late(now, &mut away);
        (ticket, away)
    }

    /// A request has ended. Returns whose turn it is, with the permit, and who is turned away.
    pub(crate) fn release(&mut self, now: Instant) -> (Option<T>, Vec<T>) {
        let mut away = Vec::new();
        if self.stalled(now) {
            self.mode = Mode::Recovering;
        }
        self.served_at = now;
        self.in_flight = self.in_flight.saturating_sub(1);
        let next = self.admit(now);
        self.shed_late(now, &mut away);
        (next, away)
    }

    /// Gives a free permit to whose turn it is.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<T> {
        if self.in_flight >= self.bounds.concurrent_max {
            return None;
        }
        let (_, next) = if self.newest_first(now) {
            self.waiting.pop_last()
        } else {
            self.waiting.pop_first()
        }?;
        self.in_flight += 1;
        Some(next.who)
    }

    /// Takes a request out of the queue whose client went away. Nothing where it waits no more.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// Takes a request out of the queue that has waited its time. False where its turn came at the
    /// same moment.
    pub(crate) fn expire(&mut self, ticket: Ticket, now: Instant) -> bool {
        let waited = self.waiting.remove(&ticket).is_some();
        if waited && self.newest_first(now) {
            self.turned_away(now);
        }
        waited
    }

    /// Other bounds for what comes next; who waits may be admitted with `admit`.
    pub(crate) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    fn stalled(&self, now: Instant) -> bool {
        !self.waiting.is_empty() && now.saturating_duration_since(self.served_at) >= STALL
    }

    fn newest_first(&self, now: Instant) -> bool {
        match self.mode {
            Mode::Overloaded => true,
            Mode::Recovering => false,
            Mode::Calm => {
                !self.stalled(now) && now.saturating_duration_since(self.standing_since) >= STANDING
            }
        }
    }

    /// In a stall that is no sign of an overload.
    fn turned_away(&mut self, now: Instant) {
        if !self.stalled(now) {
            self.mode = Mode::Overloaded;
        }
    }

    fn shed_late(&mut self, now: Instant, away: &mut Vec<T>) {
        if self.mode != Mode::Overloaded || self.stalled(now) {
            return;
        }
        // A few stay whose turn comes with the next answers, however long those take.
        let staying = (self.bounds.concurrent_max / STAYING_SHARE).max(1);
        while self.waiting.len() > staying
            && let Some(oldest) = self.waiting.first_entry()
            && now.saturating_duration_since(oldest.get().since) > OVERLOAD_WAIT
        {
            away.push(oldest.remove().who);
        }
    }
}

#[cfg(test)]
mod tests;
