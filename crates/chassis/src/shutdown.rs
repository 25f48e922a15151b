//! One switch that tells every task of a process to end. Cloned freely; once on, it stays on. Asked
//! a second time (a second Ctrl-C), it means: at once, without waiting for anything.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A request to end, seen by every clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// How often the end was requested.
    requests: watch::Sender<u32>,
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
            requests: watch::Sender::new(0),
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
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                switch.request();
            }
        });
        Ok(shutdown)
    }

    /// Turns the switch on; asked again, it means "at once".
    pub fn request(&self) {
        self.requests
            .send_modify(|requests| *requests = requests.saturating_add(1));
    }

    /// Whether the switch is on.
    pub fn is_requested(&self) -> bool {
        *self.requests.borrow() > 0
    }

    /// Whether the end was requested more than once.
    pub fn is_requested_at_once(&self) -> bool {
        *self.requests.borrow() > 1
    }

    /// Resolves when the switch is on; at once if it already is. Safe to drop at any time.
    pub async fn requested(&self) {
        self.requested_times(1).await;
    }

    /// Resolves when the end was requested more than once. Safe to drop at any time.
    pub async fn requested_at_once(&self) {
        self.requested_times(2).await;
    }

    async fn requested_times(&self, times: u32) {
        let mut receiver = self.requests.subscribe();
        // An error would mean that the sender is gone, and `self` holds one.
        let _ = receiver.wait_for(|requests| *requests >= times).await;
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

    #[tokio::test]
    async fn a_second_request_means_at_once() {
        let shutdown = Shutdown::new();
        shutdown.request();
        assert!(!shutdown.is_requested_at_once());
        shutdown.clone().request();
        shutdown.requested_at_once().await;
        assert!(shutdown.is_requested_at_once());
    }
}
