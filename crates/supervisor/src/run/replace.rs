//! Replacing processes by choice: measuring memory and age, giving turns, starting successors, handing
//! over, and seeing the old ones off. What is decided stands in `policy::memory` and `policy::turns`.

use std::collections::HashSet;
use std::time::Duration;

use chassis::backoff::Backoff;
use rustix::process::{Resource, Rlimit};

use super::Supervisor;
use crate::groups::Group;
use crate::plan;
use crate::policy::memory::{Limits, Verdict};
use crate::policy::turns::{self, Candidate, DRAIN_TURN, Wish};
use crate::policy::{Ended, Event, Machine, Outcome, Round};
use crate::processes;
use crate::slot::{Beside, Live, Place, Slot};

/// Pauses between successors that fail.
const SUCCESSORS: Backoff = Backoff {
    base: Duration::from_secs(1),
    max: Duration::from_secs(60),
};
/// For so long after it was asked to end, a predecessor may answer in the place of its successor.
const SHARED: Duration = Duration::from_secs(1);
/// What keeps a process when we cannot: so many times its hard limit of data. Not the limit itself,
/// because data that is only reserved counts as well (getrlimit(2), RLIMIT_DATA).
const DATA_PER_HARD: u64 = 4;

impl Supervisor {
    /// Measures all that has a limit or ages; called ten times a second.
    pub(super) fn measure(&mut self) {
        for index in 0..self.slots.len() {
            for place in [Place::Present, Place::Successor, Place::Departing] {
                match self.judge_memory(index, place) {
                    Verdict::Fine => {}
                    Verdict::Kill(reason) => self.feed_to(index, place, Event::TooLarge(reason)),
                    Verdict::Replace(_) if place != Place::Present => {}
                    Verdict::Replace(reason) => self.wish(index, Wish::Memory(reason)),
                }
            }
            let aged = self.slots.get(index).and_then(|slot| {
                let live = slot.live.as_ref()?;
                let age = live.started.elapsed();
                let is_old = live.age_at_end.is_some_and(|end| age >= end);
                is_old.then(|| format!("age: {} s", age.as_secs()))
            });
            if let Some(reason) = aged {
                self.wish(index, Wish::Age(reason));
            }
        }
    }

    fn judge_memory(&mut self, index: usize, place: Place) -> Verdict {
        let now = self.now();
        let Some(slot) = self.slots.get_mut(index) else {
            return Verdict::Fine;
        };
        let Some(limits) = slot.process.memory else {
            return Verdict::Fine;
        };
        let Some(live) = slot.part(place).and_then(|part| part.live.as_mut()) else {
            return Verdict::Fine;
        };
        let Some(bytes) = processes::tree_bytes(live.pid) else {
            return Verdict::Fine;
        };
        live.bytes = bytes;
        if let Some(why) = live.group.as_ref().and_then(Group::killed_for) {
            // A part of it is gone; what is left may wait for that for ever.
            return Verdict::Kill(why);
        }
        live.measured.judge(now, bytes, limits)
    }

    /// Notes that a process is to be replaced; what is more urgent stays.
    pub(super) fn wish(&mut self, index: usize, wish: Wish) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let has_better = match (&slot.standing.wish, &wish) {
            (Some(Wish::Memory(_)), _) | (Some(_), Wish::Age(_)) => true,
            (Some(Wish::Operator(_)), wish) => !matches!(wish, Wish::Memory(_)),
            _ => false,
        };
        if has_better || slot.leaving || slot.machine.is_over() || slot.successor.is_some() {
            return;
        }
        let (name, reason) = (&slot.process.name, wish.reason());
        tracing::info!(name, reason, "to be replaced");
        slot.standing
            .failed_successor
            .take_if(|_| matches!(wish, Wish::Operator(_)));
        slot.standing.wish = Some(wish);
    }

    /// Hands over to successors that are healthy, gives up those that are not to be, forgets those that
    /// have gone, and begins with whose turn it is.
    pub(super) fn advance(&mut self) {
        let now = self.now();
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(index) else {
                return;
            };
            slot.see_off();
            let is = |flag: fn(&Machine) -> bool| {
                slot.successor
                    .as_ref()
                    .is_some_and(|next| flag(&next.machine))
            };
            if is(Machine::is_there) {
                let reason = slot
                    .standing
                    .wish
                    .take()
                    .map(|wish| wish.reason().to_owned());
                self.hand_over(index, reason.unwrap_or_default(), true);
            } else if is(Machine::is_over) {
                self.give_up_successor(index);
            }
        }
        if self.stopping {
            return;
        }
        for slot in &mut self.slots {
            slot.back(now);
        }
        self.wish_for_changed();
        // Before this becomes another program only what was begun is finished.
        let waits = self.next_program.is_some();
        let candidate = |slot| Slot::candidate(slot, now, waits);
        let all: Vec<Candidate<'_>> = self.slots.iter().map(candidate).collect();
        for index in turns::next(now, &all) {
            self.replace(index);
        }
    }

    /// It is this one's turn.
    fn replace(&mut self, index: usize) {
        let now = self.now();
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let may = |process: &plan::Process| process.start_first;
        let beside = may(&slot.process) && slot.next.as_ref().is_none_or(may);
        if beside && slot.machine.is_running() && slot.live.is_some() {
            let process = slot.next.take();
            let rules = &process.as_ref().unwrap_or(&slot.process).rules;
            slot.successor = Some(Beside {
                machine: Machine::successor(rules),
                run: 0,
                live: None,
                since: now,
                process,
            });
            self.feed_to(index, Place::Successor, Event::Release);
            return;
        }
        let Some(wish) = slot.standing.wish.take() else {
            return;
        };
        slot.standing.maintained = Some(slot.run);
        self.feed(index, Event::Restart(wish.reason().to_owned()));
    }

    /// The successor takes the place of the present run, which is asked to end where it still runs.
    fn hand_over(&mut self, index: usize, reason: String, chosen: bool) {
        let now = self.now();
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(mut next) = slot.successor.take() else {
            return;
        };
        tracing::info!(name = slot.process.name, reason, "handed over");
        self.events.tell("replaced", &slot.process.name, &reason);
        let process = next.process.take();
        let restart = process.as_ref().unwrap_or(&slot.process).rules.restart;
        let old = slot.machine.clone();
        next.machine.take_over(now, old, restart, (reason, chosen));
        slot.process = process.unwrap_or(slot.process.clone());
        slot.standing.failed_successors = 0;
        slot.standing.failed_successor = None;
        slot.standing.not_before = None;
        let old = Beside {
            machine: std::mem::replace(&mut slot.machine, next.machine),
            run: std::mem::replace(&mut slot.run, next.run),
            live: std::mem::replace(&mut slot.live, next.live),
            since: now,
            process: None,
        };
        if let Some(live) = &old.live {
            // At its address the successor answers now.
            live.end_watchers();
            slot.departing = Some(old);
            self.feed_to(index, Place::Departing, Event::Stop);
        }
    }

    /// The old process stays; what it was to be replaced for may be tried again.
    fn give_up_successor(&mut self, index: usize) {
        let now = self.now();
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(next) = slot.successor.take() else {
            return;
        };
        let why = next.machine.reason().unwrap_or("it ended".to_owned());
        let name = &slot.process.name;
        tracing::error!(name, why, "the successor failed, the old one stays");
        self.events.tell("successor_failed", name, &why);
        slot.standing.failed_successor = Some(format!("its successor failed: {why}"));
        let pause = SUCCESSORS.pause(slot.standing.failed_successors, chassis::random::random());
        slot.standing.not_before = Some(now + pause);
        slot.standing.failed_successors = slot.standing.failed_successors.saturating_add(1);
        // The configuration that it was of is given up with it: the next reload may bring it again.
        if next.process.is_some() {
            let written = &slot.process.written;
            let mut all = self.config.processes.iter_mut();
            if let Some(entry) = all.find(|entry| entry.name == written.name) {
                entry.clone_from(written);
            }
        }
        // The operator is told, and asks again.
        slot.standing
            .wish
            .take_if(|wish| matches!(wish, Wish::Operator(_)));
    }

    /// The present run ended by itself while its successor starts, which then need not wait.
    pub(super) fn succeed_early(&mut self, index: usize, ended: &Ended) -> bool {
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        if slot.successor.is_none() || self.stopping || slot.leaving || slot.standing.held {
            return false;
        }
        slot.standing.wish = None;
        let reason = slot.machine.why_ended(ended);
        self.hand_over(index, reason, false);
        true
    }

    /// Whether a round says nothing: for a moment the predecessor may have been asked.
    pub(super) fn is_void(&self, index: usize, place: Place, round: &Round) -> bool {
        let departing = self
            .slots
            .get(index)
            .and_then(|slot| slot.departing.as_ref());
        place == Place::Present
            && round.outcome != Outcome::Good
            && departing.is_some_and(|old| self.now().saturating_sub(old.since) < SHARED)
    }

    /// It is not to be replaced any more.
    pub(super) fn drop_successor(&mut self, index: usize) {
        self.feed_to(index, Place::Successor, Event::Close);
        self.feed_to(index, Place::Successor, Event::StopNow);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.standing.wish = None;
        }
    }

    /// No successor any more, and the rest in order, or at once.
    pub(super) fn close_slot(&mut self, index: usize, at_once: bool) {
        self.drop_successor(index);
        for place in [Place::Present, Place::Departing] {
            self.feed_to(index, place, Event::Close);
            if at_once {
                self.feed_to(index, place, Event::StopNow);
            }
        }
    }
}

impl Slot {
    /// Forgets besides that are gone.
    fn see_off(&mut self) {
        let is_gone = |beside: &mut Beside| beside.machine.is_over() && beside.live.is_none();
        self.departing.take_if(is_gone);
        if self.leaving || self.standing.held || self.machine.is_over() {
            self.successor.take_if(is_gone);
        }
    }

    /// Notes when it is back from maintenance, and for how long nothing served.
    fn back(&mut self, now: Duration) {
        let is_new = self.standing.maintained.is_some_and(|run| run != self.run);
        if is_new && self.machine.is_running() || self.machine.is_over() {
            self.standing.maintained = None;
            if let Some(since) = self.standing.gap_since.take() {
                self.standing.last_gap = Some(now.saturating_sub(since));
            }
        }
    }

    fn candidate(&self, now: Duration, waits: bool) -> Candidate<'_> {
        let drains = |old: &Beside| now.saturating_sub(old.since) < DRAIN_TURN;
        // A port is shared by two at most; who starts or ends just now needs no wish.
        let can_go = self.departing.is_none() && self.machine.is_running();
        let can_go = can_go && (!waits || self.next.is_some());
        Candidate {
            role: &self.process.role,
            state: self.machine.state(),
            wish: self.standing.wish.as_ref().filter(|_| can_go),
            bytes: self.live.as_ref().map_or(0, |live| live.bytes),
            start_first: self.process.start_first,
            busy: self.standing.maintained.is_some()
                || self.successor.is_some()
                || self.departing.as_ref().is_some_and(drains),
            not_before: self.standing.not_before,
        }
    }
}

impl Live {
    /// Keeps a process from taking the machine's memory while nobody looks at it.
    pub(super) fn limit_data(&self, limits: Limits) {
        let data = Some(limits.hard.saturating_mul(DATA_PER_HARD));
        let limit = Rlimit {
            current: data,
            maximum: data,
        };
        let pid = processes::to_pid(self.pid);
        if let Err(error) = rustix::process::prlimit(pid, Resource::Data, limit) {
            let pid = self.pid;
            tracing::warn!(pid, %error, "its data is not limited");
        }
    }
}

/// Ports that were given to runs lately: a program may open its port some time after it was chosen.
#[derive(Debug, Default)]
pub(super) struct Ports {
    given: HashSet<u16>,
}

impl Ports {
    /// As in `bingo up`: below the range of outgoing connections.
    const RANGE: std::ops::Range<u16> = 20_000..30_000;
    const TRIES_MAX: u32 = 1000;

    /// A loopback port that is free now, and was not given to somebody else before.
    pub(super) fn choose(&mut self) -> std::io::Result<u16> {
        if self.given.len() > usize::from(Self::RANGE.end - Self::RANGE.start) / 2 {
            self.given.clear();
        }
        for _ in 0..Self::TRIES_MAX {
            let span = f64::from(Self::RANGE.end - Self::RANGE.start);
            let port = Self::RANGE.start + (chassis::random::random() * span) as u16;
            let is_free = || std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
            if !self.given.contains(&port) && is_free() {
                self.given.insert(port);
                return Ok(port);
            }
        }
        Err(std::io::Error::other("no loopback port is free"))
    }
}
