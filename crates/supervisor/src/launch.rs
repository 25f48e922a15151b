//! The last steps of a child before it becomes its command, taken in a process of its own:
//! `bingo launch -- CMD …`. `LISTEN_PID` must hold the child's pid, which only the child knows, and
//! Rust allows almost nothing between fork and exec without `unsafe`. A shell could set the
//! variable, but not `no_new_privs`, landlock and seccomp. Costs one exec, about a millisecond.
//!
//! What to do comes in one variable, which is not passed on. The same way start the two works of the
//! supervisor that a child must not hold up and that need no rights of ours: a scribe, and the
//! rotation of a file in a child's own folder.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chassis::Failure;
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::config::Logs;
use crate::confine::Confinement;
use crate::isolation::{self, Isolation};
use crate::log_files::{self, Way};
use crate::porter::{self, Charge};
use crate::scribe;

/// The way to this program that survives its replacement on disk and needs no right on the folders
/// above it: the running image itself (proc(5), /proc/PID/exe).
pub const OWN_PROGRAM: &str = "/proc/self/exe";

const ISOLATION_HELP: &str = "start as root, or allow users to make namespaces \
                              (sysctl user.max_user_namespaces=10000)";

/// The variable that holds `Orders`.
pub(crate) const ORDERS: &str = "SUPERVISOR_ORDERS";
/// The first word in the command line of a scribe; then its file.
pub const SCRIBE: &str = "scribe";
/// The first word in the command line of a rotation; then its file.
pub(crate) const ROTATE: &str = "rotate";

/// What a launched process does.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) confinement: Confinement,
    pub(crate) task: Task,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Becomes the command.
    #[default]
    Command,
    /// Stands before the command, which lives in namespaces of its own.
    Porter(Box<Charge>),
    /// Tries whether namespaces can be made.
    Trial,
    Scribe(scribe::Settings),
    Rotate {
        path: PathBuf,
        limits: Logs,
        way: Way,
    },
}

impl Orders {
    /// Cannot fail: all paths came as text. If it did, `launch` would refuse the empty text.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn given() -> io::Result<Self> {
        match std::env::var(ORDERS) {
            Ok(text) => serde_json::from_str(&text).map_err(io::Error::other),
            Err(_) => Ok(Self::default()),
        }
    }
}

/// Becomes `command` (program and arguments), or does the supervisor's work and ends the process with
/// exit 0. Returns only when that fails, with exit 64 for a command that cannot be started.
pub fn launch(command: &[OsString]) -> Failure {
    let Some((program, arguments)) = command.split_first() else {
        return Failure::new(
            chassis::Exit::Usage,
            "launch a process",
            "no command is given",
            "write `launch -- CMD ARG…`; the supervisor does",
        );
    };
    let failed = |step: &str, error: io::Error| {
        Failure::configuration(
            format!("start {}: {step}", program.to_string_lossy()),
            error,
            "check that the program exists and that the user of the process may run it",
        )
    };
    let orders = match Orders::given() {
        Ok(orders) => orders,
        Err(error) => return failed("read what the supervisor wants", error),
    };
    rustix::process::umask(match orders.task {
        // The group of the log folder's owner may read logs.
        Task::Scribe(_) => Mode::WGRP | Mode::XGRP | Mode::RWXO,
        // The folders that it makes inside are for the process, which is somebody else.
        Task::Porter(_) => Mode::WGRP | Mode::WOTH,
        _ => Mode::RWXG | Mode::RWXO,
    });
    // It gives up its rights when it has done what needs them.
    let gives_up = !matches!(orders.task, Task::Porter(_) | Task::Trial);
    if gives_up && let Err((step, error)) = orders.confinement.apply() {
        return failed(step, error);
    }
    match orders.task {
        Task::Command => failed("exec", become_command(program, arguments)),
        Task::Porter(charge) => stand(*charge, &orders.confinement),
        Task::Trial => match isolation::become_able()
            .map_err(|error| ("make a namespace for a user".to_owned(), error))
            .and_then(|()| Isolation::default().enter())
        {
            Ok(()) => std::process::exit(0),
            Err((step, error)) => Failure::configuration(step, error, ISOLATION_HELP),
        },
        Task::Scribe(settings) => {
            let attempted = format!("write the log {}", settings.path.display());
            finish(attempted, scribe::run(settings))
        }
        Task::Rotate { path, limits, way } => {
            let attempted = format!("rotate the log {}", path.display());
            finish(attempted, log_files::rotate(&path, &limits, way))
        }
    }
}

/// Whether this machine lets us isolate processes; None where it does, else why not. `program` is one
/// that knows `launch`, this very one as a rule.
pub fn cannot_isolate(program: &Path) -> Option<String> {
    let orders = Orders {
        confinement: Confinement::default(),
        task: Task::Trial,
    };
    let tried = Command::new(program)
        .args(["launch", "--", "trial"])
        .env(ORDERS, orders.to_text())
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().next().unwrap_or_default();
            Some(line.trim_start_matches("error: ").to_owned())
        }
        Err(error) => Some(error.to_string()),
    }
}

fn stand(charge: Charge, confinement: &Confinement) -> Failure {
    let command = charge.command.join(" ");
    let failed = porter::stand(charge, confinement);
    let attempted = format!("start {command} isolated: {}", failed.step);
    match failed.permanent {
        true => Failure::configuration(attempted, failed.error, ISOLATION_HELP),
        false => Failure::run_time(attempted, failed.error, "mend that; it is tried again"),
    }
}

fn become_command(program: &OsString, arguments: &[OsString]) -> io::Error {
    let mut next = Command::new(program);
    next.args(arguments).env_remove(ORDERS);
    if std::env::var_os("LISTEN_FDS").is_some() {
        next.env("LISTEN_PID", std::process::id().to_string());
    }
    next.exec()
}

fn finish(attempted: String, result: io::Result<()>) -> Failure {
    match result {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            let help = "check that its folder exists and that its user may write there";
            Failure::run_time(attempted, error, help)
        }
    }
}
