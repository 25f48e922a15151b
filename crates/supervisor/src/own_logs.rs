//! Log files that a child writes by itself: measured by the supervisor in a thread that may block,
//! rotated by a process with the child's own rights, since whoever may write in a folder can put a
//! link in place of a file. One at a time; a disk that hangs holds up nothing but this.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::config::{self, Logs};
use crate::family::Family;
use crate::launch::{Orders, ROTATE, Task};
use crate::log_files::{self, Way};
use crate::plan::{Faults, Process};
use crate::privileges;
use crate::processes::{self, signal_of_name};
use crate::spawn;

/// A copy of a large file on a slow disk takes some seconds.
const ROTATION_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnLog {
    pub(crate) path: PathBuf,
    pub(crate) reopen_signal: Option<Signal>,
}

/// One file to look at.
pub(crate) struct Job {
    pub(crate) process: Process,
    pub(crate) log: OwnLog,
    /// Who opens it anew on which signal: pid and start time of each that writes it.
    pub(crate) writers: Vec<(Signal, u32, u64)>,
}

/// Checks the key `log_files` of a process.
pub(crate) fn resolve(process: &config::Process, key: &str, faults: &mut Faults) -> Vec<OwnLog> {
    let mut logs = Vec::new();
    for log in &process.log_files {
        if !log.path.is_absolute() || log.path.file_name().is_none() {
            let why = format!("`{}` is no absolute path of a file", log.path.display());
            faults.add(key, why, "write it like /var/log/x/main.log");
        }
        let name = log.reopen_signal.as_deref();
        if let Some(name) = name.filter(|name| signal_of_name(name).is_none()) {
            let why = format!("`{name}` is no signal");
            faults.add(key, why, "write it like SIGHUP");
        }
        logs.push(OwnLog {
            path: log.path.clone(),
            reopen_signal: name.and_then(signal_of_name),
        });
    }
    logs
}

/// What is needed to rotate; remembers the last failure of each file, to tell it once.
pub(crate) struct Rotator {
    pub(crate) family: Arc<Family>,
    pub(crate) launcher: Vec<OsString>,
    pub(crate) limits: Logs,
    pub(crate) told: HashMap<PathBuf, String>,
}

impl Rotator {
    /// Looks at each file once.
    pub(crate) async fn look(mut self, jobs: Vec<Job>) -> HashMap<PathBuf, String> {
        for job in jobs {
            let path = job.log.path.clone();
            match self.look_at(&job).await {
                Ok(()) => drop(self.told.remove(&path)),
                Err(error) => {
                    let why = error.to_string();
                    if self.told.get(&path) != Some(&why) {
                        let name = &job.process.name;
                        tracing::error!(name, path = %path.display(), why, "a log file of its own could not be rotated");
                        self.told.insert(path, why);
                    }
                }
            }
        }
        self.told
    }

    async fn look_at(&self, job: &Job) -> io::Result<()> {
        let (path, limits) = (job.log.path.clone(), self.limits.clone());
        let is_due = tokio::task::spawn_blocking(move || log_files::is_due(&path, &limits));
        if !is_due.await.map_err(io::Error::other)?? {
            return Ok(());
        }
        self.rotate(job).await?;
        for (signal, pid, start_time) in &job.writers {
            if processes::is_alive(*pid, *start_time) {
                processes::send(*pid, *signal);
            }
        }
        Ok(())
    }

    async fn rotate(&self, job: &Job) -> io::Result<()> {
        let path = &job.log.path;
        let orders = Orders {
            task: Task::Rotate {
                path: path.clone(),
                limits: self.limits.clone(),
                way: match job.log.reopen_signal {
                    Some(_) => Way::Rename,
                    None => Way::CopyAndCut,
                },
            },
            confinement: privileges::of_work_on(path),
        };
        let words = [ROTATE.to_owned(), path.display().to_string()];
        let mut command = spawn::launched(&self.launcher, &job.process, &words, &orders);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let (child, pid) = self.family.spawn(&mut command)?;
        let ended = tokio::time::timeout(ROTATION_MAX, child.wait_with_output()).await;
        self.family.forget(pid);
        let output = ended.map_err(|_| io::Error::other("it took longer than a minute"))??;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(said.trim().to_owned()))
    }
}
