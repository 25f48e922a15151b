//! Bodies on their way through: a client's request to a node, a node's answer to a client. Accounts
//! are settled where a body ends, not at its head (stack.md, trap 5).

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::account::{Flight, Record};
use crate::admission::Permit;
use crate::hop_by_hop;
use crate::intake::Paced;
use crate::problem::Refusal;
use crate::spool::Spool;

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The client broke its request off.
    Client,
    /// The client's body is larger than its route takes.
    TooLarge,
    /// The client sent its body below `body_rate_min`.
    TooSlow,
    /// The node broke its answer off.
    Node,
    /// The node fell silent in mid-answer.
    Stalled,
    /// A spooled answer could not be read back from the disk.
    Spool,
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "the client broke its request off",
            Self::TooLarge => "the request's body is larger than its route takes",
            Self::TooSlow => "the client sent its body too slowly",
            Self::Node => "the node broke its answer off",
            Self::Stalled => "the node fell silent in mid-answer",
            Self::Spool => "a spooled answer could not be read back",
        })
    }
}

impl std::error::Error for BodyError {}

impl BodyError {
    /// What a client is told of it, where it can still be told anything.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::TooLarge => Refusal::BodyTooLarge,
            Self::TooSlow => Refusal::BodyBelowRate,
            Self::Client => Refusal::BadRequest("the body was broken off"),
            Self::Node | Self::Stalled | Self::Spool => Refusal::NoAnswer,
        }
    }
}

impl From<Infallible> for BodyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A request's body as its listener gives it: one type behind every listener.
pub(crate) enum ClientBody {
    /// HTTP/1.1 and HTTP/2.
    Http(Incoming),
    /// HTTP/3.
    Quic(Pin<Box<dyn Body<Data = Bytes, Error = BodyError>>>),
}

impl std::fmt::Debug for ClientBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientBody")
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Http(body) => Pin::new(body).poll_frame(cx).map_err(|_| BodyError::Client),
            Self::Quic(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http(body) => body.is_end_stream(),
            Self::Quic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http(body) => body.size_hint(),
            Self::Quic(body) => body.size_hint(),
        }
    }
}

/// A request's body on its way to a node.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// Collected: can be sent again.
    Whole(Bytes),
    /// The same with trailers, which only a body in chunks can have.
    WithTrailers(Bytes, Option<HeaderMap>),
    /// Streams, and is counted: `left` is what it may still have.
    Streamed { body: Paced, left: u64 },
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::WithTrailers(bytes, trailers) if bytes.is_empty() => Poll::Ready(
                trailers
                    .take()
                    .map(|trailers| Ok(Frame::trailers(trailers))),
            ),
            Self::WithTrailers(bytes, _) => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Self::Streamed { body, left } => match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                    Poll::Ready(Some(match left.checked_sub(length) {
                        Some(rest) => {
                            *left = rest;
                            Ok(frame)
                        }
                        None => Err(BodyError::TooLarge),
                    }))
                }
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
                None => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::WithTrailers(bytes, trailers) => bytes.is_empty() && trailers.is_none(),
            Self::Streamed { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::WithTrailers(..) => SizeHint::default(),
            Self::Streamed { body, .. } => body.size_hint(),
        }
    }
}

/// An answer's body on its way to a client. The record is written when it is dropped.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    source: Source,
    _record: Rc<Record>,
}

#[derive(Debug)]
enum Source {
    /// An answer of the gateway's own.
    Own(Bytes),
    Node(Box<NodeBody>),
}

/// A node's answer: streams, with nothing kept back but what the sockets hold.
#[derive(Debug)]
pub(crate) struct NodeBody {
    body: Incoming,
    flight: Flight,
    /// What was read of the body already, to be read again.
    prefix: Bytes,
    /// The same of a route that spools.
    spool: Option<Spool>,
    /// Given back when the body is at its end and dropped (stack.md, trap 5).
    _permit: Permit,
    stall_timeout: Duration,
    /// Runs while we wait for the node; a slow client does not start it.
    stall: Option<Pin<Box<Sleep>>>,
}

impl AnswerBody {
    pub(crate) fn own(bytes: Bytes, record: Rc<Record>) -> Self {
        Self {
            source: Source::Own(bytes),
            _record: record,
        }
    }

    pub(crate) fn of_node(body: NodeBody, record: Rc<Record>) -> Self {
        Self {
            source: Source::Node(Box::new(body)),
            _record: record,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.source {
            Source::Own(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Own(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Node(node) => node.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Node(node) => node.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Node(node) => node.size_hint(),
        }
    }
}

impl NodeBody {
    pub(crate) fn new(
        body: Incoming,
        mut flight: Flight,
        stall_timeout: Duration,
        permit: Permit,
        spool: Option<Spool>,
    ) -> Self {
        if body.is_end_stream() {
            flight.completed();
        }
        // What waits for the client alone keeps nobody from the nodes.
        let is_whole = spool.as_ref().is_some_and(Spool::is_whole);
        let permit = if is_whole { Permit::none() } else { permit };
        Self {
            body,
            flight,
            prefix: Bytes::new(),
            spool,
            _permit: permit,
            stall_timeout,
            stall: None,
        }
    }

    /// The next piece.
    pub(crate) async fn next(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Puts back all that was read.
    pub(crate) fn put_back(&mut self, read: Bytes) {
        self.prefix = read;
    }

    fn is_end_stream(&self) -> bool {
        let rest = match &self.spool {
            Some(spool) => spool.is_empty() && (spool.is_whole() || self.body.is_end_stream()),
            None => self.body.is_end_stream(),
        };
        self.prefix.is_empty() && rest
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        if let Some(spool) = &self.spool {
            return match spool.exactly_left() {
                Some(left) => SizeHint::with_exact(left + self.prefix.len() as u64),
                None => SizeHint::default(),
            };
        }
        let (prefix, mut hint) = (self.prefix.len() as u64, self.body.size_hint());
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(prefix));
        }
        hint.set_lower(hint.lower().saturating_add(prefix));
        hint
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.prefix.is_empty() {
            let prefix = std::mem::take(&mut self.prefix);
            return Poll::Ready(Some(Ok(Frame::data(prefix))));
        }
        if let Some(spool) = &mut self.spool {
            match ready!(spool.poll_frame(cx)) {
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => {
                    tracing::warn!(%error, "a spooled answer could not be read back");
                    return Poll::Ready(Some(Err(BodyError::Spool)));
                }
                None if spool.is_whole() => return Poll::Ready(None),
                None => self.spool = None,
            }
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return self.poll_stall(cx);
        };
        self.stall = None;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if self.body.is_end_stream() {
                    self.flight.completed();
                }
                Some(Ok(hop_by_hop::passable(frame)))
            }
            Some(Err(_)) => {
                self.flight.broken();
                Some(Err(BodyError::Node))
            }
            None => {
                self.flight.completed();
                None
            }
        })
    }

    fn poll_stall(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let timeout = self.stall_timeout;
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stall.as_mut().poll(cx));
        self.flight.stalled();
        Poll::Ready(Some(Err(BodyError::Stalled)))
    }
}
