//! A request's body over HTTP/3, within fences: the library keeps what was received until it is read,
//! and a peer may cut a body into frames of one byte, each of which costs us as much as a large one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::server::RequestStream;
use http_body::{Body, Frame, SizeHint};

use crate::body::BodyError;
use crate::metrics::Metrics;
use crate::worker::Shared;

use super::binding::RecvStream;

/// Small frames are nobody's fault at a body's beginning and end.
const FREE_FRAMES: u64 = 64;
/// Over the free ones, frames must carry this much on average.
const FRAME_BYTES_MIN: u64 = 64;

/// A body that is read as its route wants it.
pub(super) struct QuicBody {
    stream: RequestStream<RecvStream, Bytes>,
    /// What `Content-Length` says.
    declared: Option<u64>,
    received: u64,
    frames: u64,
    state: State,
    shared: Arc<Shared>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Done,
}

impl QuicBody {
    pub(super) fn new(
        stream: RequestStream<RecvStream, Bytes>,
        declared: Option<u64>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            stream,
            declared,
            received: 0,
            frames: 0,
            state: State::Data,
            shared,
        }
    }

    /// Counts a piece in; a body that is longer than it said is malformed, one in too many pieces is
    /// not taken.
    fn take(&mut self, data: &Bytes, metrics: &Metrics) -> Result<(), BodyError> {
        self.frames += 1;
        self.received += data.len() as u64;
        let paid = self.frames.saturating_sub(FREE_FRAMES) * FRAME_BYTES_MIN;
        if paid > self.received {
            metrics.limit_hit("h3_frame_bytes_min");
            return Err(BodyError::Client);
        }
        match self.declared {
            Some(declared) if self.received > declared => Err(self.malformed()),
            _ => Ok(()),
        }
    }

    /// It is not as long as it said (RFC 9114 section 4.1.2): an answer would be reset.
    fn malformed(&mut self) -> BodyError {
        self.state = State::Done;
        self.stream.stop_sending(Code::H3_MESSAGE_ERROR);
        BodyError::Client
    }
}

impl Body for QuicBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.state == State::Data {
            let data = match ready!(self.stream.poll_recv_data(cx)) {
                Ok(Some(mut data)) => Some(data.copy_to_bytes(data.remaining())),
                Ok(None) => None,
                Err(_) => {
                    self.state = State::Done;
                    return Poll::Ready(Some(Err(BodyError::Client)));
                }
            };
            if let Some(data) = data {
                let shared = Arc::clone(&self.shared);
                let taken = self.take(&data, &shared.metrics);
                if taken.is_err() {
                    self.state = State::Done;
                }
                return Poll::Ready(Some(taken.map(|()| Frame::data(data))));
            }
            self.state = State::Trailers;
            if self
                .declared
                .is_some_and(|declared| declared != self.received)
            {
                let error = self.malformed();
                return Poll::Ready(Some(Err(error)));
            }
        }
        if self.state == State::Trailers {
            let trailers = ready!(self.stream.poll_recv_trailers(cx));
            self.state = State::Done;
            return Poll::Ready(match trailers {
                Ok(Some(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Ok(None) => None,
                Err(_) => Some(Err(BodyError::Client)),
            });
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        // Without a length only reading tells.
        self.state == State::Done || self.declared == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.declared.map_or_else(SizeHint::default, |declared| {
            SizeHint::with_exact(declared.saturating_sub(self.received))
        })
    }
}
