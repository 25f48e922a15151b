//! The one shape in which a command of ours fails: what was attempted, why it failed, what to do,
//! and the exit code. Libraries have typed errors of their own and are turned into this at the edge.

use std::fmt;

/// Exit codes of every command (contract.md section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed at run time; a supervisor may start it again.
    Failed = 1,
    /// Wrong usage of the command line.
    Usage = 2,
    /// Not running (`bingo status` only).
    NotRunning = 3,
    /// Wrong configuration or environment; a supervisor must not start it again.
    Configuration = 64,
    /// Interrupted by the user.
    Interrupted = 130,
}

/// One message: `error: <attempted>: <why>` and, under it, `help: <remedy>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub attempted: String,
    pub why: String,
    pub help: String,
}

/// A failed command: an exit code and at least one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub messages: Vec<Message>,
}

impl Failure {
    /// One message; an empty `help` is left out when printed.
    pub fn new(
        exit: Exit,
        attempted: impl Into<String>,
        why: impl fmt::Display,
        help: impl Into<String>,
    ) -> Self {
        let message = Message {
            attempted: attempted.into(),
            why: why.to_string(),
            help: help.into(),
        };
        Self {
            exit,
            messages: vec![message],
        }
    }

    /// Exit 64: wrong configuration or environment.
    pub fn configuration(
        attempted: impl Into<String>,
        why: impl fmt::Display,
        help: impl Into<String>,
    ) -> Self {
        Self::new(Exit::Configuration, attempted, why, help)
    }

    /// Exit 1: failed at run time.
    pub fn run_time(
        attempted: impl Into<String>,
        why: impl fmt::Display,
        help: impl Into<String>,
    ) -> Self {
        Self::new(Exit::Failed, attempted, why, help)
    }

    /// Joins the messages of several failures; the first one's exit code stands.
    /// Returns `None` when there are none.
    pub fn all(failures: impl IntoIterator<Item = Failure>) -> Option<Failure> {
        failures.into_iter().reduce(|mut first, next| {
            first.messages.extend(next.messages);
            first
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, message) in self.messages.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "error: {}: {}", message.attempted, message.why)?;
            if !message.help.is_empty() {
                write!(f, "\nhelp: {}", message.help)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// The text of an error and of every error beneath it, joined by ": ".
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_prints_what_why_and_remedy() {
        let failure = Failure::configuration("read config.yaml", "no such file", "write one");
        assert_eq!(
            failure.to_string(),
            "error: read config.yaml: no such file\nhelp: write one"
        );
    }

    #[test]
    fn joined_failures_keep_every_message_in_order() {
        let one = Failure::configuration("a", "x", "");
        let two = Failure::run_time("b", "y", "");
        let all = Failure::all([one, two]).unwrap();
        assert_eq!(all.exit, Exit::Configuration);
        assert_eq!(all.to_string(), "error: a: x\nerror: b: y");
    }
}
