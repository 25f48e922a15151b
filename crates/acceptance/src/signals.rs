//! What end-to-end tests and drills do to processes from outside: find them, end them, wait for
//! them. Every process is named by its id *and* its start time, because ids are used again: a drill
//! that kills by id alone will one day kill a stranger. Linux only (`/proc`, pidfd). Left out:
//! freezing a whole tree at once and anything that needs a name pattern: a drill gets its ids from
//! `bingo status`, never by guessing.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::error::Error;

/// The pause between two looks of [`wait_until`].
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A process as the kernel shows it, safe to signal: `started_ticks` tells it from a later one that
/// got the same id (proc(5), field 22 of `/proc/PID/stat`, clock ticks since boot).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub started_ticks: u64,
    /// The real user id.
    pub uid: u32,
    /// The arguments, joined by blanks; empty for a kernel thread.
    pub command_line: String,
}

/// The signals that drills send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL: dies at once, whatever it does.
    Kill,
    /// SIGTERM: asked to end.
    Terminate,
    /// SIGINT: as by Ctrl-C.
    Interrupt,
    /// SIGHUP: asked to reload.
    HangUp,
    /// SIGSTOP: frozen; sockets stay open, nothing is answered.
    Stop,
    /// SIGCONT: thawed.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::HangUp => "SIGHUP",
            Self::Stop => "SIGSTOP",
            Self::Continue => "SIGCONT",
        }
    }

    fn number(self) -> rustix::process::Signal {
        use rustix::process::Signal as Raw;
        match self {
            Self::Kill => Raw::KILL,
            Self::Terminate => Raw::TERM,
            Self::Interrupt => Raw::INT,
            Self::HangUp => Raw::HUP,
            Self::Stop => Raw::STOP,
            Self::Continue => Raw::CONT,
        }
    }
}

/// The living process with this id; none for a zombie, which only waits for its parent.
pub fn process(pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything, blanks too.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let started_ticks = fields.nth(17)?.parse().ok()?;
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command_line = String::from_utf8_lossy(&arguments)
        .replace('\0', " ")
        .trim_end()
        .to_owned();
    Some(Process {
        pid,
        parent,
        started_ticks,
        uid: status_number(pid, "Uid:")?.try_into().ok()?,
        command_line,
    })
}

/// Whether a process with this id lives; a zombie does not.
pub fn pid_alive(pid: u32) -> bool {
    process(pid).is_some()
}

/// Whether this very process, not a later one with its id, lives.
pub fn alive(process_known: &Process) -> bool {
    process(process_known.pid).is_some_and(|now| now.started_ticks == process_known.started_ticks)
}

/// Sends `signal` to this very process: a file descriptor is taken on it first, then its start time
/// is compared, so that no other process can be hit in between (pidfd_send_signal(2)).
///
/// # Errors
/// [`Error::Signal`] when it is gone, when its id belongs to another now, or when it is not ours.
pub fn kill(process_known: &Process, signal: Signal) -> Result<(), Error> {
    let failed = |reason: String| Error::Signal {
        signal: signal.name(),
        pid: process_known.pid,
        reason,
    };
    let pid = i32::try_from(process_known.pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| failed("no such id".to_owned()))?;
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Err(failed("it is gone".to_owned())),
        Err(error) => return Err(failed(error.to_string())),
    };
    if !alive(process_known) {
        return Err(failed("it is gone".to_owned()));
    }
    pidfd_send_signal(handle, signal.number()).map_err(|error| failed(error.to_string()))
}

/// Resident memory of a process, bytes (`VmRSS` of proc_pid_status(5)); none when it is gone.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    status_number(pid, "VmRSS:")?.checked_mul(1024)
}

/// Every living process whose parent is `pid`.
pub fn children_of(pid: u32) -> Vec<Process> {
    let mut found = processes();
    found.retain(|one| one.parent == pid);
    found
}

/// Every living process below `pid`: children, their children and so on, nearest first.
pub fn descendants_of(pid: u32) -> Vec<Process> {
    let mut rest = processes();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![pid];
    while !parents.is_empty() {
        let (next, others): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|one| parents.contains(&one.parent));
        parents = next.iter().map(|one| one.pid).collect();
        found.extend(next);
        rest = others;
    }
    found
}

/// Every living process (but this one) that works in `folder`, below it, or names it on its command
/// line: what an installation in that folder may have left behind.
pub fn processes_under(folder: &Path) -> Vec<Process> {
    let named = folder.to_string_lossy().into_owned();
    let mut found = processes();
    found.retain(|one| {
        let works_there = std::fs::read_link(format!("/proc/{}/cwd", one.pid))
            .is_ok_and(|place| place.starts_with(folder));
        one.pid != std::process::id() && (works_there || one.command_line.contains(&named))
    });
    found
}

/// Whether nobody listens there: the address can be bound right now (port 0 is always free).
pub fn port_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

/// Looks every 5 ms until `condition` holds; the moment it did is within one look of the return.
/// `what` completes the sentence "wait until …".
///
/// # Errors
/// [`Error::NeverTrue`] after `limit`. A look that itself takes long is not cut short.
pub async fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> Result<Duration, Error> {
    let begun = Instant::now();
    loop {
        if condition().await {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() >= limit {
            let what = what.to_owned();
            return Err(Error::NeverTrue { what, limit });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(process)
        .collect()
}

/// The first number after `key` in `/proc/PID/status`.
fn status_number(pid: u32, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A child that sleeps for an hour and is ended whatever the test does.
    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Self {
            Self(Command::new("sleep").arg("3600").spawn().expect("sleep"))
        }

        fn process(&self) -> Process {
            process(self.0.id()).expect("the child lives")
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[tokio::test]
    async fn a_killed_process_is_not_alive_even_before_its_parent_reaps_it() {
        let child = Sleeper::start();
        let known = child.process();
        assert!(alive(&known));
        kill(&known, Signal::Kill).expect("killed");
        wait_until("the child is gone", Duration::from_secs(5), async || {
            !alive(&known)
        })
        .await
        .expect("gone");
        assert!(!pid_alive(known.pid));
    }

    #[test]
    fn a_process_that_took_over_the_id_is_not_hit() {
        let child = Sleeper::start();
        let mut another = child.process();
        another.started_ticks -= 1;
        let error = kill(&another, Signal::Kill).expect_err("refused");
        assert!(error.to_string().contains("it is gone"), "{error}");
        assert!(alive(&child.process()));
    }

    #[test]
    fn a_child_is_found_by_its_parent_and_by_its_folder() {
        let mut command = Command::new("sleep");
        let folder = std::env::temp_dir().canonicalize().expect("a folder");
        let child = Sleeper(
            command
                .arg("3600")
                .current_dir(&folder)
                .spawn()
                .expect("sleep"),
        );
        let id = child.0.id();
        let here = |found: Vec<Process>| found.iter().any(|one| one.pid == id);
        assert!(here(children_of(std::process::id())));
        assert!(here(descendants_of(std::process::id())));
        assert!(here(processes_under(&folder)));
        assert!(!here(processes_under(Path::new("/nowhere"))));
        assert!(resident_bytes(id).is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn a_port_is_free_until_somebody_listens_on_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("address");
        assert!(!port_free(address));
        drop(listener);
        assert!(port_free(address));
    }

    #[tokio::test]
    async fn waiting_for_what_never_comes_ends_at_the_limit_and_says_what_it_waited_for() {
        let error = wait_until("pigs fly", Duration::from_millis(20), async || false)
            .await
            .expect_err("never");
        assert_eq!(error.to_string(), "wait until pigs fly: not so within 20ms");
    }
}
