//! The last steps of a child before it becomes its command, taken in a process of its own:
//! `bingo launch -- CMD …`. `LISTEN_PID` must hold the child's pid, which only the child knows, and
//! Rust allows almost nothing between fork and exec without `unsafe`. A shell could set the
//! variable, but not `no_new_privs`, and later limits (landlock, seccomp) need a program of ours
//! anyhow. Costs one exec, about a millisecond. The uid is dropped before, by the one who starts it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use chassis::Failure;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};

/// The way to this program that survives its replacement on disk and needs no right on the folders
/// above it: the running image itself (proc(5), /proc/PID/exe).
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// Becomes `command` (program and arguments). Returns only when that fails, with exit 64.
pub fn launch(command: &[OsString]) -> Failure {
    let Some((program, arguments)) = command.split_first() else {
        return Failure::new(
            chassis::Exit::Usage,
            "launch a process",
            "no command is given",
            "write `launch -- CMD ARG…`; the supervisor does",
        );
    };
    let failed = |step: &str, error: std::io::Error| {
        Failure::configuration(
            format!("start {}: {step}", program.to_string_lossy()),
            error,
            "check that the program exists and that the user of the process may run it",
        )
    };
    // No setuid program gives back what was dropped (prctl(2), PR_SET_NO_NEW_PRIVS).
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        return failed("give up privileges", error.into());
    }
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Core, no_core) {
        return failed("forbid core files", error.into());
    }
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let mut next = Command::new(program);
    next.args(arguments);
    if std::env::var_os("LISTEN_FDS").is_some() {
        next.env("LISTEN_PID", std::process::id().to_string());
    }
    failed("exec", next.exec())
}
