//! From a prepared request to a node's answer: choose a node, send, and on failure do what `retry`
//! says, all within the one budget of time that the request has.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;

use crate::account::Flight;
use crate::attempt::{Call, Failed};
use crate::hedge;
use crate::live::Live;
use crate::outgoing::Outgoing;
use crate::problem::Refusal;
use crate::retry::{self, Failure, Next, Situation};
use crate::router::Route;
use crate::spool::{self, Lost, Spool};
use crate::worker::Worker;

/// How often a held request looks for a usable node.
const HOLD_POLL: Duration = Duration::from_millis(5);
/// How long it looks before it tries a node that is out: a node is back before its probes say so.
const HOLD_TRY: Duration = Duration::from_millis(25);

/// An answer of a known length up to this is always taken in whole.
const SMALL_BYTES: u64 = 64 * 1024;

/// A node's answer, as far as it was taken in.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) answer: Response<Incoming>,
    /// Must live as long as the answer's body.
    pub(crate) flight: Flight,
    pub(crate) spool: Option<Spool>,
}

/// Sends the request until a node answers, on a route that spools to the answer's end, or `retry`
/// gives up.
///
/// `live` is the configuration that the request began with and lives by. Nodes are those of the
/// moment, looked up for each attempt: one that was removed since gets no new request, and a request
/// that is held finds one that was added.
pub(crate) async fn exchange(
    worker: &Rc<Worker>,
    live: &Live,
    route: &Route,
    outgoing: Outgoing,
) -> Result<Exchanged, Refusal> {
    worker.count_live();
    let call = Call {
        worker,
        live,
        route,
        outgoing: &outgoing,
    };
    let mut repeats = 0;
    let mut avoid = None;
    let mut held = None;
    let mut reached = false;
    loop {
        let now = Instant::now();
        let chosen = worker.choose(route.class, avoid, now);
        // Without any node it is as if all refused.
        let failure = match chosen {
            Some(flight) => {
                avoid = Some(flight.node().id);
                match one_answer(call, flight, now).await {
                    Ok(exchanged) => return Ok(exchanged),
                    Err(Failed::Client(refusal)) => return Err(refusal),
                    Err(Failed::Class(failure)) => failure,
                }
            }
            None => Failure::NeverSent,
        };
        reached |= failure != Failure::NeverSent;
        let situation = Situation {
            failure,
            policy: route.retry,
            safe_method: outgoing.is_safe(),
            keyed: outgoing.keyed,
            replayable: outgoing.replayable(),
            repeats,
            remaining: outgoing.remaining(),
        };
        match retry::next(&situation, || worker.take_retry()) {
            Next::TryAgain if worker.any_usable() => worker.shared.metrics.retried("never_sent"),
            // Counted as held, not as one retry per look.
            Next::TryAgain => {}
            Next::Repeat => {
                repeats += 1;
                worker.shared.metrics.retried("no_answer");
            }
            Next::GiveUpBroken => return Err(Refusal::NoAnswer),
            Next::GiveUpOutOfTime => return Err(Refusal::NoNodeInTime { reached }),
        }
        if !worker.any_usable() {
            if held.is_none() {
                held = Some(Hold::begin(worker, live.limits.held_max)?);
            }
            wait_for_a_node(worker, outgoing.deadline).await;
        }
    }
}

/// One attempt, or two at once, and the answer's body where the route spools.
async fn one_answer(call: Call<'_>, flight: Flight, now: Instant) -> Result<Exchanged, Failed> {
    let (mut answer, mut flight) = hedge::race(call, flight, now).await?;
    let spool = if is_taken_in(call.route, &answer) {
        let deadline = call.outgoing.deadline;
        let body = answer.body_mut();
        let taken = spool::take(call.worker, call.live, body, &mut flight, deadline);
        Some(
            taken
                .await
                .map_err(|Lost| Failed::Class(Failure::NoAnswer))?,
        )
    } else {
        None
    };
    Ok(Exchanged {
        answer,
        flight,
        spool,
    })
}

/// Small answers are taken in on every route: they come with their heads, and a client that does not
/// read would otherwise keep the node's place in the admission (HTTP/2's window shut, one byte short).
fn is_taken_in(route: &Route, answer: &Response<Incoming>) -> bool {
    let (body, status) = (answer.body(), answer.status());
    let is_small = body
        .size_hint()
        .exact()
        .is_some_and(|bytes| bytes <= SMALL_BYTES);
    let is_list = route.spool && status == StatusCode::OK;
    !body.is_end_stream() && !status.is_informational() && (is_small || is_list)
}

/// A request that waits for a node to come back; counted while it lives.
struct Hold<'a>(&'a Worker);

impl<'a> Hold<'a> {
    fn begin(worker: &'a Worker, held_max: usize) -> Result<Self, Refusal> {
        let before = worker.shared.held.fetch_add(1, Relaxed);
        let hold = Self(worker);
        if before >= held_max {
            return Err(Refusal::HeldTooMany);
        }
        worker.shared.metrics.holds.inc();
        Ok(hold)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.shared.held.fetch_sub(1, Relaxed);
    }
}

/// Returns when a node is usable, at the deadline, or after a moment, when it is worth trying one
/// that is out.
async fn wait_for_a_node(worker: &Worker, deadline: Instant) {
    let until = deadline.min(Instant::now() + HOLD_TRY);
    while !worker.any_usable() && Instant::now() < until {
        tokio::time::sleep(HOLD_POLL).await;
    }
}
