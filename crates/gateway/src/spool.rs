//! Spooling: a node's answer is taken to its end before the client gets its head, so that a node that
//! is lost in mid-body is unseen: another one is asked. It also frees the node, and its database, from
//! clients that read slowly. The price is the first byte, which comes when the last would have.
//!
//! The first mebibyte stays in memory, the rest goes to a file without a name, which vanishes with
//! the process. All spools of a gateway together are bounded; where there is no room for more, or the
//! disk fails, the answer streams on from there, as if its route did not spool.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use crate::account::Flight;
use crate::hop_by_hop;
use crate::live::Live;
use crate::worker::Worker;

/// So much of each answer stays in memory.
const MEMORY_BYTES: usize = 1024 * 1024;
/// All spools of a gateway together have so much in memory; beyond it an answer goes to its file from
/// its first byte, so that clients that read nothing cost disk and no memory.
const MEMORY_BYTES_ALL: u64 = 8 * 1024 * 1024;
/// What is written to the file, and read from it, at once.
const PIECE_BYTES: usize = 64 * 1024;
/// What is read at once at first: a client that takes nothing holds one such piece.
const FIRST_PIECES_BYTES: usize = 16 * 1024;
/// So much of a file is read in first pieces. More than sockets take before they say that they are full.
const FIRST_BYTES: u64 = 512 * 1024;
/// How often a silent node is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// An answer's body that was taken in, or as much of it as there was room for. Read back in the order
/// memory, file, rest.
#[derive(Debug)]
pub(crate) struct Spool {
    memory: VecDeque<Bytes>,
    file: Option<OnDisk>,
    /// What came last and could not be written.
    rest: Bytes,
    /// Not read back yet.
    left: u64,
    trailers: Option<HeaderMap>,
    /// The answer has nothing more.
    whole: bool,
    _room: Room,
    _memory_room: Room,
}

/// The node was lost before the answer's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

/// Takes a body in. The flight ends with it, unless the answer has to stream on.
pub(crate) async fn take(
    worker: &Worker,
    live: &Live,
    body: &mut Incoming,
    flight: &mut Flight,
    deadline: Instant,
) -> Result<Spool, Lost> {
    let taken = fill(worker, live, body, flight, deadline).await;
    let metrics = &worker.shared.metrics;
    match &taken {
        Ok(spool) if spool.is_whole() => metrics.spooled_whole(),
        Ok(_) => metrics.spooled("streamed"),
        Err(Lost) => metrics.spooled("lost"),
    }
    taken
}

async fn fill(
    worker: &Worker,
    live: &Live,
    body: &mut Incoming,
    flight: &mut Flight,
    deadline: Instant,
) -> Result<Spool, Lost> {
    let shared = &worker.shared;
    let mut filling = Filling::new(
        Room::new(Arc::clone(&shared.spooled), live.spool.bytes_max),
        Room::new(Arc::clone(&shared.spooled_in_memory), MEMORY_BYTES_ALL),
        live.spool.folder.as_deref(),
        deadline,
    );
    let mut heard = Instant::now();
    loop {
        if Instant::now() >= deadline {
            return Ok(filling.end(false).await);
        }
        let Ok(frame) = tokio::time::timeout(LOOK, body.frame()).await else {
            if heard.elapsed() >= live.limits.node_stall_timeout {
                flight.stalled();
                return Err(Lost);
            }
            if flight.is_lost() && worker.any_usable() {
                flight.broken();
                return Err(Lost);
            }
            continue;
        };
        heard = Instant::now();
        match frame {
            Some(Ok(frame)) => match hop_by_hop::passable(frame).into_data() {
                Ok(data) => {
                    if !filling.push(data).await {
                        worker.shared.metrics.limit_hit("spool_bytes_max");
                        return Ok(filling.end(false).await);
                    }
                }
                Err(frame) => filling.trailers = frame.into_trailers().ok(),
            },
            Some(Err(_)) => {
                flight.broken();
                return Err(Lost);
            }
            None => {
                flight.completed();
                return Ok(filling.end(true).await);
            }
        }
    }
}

impl Spool {
    /// Nothing of the node's answer is left to come.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// All of it was read back.
    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0 && self.trailers.is_none()
    }

    /// Bytes that were not read back yet, where that is all that comes.
    pub(crate) fn exactly_left(&self) -> Option<u64> {
        (self.whole && self.trailers.is_none()).then_some(self.left)
    }

    /// The next frame; `None` when all was read back. An error is one of the disk.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let piece = if let Some(piece) = self.memory.pop_front() {
            piece
        } else if let Some(file) = self.file.as_mut().filter(|file| !file.is_read()) {
            match ready!(file.poll_read(cx)) {
                Ok(piece) => piece,
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        } else if !self.rest.is_empty() {
            std::mem::take(&mut self.rest)
        } else {
            let trailers = self.trailers.take().map(Frame::trailers);
            return Poll::Ready(trailers.map(Ok));
        };
        self.left = self.left.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// A spool that is being filled.
struct Filling<'a> {
    /// Of the file.
    folder: Option<&'a Path>,
    /// Until then a disk may take to write.
    deadline: Instant,
    memory: VecDeque<Bytes>,
    memory_bytes: usize,
    file: Option<OnDisk>,
    /// What will be written to the file next.
    rest: BytesMut,
    total: u64,
    trailers: Option<HeaderMap>,
    room: Room,
    memory_room: Room,
}

impl<'a> Filling<'a> {
    fn new(room: Room, memory_room: Room, folder: Option<&'a Path>, deadline: Instant) -> Self {
        Self {
            folder,
            deadline,
            memory: VecDeque::new(),
            memory_bytes: 0,
            file: None,
            rest: BytesMut::new(),
            total: 0,
            trailers: None,
            room,
            memory_room,
        }
    }

    /// Takes a piece in, always; false when it was the last for which there is room.
    async fn push(&mut self, data: Bytes) -> bool {
        self.total += data.len() as u64;
        let room = self.room.take(data.len() as u64);
        let fits = self.memory_bytes + data.len() <= MEMORY_BYTES;
        if fits && self.memory_room.try_take(data.len() as u64) {
            self.memory_bytes += data.len();
            self.memory.push_back(data);
            return room;
        }
        // Full, also for a smaller piece that comes later.
        self.memory_bytes = MEMORY_BYTES;
        self.rest.extend_from_slice(&data);
        if !room || self.rest.len() < PIECE_BYTES {
            return room;
        }
        self.write().await
    }

    /// Writes `rest`; false when the disk failed or hangs, and then it is still there.
    async fn write(&mut self) -> bool {
        let known = self.file.as_ref();
        let (file, offset) = (
            known.map(|file| Arc::clone(&file.file)),
            known.map_or(0, |file| file.bytes),
        );
        let folder = self.folder.map_or_else(std::env::temp_dir, Path::to_owned);
        // Whole, so that its room is not kept for what comes next.
        let piece = std::mem::take(&mut self.rest).freeze();
        let bytes = piece.clone();
        let written = tokio::task::spawn_blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(tempfile::tempfile_in(&folder)?),
            };
            file.write_all_at(&bytes, offset)?;
            Ok(file)
        });
        let written = tokio::time::timeout_at(self.deadline.into(), written).await;
        let written = written.unwrap_or_else(|_| Ok(Err(std::io::ErrorKind::TimedOut.into())));
        match written.map_err(std::io::Error::other).flatten() {
            Ok(file) => {
                let bytes = offset + piece.len() as u64;
                self.file = Some(OnDisk {
                    file,
                    bytes,
                    read: 0,
                    reading: None,
                });
                true
            }
            Err(error) => {
                tracing::warn!(%error, "an answer could not be spooled to disk");
                self.rest = BytesMut::from(piece);
                false
            }
        }
    }

    /// What is not in the memory that all spools share goes to the file to its last byte.
    async fn end(mut self, whole: bool) -> Spool {
        if whole && !self.rest.is_empty() {
            self.write().await;
        }
        Spool {
            memory: self.memory,
            file: self.file,
            rest: self.rest.freeze(),
            left: self.total,
            trailers: self.trailers,
            whole,
            _room: self.room,
            _memory_room: self.memory_room,
        }
    }
}

/// The part of a spool that is in a file without a name.
#[derive(Debug)]
struct OnDisk {
    file: Arc<File>,
    bytes: u64,
    read: u64,
    reading: Option<JoinHandle<std::io::Result<Bytes>>>,
}

impl OnDisk {
    fn is_read(&self) -> bool {
        self.read == self.bytes
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<Bytes>> {
        let (offset, left) = (self.read, self.bytes - self.read);
        let reading = self.reading.get_or_insert_with(|| {
            let file = Arc::clone(&self.file);
            let most = if offset < FIRST_BYTES {
                FIRST_PIECES_BYTES
            } else {
                PIECE_BYTES
            };
            let bytes = usize::try_from(left).unwrap_or(most).min(most);
            tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; bytes];
                file.read_exact_at(&mut piece, offset)?;
                Ok(Bytes::from(piece))
            })
        });
        let piece = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let piece = piece.map_err(std::io::Error::other).flatten()?;
        self.read += piece.len() as u64;
        Poll::Ready(Ok(piece))
    }
}

/// What a spool takes of the room that all of them share; given back when it is dropped.
#[derive(Debug)]
struct Room {
    all: Arc<AtomicU64>,
    max: u64,
    mine: u64,
}

impl Room {
    fn new(all: Arc<AtomicU64>, max: u64) -> Self {
        Self { all, max, mine: 0 }
    }

    /// Takes so many bytes; false when that was more than there were.
    fn take(&mut self, bytes: u64) -> bool {
        self.mine += bytes;
        self.all.fetch_add(bytes, Relaxed) + bytes <= self.max
    }
}

impl Room {
    /// Takes so many bytes, or none.
    fn try_take(&mut self, bytes: u64) -> bool {
        let is_there = self.all.fetch_add(bytes, Relaxed) + bytes <= self.max;
        if is_there {
            self.mine += bytes;
        } else {
            self.all.fetch_sub(bytes, Relaxed);
        }
        is_there
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.all.fetch_sub(self.mine, Relaxed);
    }
}
