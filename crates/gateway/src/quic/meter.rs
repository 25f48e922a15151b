//! What one connection may cost without a request, and what it may make us hold: over either the
//! connection, or the stream, is refused. Budgets as over HTTP/2 (`listener::flood`): a client that
//! does useful work earns its control frames and resets, one that does nothing else runs dry.
//!
//! Frames of QUIC itself are seen by QUIC alone, which counts them; they are looked at once a second.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, VarInt};

use crate::listener::Budget;
use crate::worker::Shared;

/// Requests that are cancelled at once, beyond every second one.
const RESETS_MAX: u32 = 100;
/// What a request earns towards its own reset.
const RESETS_PER_REQUEST: f64 = 0.5;
/// Frames without a request at once, of HTTP/3 and of QUIC.
const CONTROL_FRAMES_MAX: u32 = 1_000;
/// What a request earns: windows, stream counts and connection ids go with it.
const CONTROL_FRAMES_PER_REQUEST: f64 = 4.0;
/// Bytes that go to the client and earn one control frame.
const BYTES_PER_CONTROL_FRAME: f64 = 1024.0;
/// How often QUIC's own counts are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// RFC 9114 section 8.1, H3_EXCESSIVE_LOAD.
pub(super) const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);

/// One connection's account.
pub(super) struct Meter {
    connection: Connection,
    shared: Arc<Shared>,
    resets: RefCell<Budget>,
    control: RefCell<Budget>,
    /// Frames and bytes that were counted already.
    seen: Cell<(u64, u64)>,
    /// Bytes of frames that are not whole.
    held: Cell<usize>,
    held_max: usize,
}

impl Meter {
    pub(super) fn new(connection: Connection, shared: Arc<Shared>, held_max: usize) -> Self {
        let now = Instant::now();
        Self {
            connection,
            shared,
            resets: RefCell::new(Budget::new(RESETS_MAX, now)),
            control: RefCell::new(Budget::new(CONTROL_FRAMES_MAX, now)),
            seen: Cell::new((0, 0)),
            held: Cell::new(0),
            held_max,
        }
    }

    /// A request came.
    pub(super) fn requested(&self) {
        self.resets.borrow_mut().earn(RESETS_PER_REQUEST);
        self.control.borrow_mut().earn(CONTROL_FRAMES_PER_REQUEST);
    }

    /// A request was cancelled.
    pub(super) fn cancelled(&self) {
        if !self.resets.borrow_mut().spend_all(1.0, Instant::now()) {
            self.end("h3_resets_max");
        }
    }

    /// So many frames came that carry no request.
    pub(super) fn idle_frames(&self, frames: u64) {
        let mut control = self.control.borrow_mut();
        if frames > 0 && !control.spend_all(frames as f64, Instant::now()) {
            self.end("h3_control_frames_max");
        }
    }

    /// Counts what QUIC has seen since.
    pub(super) fn look(&self) {
        let stats = self.connection.stats();
        let came = &stats.frame_rx;
        let frames = [
            came.ping,
            came.reset_stream,
            came.stop_sending,
            came.max_data,
            came.max_stream_data,
            came.max_streams_bidi,
            came.max_streams_uni,
            came.data_blocked,
            came.stream_data_blocked,
            came.streams_blocked_bidi,
            came.streams_blocked_uni,
            came.new_connection_id,
            came.retire_connection_id,
            came.path_challenge,
            came.path_response,
        ];
        let (frames, bytes) = (frames.iter().sum::<u64>(), stats.udp_tx.bytes);
        let (frames_before, bytes_before) = self.seen.replace((frames, bytes));
        let earned = bytes.saturating_sub(bytes_before) as f64 / BYTES_PER_CONTROL_FRAME;
        self.control.borrow_mut().earn(earned);
        self.idle_frames(frames.saturating_sub(frames_before));
    }

    /// A stream holds other than before; false where that is too much for the connection.
    pub(super) fn hold(&self, before: usize, now: usize) -> bool {
        let held = self.held.get().saturating_sub(before) + now;
        self.held.set(held);
        let fits = held <= self.held_max || now <= before;
        if !fits {
            self.shared.metrics.limit_hit("h3_heads_bytes_max");
        }
        fits
    }

    /// A frame of a request is over the limit of a head.
    pub(super) fn too_long(&self) {
        self.shared.metrics.limit_hit("head_bytes_max");
    }

    fn end(&self, limit: &'static str) {
        if self.connection.close_reason().is_none() {
            self.shared.metrics.limit_hit(limit);
            self.connection.close(EXCESSIVE_LOAD, limit.as_bytes());
        }
    }
}
