//! `bingo down`: ends everything of an installation, in order; with `--purge` removes its folder.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use chassis::Failure;

use crate::layout::Layout;
use crate::status;

/// How long an orderly stop may take: the longest stop of a child (PostgreSQL's 60 s) and some.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a process that a crashed supervisor left may take to end before it is killed.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Two `up` or `down` at once would undo each other's work: each holds this lock while it changes
/// what runs, and waits for the other. Held until the file is dropped. `None` where there is no
/// installation.
pub(crate) fn lock(layout: &Layout) -> Result<Option<File>, Failure> {
    if !layout.run().is_dir() {
        return Ok(None);
    }
    let failed = |error: io::Error| {
        Failure::configuration(
            format!("lock the installation in {}", layout.root().display()),
            error,
            "run as the user who started it, or name another folder with --dir",
        )
    };
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    let file = options.open(layout.lock()).map_err(failed)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| failed(error.into()))?;
    Ok(Some(file))
}

/// Asks the supervisor to end everything and waits until it is gone. `at_once` is asked all the
/// time: once true, everything is killed. Without a supervisor the processes of the last record are
/// ended by pid and start time. Does nothing where nothing runs.
pub fn stop(layout: &Layout, at_once: &dyn Fn() -> bool) -> Result<(), Failure> {
    let _lock = lock(layout)?;
    let client = supervisor::control::Client::new(layout.control_socket());
    let supervisor = client
        .status()
        .ok()
        .and_then(|status| status.supervisor().cloned());
    let Some(supervisor) = supervisor else {
        return end_leftovers(layout);
    };
    let _ = client.stop(false);
    let deadline = Instant::now() + STOP_TIMEOUT;
    let mut urged = false;
    while status::is_alive(&supervisor) && Instant::now() < deadline {
        if at_once() && !urged {
            urged = true;
            let _ = client.stop(true);
        }
        std::thread::sleep(POLL);
    }
    if status::is_alive(&supervisor) {
        let pid = supervisor.pid.unwrap_or_default();
        return Err(Failure::run_time(
            format!("stop the installation in {}", layout.root().display()),
            format!("the supervisor (process {pid}) did not end in time"),
            format!("kill -9 {pid}, then `bingo down` again"),
        ));
    }
    end_leftovers(layout)
}

/// Ends what a crashed or killed supervisor left running.
pub fn end_leftovers(layout: &Layout) -> Result<(), Failure> {
    let Some(status) = status::last_record(layout) else {
        return Ok(());
    };
    let ended = supervisor::processes::end_leftovers(&status, LEFTOVER_PATIENCE);
    ended.map(drop).map_err(|left| {
        Failure::run_time(
            format!(
                "end what an earlier run left in {}",
                layout.root().display()
            ),
            format!("still there: {}", left.join(", ")),
            "end these processes by hand, then try again",
        )
    })
}

/// Removes the folder of a stopped installation. Refuses a folder that holds none, so that a wrong
/// `--dir` costs nothing.
pub fn purge(layout: &Layout) -> Result<(), Failure> {
    let root = layout.root();
    if !root.exists() {
        return Ok(());
    }
    let attempted = format!("remove {}", root.display());
    if !layout.installation().exists() && !layout.supervisor_config().exists() {
        let ours = layout.secrets_exist();
        if !ours {
            return Err(Failure::configuration(
                attempted,
                "it holds no installation of bingo",
                "name the right folder with --dir, or remove it by hand",
            ));
        }
    }
    std::fs::remove_dir_all(root)
        .or_else(absent)
        .map_err(|error| {
            Failure::run_time(
                attempted,
                error,
                "run as the user who started the installation",
            )
        })
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}
