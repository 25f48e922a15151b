//! One attempt on one node: a connection, the request, the answer's head, and what it means when that
//! does not come.

use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, Response, StatusCode};
use hyper::body::Incoming;

use crate::account::{Blame, Flight};
use crate::body::BodyError;
use crate::ejection::{Event, Probed, Reason};
use crate::live::Live;
use crate::nodes::Node;
use crate::outgoing::Outgoing;
use crate::problem::Refusal;
use crate::retry::Failure;
use crate::router::Route;
use crate::suspects::Loss;
use crate::worker::Worker;
use crate::{pool, probe};

/// A node's own state, on its answers.
const STATE: HeaderName = HeaderName::from_static("bingo-state");
/// How often a request looks whether the node that it waits for is still in rotation.
const LOOK: Duration = Duration::from_millis(50);

/// A request on its way: what stays the same in all of its attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    /// The configuration that the request began with and lives by.
    pub(crate) live: &'a Live,
    pub(crate) route: &'a Route,
    pub(crate) outgoing: &'a Outgoing,
}

/// How an attempt ended without an answer to pass on.
pub(crate) enum Failed {
    Class(Failure, Option<Lost>),
    /// The client's own body was at fault.
    Client(Refusal),
}

/// A node was lost with the request on it, which may be to blame.
pub(crate) struct Lost {
    pub(crate) node: Arc<Node>,
    pub(crate) how: Loss,
}

/// One attempt on one node. Idle connections that turn out to be dead cost nothing: the next one is
/// taken, and in the end a new one is opened.
pub(crate) async fn attempt(
    call: Call<'_>,
    mut flight: Flight,
    now: Instant,
) -> Result<(Response<Incoming>, Flight), Failed> {
    let (worker, outgoing) = (call.worker, call.outgoing);
    flight.noted_in(&outgoing.journal);
    let never_sent = || Err(Failed::Class(Failure::NeverSent, None));
    let limits = &call.live.limits;
    loop {
        let mut link = match worker
            .pool
            .take(flight.node(), limits.node_idle_timeout, now)
        {
            Some(link) => link,
            None => {
                let timeout = limits.connect_timeout.min(outgoing.remaining());
                match pool::connect(flight.node(), timeout).await {
                    Ok(link) => link,
                    Err(error) => {
                        not_connected(&mut flight, &error, timeout == limits.connect_timeout);
                        return never_sent();
                    }
                }
            }
        };
        let Some(request) = outgoing.request(&flight.node().address) else {
            // Cannot happen: a body that is gone was sent, and then nothing is tried again.
            flight.never_sent(None);
            return Err(Failed::Class(Failure::NoAnswer, None));
        };
        let sent = link.sender.try_send_request(request);
        let Some(result) = answered(sent, worker, outgoing.deadline, &flight).await else {
            return Err(silent(outgoing, &mut flight));
        };
        match result {
            Ok(answer) if says_draining(&answer) => {
                flight.never_sent(Some(Event::Draining));
                return never_sent();
            }
            Ok(answer) => {
                flight.answered(link, answer.status());
                return Ok((answer, flight));
            }
            Err(mut error) => {
                if let Some(request) = error.take_message() {
                    outgoing.take_back(request);
                    if link.reused {
                        continue;
                    }
                    flight.never_sent(Some(Event::Broken {
                        reason: Reason::Connect,
                    }));
                    return never_sent();
                }
                let error = error.into_error();
                if let Some(refusal) = clients_fault(&error) {
                    flight.never_sent(None);
                    return Err(Failed::Client(refusal));
                }
                tracing::debug!(address = flight.node().address, %error, "the node did not answer");
                let blame = flight.blame();
                flight.no_answer();
                let lost = look_after(call, &flight, blame).await;
                return Err(Failed::Class(Failure::NoAnswer, lost));
            }
        }
    }
}

/// What it says of a node that it could not be connected to. `had_its_time`: it was not the request's
/// own time that was too short.
fn not_connected(flight: &mut Flight, error: &std::io::Error, had_its_time: bool) {
    let address = &flight.node().address;
    tracing::debug!(address, %error, "could not connect to the node");
    if error.kind() == ErrorKind::ConnectionRefused {
        flight.node().refuses();
    }
    let is_its_fault = error.kind() != ErrorKind::TimedOut || had_its_time;
    flight.never_sent(is_its_fault.then_some(Event::Broken {
        reason: Reason::Connect,
    }));
}

/// Whether the node of a request whose connection broke is gone with it.
pub(crate) async fn look_after(call: Call<'_>, flight: &Flight, blame: Blame) -> Option<Lost> {
    if blame == Blame::Nothing {
        return None;
    }
    let how = match look(call, flight.node()).await {
        // A connection broke, and the process lives.
        Probed::Good | Probed::Draining => return None,
        Probed::BadStatus => Loss::Unhealthy,
        Probed::Unreachable => {
            flight.node().refuses();
            Loss::Crash
        }
        Probed::TimedOut => Loss::Hang,
    };
    let node = flight.own_node();
    let counts = how == Loss::Crash || blame == Blame::All;
    counts.then_some(Lost { node, how })
}

/// Asks a node how it is, now.
pub(crate) async fn look(call: Call<'_>, node: &Node) -> Probed {
    let shared = &call.worker.shared;
    let permit = match shared.looks.try_acquire() {
        Ok(permit) => Ok(permit),
        Err(_) => {
            shared.metrics.limit_hit("looks_max");
            shared.looks.acquire().await
        }
    };
    // Seldom made: boxed, so that each request's future has no room for it.
    let probed = Box::pin(probe::once(node, &call.live.probe)).await;
    drop(permit);
    probed
}

/// Waits for an answer's head; `None` when the time is up, or when the node was found to be hung and
/// another one is there.
async fn answered<T>(
    sent: impl Future<Output = T>,
    worker: &Worker,
    deadline: Instant,
    flight: &Flight,
) -> Option<T> {
    let mut sent = pin!(sent);
    loop {
        let until = deadline.min(Instant::now() + LOOK);
        match tokio::time::timeout_at(until.into(), &mut sent).await {
            Ok(result) => return Some(result),
            Err(_) if Instant::now() >= deadline => return None,
            Err(_) if flight.is_lost() && worker.any_usable() => return None,
            Err(_) => {}
        }
    }
}

/// Nothing came from the node: why that was.
fn silent(outgoing: &Outgoing, flight: &mut Flight) -> Failed {
    if outgoing.body.client_is_slow() {
        flight.never_sent(None);
        return Failed::Client(Refusal::SlowBody);
    }
    let hung = flight.is_lost() && flight.blame() == Blame::All;
    flight.out_of_time();
    let failure = if outgoing.remaining().is_zero() {
        Failure::OutOfTime
    } else {
        Failure::NoAnswer
    };
    let (node, how) = (flight.own_node(), Loss::Hang);
    Failed::Class(failure, hung.then_some(Lost { node, how }))
}

/// A draining node that turns a request away has not begun it.
fn says_draining(answer: &Response<Incoming>) -> bool {
    let status = answer.status();
    (status == StatusCode::INTERNAL_SERVER_ERROR || status == StatusCode::SERVICE_UNAVAILABLE)
        && answer
            .headers()
            .get(STATE)
            .is_some_and(|state| state == "draining")
}

/// A streamed body that the client broke off or made too large ends the attempt as well.
fn clients_fault(error: &hyper::Error) -> Option<Refusal> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        match error.downcast_ref::<BodyError>() {
            Some(error) => return Some(error.refusal()),
            None => source = error.source(),
        }
    }
    None
}
