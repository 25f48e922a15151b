//! `bingo down`: ends everything of an installation, in order; with `--purge` removes its folder.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use chassis::Failure;
use supervisor::launch::SCRIBE;

use crate::layout::Layout;
use crate::{leftovers, status};

/// How long an orderly stop may take: the longest stop of a child (PostgreSQL's 60 s) and some.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a process that a crashed supervisor left may take to end before it is killed.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Two `up` or `down` at once would undo each other's work: each holds this lock while it changes
/// what runs, and waits for the other. It is on the folder itself (flock(2)) or, before that is made,
/// on the nearest one above it, so that no file is needed. Held until it is dropped; `None` where
/// that folder cannot be opened, and then nothing can be changed in it either.
pub(crate) fn lock(layout: &Layout) -> Option<File> {
    let folder = layout.root().ancestors().find(|folder| folder.is_dir())?;
    let folder = File::open(folder).ok()?;
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).ok()?;
    Some(folder)
}

/// Asks the supervisor to end everything and waits until it is gone. `at_once` is asked all the
/// time: once true, everything is killed. Without a supervisor the processes of the last record are
/// ended by pid and start time. Does nothing where nothing runs.
pub fn stop(layout: &Layout, at_once: &dyn Fn() -> bool) -> Result<(), Failure> {
    let _lock = lock(layout);
    let client = supervisor::control::Client::new(layout.control_socket());
    let supervisor = match client.status() {
        Err(error) if status::is_forbidden(&error) => return Err(status::forbidden(layout)),
        answer => answer.ok().and_then(|status| status.supervisor().cloned()),
    };
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

/// Ends what a crashed or killed supervisor left running: what its last record names and, because a
/// child may have been started a moment before a kill and not be recorded yet, every process whose
/// command line names this installation's own files.
pub fn end_leftovers(layout: &Layout) -> Result<(), Failure> {
    let mut status = status::last_record(layout).unwrap_or_default();
    let known: Vec<u32> = status
        .processes
        .iter()
        .flat_map(|process| {
            let beside = process.beside.iter().map(|beside| beside.pid);
            process.pid.into_iter().chain(beside)
        })
        .collect();
    let unknown = leftovers::find(layout).into_iter();
    let unknown = unknown.filter(|process| process.pid.is_some_and(|pid| !known.contains(&pid)));
    // Who is first is ended last: scribes, which end by themselves after those who write to them.
    let (scribes, others): (Vec<_>, Vec<_>) = unknown.partition(|process| process.role == SCRIBE);
    status.processes.splice(0..0, scribes);
    status.processes.extend(others);
    let ended = supervisor::processes::end_leftovers(&status, LEFTOVER_PATIENCE);
    ended.map(drop).map_err(|left| {
        Failure::run_time(
            format!(
                "end what an earlier run left in {}",
                layout.root().display()
            ),
            format!("still there: {}", left.join(", ")),
            "run as root or as the user who started it",
        )
    })
}

/// Removes what `up` made in the folder of a stopped installation, and the folder itself when nothing
/// else is in it. Refuses a folder that is not ours, so that a wrong `--dir` costs nothing. Returns
/// whether there was anything to remove.
pub fn purge(layout: &Layout) -> Result<bool, Failure> {
    let root = layout.root();
    if !root.exists() {
        return Ok(false);
    }
    let attempted = format!("remove the installation in {}", root.display());
    if !layout.is_ours() {
        return Err(Failure::configuration(
            attempted,
            "it holds no installation of bingo",
            "name the right folder with --dir, or remove it by hand",
        ));
    }
    let failed = |error: io::Error| {
        let help = "run as the user who started the installation";
        Failure::run_time(attempted.clone(), error, help)
    };
    for part in layout.parts() {
        let removed = if part.is_dir() {
            std::fs::remove_dir_all(&part)
        } else {
            std::fs::remove_file(&part)
        };
        removed.or_else(absent).map_err(failed)?;
    }
    // Somebody else's files may lie beside ours: then the folder stays.
    let real = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    match std::fs::remove_dir(&real) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        result => result.or_else(absent).map_err(failed)?,
    }
    if real != root {
        std::fs::remove_file(root).or_else(absent).map_err(failed)?;
    }
    Ok(true)
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}
