//! The access log: one line for a request, written when the last byte of its answer is gone. Failures
//! and slow requests are never left out, of the rest a share is drawn. A line says what a metric cannot:
//! which attempts there were, on which nodes, how each ended, and where the time went.
//!
//! Of the target only the route is in it: a path may name a person, and a query anything. What the cache
//! asks by itself has no line; the request that waited for it says `cache`.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::faults::Faults;
use crate::metrics::Outcome;
use crate::nodes::Node;

/// Attempts that a line names; a request that was held for long may have had many more.
const ATTEMPTS_MAX: usize = 8;

/// Which requests have a line in the log.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// The share of requests that went well and were not slow. Too low: nothing to compare a bad one
    /// with; too high: the log is large, and costs time.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
    /// What takes longer always has a line. Too low: most of the log is of lists, which take long; too
    /// high: what clients complain of is not in it.
    #[schemars(extend("format" = "duration", "x-min" = "1ms", "x-max" = "1h"))]
    pub slow: String,
    /// Lines a second; what is more is counted (`bingo_limit_hits_total`) and not written. Too low: the
    /// log of an outage is not whole; too high: it takes the processor when it is needed most.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub lines_per_second_max: u32,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            sample: 0.01,
            slow: "5s".to_owned(),
            lines_per_second_max: 200,
        }
    }
}

impl AccessLog {
    pub(crate) fn validate(&self, faults: &mut Faults) -> Terms {
        if !(0.0..=1.0).contains(&self.sample) {
            let why = "it is no share";
            faults.add("access_log.sample", self.sample, why, "write 0.01 for 1 %");
        }
        let lines = self.lines_per_second_max;
        faults.range(
            "access_log.lines_per_second_max",
            lines as usize,
            1,
            1_000_000,
        );
        let (min, max) = (Duration::from_millis(1), Duration::from_secs(3600));
        Terms {
            sample: self.sample,
            slow: faults.duration("access_log.slow", &self.slow, min, max),
            lines_per_second_max: lines,
        }
    }
}

/// The same as valid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Terms {
    pub(crate) sample: f64,
    pub(crate) slow: Duration,
    pub(crate) lines_per_second_max: u32,
}

/// What is noted of a request while it is under way.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    attempts: RefCell<Vec<Attempt>>,
    /// Those that had no room.
    more: Cell<u32>,
    cache: Cell<Option<&'static str>>,
    /// RFC 9209 section 2.3, where the gateway answered by itself.
    error: Cell<Option<&'static str>>,
    /// It was ready for a node, its turn came, and the head of its answer was there.
    ready: Cell<Option<Instant>>,
    turn: Cell<Option<Instant>>,
    head: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Attempt {
    node: Arc<Node>,
    outcome: Outcome,
    took: Duration,
}

impl Journal {
    pub(crate) fn attempted(&self, node: &Arc<Node>, outcome: Outcome, took: Duration) {
        let mut attempts = self.attempts.borrow_mut();
        if attempts.len() >= ATTEMPTS_MAX {
            self.more.set(self.more.get().saturating_add(1));
            return;
        }
        attempts.push(Attempt {
            node: Arc::clone(node),
            outcome,
            took,
        });
    }

    pub(crate) fn cached(&self, result: &'static str) {
        self.cache.set(Some(result));
    }

    pub(crate) fn refused(&self, error: &'static str) {
        self.error.set(Some(error));
    }

    pub(crate) fn is_ready(&self) {
        self.ready.set(Some(Instant::now()));
    }

    pub(crate) fn has_its_turn(&self) {
        self.turn.set(Some(Instant::now()));
    }

    pub(crate) fn has_its_head(&self) {
        self.head.set(Some(Instant::now()));
    }

    fn has_failed_attempt(&self) -> bool {
        let attempts = self.attempts.borrow();
        attempts.iter().any(|attempt| attempt.outcome.is_failure())
    }

    /// `node-1 no_answer 0.012, node-2 answered 0.003`; empty where none was made.
    fn attempts(&self) -> String {
        let mut text = String::new();
        for attempt in self.attempts.borrow().iter() {
            if !text.is_empty() {
                text.push_str(", ");
            }
            let (node, outcome) = (&attempt.node.name, attempt.outcome.name());
            let seconds = attempt.took.as_secs_f64();
            // Writing to a String cannot fail.
            let _ = write!(text, "{node} {outcome} {seconds:.3}");
        }
        if self.more.get() > 0 {
            let _ = write!(text, ", and {} more", self.more.get());
        }
        text
    }

    /// Who answered last.
    fn node(&self) -> Option<String> {
        let attempts = self.attempts.borrow();
        let answered = attempts
            .iter()
            .rev()
            .find(|attempt| matches!(attempt.outcome, Outcome::Answered | Outcome::Answered5xx));
        answered.map(|attempt| attempt.node.name.clone())
    }
}

/// A request that has ended.
pub(crate) struct Ended<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) status: u16,
    pub(crate) started: Instant,
}

impl Ended<'_> {
    /// Writes its line where it is to have one. `random` is any number.
    pub(crate) fn write(
        &self,
        journal: &Journal,
        terms: Terms,
        lines: &Lines,
        random: u64,
        now: Instant,
    ) -> Written {
        let took = now.saturating_duration_since(self.started);
        let failed = self.status >= 500 || journal.has_failed_attempt();
        let Some(why) = why(failed, took, terms, random) else {
            return Written::No;
        };
        if !lines.take(now, terms.lines_per_second_max) {
            return Written::TooMany;
        }
        let phase = |from: Option<Instant>, to: Option<Instant>| {
            Some(to?.saturating_duration_since(from?).as_secs_f64())
        };
        let (ready, turn, head) = (journal.ready.get(), journal.turn.get(), journal.head.get());
        let attempts = journal.attempts();
        let attempts = (!attempts.is_empty()).then_some(attempts);
        tracing::info!(
            request_id = self.request_id,
            method = self.method,
            route = self.route,
            protocol = self.protocol,
            status = self.status,
            node = journal.node(),
            attempts,
            cache = journal.cache.get(),
            error = journal.error.get(),
            duration = took.as_secs_f64(),
            intake = phase(Some(self.started), ready),
            queue = phase(ready, turn),
            first_byte = phase(turn, head),
            body = phase(head, Some(now)),
            why,
            "request"
        );
        Written::Yes
    }
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Yes,
    No,
    /// It was due, and there were too many.
    TooMany,
}

/// Why a request has a line; `None`: it has none.
fn why(failed: bool, took: Duration, terms: Terms, random: u64) -> Option<&'static str> {
    let share = random as f64 / u64::MAX as f64;
    match () {
        () if failed => Some("failed"),
        () if took >= terms.slow => Some("slow"),
        () if share < terms.sample => Some("sample"),
        () => None,
    }
}

/// The lines of this second, of all threads.
#[derive(Debug)]
pub(crate) struct Lines {
    origin: Instant,
    /// The second, and how many lines it has.
    counted: AtomicU64,
}

impl Lines {
    pub(crate) fn new(origin: Instant) -> Self {
        Self {
            origin,
            counted: AtomicU64::new(0),
        }
    }

    fn take(&self, now: Instant, max: u32) -> bool {
        let second = now.saturating_duration_since(self.origin).as_secs() << 32;
        let counted = |before: u64| match before >= second {
            true => before + 1,
            false => second + 1,
        };
        let update = self
            .counted
            .fetch_update(Relaxed, Relaxed, |before| Some(counted(before)));
        let (Ok(before) | Err(before)) = update;
        counted(before) as u32 <= max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        sample: 0.25,
        slow: Duration::from_secs(2),
        lines_per_second_max: 3,
    };

    #[test]
    fn failures_and_slow_requests_always_have_a_line_and_of_others_a_share() {
        let quick = Duration::from_millis(5);
        assert_eq!(why(true, quick, TERMS, u64::MAX), Some("failed"));
        assert_eq!(why(false, TERMS.slow, TERMS, u64::MAX), Some("slow"));
        let drawn = |random| why(false, quick, TERMS, random);
        assert_eq!((drawn(0), drawn(u64::MAX / 2)), (Some("sample"), None));
        let none = Terms {
            sample: 0.0,
            ..TERMS
        };
        assert_eq!(why(false, quick, none, 0), None);
        let all = Terms {
            sample: 1.0,
            ..TERMS
        };
        assert_eq!(why(false, quick, all, u64::MAX / 2), Some("sample"));
    }

    #[test]
    fn lines_are_bounded_in_each_second() {
        let origin = Instant::now();
        let lines = Lines::new(origin);
        let count = |seconds| {
            let now = origin + Duration::from_secs(seconds);
            (0..10).filter(|_| lines.take(now, 3)).count()
        };
        assert_eq!((count(0), count(0), count(1), count(7)), (3, 0, 3, 3));
    }
}
