//! Hedging: a GET or HEAD that waits longer than its route's usually do is sent to another node as
//! well, and the first answer wins (J. Dean, L. A. Barroso, "The Tail at Scale", CACM 56(2), 2013). It
//! is how a request finds a frozen node before any probe does. Never a write; never beyond the budget,
//! so that a system that is slow as a whole is not given twice the work.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::Response;
use hyper::body::Incoming;

use crate::account::Flight;
use crate::attempt::{Call, Failed, attempt};

/// A request is not hedged sooner, whatever its route's usual time.
const DELAY_MIN: Duration = Duration::from_millis(10);
/// Before anything was learned.
const UNKNOWN_SECONDS: f32 = 0.05;
/// The quantile that is learned.
const QUANTILE: f32 = 0.95;
/// How far one answer moves it, as a share of itself.
const STEP: f32 = 0.05;
/// The delay is so many times the quantile.
const FACTOR: f32 = 2.0;

/// The time after which nearly all answers' heads of a route have come, learned from each of them: up
/// by a step for one that took longer, down by less for one that did not (Q. Ma, S. Muthukrishnan,
/// M. Sandler, "Frugal Streaming for Estimating Quantiles", 2013).
#[derive(Debug)]
pub(crate) struct Usual(AtomicU32);

impl Default for Usual {
    fn default() -> Self {
        Self(AtomicU32::new(UNKNOWN_SECONDS.to_bits()))
    }
}

impl Usual {
    /// Takes in the time to one answer's head.
    pub(crate) fn learn(&self, took: Duration) {
        // Two threads at once may lose one of two steps: cheaper than a lock.
        let now = f32::from_bits(self.0.load(Relaxed));
        let share = if took.as_secs_f32() > now {
            QUANTILE
        } else {
            QUANTILE - 1.0
        };
        let next = (now * (1.0 + STEP * share)).clamp(1e-5, 60.0);
        self.0.store(next.to_bits(), Relaxed);
    }

    /// How long a request waits for its first node alone.
    pub(crate) fn delay(&self) -> Duration {
        let seconds = f32::from_bits(self.0.load(Relaxed)) * FACTOR;
        Duration::from_secs_f32(seconds).max(DELAY_MIN)
    }
}

/// The first answer of one node or two; the loser is cancelled. Where both fail, see `telling`.
pub(crate) async fn race(
    call: Call<'_>,
    flight: Flight,
    now: Instant,
) -> Result<(Response<Incoming>, Flight), Failed> {
    let node = flight.node().id;
    let mut first = pin!(attempt(call, flight, now));
    let Some(usual) = call
        .route
        .usual
        .as_ref()
        .filter(|_| call.outgoing.is_safe())
    else {
        return first.await;
    };
    if let Ok(answer) = tokio::time::timeout(usual.delay(), &mut first).await {
        usual.learn(now.elapsed());
        return answer;
    }
    let began = Instant::now();
    let Some(second) = call.worker.choose_other(call.route, node, began) else {
        return first.await;
    };
    // Seldom there: boxed, so that each request's future has no room for it.
    let mut second = Box::pin(attempt(call, second, began));
    let metrics = &call.worker.shared.metrics;
    tokio::select! {
        answer = &mut first => match answer {
            Ok(answer) => {
                metrics.hedged("lost");
                usual.learn(now.elapsed());
                Ok(answer)
            }
            Err(failed) => {
                let answer = second.await.inspect(|_| metrics.hedged("won"));
                answer.map_err(|later| telling(failed, later))
            }
        },
        answer = &mut second => match answer {
            Ok(answer) => {
                metrics.hedged("won");
                usual.learn(now.elapsed());
                Ok(answer)
            }
            Err(failed) => {
                let answer = first.await.inspect(|_| metrics.hedged("lost"));
                answer.map_err(|later| telling(failed, later))
            }
        },
    }
}

/// Of two failures the later one, but not where the earlier one alone tells of a lost node.
fn telling(earlier: Failed, later: Failed) -> Failed {
    match (&earlier, &later) {
        (Failed::Class(_, Some(_)), Failed::Class(_, None)) => earlier,
        _ => later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_time_is_one_that_nineteen_of_twenty_answers_keep() {
        let usual = Usual::default();
        // 1 to 100 ms, evenly, in an order that repeats.
        for round in 0..200_u64 {
            for step in 0..100_u64 {
                usual.learn(Duration::from_millis((step * 37 + round) % 100 + 1));
            }
        }
        let delay = usual.delay().as_secs_f32() / FACTOR;
        assert!((0.08..0.105).contains(&delay), "{delay}");
    }

    #[test]
    fn a_slow_system_is_soon_taken_for_the_usual_one() {
        let usual = Usual::default();
        for _ in 0..1000 {
            usual.learn(Duration::from_millis(1));
        }
        assert_eq!(usual.delay(), DELAY_MIN);
        for _ in 0..150 {
            usual.learn(Duration::from_secs(1));
        }
        assert!(
            usual.delay() > Duration::from_secs(1),
            "{:?}",
            usual.delay()
        );
    }
}
