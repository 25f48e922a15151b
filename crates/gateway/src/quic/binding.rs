//! quinn as the HTTP/3 library wants it. Our own, because the public binding hides what hardening
//! needs: bytes are looked at before the library keeps them (`frames`), a request that turns out to be
//! malformed is answered by nothing but a reset, the client's STOP_SENDING is
//! seen while an answer is still made, and a stream that is given up is reset and not ended, which
//! would make half an answer look whole.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::frames::{Frames, Refused, integer};
use super::meter::{EXCESSIVE_LOAD, Meter};

/// The control stream (RFC 9114 section 6.2.1).
const CONTROL: u64 = 0;
/// H3_INTERNAL_ERROR.
const INTERNAL_ERROR: VarInt = VarInt::from_u32(0x102);
/// H3_MESSAGE_ERROR: a request is malformed (RFC 9114 section 4.1.2).
const MESSAGE_ERROR: VarInt = VarInt::from_u32(0x10e);

/// What waits for the next of something.
type Next<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>>>>;
/// Ends when the client wants no more of an answer.
pub(super) type Stopped = Pin<Box<dyn Future<Output = ()>>>;
/// What is wrong with what came on a stream; its two halves share it.
type Fault = Rc<Cell<Option<VarInt>>>;

/// The server's side of one connection.
pub(super) struct Connection {
    opener: Opener,
    meter: Rc<Meter>,
    head_bytes_max: usize,
    next_bidi: Next<(quinn::SendStream, quinn::RecvStream)>,
    next_uni: Next<quinn::RecvStream>,
    stopped: Rc<RefCell<Option<Stopped>>>,
}

impl Connection {
    pub(super) fn new(inner: quinn::Connection, meter: Rc<Meter>, head_bytes_max: usize) -> Self {
        Self {
            next_bidi: next_bidi(&inner),
            next_uni: next_uni(&inner),
            opener: Opener::new(inner),
            meter,
            head_bytes_max,
            stopped: Rc::default(),
        }
    }

    /// Where the library, which hides a request's stream, lets what tells its end be found: of the
    /// request that was accepted last.
    pub(super) fn stopped(&self) -> Rc<RefCell<Option<Stopped>>> {
        Rc::clone(&self.stopped)
    }

    fn receive(
        &self,
        stream: quinn::RecvStream,
        reading: Reading,
    ) -> Result<RecvStream, ConnectionErrorIncoming> {
        Ok(RecvStream {
            id: id(stream.id())?,
            stream,
            reading,
            meter: Rc::clone(&self.meter),
            head_bytes_max: self.head_bytes_max,
            held: 0,
            ended: false,
            fault: Fault::default(),
        })
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let stream = ready!(self.next_uni.as_mut().poll(cx)).map_err(connection_error)?;
        self.next_uni = next_uni(&self.opener.connection);
        // Control and QPACK are three; more of them are as idle as any other frame.
        self.meter.idle_frames(1);
        Poll::Ready(self.receive(stream, Reading::Kind(Vec::new())))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        let (send, recv) = ready!(self.next_bidi.as_mut().poll(cx)).map_err(connection_error)?;
        self.next_bidi = next_bidi(&self.opener.connection);
        let stopped = send.stopped();
        self.stopped.replace(Some(Box::pin(async move {
            // An answer that is acknowledged, or a connection that is gone, is nobody's cancel.
            if !matches!(stopped.await, Ok(Some(_))) {
                std::future::pending::<()>().await;
            }
        })));
        let recv = self.receive(
            recv,
            Reading::Frames(Frames::of_request(self.head_bytes_max)),
        )?;
        let send = SendStream::new(send, recv.id, Rc::clone(&recv.fault));
        Poll::Ready(Ok(BidiStream { send, recv }))
    }

    fn opener(&self) -> Opener {
        Opener::new(self.opener.connection.clone())
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens the streams of ours: control and QPACK.
pub(super) struct Opener {
    connection: quinn::Connection,
    opening: Option<Next<quinn::SendStream>>,
}

impl Opener {
    fn new(connection: quinn::Connection) -> Self {
        Self {
            connection,
            opening: None,
        }
    }
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        let error = "a server opens no stream of requests".to_owned();
        Poll::Ready(Err(StreamErrorIncoming::ConnectionErrorIncoming {
            connection_error: ConnectionErrorIncoming::InternalError(error),
        }))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let opening = self.opening.get_or_insert_with(|| {
            let connection = self.connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        let lost =
            |connection_error| StreamErrorIncoming::ConnectionErrorIncoming { connection_error };
        let stream = opened.map_err(connection_error).map_err(lost)?;
        let id = id(stream.id()).map_err(lost)?;
        Poll::Ready(Ok(SendStream::new(stream, id, Fault::default())))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        let code = wire_code(code.value());
        self.connection.close(code, reason);
    }
}

/// A request's stream before its head is read; after that its halves go their own ways.
pub(super) struct BidiStream {
    send: SendStream,
    recv: RecvStream,
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(mut self) -> (SendStream, RecvStream) {
        self.send.whole = false;
        (self.send, self.recv)
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let ready = ready!(self.send.poll_ready(cx));
        // What the library says before there is a request is a refusal of its own (431): a head, and
        // nothing after it.
        self.send.whole = ready.is_ok();
        Poll::Ready(ready)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// Our half of a stream. Dropped before it has ended it is reset.
pub(super) struct SendStream {
    stream: quinn::SendStream,
    id: StreamId,
    writing: Option<WriteBuf<Bytes>>,
    /// Nothing more is to come.
    whole: bool,
    fault: Fault,
}

impl SendStream {
    fn new(stream: quinn::SendStream, id: StreamId, fault: Fault) -> Self {
        Self {
            stream,
            id,
            writing: None,
            whole: false,
            fault,
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if self.fault.get() == Some(MESSAGE_ERROR) {
            let error = "the request is malformed";
            return Poll::Ready(Err(StreamErrorIncoming::Unknown(error.into())));
        }
        if let Some(data) = &mut self.writing {
            while data.has_remaining() {
                let written = Pin::new(&mut self.stream).poll_write(cx, data.chunk());
                data.advance(ready!(written).map_err(write_error)?);
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let error = "two frames are written at once";
            return Err(StreamErrorIncoming::Unknown(error.into()));
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.whole = true;
        let finished = self.stream.finish();
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(error.into())))
    }

    fn reset(&mut self, code: u64) {
        let code = self.fault.get().unwrap_or_else(|| wire_code(code));
        // An error says that it has ended already.
        let _ = self.stream.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.id
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        // Control and QPACK last as long as the connection, which is closed before they are dropped.
        if !self.whole && self.stream.id().dir() == quinn::Dir::Bi {
            let code = self.fault.get().unwrap_or(INTERNAL_ERROR);
            let _ = self.stream.reset(code);
        }
    }
}

/// The client's half of a stream.
pub(super) struct RecvStream {
    stream: quinn::RecvStream,
    id: StreamId,
    reading: Reading,
    meter: Rc<Meter>,
    head_bytes_max: usize,
    /// So much is on the connection's account.
    held: usize,
    ended: bool,
    fault: Fault,
}

/// How bytes are looked at.
enum Reading {
    /// A stream of one direction begins with what it is.
    Kind(Vec<u8>),
    Frames(Frames),
    /// The library reads no further than the kind.
    Other,
}

impl RecvStream {
    fn came(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Refused> {
        match &mut self.reading {
            Reading::Other => out.extend_from_slice(bytes),
            Reading::Kind(known) => {
                known.extend_from_slice(bytes);
                let known = std::mem::take(known);
                let Some((kind, rest)) = integer(&known) else {
                    self.reading = Reading::Kind(known);
                    return Ok(());
                };
                out.extend_from_slice(known.strip_suffix(rest).unwrap_or_default());
                if kind != CONTROL {
                    self.reading = Reading::Other;
                    out.extend_from_slice(rest);
                    return Ok(());
                }
                self.reading = Reading::Frames(Frames::new(self.head_bytes_max));
                return self.came(rest, out);
            }
            Reading::Frames(frames) => {
                let idle = frames.came(bytes, out).inspect_err(|refused| {
                    if *refused == Refused::TooLong {
                        self.meter.too_long();
                    }
                })?;
                self.meter.idle_frames(idle);
                let held = frames.held();
                if !self.meter.hold(self.held, held) {
                    self.held = held;
                    return Err(Refused::TooLong);
                }
                self.held = held;
            }
        }
        Ok(())
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let mut out = BytesMut::new();
        while out.is_empty() && !self.ended {
            let chunk = pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx);
            match ready!(chunk).map_err(read_error)? {
                Some(chunk) => {
                    if let Err(error) = self.came(&chunk.bytes, &mut out) {
                        let code = match error {
                            Refused::TooLong => EXCESSIVE_LOAD,
                            Refused::Malformed(_) => MESSAGE_ERROR,
                        };
                        self.fault.set(Some(code));
                        let _ = self.stream.stop(code);
                        return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(error))));
                    }
                }
                None => {
                    self.ended = true;
                    if let Reading::Frames(frames) = &mut self.reading {
                        frames.ended(&mut out);
                    }
                }
            }
        }
        Poll::Ready(Ok((!out.is_empty()).then(|| out.freeze())))
    }

    fn stop_sending(&mut self, code: u64) {
        let code = wire_code(code);
        if code == MESSAGE_ERROR {
            self.fault.set(Some(code));
        }
        // An error says that it has ended already.
        let _ = self.stream.stop(code);
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.meter.hold(self.held, 0);
    }
}

/// The library's codes all fit.
fn wire_code(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn next_bidi(connection: &quinn::Connection) -> Next<(quinn::SendStream, quinn::RecvStream)> {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_bi().await })
}

fn next_uni(connection: &quinn::Connection) -> Next<quinn::RecvStream> {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_uni().await })
}

fn id(id: quinn::StreamId) -> Result<StreamId, ConnectionErrorIncoming> {
    StreamId::try_from(u64::from(id))
        .map_err(|error| ConnectionErrorIncoming::InternalError(error.to_string()))
}

fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => ConnectionErrorIncoming::ApplicationClose {
            error_code: close.error_code.into_inner(),
        },
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn read_error(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        ReadError::ConnectionLost(error) => StreamErrorIncoming::ConnectionErrorIncoming {
            connection_error: connection_error(error),
        },
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn write_error(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        WriteError::ConnectionLost(error) => StreamErrorIncoming::ConnectionErrorIncoming {
            connection_error: connection_error(error),
        },
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
