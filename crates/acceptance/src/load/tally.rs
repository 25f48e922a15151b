//! What became of each request, added up as it ends: histograms by call, failures by class with
//! their first few examples. Recording saturates: a value over the histogram's range counts as its
//! highest, because a dropped one would be the worst one (hdrhistogram's plain `record` drops it).
//! Latencies are of right answers; a failure is no answer, and counting a fast refusal as a fast
//! answer would flatter the server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::mix::Call;

/// The longest latency told apart, in microseconds: an hour.
const LATENCY_MICROS_MAX: u64 = 3_600_000_000;
/// Kept for each class of failure.
const EXAMPLES_MAX: usize = 5;

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// No connection could be opened.
    Connect,
    /// The connection broke before the answer was whole.
    Broken,
    /// Not done within the plan's timeout.
    Timeout,
    /// Another status than the right one.
    Status(u16),
    /// The right status with a wrong body.
    WrongBody,
}

impl fmt::Display for Class {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => out.write_str("connect"),
            Self::Broken => out.write_str("broken"),
            Self::Timeout => out.write_str("timeout"),
            Self::Status(status) => write!(out, "status {status}"),
            Self::WrongBody => out.write_str("wrong body"),
        }
    }
}

/// One request that ended.
pub(super) struct Outcome {
    pub(super) call: Call,
    pub(super) scheduled: Instant,
    /// From `scheduled` to the moment the generator took the request up.
    pub(super) lag: Duration,
    /// From `scheduled` to the end.
    pub(super) latency: Duration,
    pub(super) failure: Option<Failure>,
}

pub(super) struct Failure {
    pub(super) class: Class,
    pub(super) detail: String,
    /// The answer's `Bingo-Node`.
    pub(super) node: Option<String>,
}

/// One failed request, to look at.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// When it was due, seconds from the start of the run.
    pub at_seconds: f64,
    /// How long it took to fail, from when it was due.
    pub after_ms: f64,
    pub call: &'static str,
    /// The answer's `Bingo-Node` header, where there was one.
    pub node: Option<String>,
    pub detail: String,
}

pub(super) struct Tally {
    start: Instant,
    sums: Mutex<Sums>,
}

/// The sums of a run so far.
pub(super) struct Sums {
    /// By call, in the order of [`Call::ALL`].
    pub(super) calls: Vec<CallSums>,
    pub(super) failures: BTreeMap<Class, ClassSums>,
    pub(super) lag: Histogram<u64>,
    pub(super) broke_after_sending: u64,
    /// The end of the last request.
    pub(super) last_end: Instant,
}

pub(super) struct CallSums {
    pub(super) call: Call,
    pub(super) failed: u64,
    /// Right answers, microseconds.
    pub(super) latency: Histogram<u64>,
}

#[derive(Default)]
pub(super) struct ClassSums {
    pub(super) count: u64,
    pub(super) examples: Vec<Example>,
}

impl Tally {
    pub(super) fn new(start: Instant) -> Self {
        let calls = Call::ALL.map(|call| CallSums {
            call,
            failed: 0,
            latency: histogram(),
        });
        let sums = Sums {
            calls: calls.into(),
            failures: BTreeMap::new(),
            lag: histogram(),
            broke_after_sending: 0,
            last_end: start,
        };
        Self {
            start,
            sums: Mutex::new(sums),
        }
    }

    pub(super) fn record(&self, outcome: Outcome) {
        self.with(|sums| {
            sums.lag.saturating_record(micros(outcome.lag));
            sums.last_end = sums.last_end.max(outcome.scheduled + outcome.latency);
            let Some(call) = sums.calls.iter_mut().find(|sums| sums.call == outcome.call) else {
                return;
            };
            let Some(failure) = outcome.failure else {
                call.latency.saturating_record(micros(outcome.latency));
                return;
            };
            call.failed += 1;
            let class = sums.failures.entry(failure.class).or_default();
            class.count += 1;
            if class.examples.len() < EXAMPLES_MAX {
                class.examples.push(Example {
                    at_seconds: outcome.scheduled.duration_since(self.start).as_secs_f64(),
                    after_ms: outcome.latency.as_secs_f64() * 1e3,
                    call: outcome.call.name(),
                    node: failure.node,
                    detail: failure.detail,
                });
            }
        });
    }

    /// Counts a connection that broke under a request already sent.
    pub(super) fn broke_after_sending(&self) {
        self.with(|sums| sums.broke_after_sending += 1);
    }

    /// Requests done, and how many of them failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        self.with(|sums| {
            let failed = sums.calls.iter().map(|call| call.failed).sum::<u64>();
            let right = sums
                .calls
                .iter()
                .map(|call| call.latency.len())
                .sum::<u64>();
            (right + failed, failed)
        })
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Sums) -> T) -> T {
        look(&mut self.sums.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn start(&self) -> Instant {
        self.start
    }
}

/// Three significant digits: an error of at most 0.1 %.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).expect("the bounds are valid constants")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_range_counts_as_the_highest_and_is_not_dropped() {
        let start = Instant::now();
        let tally = Tally::new(start);
        tally.record(Outcome {
            call: Call::Ping,
            scheduled: start,
            lag: Duration::ZERO,
            latency: Duration::from_secs(100_000),
            failure: None,
        });
        assert_eq!(tally.counts(), (1, 0));
        tally.with(|sums| assert!(sums.calls[0].latency.max() >= LATENCY_MICROS_MAX));
    }

    #[test]
    fn each_class_keeps_its_first_examples_only() {
        let start = Instant::now();
        let tally = Tally::new(start);
        for number in 0..20 {
            tally.record(Outcome {
                call: Call::Movie,
                scheduled: start + Duration::from_secs(number),
                lag: Duration::ZERO,
                latency: Duration::from_millis(1),
                failure: Some(Failure {
                    class: Class::Status(503),
                    detail: String::new(),
                    node: None,
                }),
            });
        }
        tally.with(|sums| {
            let class = &sums.failures[&Class::Status(503)];
            assert_eq!((class.count, class.examples.len()), (20, EXAMPLES_MAX));
            assert_eq!(class.examples[4].at_seconds, 4.0);
        });
    }
}
