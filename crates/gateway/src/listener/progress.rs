//! Whether a client of HTTP/2 takes its answers. A client that keeps its flow-control windows shut
//! looks alive to the kernel; here every piece of an answer says when it was taken. A stream of which no piece (16 KiB, or the rest) was taken for
//! `client_stall_timeout` is reset, so that a byte now and then holds nothing; where only
//! ends of answers are left that hyper has handed on already, the whole connection is given up.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

use crate::body::{AnswerBody, BodyError};

/// Pieces are no larger, so that what hyper has taken and a client has not is small.
pub(crate) const PIECE_BYTES_MAX: usize = 16 * 1024;

/// The streams of one connection.
#[derive(Debug)]
pub(super) struct Streams {
    all: RefCell<Vec<Weak<Stream>>>,
    /// The one whose request was taken up last and has no task yet.
    latest: RefCell<Option<Rc<Stream>>>,
    open: Cell<usize>,
    idle_since: Cell<Instant>,
}

/// One request from its head to the last byte of its answer that the client takes.
#[derive(Debug)]
pub(super) struct Stream {
    streams: Rc<Streams>,
    /// Pieces that are on their way.
    pieces: Cell<usize>,
    moved: Cell<Instant>,
    /// Its task has ended: what is on its way can no longer be called back.
    handed_on: Cell<bool>,
    given_up: Notify,
}

/// What a look at a connection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Moves,
    /// No stream for so long.
    Idle(Duration),
    /// Streams were given up; the connection goes on.
    GaveUp,
    /// Nothing moves at all.
    Stalled,
}

impl Streams {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            all: RefCell::default(),
            latest: RefCell::default(),
            open: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
        })
    }

    /// A request is taken up; its task is about to start.
    pub(super) fn begin(self: &Rc<Self>) -> Rc<Stream> {
        self.open.set(self.open.get() + 1);
        let stream = Rc::new(Stream {
            streams: Rc::clone(self),
            pieces: Cell::new(0),
            moved: Cell::new(Instant::now()),
            handed_on: Cell::new(false),
            given_up: Notify::new(),
        });
        self.all.borrow_mut().push(Rc::downgrade(&stream));
        self.latest.replace(Some(Rc::clone(&stream)));
        stream
    }

    /// The stream whose task starts now.
    pub(super) fn started(&self) -> Option<Rc<Stream>> {
        self.latest.take()
    }

    /// Gives up the streams whose clients have taken nothing for `timeout`.
    pub(super) fn look(&self, now: Instant, timeout: Duration) -> Look {
        if self.open.get() == 0 {
            return Look::Idle(now.saturating_duration_since(self.idle_since.get()));
        }
        let (mut moving, mut given_up, mut stuck) = (false, false, false);
        self.all.borrow_mut().retain(|stream| {
            let Some(stream) = stream.upgrade() else {
                return false;
            };
            let still = now.saturating_duration_since(stream.moved.get());
            if stream.pieces.get() == 0 {
                // It waits for its node, whose deadlines are its own.
                moving = true;
            } else if still < timeout {
                moving = true;
            } else if stream.handed_on.get() {
                stuck = true;
            } else {
                given_up = true;
                stream.given_up.notify_one();
            }
            true
        });
        match (moving, given_up, stuck) {
            (_, true, _) => Look::GaveUp,
            (false, false, true) => Look::Stalled,
            _ => Look::Moves,
        }
    }
}

impl Stream {
    /// Runs a stream's task until its end, or until the client is given up. The task is boxed,
    /// because a future that is handed another has room for it twice.
    pub(super) async fn run(self: Rc<Self>, task: Pin<Box<impl Future>>) {
        tokio::select! {
            _ = task => {}
            () = self.given_up.notified() => {}
        }
        self.handed_on.set(true);
    }

    fn moved(&self) {
        self.moved.set(Instant::now());
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let streams = &self.streams;
        streams.open.set(streams.open.get().saturating_sub(1));
        streams.idle_since.set(Instant::now());
    }
}

/// An answer's body whose pieces say when they move on.
#[derive(Debug)]
pub(super) struct Watched {
    body: AnswerBody,
    /// What is left of the last frame.
    rest: Bytes,
    stream: Rc<Stream>,
}

impl Watched {
    pub(super) fn new(body: AnswerBody, stream: Rc<Stream>) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            stream,
        }
    }

    fn piece(&mut self) -> Frame<Piece> {
        let length = self.rest.len().min(PIECE_BYTES_MAX);
        let stream = Rc::clone(&self.stream);
        if stream.pieces.replace(stream.pieces.get() + 1) == 0 {
            stream.moved();
        }
        Frame::data(Piece {
            bytes: self.rest.split_to(length),
            stream,
        })
    }
}

impl Body for Watched {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(this.piece())));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = match frame?.into_data() {
                Ok(data) => {
                    this.rest = data;
                    this.piece()
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => Frame::trailers(trailers),
                    // There is no third kind.
                    Err(_) => this.piece(),
                },
            };
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked for before the first frame, when nothing is left of one.
        self.body.size_hint()
    }
}

/// A piece of an answer on its way through the HTTP/2 library.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    stream: Rc<Stream>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        // A byte now and then is no progress: a piece must be taken whole.
        self.bytes.advance(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let stream = &self.stream;
        stream.pieces.set(stream.pieces.get().saturating_sub(1));
        stream.moved();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn piece(stream: &Rc<Stream>) -> Piece {
        stream.pieces.set(stream.pieces.get() + 1);
        Piece {
            bytes: Bytes::from_static(b"abc"),
            stream: Rc::clone(stream),
        }
    }

    #[test]
    fn a_stream_whose_pieces_stay_is_given_up_and_one_that_waits_for_its_node_is_not() {
        let streams = Streams::new();
        let later = Instant::now() + 2 * TIMEOUT;
        let waits = streams.begin();
        assert_eq!(streams.look(later, TIMEOUT), Look::Moves);
        let stays = streams.begin();
        streams.started();
        let mut piece = piece(&stays);
        assert_eq!(streams.look(Instant::now(), TIMEOUT), Look::Moves);
        assert_eq!(streams.look(later, TIMEOUT), Look::GaveUp);
        // A byte is not enough.
        piece.advance(1);
        assert_eq!(streams.look(later, TIMEOUT), Look::GaveUp);
        drop((waits, stays, piece));
        assert!(matches!(streams.look(later, TIMEOUT), Look::Idle(since) if since > TIMEOUT));
    }

    #[test]
    fn a_connection_with_nothing_but_ends_that_nobody_takes_is_stalled() {
        let streams = Streams::new();
        let later = Instant::now() + 2 * TIMEOUT;
        let stuck = streams.begin();
        let piece = piece(&stuck);
        stuck.handed_on.set(true);
        assert_eq!(streams.look(later, TIMEOUT), Look::Stalled);
        let waits = streams.begin();
        assert_eq!(streams.look(later, TIMEOUT), Look::Moves);
        drop((piece, waits));
    }
}
