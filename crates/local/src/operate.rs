//! `bingo stop NAME` and `bingo start NAME`: one process of a running installation. The supervisor
//! decides whether it may; this asks it and waits until it is so.

use std::time::{Duration, Instant};

use chassis::{Exit, Failure};
use supervisor::control::Client;
use supervisor::{ControlError, ProcessState, ProcessStatus};

use crate::layout::Layout;
use crate::status::{self, one_line};

/// The longest stop of a child (PostgreSQL's 60 s) and some; the same for a start.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

/// Ends a process in order; returns when it is stopped. It stays so until `start`, a `restart` or the
/// next `up` of a stopped installation. `force`: also the last healthy one of its role.
pub fn stop(layout: &Layout, name: &str, force: bool) -> Result<(), Failure> {
    let attempted = format!("stop {name}");
    let asked = client(layout).stop_process(name, force);
    asked.map_err(|error| refused(layout, &attempted, &error))?;
    wait(layout, name, &attempted, |process| {
        process.state == ProcessState::Stopped
    })
}

/// Starts a stopped or failed process; returns when it is healthy (a job: done).
pub fn start(layout: &Layout, name: &str) -> Result<(), Failure> {
    let attempted = format!("start {name}");
    let asked = client(layout).start_process(name);
    asked.map_err(|error| refused(layout, &attempted, &error))?;
    wait(layout, name, &attempted, |process| {
        matches!(process.state, ProcessState::Healthy | ProcessState::Done)
    })
}

fn client(layout: &Layout) -> Client {
    Client::new(layout.control_socket())
}

fn wait(
    layout: &Layout,
    name: &str,
    attempted: &str,
    is_so: impl Fn(&ProcessStatus) -> bool,
) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = client(layout).status();
        let status = status.map_err(|error| refused(layout, attempted, &error))?;
        let Some(process) = status.process(name) else {
            return Err(Failure::run_time(
                attempted,
                "it was taken away meanwhile",
                "",
            ));
        };
        if is_so(process) {
            return Ok(());
        }
        let failed = process.state == ProcessState::Failed;
        if failed || Instant::now() >= deadline {
            let help = format!("bingo logs {name} --dir {}", layout.root().display());
            return Err(Failure::run_time(attempted, one_line(process), help));
        }
        std::thread::sleep(POLL);
    }
}

fn refused(layout: &Layout, attempted: &str, error: &ControlError) -> Failure {
    let dir = layout.root().display();
    match error {
        error if status::is_forbidden(error) => status::forbidden(layout),
        ControlError::NotRunning { .. } => Failure::new(
            Exit::NotRunning,
            attempted,
            format!("no supervisor runs in {dir}"),
            format!("bingo up --dir {dir}"),
        ),
        ControlError::Refused { why } if why.contains("last healthy") => {
            let help = "bring another one back first, or give --force";
            Failure::run_time(attempted, why, help)
        }
        ControlError::Refused { why } => {
            let names = client(layout).status();
            let names = names.map(|status| status.names().collect::<Vec<_>>().join(", "));
            let names = names.unwrap_or_default();
            Failure::run_time(attempted, why, format!("the processes are: {names}"))
        }
        error => Failure::run_time(attempted, chassis::failure::chain(error), "try again"),
    }
}
