//! A request's body on its way in: collected where it is small, so that the request can be sent
//! again, streamed where its route takes more; bounded in size and time, with a floor on its rate.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Sleep;

use crate::body::{BodyError, ClientBody, RequestBody};
use crate::hop_by_hop;
use crate::outgoing::OutgoingBody;
use crate::pace::Pace;
use crate::problem::Refusal;

/// A body up to this size is collected, so that the request can be sent again; a route that takes
/// more streams what is larger.
const COLLECTED_BYTES_MAX: u64 = 64 * 1024;
/// A body that is too large is read a little further, so that a client that writes before it reads
/// sees the 413 instead of a reset connection.
const DISCARDED_BYTES_MAX: u64 = 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Bounds of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) bytes_max: u64,
    /// Bytes a second.
    pub(crate) rate_min: u64,
    pub(crate) deadline: Instant,
}

/// Reads the body, or prepares it to be streamed. `100 Continue` is sent by hyper when reading
/// begins, so a body that its head says is too large is refused without one.
pub(crate) async fn take(
    headers: &HeaderMap,
    body: ClientBody,
    bounds: Bounds,
) -> Result<OutgoingBody, Refusal> {
    if body.is_end_stream() {
        return Ok(OutgoingBody::empty());
    }
    let hint = body.size_hint();
    let mut body = Paced::new(body, bounds.rate_min);
    if hint.lower() > bounds.bytes_max {
        // A client that waits for `100 Continue` has sent nothing that could be in the way.
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(Refusal::BodyTooLarge);
    }
    if bounds.bytes_max > COLLECTED_BYTES_MAX
        && hint.upper().is_none_or(|upper| upper > COLLECTED_BYTES_MAX)
    {
        let waiting = Rc::clone(&body.waiting);
        let body = RefCell::new(Some(RequestBody::Streamed {
            body,
            left: bounds.bytes_max,
        }));
        return Ok(OutgoingBody::Streamed { body, waiting });
    }
    let whole = read_whole(&mut body, bounds.bytes_max);
    let whole = tokio::time::timeout_at(tokio::time::Instant::from_std(bounds.deadline), whole)
        .await
        .unwrap_or(Err(Refusal::SlowBody));
    if matches!(whole, Err(Refusal::BodyTooLarge)) {
        discard(body).await;
    }
    let (bytes, trailers) = whole?;
    Ok(OutgoingBody::Whole(bytes, trailers))
}

/// Most bodies come in one piece, which is then not copied.
async fn read_whole(
    body: &mut Paced,
    bytes_max: u64,
) -> Result<(Bytes, Option<HeaderMap>), Refusal> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(BodyError::refusal)?;
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                trailers = frame.into_trailers().ok().filter(|all| !all.is_empty());
                continue;
            }
        };
        if (first.len() + rest.len() + data.len()) as u64 > bytes_max {
            return Err(Refusal::BodyTooLarge);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    let bytes = if rest.is_empty() {
        first
    } else {
        rest.freeze()
    };
    Ok((bytes, trailers))
}

async fn discard(mut body: Paced) {
    let mut left = DISCARDED_BYTES_MAX;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Out of time is as good as done: the connection closes either way.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

/// A client's body with the floor on its rate. Its trailers are those that may be passed on.
#[derive(Debug)]
pub(crate) struct Paced {
    body: ClientBody,
    pace: Pace,
    /// Runs while nothing comes.
    impatience: Option<Pin<Box<Sleep>>>,
    /// It is the client that is waited for, and not the node: known outside, where time runs out.
    waiting: Rc<Cell<bool>>,
}

impl Paced {
    fn new(body: ClientBody, rate_min: u64) -> Self {
        Self {
            body,
            pace: Pace::new(rate_min),
            impatience: None,
            waiting: Rc::default(),
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.waiting.set(true);
        let end = self.pace.waits(Instant::now());
        let impatience = self
            .impatience
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end.into())));
        match impatience.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(BodyError::TooSlow))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            return this.wait(cx);
        };
        this.waiting.set(false);
        this.impatience = None;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                this.pace.came(length, Instant::now());
                Some(Ok(hop_by_hop::passable(frame)))
            }
            other => other,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
