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

/// Tells the service manager that we live, as often as it asks for (`WATCHDOG_USEC`); returns at
/// once where it asks for nothing. Each sign of life is a task of its own on the runtime: one that no longer runs
/// its tasks gives none, and is restarted. Must be called inside a tokio
/// runtime.
pub async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return;
    };
    // Half of the limit, as sd_watchdog_enabled(3) advises.
    let mut ticks = tokio::time::interval(limit / 2);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sign = tokio::spawn(async { send(&[NotifyState::Watchdog]) });
        if sign.await.is_err() {
            return;
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}
