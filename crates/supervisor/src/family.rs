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
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Signal, WaitOptions};
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

#[derive(Debug, Default)]
pub(crate) struct Family {
    members: Mutex<Members>,
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
