//! A request as nodes get it: made once, and made again for each attempt while its body is at hand.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

use crate::access_log::Journal;
use crate::body::RequestBody;

/// What is left of the request's time, for the node (architecture.md "How a request lives").
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("bingo-timeout-ms");
/// Time that the gateway keeps for itself, so that the node's own 504 still comes through.
const RESERVE: Duration = Duration::from_millis(100);

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
    pub(crate) journal: Rc<Journal>,
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
    pub(crate) fn client_is_slow(&self) -> bool {
        matches!(self, Self::Streamed { waiting, .. } if waiting.get())
    }
}

impl Outgoing {
    pub(crate) fn replayable(&self) -> bool {
        match &self.body {
            OutgoingBody::Whole(..) => true,
            OutgoingBody::Streamed { body, .. } => body.borrow().is_some(),
        }
    }

    pub(crate) fn is_safe(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// For the node at this address; `None` where the body is gone.
    pub(crate) fn request(&self, address: &str) -> Option<Request<RequestBody>> {
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
    pub(crate) fn take_back(&self, request: Request<RequestBody>) {
        if let OutgoingBody::Streamed { body, .. } = &self.body {
            *body.borrow_mut() = Some(request.into_body());
        }
    }
}
