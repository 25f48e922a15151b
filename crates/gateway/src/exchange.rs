//! From a prepared request to a node's answer: choose a node, send, and on failure do what `retry`
//! says, all within the one budget of time that the request has.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use http_body::Body;
use hyper::body::Incoming;

use crate::account::Flight;
use crate::body::{BodyError, RequestBody};
use crate::ejection::{Event, Reason};
use crate::live::Live;
use crate::problem::Refusal;
use crate::retry::{self, Failure, Next, Situation};
use crate::router::Route;
use crate::spool::{self, Lost, Spool};
use crate::worker::Worker;
use crate::{hedge, pool};

/// What is left of the request's time, for the node (architecture.md "How a request lives").
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("bingo-timeout-ms");
/// A node's own state, on its answers.
const STATE: HeaderName = HeaderName::from_static("bingo-state");
/// Time that the gateway keeps for itself, so that the node's own 504 still comes through.
const RESERVE: Duration = Duration::from_millis(100);
/// How often a held request looks for a usable node.
const HOLD_POLL: Duration = Duration::from_millis(5);
/// How long it looks before it tries a node that is out: a node is back before its probes say so.
const HOLD_TRY: Duration = Duration::from_millis(25);

/// How often a request looks whether the node that it waits for is still in rotation.
const LOOK: Duration = Duration::from_millis(50);

/// An answer of a known length up to this is always taken in whole.
const SMALL_BYTES: u64 = 64 * 1024;

/// A request that is ready for a node, and can be made again while its body is at hand.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: OutgoingBody,
    pub(crate) deadline: Instant,
    /// It carries an `Idempotency-Key`.
    pub(crate) keyed: bool,
}

/// The body of an outgoing request.
#[derive(Debug)]
pub(crate) enum OutgoingBody {
    /// With its trailers.
    Whole(Bytes, Option<HeaderMap>),
    /// Streams, so it can be sent once.
    Streamed {
        /// `None` when it is on its way or gone.
        body: RefCell<Option<RequestBody>>,
        /// It is the client that is waited for.
        waiting: Rc<Cell<bool>>,
    },
}

impl OutgoingBody {
    pub(crate) fn empty() -> Self {
        Self::Whole(Bytes::new(), None)
    }

    /// Whether the client is what a request waits for that is out of time.
    fn client_is_slow(&self) -> bool {
        matches!(self, Self::Streamed { waiting, .. } if waiting.get())
    }
}

impl Outgoing {
    fn replayable(&self) -> bool {
        match &self.body {
            OutgoingBody::Whole(..) => true,
            OutgoingBody::Streamed { body, .. } => body.borrow().is_some(),
        }
    }

    pub(crate) fn is_safe(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// For the node at this address; `None` where the body is gone.
    fn request(&self, address: &str) -> Option<Request<RequestBody>> {
        let body = match &self.body {
            OutgoingBody::Whole(bytes, None) => RequestBody::Whole(bytes.clone()),
            OutgoingBody::Whole(bytes, trailers) => {
                RequestBody::WithTrailers(bytes.clone(), trailers.clone())
            }
            OutgoingBody::Streamed { body, .. } => body.borrow_mut().take()?,
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let left = self.remaining().saturating_sub(RESERVE).as_millis();
        let left = HeaderValue::from(u64::try_from(left).unwrap_or(u64::MAX));
        request.headers_mut().insert(TIMEOUT, left);
        if !self.headers.contains_key(header::HOST)
            && let Ok(host) = HeaderValue::from_str(address)
        {
            // What the gateway asks in its own name, and requests of HTTP/1.0.
            request.headers_mut().insert(header::HOST, host);
        }
        Some(request)
    }

    /// Takes back the body of a request that was never sent.
    fn take_back(&self, request: Request<RequestBody>) {
        if let OutgoingBody::Streamed { body, .. } = &self.body {
            *body.borrow_mut() = Some(request.into_body());
        }
    }
}

/// A node's answer, as far as it was taken in.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) answer: Response<Incoming>,
    /// Must live as long as the answer's body.
    pub(crate) flight: Flight,
    pub(crate) spool: Option<Spool>,
}

/// How an attempt ended without an answer to pass on.
pub(crate) enum Failed {
    Class(Failure),
    /// The client's own body was at fault.
    Client(Refusal),
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
                match one_answer(worker, live, route, &outgoing, flight, now).await {
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
async fn one_answer(
    worker: &Rc<Worker>,
    live: &Live,
    route: &Route,
    outgoing: &Outgoing,
    flight: Flight,
    now: Instant,
) -> Result<Exchanged, Failed> {
    let (mut answer, mut flight) = hedge::race(worker, live, route, outgoing, flight, now).await?;
    let spool = if is_taken_in(route, &answer) {
        let taken = spool::take(
            worker,
            live,
            answer.body_mut(),
            &mut flight,
            outgoing.deadline,
        );
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

/// One attempt on one node. Idle connections that turn out to be dead cost nothing: the next one is
/// taken, and in the end a new one is opened.
pub(crate) async fn attempt(
    worker: &Worker,
    live: &Live,
    outgoing: &Outgoing,
    mut flight: Flight,
    now: Instant,
) -> Result<(Response<Incoming>, Flight), Failed> {
    let never_sent = Err(Failed::Class(Failure::NeverSent));
    let (id, limits) = (flight.node().id, &live.limits);
    loop {
        let mut link = match worker.pool.take(id, limits.node_idle_timeout, now) {
            Some(link) => link,
            None => {
                let timeout = limits.connect_timeout.min(outgoing.remaining());
                match pool::connect(&flight.node().address, timeout).await {
                    Ok(link) => link,
                    Err(error) => {
                        let address = &flight.node().address;
                        tracing::debug!(address, %error, "could not connect to the node");
                        flight.never_sent(Some(Event::Broken {
                            reason: Reason::Connect,
                        }));
                        return never_sent;
                    }
                }
            }
        };
        let Some(request) = outgoing.request(&flight.node().address) else {
            // Cannot happen: a body that is gone was sent, and then nothing is tried again.
            flight.never_sent(None);
            return Err(Failed::Class(Failure::NoAnswer));
        };
        let sent = link.sender.try_send_request(request);
        let Some(result) = answered(sent, worker, outgoing.deadline, &flight).await else {
            return Err(silent(outgoing, &mut flight));
        };
        match result {
            Ok(answer) if says_draining(&answer) => {
                flight.never_sent(Some(Event::Draining));
                return never_sent;
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
                    return never_sent;
                }
                let error = error.into_error();
                if let Some(refusal) = clients_fault(&error) {
                    flight.never_sent(None);
                    return Err(Failed::Client(refusal));
                }
                tracing::debug!(address = flight.node().address, %error, "the node did not answer");
                flight.no_answer();
                return Err(Failed::Class(Failure::NoAnswer));
            }
        }
    }
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
    flight.out_of_time();
    Failed::Class(if outgoing.remaining().is_zero() {
        Failure::OutOfTime
    } else {
        Failure::NoAnswer
    })
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
