//! Telling the service manager (systemd, or our own supervisor) how we are: sd_notify(3).
//! Without `NOTIFY_SOCKET` in the environment every call does nothing.

use sd_notify::NotifyState;

/// The process serves.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// The process is about to end.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}
