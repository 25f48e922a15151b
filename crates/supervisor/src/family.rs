//! Everything that hangs below this process. As the subreaper of its descendants (prctl(2),
//! PR_SET_CHILD_SUBREAPER) it inherits each process whose parent has died, so none can hide: a child
//! that this list did not start is an orphan. Starting happens under the list's lock, so that a
//! child is never seen before it is known.
//!
//! When a process ends, what is left of its group is killed, and so are the orphans that appeared
//! with its death; orphans that were there before belong to someone else (a daemon that a live
//! process detached) and live until the supervisor ends.

use std::collections::HashSet;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::launch::SCRIBE;
use crate::processes;
use crate::status::Stray;

/// How long the death of one process may hold up its successor while its orphans die.
const SWEEP_MAX: Duration = Duration::from_millis(100);
/// How long the end of the supervisor waits for scribes, before it kills them.
const SCRIBES_MAX: Duration = Duration::from_secs(2);
/// How long the end of the supervisor waits for killed orphans.
const END_MAX: Duration = Duration::from_secs(5);
const SWEEP_STEP: Duration = Duration::from_millis(1);
/// How often an adopted child is looked at where the kernel cannot say when it ends.
const ADOPTED_STEP: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(crate) struct Family {
    members: Mutex<Members>,
}

/// A child that is waited for.
#[derive(Debug)]
pub(crate) enum Member {
    /// Started by this program.
    Started(Child),
    /// Started by the program that this process was before: by its pid.
    Adopted(u32),
}

impl Member {
    /// How it ended.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Started(child) => child.wait().await,
            Self::Adopted(pid) => {
                let gone = || io::Error::other("its pid is none");
                wait_adopted(processes::to_pid(*pid).ok_or_else(gone)?).await
            }
        }
    }
}

async fn wait_adopted(pid: Pid) -> io::Result<ExitStatus> {
    // Readable from its end on (pidfd_open(2), Linux 5.3); it stays a zombie until we wait for it.
    if let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        // SAFETY: the handle is an open descriptor that `AsyncFd` owns from here on, and an `OwnedFd` is
        // always the same one.
        #[allow(unsafe_code)]
        let handle = unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) };
        let handle = handle.map_err(io::Error::from)?;
        let _ = handle.readable().await?;
    }
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::NOHANG)? {
            Some((_, status)) => return Ok(ExitStatus::from_raw(status.as_raw())),
            None => tokio::time::sleep(ADOPTED_STEP).await,
        }
    }
}

/// What a family knows, for the program that this process becomes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    seen: Vec<u32>,
    strays: Vec<u32>,
}

#[derive(Debug, Default)]
struct Members {
    /// Started here and not yet waited for.
    own: HashSet<u32>,
    /// Orphans at the last look, and at the two last looks.
    seen: HashSet<u32>,
    strays: HashSet<u32>,
}

impl Family {
    /// Makes this process the subreaper of all it starts. Fails on kernels before 3.4.
    pub(crate) fn found() -> io::Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok(Self::default())
    }

    /// Starts a child; `forget` must be called when it was waited for.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<(Child, u32)> {
        let mut members = self.lock();
        let child = command.spawn()?;
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("the new process has no pid"))?;
        members.own.insert(pid);
        Ok((child, pid))
    }

    /// Takes a child of the program that this process was before for one of ours; `forget` must be
    /// called when it was waited for.
    pub(crate) fn adopt(&self, pid: u32) -> Member {
        self.lock().own.insert(pid);
        Member::Adopted(pid)
    }

    /// Daemons that were known before are nobody's orphans now.
    pub(crate) fn recall(&self, known: Known) {
        let mut members = self.lock();
        members.seen.extend(known.seen);
        members.strays.extend(known.strays);
    }

    /// Runs `work` while no child can be started, so that none inherits what must not be inherited.
    pub(crate) fn without_starts<T>(&self, work: impl FnOnce() -> T) -> T {
        let _members = self.lock();
        work()
    }

    pub(crate) fn known(&self) -> Known {
        let members = self.lock();
        Known {
            seen: members.seen.iter().copied().collect(),
            strays: members.strays.iter().copied().collect(),
        }
    }

    /// The child is gone and was waited for.
    pub(crate) fn forget(&self, pid: u32) {
        self.lock().own.remove(&pid);
    }

    /// Kills what the dead child `pid` left behind; returns when it is gone, or after `SWEEP_MAX`.
    pub(crate) async fn sweep(&self, pid: u32) {
        let deadline = Instant::now() + SWEEP_MAX;
        loop {
            processes::kill_group(pid);
            let left = self.kill_orphans(false);
            if left == 0 || Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(SWEEP_STEP).await;
        }
    }

    /// Kills every orphan, for the end of the supervisor, and waits for the scribes, which end with
    /// the last who writes to them; returns how many could not be ended.
    pub(crate) async fn sweep_all(&self) -> usize {
        let started = Instant::now();
        loop {
            let orphans = self.kill_orphans(true);
            let own: Vec<u32> = self.lock().own.iter().copied().collect();
            if started.elapsed() >= SCRIBES_MAX {
                own.iter()
                    .for_each(|pid| processes::send(*pid, Signal::KILL));
            }
            let left = orphans + own.len();
            if left == 0 || started.elapsed() >= END_MAX {
                return left;
            }
            tokio::time::sleep(SWEEP_STEP).await;
        }
    }

    /// The orphans of the last look: daemons that a process of ours detached.
    pub(crate) fn orphans(&self) -> Vec<Stray> {
        let mut pids: Vec<u32> = self.lock().seen.iter().copied().collect();
        pids.sort_unstable();
        let strays = pids.into_iter().filter(|pid| !is_scribe(*pid));
        let stray = |pid| processes::start_time(pid).map(|start_time| Stray { pid, start_time });
        strays.filter_map(stray).collect()
    }

    /// Looks after orphans now and then: takes the dead away and remembers the living.
    pub(crate) fn look(&self) {
        let mut members = self.lock();
        let orphans = living_orphans(&members.own);
        members.strays = orphans.intersection(&members.seen).copied().collect();
        members.seen = orphans;
    }

    fn kill_orphans(&self, strays_too: bool) -> usize {
        let members = self.lock();
        let orphans = living_orphans(&members.own);
        let doomed: Vec<u32> = orphans
            .into_iter()
            .filter(|pid| strays_too || !members.strays.contains(pid) && !is_scribe(*pid))
            .collect();
        for pid in &doomed {
            processes::send(*pid, Signal::KILL);
        }
        doomed.len()
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is a scribe: one that this program started before it became another version of itself.
/// Its child still writes to it. Who only claims to be one lives until the end of the supervisor.
fn is_scribe(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    words.any(|word| word == SCRIBE.as_bytes())
}

/// Our children that were not started here; those already dead are waited for on the way.
fn living_orphans(own: &HashSet<u32>) -> HashSet<u32> {
    processes::own_children()
        .into_iter()
        .filter(|pid| !own.contains(pid))
        .filter(|pid| {
            let waited = rustix::process::waitpid(processes::to_pid(*pid), WaitOptions::NOHANG);
            matches!(waited, Ok(None))
        })
        .collect()
}
