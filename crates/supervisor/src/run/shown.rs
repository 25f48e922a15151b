//! What a supervisor shows of itself: to who asks, in the state file, and as its verdict at the end.

use chassis::Failure;

use super::Supervisor;
use crate::confine;
use crate::plan::Plan;
use crate::processes;
use crate::slot::now_text;
use crate::status::{ProcessState, ProcessStatus, SUPERVISOR, Status};

/// Why a supervisor was replaced, by itself, as the same process.
const UPGRADED: &str = "operator: new program";

impl Supervisor {
    /// Writes the state where it changed.
    pub(super) fn show(&mut self) {
        for slot in &mut self.slots {
            let state = slot.machine.state();
            if state != slot.state {
                tracing::info!(name = slot.process.name, ?state, "changed");
                slot.state = state;
                slot.since = now_text();
            }
        }
        let status = self.status(false);
        if status != self.shown {
            self.shown = status;
            if let Some(file) = &self.state_file {
                file.set(self.status(true));
            }
        }
    }

    /// `figures`: with uptime and memory, which change all the time.
    pub(super) fn status(&self, figures: bool) -> Status {
        let own = std::process::id();
        let mut processes = vec![ProcessStatus {
            name: SUPERVISOR.to_owned(),
            role: SUPERVISOR.to_owned(),
            pid: Some(own),
            start_time: processes::start_time(own),
            state: if self.stopping {
                ProcessState::Draining
            } else {
                ProcessState::Healthy
            },
            since: self.since.clone(),
            restarts: self.upgrades,
            last_restart_reason: (self.upgrades > 0).then(|| UPGRADED.to_owned()),
            uptime_seconds: figures.then(|| self.origin.elapsed().as_secs()),
            rss_bytes: processes::rss_bytes(own).filter(|_| figures),
            stop_signal: "SIGTERM".to_owned(),
            ..ProcessStatus::default()
        }];
        processes.extend(self.slots.iter().enumerate().map(|(index, slot)| {
            let mut status = slot.status(figures);
            let listens = || self.spawner.sockets.first_of(&slot.process);
            status.listen = status.listen.or_else(|| listens().map(|at| at.to_string()));
            status.reason = status.reason.or_else(|| self.waits_for(index));
            status
        }));
        Status {
            stopping: self.stopping,
            processes,
            strays: self.spawner.family.orphans(),
            notes: self.notes.clone(),
        }
    }

    fn waits_for(&self, index: usize) -> Option<String> {
        let slot = self.slots.get(index)?;
        if !slot.machine.is_waiting() {
            return None;
        }
        let needs = self.after.get(index)?;
        let missing = needs
            .iter()
            .filter_map(|need| self.slots.get(*need))
            .filter(|need| !need.machine.is_there())
            .map(|need| need.process.name.as_str());
        Some(format!(
            "waits for {}",
            missing.collect::<Vec<_>>().join(", ")
        ))
    }

    pub(super) fn verdict(&self, orphans: usize) -> Result<(), Failure> {
        let failed = self.slots.iter().filter_map(|slot| {
            if slot.machine.state() != ProcessState::Failed {
                return None;
            }
            let code = slot.last_exit.as_ref().map(|ended| ended.code);
            let exit = match code {
                None | Some(Some(64)) if !self.stopping => chassis::Exit::Configuration,
                _ => chassis::Exit::Failed,
            };
            let attempted = format!("keep {} running", slot.process.name);
            let why = slot.machine.reason().unwrap_or_default();
            Some(Failure::new(exit, attempted, why, "see the end of its log"))
        });
        let left = (orphans > 0).then(|| {
            let why = format!("{orphans} are still there after SIGKILL");
            Failure::run_time("end the processes that were left", why, "")
        });
        Failure::all(failed.chain(left)).map_or(Ok(()), Err)
    }
}

/// What the kernel lacks for the confinement that the plan asks for; logged here, once.
pub(super) fn notes_for(plan: &Plan) -> Vec<String> {
    let mut processes = plan.processes.iter();
    if !processes.any(|process| process.confinement.is_some()) {
        return Vec::new();
    }
    let lacking = confine::lacking();
    if let Some(lacking) = &lacking {
        tracing::warn!("{lacking}");
    }
    lacking.into_iter().collect()
}
