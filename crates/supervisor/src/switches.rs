//! What signals ask of a supervisor: to end in order, or at once when asked again; to look at its
//! file again.

use std::sync::Arc;

use chassis::Shutdown;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// What can be asked from outside without the control socket.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// Ends everything in order.
    pub stop: Shutdown,
    /// Ends everything at once.
    pub now: Shutdown,
    /// Reads the configuration anew; stops a supervisor that has no file.
    pub hang_up: Arc<Notify>,
}

impl Switches {
    /// The first SIGTERM or SIGINT stops in order, the second at once; so does SIGQUIT. SIGHUP is
    /// `hang_up`.
    /// Must be called inside a tokio runtime. Fails only where the kernel refuses a handler.
    ///
    /// A shell starts what it puts in the background with SIGINT and SIGQUIT ignored, and children
    /// would inherit that (PostgreSQL is stopped by the one and the other); what is handled here
    /// is back at its default in a child (execve(2)).
    pub fn on_signals() -> std::io::Result<Self> {
        let switches = Self::default();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut quit = signal(SignalKind::quit())?;
        let theirs = switches.clone();
        tokio::spawn(async move {
            loop {
                let at_once = tokio::select! {
                    _ = terminate.recv() => theirs.stop.is_requested(),
                    _ = interrupt.recv() => theirs.stop.is_requested(),
                    _ = hang_up.recv() => {
                        theirs.hang_up.notify_one();
                        continue;
                    }
                    _ = quit.recv() => true,
                };
                theirs.stop.request();
                if at_once {
                    return theirs.now.request();
                }
            }
        });
        Ok(switches)
    }
}
