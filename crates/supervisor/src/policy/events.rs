//! What a process's machine is told and what it answers: plain values, so that a test can write
//! them down.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Restart;

/// What the rules depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) kind: Kind,
    pub(crate) restart: Restart,
    /// Whether a liveness probe exists.
    pub(crate) probed: bool,
    /// Whether it tells by itself when it serves; until then no probe counts.
    pub(crate) notified: bool,
    pub(crate) startup_timeout: Duration,
    pub(crate) fall: u32,
    pub(crate) stop_timeout: Duration,
}

/// Roles with rules of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Service,
    /// Done when it exited 0.
    Job,
    /// Restarted on exit only; silence is reported, and ends in a kill only much later.
    Postgres,
}

/// How a process ended, with the line of its log that explains it best.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// `exit 2` or `signal SIGKILL`.
    pub(crate) name: String,
    pub(crate) line: Option<String>,
}

impl Ended {
    pub(crate) fn reason(&self) -> String {
        match &self.line {
            Some(line) => format!("{}: {line}", self.name),
            None => self.name.clone(),
        }
    }
}

/// One probe: what came of it, and by how much the prober's own timers were late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) late: Duration,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Good,
    /// HTTP 500 with `Bingo-State: draining`: neither good nor bad.
    Draining,
    /// Any other HTTP status that is no 2xx.
    Bad {
        status: u16,
        body: String,
    },
    /// No answer: refused, broken off, or nothing in time.
    Silent {
        why: String,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// What it waited for is there.
    Release,
    /// A start was tried and there is no process; `permanent`: there never will be.
    StartFailed {
        why: String,
        permanent: bool,
    },
    Exited(Ended),
    Probed(Round),
    /// It told that it serves.
    Ready,
    /// It takes more memory than it may ever take.
    TooLarge(String),
    /// This supervisor itself stood still for so long: nothing that was due meanwhile counts.
    Stalled(Duration),
    /// The moment of `wake_at` has come.
    Wake,
    /// End it in order and start it again, for this reason: a choice, not a failure.
    Restart(String),
    /// All is being stopped: nothing is started any more.
    Close,
    /// End it in order.
    Stop,
    /// End it at once.
    StopNow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Start,
    /// Send its stop signal to the process.
    Stop,
    /// Send SIGQUIT to the process (PostgreSQL's immediate shutdown).
    Quit,
    /// Send SIGKILL to the process and all that it started.
    Kill,
    /// A human must look; the text says at what.
    Alarm(String),
}
