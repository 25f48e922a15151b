//! What waits for the disk: bytes, up to a limit, between the one who reads the child and the one who
//! writes the file. Bytes and not blocks, so that a child of many short lines has as much room as one
//! of few long ones.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    is_closed: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Bytes(Vec<u8>),
    /// Nothing came in time.
    Nothing,
    /// Nothing comes any more.
    End,
}

impl Queue {
    /// False where there is no room for all of it; then nothing is taken. Never waits.
    pub(super) fn put(&self, bytes: &[u8], bytes_max: usize) -> bool {
        let mut state = self.lock();
        let fits = state.bytes.len() + bytes.len() <= bytes_max || state.bytes.is_empty();
        if fits {
            state.bytes.extend_from_slice(bytes);
            self.changed.notify_one();
        }
        fits
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// All that waits; waits for `patience` at most until there is something.
    pub(super) fn take(&self, patience: Duration) -> Taken {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), patience, |state| {
                state.bytes.is_empty() && !state.is_closed
            });
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match std::mem::take(&mut state.bytes) {
            bytes if !bytes.is_empty() => Taken::Bytes(bytes),
            _ if state.is_closed => Taken::End,
            _ => Taken::Nothing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_whole_and_what_waits_comes_out_at_once() {
        let queue = Queue::default();
        assert!(queue.put(b"one\n", 8));
        assert!(queue.put(b"two\n", 8));
        assert!(!queue.put(b"3", 8));
        assert_eq!(
            queue.take(Duration::ZERO),
            Taken::Bytes(b"one\ntwo\n".to_vec())
        );
        assert_eq!(queue.take(Duration::ZERO), Taken::Nothing);
        assert!(queue.put(b"longer than all of it\n", 8), "alone it passes");
        queue.close();
        assert!(matches!(queue.take(Duration::ZERO), Taken::Bytes(_)));
        assert_eq!(queue.take(Duration::from_secs(60)), Taken::End);
    }
}
