//! From a prepared request to a node's answer: choose a node, send, and on failure do what `retry`
//! says, all within the one budget of time that the request has.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use hyper::body::Incoming;

use crate::account::Flight;
use crate::body::{BodyError, RequestBody};
use crate::ejection::{Event, Reason};
use crate::live::Live;
use crate::pool;
use crate::problem::Refusal;
use crate::retry::{self, Failure, Next, Situation};
use crate::router::Route;
use crate::worker::Worker;

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
        body: Option<RequestBody>,
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
        !matches!(self.body, OutgoingBody::Streamed { body: None, .. })
    }

    fn is_safe(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// For the node at this address; `None` where the body is gone.
    fn request(&mut self, address: &str) -> Option<Request<RequestBody>> {
        let body = match &mut self.body {
            OutgoingBody::Whole(bytes, None) => RequestBody::Whole(bytes.clone()),
            OutgoingBody::Whole(bytes, trailers) => {
                RequestBody::WithTrailers(bytes.clone(), trailers.clone())
            }
            OutgoingBody::Streamed { body, .. } => body.take()?,
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
    fn take_back(&mut self, request: Request<RequestBody>) {
        if let OutgoingBody::Streamed { body, .. } = &mut self.body {
            *body = Some(request.into_body());
        }
    }
}

/// How an attempt ended without an answer to pass on.
enum Failed {
    Class(Failure),
    /// The client's own body was at fault.
    Client(Refusal),
}

/// Sends the request until a node answers or `retry` gives up. The flight that comes with the
/// answer must live as long as the answer's body.
///
/// `live` is the configuration that the request began with and lives by. Nodes are those of the
/// moment, looked up for each attempt: one that was removed since gets no new request, and a request
/// that is held finds one that was added.
pub(crate) async fn exchange(
    worker: &Rc<Worker>,
    live: &Live,
    route: &Route,
    mut outgoing: Outgoing,
) -> Result<(Response<Incoming>, Flight), Refusal> {
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
                match attempt(worker, live, &mut outgoing, flight, now).await {
                    Ok(answered) => return Ok(answered),
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

/// One attempt on one node. Idle connections that turn out to be dead cost nothing: the next one is
/// taken, and in the end a new one is opened.
async fn attempt(
    worker: &Worker,
    live: &Live,
    outgoing: &mut Outgoing,
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
        let deadline = tokio::time::Instant::from_std(outgoing.deadline);
        let Ok(result) = tokio::time::timeout_at(deadline, sent).await else {
            if outgoing.body.client_is_slow() {
                flight.never_sent(None);
                return Err(Failed::Client(Refusal::SlowBody));
            }
            flight.out_of_time();
            return Err(Failed::Class(Failure::OutOfTime));
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
