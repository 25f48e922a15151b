//! What is shown of a supervisor: the entries of `status --json` (interfaces.md) and what a later
//! start needs to clean up after a crash. The file is written beside itself and renamed, by a task
//! of its own, so that a slow disk delays no restart; of several changes in a row the last counts.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A supervisor and all its processes, the supervisor itself first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// All is being stopped.
    pub stopping: bool,
    pub processes: Vec<ProcessStatus>,
    /// Daemons that they detached (double fork): their parents are gone, and they are ended with the
    /// rest. Looked for once a second.
    #[serde(default)]
    pub strays: Vec<Stray>,
    /// What this machine cannot do for them.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A process that belongs to an entry no more, by pid and start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    pub pid: u32,
    pub start_time: u64,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    pub name: String,
    /// As configured; `supervisor` for the supervisor itself.
    pub role: String,
    /// None while it does not run.
    pub pid: Option<u32>,
    /// Clock ticks since boot (proc(5), /proc/PID/stat field 22): tells a pid from its reuse.
    pub start_time: Option<u64>,
    pub state: ProcessState,
    /// Why it is in this state, where there is more to say.
    pub reason: Option<String>,
    /// RFC 3339: when it came into this state.
    pub since: String,
    pub listen: Option<String>,
    pub metrics: Option<String>,
    pub restarts: u32,
    pub last_restart_reason: Option<String>,
    /// How its last run ended: `exit 2`, `signal SIGKILL`, with a line of its log.
    pub last_exit: Option<String>,
    /// The end of its log when its last run ended badly; at most 20 lines.
    pub last_lines: Vec<String>,
    /// Lines of its present run that are not in its log: it wrote too fast, or the disk refused them.
    #[serde(default)]
    pub log_lines_dropped: u64,
    /// None while it does not run.
    pub uptime_seconds: Option<u64>,
    pub rss_bytes: Option<u64>,
    /// What ends it in order, for a cleaner that knows no configuration.
    pub stop_signal: String,
    /// Other processes of it: a successor that starts, a predecessor that drains.
    #[serde(default)]
    pub beside: Vec<Beside>,
    /// What its restart by choice costs: `successor first`, nothing; `after a gap`, the time from the
    /// end of the old process until the new one is healthy.
    #[serde(default)]
    pub replaced: String,
    /// How long that gap was the last time.
    #[serde(default)]
    pub last_gap_milliseconds: Option<u64>,
    /// None where it has no limits.
    #[serde(default)]
    pub memory: Option<Memory>,
}

/// A process beside the one that serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    pub pid: u32,
    pub start_time: u64,
    pub state: ProcessState,
}

/// What a process may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Replaced in order above this.
    pub soft_bytes: u64,
    /// Killed above this.
    pub hard_bytes: u64,
    /// Who looks.
    pub watched_by: String,
}

/// Resident memory is read ten times a second, and a limit on data keeps it when we cannot.
pub(crate) const WATCHED_BY: &str = "reading 10 times a second";

/// See `policy`; `done` is a job that exited 0, `failed` is not tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessState {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
    Draining,
    Stopped,
    Done,
    Failed,
}

impl ProcessStatus {
    /// Whether `bingo stop` stopped it.
    pub fn is_stopped_by_operator(&self) -> bool {
        self.reason.as_deref() == Some(STOPPED_BY_OPERATOR)
    }
}

impl Status {
    /// Reads a state file; None where there is none or it is not ours.
    pub fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read(path).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The names of all, the supervisor's own left out.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let all = self.processes.iter();
        let others = all.filter(|process| process.role != SUPERVISOR);
        others.map(|process| process.name.as_str())
    }

    /// The entry of that name.
    pub fn process(&self, name: &str) -> Option<&ProcessStatus> {
        self.processes.iter().find(|process| process.name == name)
    }

    /// The entry of the supervisor.
    pub fn supervisor(&self) -> Option<&ProcessStatus> {
        self.processes
            .iter()
            .find(|process| process.role == SUPERVISOR)
    }
}

/// The reason of the state of a process that `bingo stop` stopped.
pub(crate) const STOPPED_BY_OPERATOR: &str = "stopped by operator";

/// The role of the supervisor's own entry.
pub(crate) const SUPERVISOR: &str = "supervisor";

/// Writes the last status that it was given to a file.
#[derive(Debug)]
pub(crate) struct StateFile {
    newest: watch::Sender<Status>,
    writer: JoinHandle<()>,
}

impl StateFile {
    /// Writes `first` at once; fails when that is impossible.
    pub(crate) fn open(path: PathBuf, first: Status) -> std::io::Result<Self> {
        write(&path, &first)?;
        let (newest, mut changes) = watch::channel(first);
        let writer = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let status = changes.borrow_and_update().clone();
                let target = path.clone();
                let result = tokio::task::spawn_blocking(move || write(&target, &status)).await;
                if let Ok(Err(error)) = result {
                    tracing::error!(path = %path.display(), %error, "the state could not be written");
                }
            }
        });
        Ok(Self { newest, writer })
    }

    pub(crate) fn set(&self, status: Status) {
        self.newest.send_replace(status);
    }

    /// Returns when the last status is written.
    pub(crate) async fn close(self) {
        drop(self.newest);
        let _ = self.writer.await;
    }
}

fn write(path: &Path, status: &Status) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut text = serde_json::to_vec_pretty(status).map_err(std::io::Error::other)?;
    text.push(b'\n');
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(&text)?;
    std::fs::rename(&beside, path)
}
