//! Looking after what grows and strays, once a second: orphans, and log files that children write by
//! themselves.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::Supervisor;
use crate::own_logs::{Job, Rotator};
use crate::slot::Slot;

/// The rotation that runs, and what was told of files that cannot be rotated.
#[derive(Default)]
pub(super) struct Rotation {
    running: Option<JoinHandle<HashMap<PathBuf, String>>>,
    told: HashMap<PathBuf, String>,
}

impl Rotation {
    pub(super) fn is_running(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| !running.is_finished())
    }
}

impl Supervisor {
    /// Returns at once: whatever may block does so elsewhere, one look after the other.
    pub(super) async fn look(&mut self) {
        self.spawner.family.look();
        if let Some(running) = &mut self.rotation.running {
            if !running.is_finished() {
                return;
            }
            self.rotation.told = running.await.unwrap_or_default();
            self.rotation.running = None;
        }
        let jobs = jobs(&self.slots);
        let rotator = Rotator {
            family: Arc::clone(&self.spawner.family),
            launcher: self.spawner.launcher.clone(),
            limits: self.spawner.logs.clone(),
            told: std::mem::take(&mut self.rotation.told),
        };
        self.rotation.running = Some(tokio::spawn(rotator.look(jobs)));
    }
}

/// A job for each file; processes that share one are all told to open it anew.
fn jobs(slots: &[Slot]) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for slot in slots {
        for log in &slot.process.log_files {
            let live = slot.live.as_ref();
            let writer = log.reopen_signal.zip(live);
            let writer = writer.map(|(signal, live)| (signal, live.pid, live.start_time));
            match jobs.iter_mut().find(|job| job.log.path == log.path) {
                Some(job) => job.writers.extend(writer),
                None => jobs.push(Job {
                    process: slot.process.clone(),
                    log: log.clone(),
                    writers: writer.into_iter().collect(),
                }),
            }
        }
    }
    jobs
}
