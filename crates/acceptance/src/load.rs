//! An open-loop load generator. Requests leave on a fixed schedule, whether or not earlier ones were
//! answered, and latency is counted from the *scheduled* instant: a server that stalls for a second
//! at 100 rps has kept a hundred users waiting, not one. (A closed loop would send one request, wait,
//! and report a single slow answer: coordinated omission.) A request is sent once. One that finds
//! its kept-alive connection closed before anything was sent takes a new connection, as every client
//! does; one that was sent and got no whole answer is a failure and is never sent again, because
//! that would hide what is to be seen. Left out: TLS, HTTP/2, HTTP/3, random arrival times, and any
//! verdict: the report says what was seen.

mod asked;
mod attempt;
mod mix;
mod pacer;
mod pool;
mod random;
mod report;
mod tally;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::error::Error;
use crate::http::Base;

pub use asked::{Ids, Mark, Wrote};
pub use mix::{Call, Mix};
pub use report::{
    CallReport, ConnectionReport, Example, FailureReport, LagReport, Latency, Report,
};

use attempt::Attempt;
use pool::Pool;
use tally::Tally;

/// How often `progress` of [`run`] is called.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// From the call of [`run`] to the first request: enough for the schedule's thread to start.
const LEAD: Duration = Duration::from_millis(20);

/// What load to send where.
#[derive(Clone, Debug)]
pub struct Plan {
    pub base: Base,
    /// Requests a second, evenly spaced; above 0 and at most 1 000 000.
    pub rps: f64,
    /// How long requests are sent; the run then waits for the last answers, at most `timeout`.
    pub duration: Duration,
    pub mix: Mix,
    /// The same seed draws the same calls with the same ids in the same order.
    pub seed: u64,
    /// Which ids are asked for.
    pub ids: Ids,
    /// Connections open at once. A request that finds all of them busy waits, and its waiting counts
    /// in its latency; requests waiting at once are bounded by `rps` × `timeout`.
    pub connections_max: usize,
    /// From the scheduled instant to the end of the body; then the request has failed.
    pub timeout: Duration,
    /// Where the sessions that are stored must be found again.
    pub mark: Option<Mark>,
    pub witness: Option<Arc<dyn Witness>>,
}

/// Is told of each request as it ends, on the generator's own threads: it must not block.
pub trait Witness: std::fmt::Debug + Send + Sync {
    fn ended(&self, ended: &Ended);
}

/// One request that ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub call: Call,
    pub scheduled: Instant,
    /// From `scheduled` to the end of the body.
    pub latency: Duration,
    pub is_right: bool,
    /// The connection broke before the answer was whole.
    pub is_broken: bool,
    /// Sent on a connection that an earlier request had used.
    pub on_reused: bool,
    /// For writes.
    pub wrote: Option<Wrote>,
}

impl Plan {
    /// 120 rps for 10 s with the default mix, seed 1, at most 1024 connections, 30 s timeout.
    pub fn new(base: Base) -> Self {
        Self {
            base,
            rps: 120.0,
            duration: Duration::from_secs(10),
            mix: Mix::default(),
            seed: 1,
            ids: Ids::default(),
            connections_max: 1024,
            timeout: Duration::from_secs(30),
            mark: None,
            witness: None,
        }
    }

    fn requests(&self) -> Result<u64, Error> {
        let fault = |text: &str| Err(Error::Plan(text.to_owned()));
        if !(self.rps > 0.0 && self.rps <= 1e6) {
            return fault("the rate must be above 0 and at most 1000000 requests a second");
        }
        if self.connections_max == 0 {
            return fault("at least one connection must be allowed");
        }
        if self.timeout.is_zero() {
            return fault("the timeout must be above zero");
        }
        let requests = (self.rps * self.duration.as_secs_f64()).round();
        if !(1.0..=1e12).contains(&requests) {
            return fault("rate times duration must give at least one request");
        }
        Ok(requests as u64)
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub elapsed: Duration,
    pub planned: u64,
    /// Answered, rightly or not.
    pub done: u64,
    pub failed: u64,
}

/// Sends the load and waits for the last answer. `progress` is called twice a second and once at the
/// end. Dropping the future stops the schedule; requests already sent run to their end.
///
/// # Errors
/// [`Error::Plan`] for an impossible plan, [`Error::Resolve`] for an unknown host, [`Error::Pacer`]
/// when no thread can be had. A server that does not answer is not an error but a report.
pub async fn run(plan: &Plan, mut progress: impl FnMut(Progress)) -> Result<Report, Error> {
    let planned = plan.requests()?;
    let addresses = plan.base.resolve().await?;
    let start = Instant::now() + LEAD;
    let tally = Arc::new(Tally::new(start));
    let shared = Arc::new(Attempt {
        pool: Pool::new(&plan.base, addresses, plan.connections_max),
        created: asked::Created::new(plan.mark),
        tally: Arc::clone(&tally),
        timeout: plan.timeout,
        witness: plan.witness.clone(),
    });
    // Nothing is ever sent: the channel closes when the last request has dropped its end.
    let (open, mut last_closed) = mpsc::channel::<()>(1);
    let pacing = pacer::start(plan, planned, start, open, Arc::clone(&shared))?;
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    loop {
        let finished = tokio::select! {
            _ = last_closed.recv() => true,
            _ = ticks.tick() => false,
        };
        let (done, failed) = tally.counts();
        progress(Progress {
            elapsed: start.elapsed(),
            planned,
            done,
            failed,
        });
        if finished {
            break;
        }
    }
    drop(pacing);
    Ok(report::report(plan, planned, &tally, &shared.pool))
}

#[cfg(test)]
mod tests;
