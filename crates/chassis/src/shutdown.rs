//! One switch that tells every task of a process to end. Cloned freely; once on, it stays on.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A request to end, seen by every clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    sender: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A switch that is off; nothing but `request` turns it on.
    pub fn new() -> Self {
        Self {
            sender: watch::Sender::new(false),
        }
    }

    /// A switch that SIGTERM and SIGINT turn on. Must be called inside a tokio runtime.
    /// Fails only where the kernel refuses the signal handler.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let switch = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            switch.request();
        });
        Ok(shutdown)
    }

    /// Turns the switch on.
    pub fn request(&self) {
        self.sender.send_replace(true);
    }

    /// Whether the switch is on.
    pub fn is_requested(&self) -> bool {
        *self.sender.borrow()
    }

    /// Resolves when the switch is on; at once if it already is. Safe to drop at any time.
    pub async fn requested(&self) {
        let mut receiver = self.sender.subscribe();
        // An error would mean that the sender is gone, and `self` holds one.
        let _ = receiver.wait_for(|on| *on).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_sees_a_request_made_before_or_after_it_waits() {
        let shutdown = Shutdown::new();
        let waiting = tokio::spawn({
            let clone = shutdown.clone();
            async move { clone.requested().await }
        });
        shutdown.request();
        waiting.await.unwrap();
        shutdown.clone().requested().await;
        assert!(shutdown.is_requested());
    }
}
