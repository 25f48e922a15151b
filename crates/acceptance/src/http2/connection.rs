//! One connection of the judge: bytes out, frames in, and a record of everything that was seen. It
//! reads while it writes, so that neither side can block the other for ever, acknowledges the
//! server's SETTINGS and PINGs, and does nothing else by itself. Left out: flow control towards the
//! server, which the cases break on purpose.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::Target;
use super::frame::{Code, Frame, flag, kind, setting};
use super::hpack::{Decoder, Field};

/// Frames kept for the reason of a verdict; a server that sends more is counted, not remembered.
const FRAMES_KEPT: usize = 2_000;
/// The largest frame taken: ours are the default settings (RFC 9113, 6.5.2), some grace on top.
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// Bytes read at once.
const PIECE_BYTES: usize = 4 * 1024;

/// Whatever carries the bytes.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// An open connection.
pub(super) struct Connection {
    reader: ReadHalf<Box<dyn Bytes>>,
    writer: WriteHalf<Box<dyn Bytes>>,
    buffer: Vec<u8>,
    replies: Vec<u8>,
    seen: Seen,
}

/// What came in so far.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) frames: Vec<Frame>,
    /// How the connection ended, once it has.
    pub(super) end: Option<String>,
    pub(super) answers: BTreeMap<u32, Answer>,
    /// The server's settings; the last value counts.
    pub(super) settings: BTreeMap<u16, u32>,
    decoder: Decoder,
    block: Vec<u8>,
    block_ends_stream: bool,
}

/// What came on one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: Option<u16>,
    pub(super) fields: Vec<Field>,
    pub(super) body_bytes: usize,
    pub(super) ended: bool,
    pub(super) reset: Option<Code>,
}

impl Connection {
    /// Opens it; over TLS with `h2` alone offered (RFC 9113, 3.2).
    pub(super) async fn open(target: &Target, patience: Duration) -> Result<Self, String> {
        let limit = Instant::now() + patience;
        let late = |_| format!("connect to {}: not within {patience:?}", target.address);
        let tcp = timeout_at(limit, TcpStream::connect(target.address));
        let tcp = tcp.await.map_err(late)?;
        let tcp = tcp.map_err(|error| format!("connect to {}: {error}", target.address))?;
        // Small frames must leave at once; a failure only makes the case slower.
        let _ = tcp.set_nodelay(true);
        let stream: Box<dyn Bytes> = match &target.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let tls = timeout_at(limit, tls.connect(&target.authority, tcp)).await;
                Box::new(tls.map_err(late)??)
            }
        };
        let (reader, writer) = tokio::io::split(stream);
        Ok(Self {
            reader,
            writer,
            buffer: Vec::new(),
            replies: Vec::new(),
            seen: Seen::default(),
        })
    }

    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Writes all of it, reading meanwhile. False when the server took no more within `patience`, or
    /// has ended the connection.
    pub(super) async fn send(&mut self, bytes: &[u8], patience: Duration) -> bool {
        let limit = Instant::now() + patience;
        let mut piece = [0; PIECE_BYTES];
        let Self { reader, writer, .. } = self;
        let write = async {
            writer.write_all(bytes).await?;
            writer.flush().await
        };
        tokio::pin!(write);
        let whole = loop {
            tokio::select! {
                written = &mut write => break written.is_ok(),
                read = reader.read(&mut piece), if self.seen.end.is_none() => {
                    let read = read.map(|count| piece.get(..count).unwrap_or_default());
                    take_in(&mut self.seen, &mut self.buffer, &mut self.replies, read);
                }
                () = sleep_until(limit) => break false,
            }
        };
        self.reply(patience).await;
        whole && self.seen.end.is_none()
    }

    /// Writes without reading anything, as a client that is deaf. False when the server takes no more.
    pub(super) async fn send_deaf(&mut self, bytes: &[u8], patience: Duration) -> bool {
        let written = timeout(patience, async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        });
        matches!(written.await, Ok(Ok(())))
    }

    /// Reads until `enough` or the end, at most until `limit`.
    pub(super) async fn read(&mut self, limit: Instant, enough: impl Fn(&Seen) -> bool) -> bool {
        let mut piece = [0; PIECE_BYTES];
        loop {
            if enough(&self.seen) {
                return true;
            }
            if self.seen.end.is_some() {
                return false;
            }
            let Ok(read) = timeout_at(limit, self.reader.read(&mut piece)).await else {
                return false;
            };
            let read = read.map(|count| piece.get(..count).unwrap_or_default());
            take_in(&mut self.seen, &mut self.buffer, &mut self.replies, read);
            self.reply(limit.saturating_duration_since(Instant::now()))
                .await;
        }
    }

    async fn reply(&mut self, patience: Duration) {
        if !self.replies.is_empty() {
            let replies = std::mem::take(&mut self.replies);
            // A server that takes no more is seen by what it then fails to do.
            let _ = timeout(patience, self.writer.write_all(&replies)).await;
            let _ = timeout(patience, self.writer.flush()).await;
        }
    }
}

fn take_in(
    seen: &mut Seen,
    buffer: &mut Vec<u8>,
    replies: &mut Vec<u8>,
    read: std::io::Result<&[u8]>,
) {
    match read {
        Ok([]) => seen.end = Some("closed".to_owned()),
        Ok(bytes) => buffer.extend(bytes),
        Err(error) => seen.end = Some(format!("closed ({error})")),
    }
    while let Some(frame) = Frame::take(buffer) {
        let asks = !frame.has(flag::ACK);
        if frame.kind == kind::SETTINGS && asks {
            replies.extend(Frame::new(kind::SETTINGS, flag::ACK, 0, []).encode());
        }
        if frame.kind == kind::PING && asks {
            let pong = Frame::new(kind::PING, flag::ACK, 0, frame.payload.clone());
            replies.extend(pong.encode());
        }
        seen.note(frame);
    }
    if buffer.len() > BUFFER_BYTES_MAX {
        seen.end = Some("given up: what the server sends is no HTTP/2".to_owned());
    }
}

impl Seen {
    /// Whether a PING with this payload was answered.
    pub(super) fn pong(&self, payload: [u8; 8]) -> bool {
        let pong = |frame: &&Frame| frame.kind == kind::PING && frame.has(flag::ACK);
        self.frames
            .iter()
            .filter(pong)
            .any(|frame| frame.payload == payload)
    }

    /// The acknowledgements of our SETTINGS.
    pub(super) fn settings_acks(&self) -> usize {
        let ack = |frame: &&Frame| frame.kind == kind::SETTINGS && frame.has(flag::ACK);
        self.frames.iter().filter(ack).count()
    }

    /// The code of the last GOAWAY.
    pub(super) fn goaway(&self) -> Option<Code> {
        let last = self
            .frames
            .iter()
            .rev()
            .find(|frame| frame.kind == kind::GOAWAY);
        last.and_then(Frame::code)
    }

    pub(super) fn answer(&self, stream: u32) -> Answer {
        self.answers.get(&stream).cloned().unwrap_or_default()
    }

    fn note(&mut self, frame: Frame) {
        let stream = frame.stream;
        match frame.kind {
            kind::SETTINGS if !frame.has(flag::ACK) => self.settings.extend(frame.settings()),
            kind::HEADERS => {
                self.block = frame.content().to_vec();
                self.block_ends_stream = frame.has(flag::END_STREAM);
                self.end_block(&frame);
            }
            kind::CONTINUATION => {
                self.block.extend(&frame.payload);
                self.end_block(&frame);
            }
            kind::DATA => {
                let answer = self.answers.entry(stream).or_default();
                answer.body_bytes += frame.content().len();
                answer.ended |= frame.has(flag::END_STREAM);
            }
            kind::RST_STREAM => self.answers.entry(stream).or_default().reset = frame.code(),
            _ => {}
        }
        if self.frames.len() < FRAMES_KEPT || frame.kind == kind::GOAWAY {
            self.frames.push(frame);
        }
    }

    fn end_block(&mut self, frame: &Frame) {
        if !frame.has(flag::END_HEADERS) {
            return;
        }
        let fields = match self.decoder.decode(&self.block) {
            Ok(fields) => fields,
            Err(why) => {
                self.end = Some(format!("given up: the server's field block has {why}"));
                return;
            }
        };
        let answer = self.answers.entry(frame.stream).or_default();
        let status = fields.iter().find(|(name, _)| name == b":status");
        let status = status.and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok());
        answer.ended |= self.block_ends_stream;
        if status.is_some_and(|status: u16| status >= 200) {
            answer.status = status;
            answer.fields = fields;
        }
    }
}

/// The last frames and the end, for a reason.
impl fmt::Display for Seen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 6;
        let hidden = self.frames.len().saturating_sub(SHOWN);
        if hidden > 0 {
            write!(out, "{hidden} frames, then ")?;
        }
        for frame in self.frames.iter().skip(hidden) {
            write!(out, "{frame}, ")?;
            let status = self
                .answers
                .get(&frame.stream)
                .and_then(|answer| answer.status);
            if let (kind::HEADERS, Some(status)) = (frame.kind, status) {
                write!(out, "status {status}, ")?;
            }
        }
        out.write_str(self.end.as_deref().unwrap_or("silence"))
    }
}

/// The server's setting, or the default of RFC 9113, 6.5.2.
pub(super) fn setting_of(seen: &Seen, which: u16) -> Option<u32> {
    let default = match which {
        setting::INITIAL_WINDOW_SIZE => Some(65_535),
        setting::MAX_FRAME_SIZE => Some(16_384),
        _ => None,
    };
    seen.settings.get(&which).copied().or(default)
}
