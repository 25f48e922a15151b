//! Whether a client of HTTP/1.1 takes its answers. One that takes a few bytes now and then looks alive,
//! and holds its connection, and what is kept for its answer, as long as it likes. So there is a floor
//! as over HTTP/2 (`progress`): a piece of 16 KiB in `client_stall_timeout`.
//!
//! Not the kernel's TCP_USER_TIMEOUT (tcp(7)): a steady reader whose window is shut again and again
//! while it works is ended by it too, because between two such times the kernel does not always forget
//! the first (seen with Linux 6.18 and 40 kB a second). It bounds only what is left in the kernel when a
//! connection has been given up.
//!
//! As a rate and not piece by piece, because a socket takes more at once: what it has taken gives the
//! client time for so much more, up to what a socket holds.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::progress::PIECE_BYTES_MAX;
use crate::pace::Pace;

/// What a socket takes, beyond what is on the wire, before it says that it is full
/// (TCP_NOTSENT_LOWAT, tcp(7)). Without it that is megabytes, and what a client takes is seen so
/// seldom that a slow one looks like one that has gone.
pub(super) const UNSENT_BYTES_MAX: u32 = 64 * 1024;
/// The pieces that this is.
const PIECES: u32 = UNSENT_BYTES_MAX / PIECE_BYTES_MAX as u32;

/// One connection's account.
#[derive(Debug)]
pub(super) struct Taking {
    pace: Pace,
    /// Runs while nothing is taken.
    impatience: Option<Pin<Box<Sleep>>>,
}

impl Taking {
    pub(super) fn new(timeout: Duration) -> Self {
        let seconds_per_byte = timeout.as_secs_f64() / PIECE_BYTES_MAX as f64;
        Self {
            pace: Pace::with(seconds_per_byte, timeout, timeout * PIECES),
            impatience: None,
        }
    }

    /// So many bytes were taken.
    pub(super) fn took(&mut self, bytes: usize) {
        if self.impatience.take().is_some() {
            self.pace.came(bytes, Instant::now());
        } else {
            self.pace.earned(bytes);
        }
    }

    /// Nothing is taken now. Ready when the client is to be given up.
    pub(super) fn waits(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let pace = &mut self.pace;
        let impatience = self.impatience.get_or_insert_with(|| {
            let end = pace.waits(Instant::now());
            Box::pin(tokio::time::sleep_until(end.into()))
        });
        impatience.as_mut().poll(context)
    }
}
