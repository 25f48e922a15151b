//! Keeps the schedule: a thread of its own sleeps until each instant and hands the request to the
//! runtime. Not a timer of the runtime, whose steps of 1 ms would be most of the latency measured at
//! a few thousand requests a second. It never skips and never waits for answers; when it is late,
//! requests leave late, their latency counts from when they were due, and the lag is reported.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Plan;
use super::asked::Asked;
use super::attempt::Attempt;
use super::random::Random;
use crate::error::Error;

/// Dropped, it ends the schedule; requests already sent go on.
pub(super) struct Pacing(Arc<AtomicBool>);

impl Drop for Pacing {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts the schedule of `requests` requests from `start` on. `open` is cloned into each request
/// and dropped at its end: when its channel closes, all are done.
pub(super) fn start(
    plan: &Plan,
    requests: u64,
    start: Instant,
    open: mpsc::Sender<()>,
    attempt: Arc<Attempt>,
) -> Result<Pacing, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let (plan, runtime) = (plan.clone(), Handle::current());
    let pace = move || {
        // The kernel rounds sleeps up to 50 µs unless asked not to (prctl(2), PR_SET_TIMERSLACK).
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut random = Random::seeded(plan.seed);
        for number in 0..requests {
            let scheduled = start + due(number, plan.rps);
            let call = plan.mix.pick(&mut random);
            let asked = Asked::draw(call, &plan.ids, &mut random, &attempt.created);
            std::thread::sleep(scheduled.saturating_duration_since(Instant::now()));
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            let (attempt, open) = (Arc::clone(&attempt), open.clone());
            runtime.spawn(async move {
                attempt.make(asked, scheduled).await;
                drop(open);
            });
        }
    };
    std::thread::Builder::new()
        .name("load-pacer".to_owned())
        .spawn(pace)
        .map_err(Error::Pacer)?;
    Ok(Pacing(stop))
}

/// When request `number` is due, from the start.
fn due(number: u64, rps: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_evenly_and_do_not_drift() {
        assert_eq!(due(0, 120.0), Duration::ZERO);
        assert_eq!(due(60, 120.0), Duration::from_millis(500));
        assert_eq!(due(86_400 * 120, 120.0), Duration::from_secs(86_400));
    }
}
