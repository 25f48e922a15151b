//! Telling the service manager (systemd, or our own supervisor) how we are: sd_notify(3).
//! Without `NOTIFY_SOCKET` in the environment every call does nothing.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

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
    let name = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
    let sent = match name.strip_prefix('@') {
        Some(name) => send_abstract(name, states),
        None => sd_notify::notify(states),
    };
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}

/// An address that begins with `@` is in the abstract namespace (unix(7)), which the library does not
/// know. Our own supervisor uses these: no folder needs to be writable for a child.
fn send_abstract(name: &str, states: &[NotifyState<'_>]) -> io::Result<()> {
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    let address = SocketAddr::from_abstract_name(name)?;
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_with_an_abstract_address_hears_it() {
        let name = format!("bingo-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send_abstract(&name, &[NotifyState::Ready]).unwrap();
        let mut heard = [0; 64];
        let length = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1\n");
    }
}
