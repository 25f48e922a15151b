//! Ending a supervisor: in order, or at once when asked again.

use chassis::Shutdown;
use tokio::signal::unix::{SignalKind, signal};

/// The two ways to end a supervisor.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// Ends everything in order.
    pub stop: Shutdown,
    /// Ends everything at once.
    pub now: Shutdown,
}

impl Switches {
    /// The first SIGTERM, SIGINT or SIGHUP stops in order, the second at once; so does SIGQUIT.
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
                    _ = hang_up.recv() => theirs.stop.is_requested(),
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
