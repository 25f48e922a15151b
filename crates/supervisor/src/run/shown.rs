//! What a supervisor shows of itself: to who asks, in the state file, and as its verdict at the end.

use chassis::Failure;

use super::Supervisor;
use crate::confine;
use crate::metrics::{self, Entry};
use crate::plan::Plan;
use crate::policy::Causes;
use crate::processes;
use crate::slot::now_text;
use crate::status::{ProcessState, ProcessStatus, SUPERVISOR, Status};
use crate::takeover::Number;

/// Why a supervisor was replaced, by itself, as the same process.
const UPGRADED: &str = "operator: new program";

impl Supervisor {
    /// Writes the state where it changed.
    pub(super) fn show(&mut self) {
        for slot in &mut self.slots {
            let state = slot.machine.state();
            if state != slot.standing.state {
                tracing::info!(name = slot.process.name, ?state, "changed");
                if let Some(kind) = kind_of(state) {
                    let reason = slot.machine.reason().unwrap_or_default();
                    self.events.tell(kind, &slot.process.name, &reason);
                }
                slot.standing.state = state;
                slot.standing.since = now_text();
            }
        }
        let status = self.status(false);
        if status != self.shown {
            self.shown = status;
            self.board.write(self.entries());
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
            metrics: self.metrics.as_ref().and_then(metrics::Server::url),
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

    /// Serves metrics where that is configured; `kept` is the listener of the program before.
    pub(super) fn serve_metrics(&mut self, kept: Option<Number>) -> Result<(), Failure> {
        let Some(address) = self.config.metrics_listen else {
            return Ok(());
        };
        let failed = |error: std::io::Error| {
            let attempted = format!("serve metrics on {address}");
            Failure::run_time(attempted, error, "raise the limit of open files")
        };
        let server = match kept {
            Some(kept) => metrics::Server::go_on(kept).map_err(failed)?,
            None => metrics::Server::open(address)?,
        };
        let config = &self.config;
        let files = [&config.state_file, &config.log_folder, &config.events_file];
        let files = files.into_iter().flatten();
        let own = files.map(|path| match path.is_dir() {
            true => path.as_path(),
            false => path.parent().unwrap_or(path),
        });
        let working = config.processes.iter();
        let working = working.filter_map(|process| process.working_folder.as_deref());
        let folders = metrics::folders(own.chain(working));
        let source = metrics::Source::new(self.board.clone(), self.events.clone(), folders);
        server.serve(source).map_err(failed)?;
        self.metrics = Some(server);
        Ok(())
    }

    /// The state of each process for a scrape.
    fn entries(&self) -> Vec<Entry> {
        let states = self.shown.processes.iter();
        let entry = |status: &ProcessStatus| Entry {
            name: status.name.clone(),
            role: status.role.clone(),
            state: status.state,
            identity: status.pid.zip(status.start_time),
            restarts: self.causes(&status.name),
        };
        states.map(entry).collect()
    }

    fn causes(&self, name: &str) -> Vec<(&'static str, u64)> {
        let mut slots = self.slots.iter();
        match slots.find(|slot| slot.process.name == name) {
            Some(slot) => slot.machine.causes().each().collect(),
            None => {
                let mut own = Causes::default();
                (0..self.upgrades).for_each(|_| own.count(UPGRADED));
                own.each().collect()
            }
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
            let code = slot.standing.last_exit.as_ref().map(|ended| ended.code);
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

/// What is told of a process that came into a state; of others its start and its end are told.
fn kind_of(state: ProcessState) -> Option<&'static str> {
    match state {
        ProcessState::Healthy => Some("healthy"),
        ProcessState::Unhealthy => Some("unhealthy"),
        ProcessState::Failed => Some("failed"),
        ProcessState::Starting
        | ProcessState::Draining
        | ProcessState::Stopped
        | ProcessState::Done => None,
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
