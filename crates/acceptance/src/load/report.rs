//! What a run saw, as a table for people and as JSON for scripts. Whether the generator itself was
//! the slow one is said first: a run whose requests left late measures this machine, not the server.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Plan;
use super::pool::Pool;
pub use super::tally::Example;
use super::tally::{Tally, histogram};

/// Above this the run is void: one request in a hundred left later than that.
const LAG_P99_MAX: Duration = Duration::from_millis(10);
/// Above this the run is void: the generator itself stood still.
const LAG_MAX: Duration = Duration::from_millis(100);

/// The whole of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub url: String,
    pub mix: String,
    pub seed: u64,
    pub rps_planned: f64,
    pub duration_seconds: f64,
    pub planned: u64,
    /// Requests done, rightly or not.
    pub done: u64,
    pub failed: u64,
    /// Right answers a second, from the first request's instant to the last one's end (at least the
    /// planned duration).
    pub rps_achieved: f64,
    /// Right answers of all calls.
    pub latency: Latency,
    /// Each call of the mix that was made.
    pub calls: Vec<CallReport>,
    /// Empty when nothing failed.
    pub failures: Vec<FailureReport>,
    pub connections: ConnectionReport,
    pub lag: LagReport,
    /// Why the figures are worth nothing, when they are.
    pub void: Option<String>,
}

/// Milliseconds from the scheduled instant to the end of the body; zeros when nothing was right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// One call.
#[derive(Clone, Debug, Serialize)]
pub struct CallReport {
    pub call: &'static str,
    pub count: u64,
    pub failed: u64,
    pub rps_achieved: f64,
    pub latency: Latency,
}

/// One class of failure: `connect`, `broken`, `timeout`, `status NNN` or `wrong body`.
#[derive(Clone, Debug, Serialize)]
pub struct FailureReport {
    pub class: String,
    pub count: u64,
    /// The first few.
    pub examples: Vec<Example>,
}

/// What happened to connections.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ConnectionReport {
    pub opened: u64,
    /// Kept-alive ones that the server had closed before anything was sent on them again; their
    /// requests took another, which is no failure.
    pub found_closed: u64,
    /// Broke under a request that was sent: each one is a failure of class `broken`.
    pub broke_after_sending: u64,
    /// Requests that had to wait because `connections_max` were busy; their waiting is in their
    /// latency.
    pub waited_for_one: u64,
}

/// How late the generator took requests up.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LagReport {
    pub p99_ms: f64,
    pub max_ms: f64,
}

pub(super) fn report(plan: &Plan, planned: u64, tally: &Tally, pool: &Pool) -> Report {
    let (done, failed) = tally.counts();
    tally.with(|sums| {
        let span = sums
            .last_end
            .duration_since(tally.start())
            .max(plan.duration);
        let rate = |right: u64| right as f64 / span.as_secs_f64();
        let mut all = histogram();
        let mut calls = Vec::new();
        for one in &sums.calls {
            // Same bounds, so it cannot fail.
            let _ = all.add(&one.latency);
            let right = one.latency.len();
            if right + one.failed > 0 {
                calls.push(CallReport {
                    call: one.call.name(),
                    count: right + one.failed,
                    failed: one.failed,
                    rps_achieved: rate(right),
                    latency: Latency::of(&one.latency),
                });
            }
        }
        let failures = sums.failures.iter().map(|(class, found)| FailureReport {
            class: class.to_string(),
            count: found.count,
            examples: found.examples.clone(),
        });
        let lag = LagReport {
            p99_ms: at(&sums.lag, 0.99),
            max_ms: sums.lag.max() as f64 / 1e3,
        };
        Report {
            url: plan.base.to_string(),
            mix: plan.mix.to_string(),
            seed: plan.seed,
            rps_planned: plan.rps,
            duration_seconds: plan.duration.as_secs_f64(),
            planned,
            done,
            failed,
            rps_achieved: rate(done - failed),
            latency: Latency::of(&all),
            calls,
            failures: failures.collect(),
            connections: ConnectionReport {
                opened: pool.opened.load(Ordering::Relaxed),
                found_closed: pool.found_closed.load(Ordering::Relaxed),
                broke_after_sending: sums.broke_after_sending,
                waited_for_one: pool.waited.load(Ordering::Relaxed),
            },
            lag,
            void: void(&lag),
        }
    })
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            p50_ms: at(histogram, 0.5),
            p90_ms: at(histogram, 0.9),
            p99_ms: at(histogram, 0.99),
            p999_ms: at(histogram, 0.999),
            max_ms: histogram.max() as f64 / 1e3,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.void {
            writeln!(out, "VOID: {why}")?;
        }
        writeln!(
            out,
            "{}: {} requests, {} failed, {:.1} right answers a second of {:.1} asked, seed {}",
            self.url, self.done, self.failed, self.rps_achieved, self.rps_planned, self.seed
        )?;
        writeln!(
            out,
            "\n{:<15}{:>9}{:>8}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "call", "count", "failed", "rps", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"
        )?;
        for one in &self.calls {
            line(out, one)?;
        }
        if self.calls.len() > 1 {
            line(
                out,
                &CallReport {
                    call: "all",
                    count: self.done,
                    failed: self.failed,
                    rps_achieved: self.rps_achieved,
                    latency: self.latency,
                },
            )?;
        }
        for class in &self.failures {
            writeln!(out, "\n{}: {}", class.class, class.count)?;
            for one in &class.examples {
                let node = one.node.as_deref().unwrap_or("-");
                writeln!(
                    out,
                    "  at {:.3} s, after {:.1} ms, {}, node {node}: {}",
                    one.at_seconds,
                    one.after_ms,
                    one.call,
                    one.detail.trim_end()
                )?;
            }
        }
        let connections = &self.connections;
        writeln!(
            out,
            "\nconnections: {} opened, {} found closed, {} broke after sending, {} waits for one",
            connections.opened,
            connections.found_closed,
            connections.broke_after_sending,
            connections.waited_for_one
        )?;
        let lag = &self.lag;
        writeln!(
            out,
            "generator's own lag: p99 {:.3} ms, max {:.3} ms",
            lag.p99_ms, lag.max_ms
        )
    }
}

fn line(out: &mut fmt::Formatter<'_>, one: &CallReport) -> fmt::Result {
    let latency = &one.latency;
    writeln!(
        out,
        "{:<15}{:>9}{:>8}{:>9.1}{:>10.3}{:>10.3}{:>10.3}{:>10.3}{:>10.3}",
        one.call,
        one.count,
        one.failed,
        one.rps_achieved,
        latency.p50_ms,
        latency.p90_ms,
        latency.p99_ms,
        latency.p999_ms,
        latency.max_ms
    )
}

fn at(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

fn void(lag: &LagReport) -> Option<String> {
    let (p99, max) = (LAG_P99_MAX.as_secs_f64() * 1e3, LAG_MAX.as_secs_f64() * 1e3);
    if lag.p99_ms <= p99 && lag.max_ms <= max {
        return None;
    }
    Some(format!(
        "the generator itself was late (p99 {:.1} ms of at most {p99:.0}, max {:.1} ms of at most \
         {max:.0}): this machine was the slow one; lower the rate or free it",
        lag.p99_ms, lag.max_ms
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_void_when_the_generator_was_late() {
        let lag = |p99_ms, max_ms| LagReport { p99_ms, max_ms };
        assert_eq!(void(&lag(9.9, 99.0)), None);
        assert!(void(&lag(11.0, 12.0)).is_some_and(|why| why.contains("p99 11.0 ms")));
        assert!(void(&lag(0.1, 101.0)).is_some());
    }
}
