//! From a prepared request to a node's answer: choose a node, send, and on failure do what `retry`
//! says, all within the one budget of time that the request has.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{Response, StatusCode, header};
use http_body::Body;
use hyper::body::Incoming;

use crate::account::{Blame, Flight};
use crate::attempt::{self, Call, Failed, Lost};
use crate::ejection::{Event, Probed, Reason};
use crate::hedge;
use crate::live::Live;
use crate::nodes::NodeId;
use crate::outgoing::Outgoing;
use crate::problem::Refusal;
use crate::retry::{self, Failure, Next, Situation};
use crate::router::Route;
use crate::spool::{self, Spool};
use crate::suspects::Loss;
use crate::trial::Subject;
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
    outgoing: &Outgoing,
) -> Result<Exchanged, Refusal> {
    worker.count_live();
    let call = Call {
        worker,
        live,
        route,
        outgoing,
    };
    let mut subject = Subject::new(call);
    let mut repeats = 0;
    let mut tried = Tried::default();
    let mut held = None;
    loop {
        let cleared = subject.cleared(tried.failed_by, tried.reached).await?;
        let now = Instant::now();
        let chosen = match cleared {
            Some(flight) => Ok(Some(flight)),
            None => worker.choose(route, tried.last, now),
        };
        // Without any node it is as if all refused.
        let failure = match chosen {
            Err(wait) if !outgoing.remaining().is_zero() => {
                // All nodes have as much as they take.
                hold(call, &mut held)?;
                tokio::time::sleep(wait.min(outgoing.remaining()).min(HOLD_TRY)).await;
                continue;
            }
            Ok(Some(flight)) => {
                tried.last = Some(flight.node().id);
                subject.goes_to(&flight);
                let (alone, last) = (subject.is_on_trial(), repeats > 0);
                match one_answer(call, flight, now, alone, last).await {
                    Ok(exchanged) => {
                        subject.answered(exchanged.answer.status());
                        return Ok(exchanged);
                    }
                    Err(Failed::Client(refusal)) => return Err(refusal),
                    Err(Failed::Class(failure, lost)) => {
                        let suspicion = subject.failed(failure, lost.as_ref()).await;
                        failure.with(suspicion)
                    }
                }
            }
            Ok(None) | Err(_) => Failure::NeverSent,
        };
        tried.failed(failure);
        match after(call, failure, repeats, &mut held).await? {
            // Counted as held, not as one retry per look.
            Next::TryAgain if !worker.any_usable() => {}
            Next::TryAgain | Next::Repeat | Next::Wait => {
                repeats += u32::from(failure.repeats());
                worker.shared.metrics.retried(failure.name());
            }
            Next::GiveUpBroken => return Err(Refusal::NoAnswer),
            Next::GiveUpOutOfTime => {
                return Err(Refusal::NoNodeInTime {
                    reached: tried.reached,
                });
            }
        }
        if !worker.any_usable() {
            hold(call, &mut held)?;
            wait_for_a_node(worker, outgoing.deadline).await;
        }
    }
}

/// Where a request has been.
#[derive(Debug, Default)]
struct Tried {
    last: Option<NodeId>,
    /// The node that it was on last, or that refused it twice.
    failed_by: Option<NodeId>,
    refused_by: Option<NodeId>,
    /// A node may have seen it.
    reached: bool,
}

impl Tried {
    fn failed(&mut self, failure: Failure) {
        self.reached |= failure != Failure::NeverSent;
        // Refused once, it may be the home of the request's copies still.
        match failure == Failure::NeverSent && self.refused_by != self.last {
            true => self.refused_by = self.last,
            false => self.failed_by = self.last,
        }
    }
}

/// What to do after a failure; while there is no budget for it the request is held.
async fn after<'a>(
    call: Call<'a>,
    failure: Failure,
    repeats: u32,
    held: &mut Option<Hold<'a>>,
) -> Result<Next, Refusal> {
    let (worker, remaining) = (call.worker, || call.outgoing.remaining());
    let mut next = retry::next(&situation(call, failure, repeats), || worker.take_retry());
    while next == Next::Wait {
        hold(call, held)?;
        tokio::time::sleep(HOLD_TRY.min(remaining())).await;
        let situation = situation(call, failure, repeats);
        next = retry::next(&situation, || worker.take_retry_after_all());
    }
    Ok(next)
}

fn situation(call: Call<'_>, failure: Failure, repeats: u32) -> Situation {
    let outgoing = call.outgoing;
    Situation {
        failure,
        policy: call.route.retry,
        safe_method: outgoing.is_safe(),
        keyed: outgoing.keyed,
        replayable: outgoing.replayable(),
        repeats,
        remaining: outgoing.remaining(),
    }
}

/// One attempt, or two at once, and the answer's body where the route spools. `alone`: it goes to one
/// node only; `last`: it has no repetition left.
async fn one_answer(
    call: Call<'_>,
    flight: Flight,
    now: Instant,
    alone: bool,
    last: bool,
) -> Result<Exchanged, Failed> {
    let (mut answer, mut flight) = match alone {
        true => attempt::attempt(call, flight, now).await?,
        false => hedge::race(call, flight, now).await?,
    };
    if answer.status() == StatusCode::TOO_MANY_REQUESTS && call.outgoing.replayable() {
        flight.refused(retry_after(&answer));
        return Err(Failed::Class(Failure::Refused, None));
    }
    if is_doubtful(&answer) {
        (answer, flight) = doubt(call, answer, flight, alone || last).await?;
    }
    let spool = if is_taken_in(call.route, &answer) {
        let blame = flight.blame();
        let deadline = call.outgoing.deadline;
        let body = answer.body_mut();
        match spool::take(call.worker, call.live, body, &mut flight, deadline).await {
            Ok(spool) => Some(spool),
            Err(spool::Lost) => {
                let lost = attempt::look_after(call, &flight, blame).await;
                return Err(Failed::Class(Failure::NoAnswer, lost));
            }
        }
    } else {
        None
    };
    Ok(Exchanged {
        answer,
        flight,
        spool,
    })
}

/// What a node says of when to come back, where it says seconds.
fn retry_after(answer: &Response<Incoming>) -> Option<Duration> {
    let value = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.parse().ok().map(Duration::from_secs)
}

/// A sick node answers so. What says when to come back knows what it says.
fn is_doubtful(answer: &Response<Incoming>) -> bool {
    let status = answer.status();
    let sick = status == StatusCode::INTERNAL_SERVER_ERROR
        || status == StatusCode::BAD_GATEWAY
        || status == StatusCode::SERVICE_UNAVAILABLE;
    sick && !answer.headers().contains_key(header::RETRY_AFTER)
}

/// Asks the node how it is before its 5xx to a request that may be sent again is believed. A healthy node
/// is believed, but another one is asked first, as far as the budget allows; what a sick one said counts
/// for nothing.
async fn doubt(
    call: Call<'_>,
    answer: Response<Incoming>,
    mut flight: Flight,
    last: bool,
) -> Result<(Response<Incoming>, Flight), Failed> {
    let (worker, outgoing) = (call.worker, call.outgoing);
    let allowed = retry::allows(call.route.retry, outgoing.is_safe(), outgoing.keyed);
    if !allowed || !outgoing.replayable() {
        return Ok((answer, flight));
    }
    match attempt::look(call, flight.node()).await {
        Probed::Good | Probed::Draining | Probed::TimedOut => {
            let again = !last && worker.any_other_usable(flight.node().id) && worker.take_retry();
            if !again {
                return Ok((answer, flight));
            }
            flight.unwanted();
            Err(Failed::Class(Failure::ServerError, None))
        }
        Probed::BadStatus | Probed::Unreachable => {
            let blamed = flight.blame() == Blame::All;
            let (node, how) = (flight.own_node(), Loss::Unhealthy);
            let reason = Reason::Status;
            flight.unhealthy(Event::ProbeBad { reason });
            let lost = blamed.then_some(Lost { node, how });
            Err(Failed::Class(Failure::NotDone, lost))
        }
    }
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

/// The request is held from now on, if it is not yet.
fn hold<'a>(call: Call<'a>, held: &mut Option<Hold<'a>>) -> Result<(), Refusal> {
    if held.is_none() {
        *held = Some(Hold::begin(call.worker, call.live.limits.held_max)?);
    }
    Ok(())
}

/// A request that waits for a node to come back, or for the budget; counted while it lives.
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
