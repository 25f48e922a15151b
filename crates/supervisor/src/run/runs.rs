//! One run from its start to its end: what a machine says is carried out here, and what became of it is
//! told to the machine.

use std::collections::VecDeque;
use std::sync::Arc;

use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::replace::Ports;
use super::{News, Report, Supervisor};
use crate::capture::Capture;
use crate::family::Member;
use crate::groups::{Group, Groups};
use crate::notify::Ear;
use crate::plan;
use crate::policy::memory::Measured;
use crate::policy::{Action, Ended, Event, turns};
use crate::probe::Prober;
use crate::processes;
use crate::slot::{Live, Place, describe};
use crate::spawn::{Spawner, StartError};

impl Supervisor {
    pub(super) fn exited(&mut self, index: usize, place: Place, ended: Ended, lines: Vec<String>) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if let Some(live) = slot.part(place).and_then(|part| part.live.take()) {
            live.end_watchers();
        }
        tracing::info!(
            name = slot.process.name,
            ?place,
            how = ended.reason(),
            "ended"
        );
        // Of one that ended well the last line explains nothing.
        let why = match ended.code {
            Some(0) => ended.name.clone(),
            _ => ended.reason(),
        };
        self.events.tell("exited", &slot.process.name, &why);
        if place != Place::Departing {
            let is_good = ended.code == Some(0);
            slot.standing.last_lines = if is_good { Vec::new() } else { lines };
        }
        if place == Place::Present {
            slot.standing.last_exit = Some(ended.clone());
            slot.standing.gap_since = slot.standing.maintained.map(|_| self.origin.elapsed());
            if self.succeed_early(index, &ended) {
                return;
            }
            if let Some(slot) = self.slots.get_mut(index) {
                slot.become_next();
            }
        }
        self.feed_to(index, place, Event::Exited(ended));
    }

    /// Tells the machine of the present run what happened and does what it says.
    pub(super) fn feed(&mut self, index: usize, event: Event) {
        self.feed_to(index, Place::Present, event);
    }

    pub(super) fn feed_to(&mut self, index: usize, place: Place, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now();
            let Some(part) = self.slots.get_mut(index).and_then(|slot| slot.part(place)) else {
                return;
            };
            for action in part.machine.on(now, event, chassis::random::random()) {
                match action {
                    Action::Start => events.extend(self.start(index, place).err()),
                    Action::Stop => self.signal(index, place, None),
                    Action::Quit => self.signal(index, place, Some(Signal::QUIT)),
                    Action::Kill => self.kill(index, place),
                    Action::Alarm(text) => {
                        if let Some(slot) = self.slots.get(index) {
                            tracing::error!(name = slot.process.name, "{text}");
                            self.events.tell("alarm", &slot.process.name, &text);
                        }
                    }
                }
            }
        }
    }

    fn start(&mut self, index: usize, place: Place) -> Result<(), Event> {
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(());
        };
        self.runs += 1;
        let run = self.runs;
        if place == Place::Present {
            slot.standing.held = false;
        }
        let prepared = prepare(slot.process_at(place), &mut self.ports);
        let started = prepared.and_then(|(process, port, ear)| {
            let started = self.spawner.start(&process)?;
            Ok((process, port, ear, started))
        });
        let (process, port, ear, started) = started.map_err(|error| {
            slot.standing.last_exit = None;
            slot.standing.last_lines = vec![error.why.clone()];
            Event::StartFailed {
                why: error.why,
                permanent: error.permanent,
            }
        })?;
        let pid = started.pid;
        let watchers = watch(run, &process, ear.clone(), &self.spawner, &self.reports);
        let mut live = Live {
            pid,
            start_time: processes::start_time(pid).unwrap_or(0),
            started: Instant::now(),
            capture: started.capture.clone(),
            watchers,
            port,
            ear,
            age_at_end: process
                .max_age
                .map(|age| turns::age_at_end(age, chassis::random::random())),
            stop_signal: process.stop_signal,
            listen: process.listen,
            metrics: process.metrics,
            group: None,
            measured: Measured::default(),
            bytes: 0,
        };
        let name = slot.process.name.clone();
        if let Some(limits) = slot.process.memory {
            live.limit_data(limits);
            let groups = self.groups.get_or_insert_with(Groups::found);
            live.group = groups.put(&name, run, pid, limits.hard);
        }
        let group = live.group.clone();
        if let Some(part) = slot.part(place) {
            let restart_reason = part.machine.last_restart_reason();
            tracing::info!(name, pid, ?place, restart_reason, "started");
            let why = match place {
                Place::Successor => "as a successor",
                _ => restart_reason.unwrap_or_default(),
            };
            self.events.tell("started", &name, why);
            *part.run = run;
            *part.live = Some(live);
        }
        let member = Member::Started(started.child);
        self.wait_for(run, pid, member, started.capture, group);
        Ok(())
    }

    /// Reports the end of a run when it has come, and nothing is left of it.
    pub(super) fn wait_for(
        &self,
        run: u64,
        pid: u32,
        mut member: Member,
        capture: Option<Capture>,
        group: Option<Group>,
    ) {
        let family = Arc::clone(&self.spawner.family);
        let reports = self.reports.clone();
        tokio::spawn(async move {
            let status = member.wait().await;
            family.forget(pid);
            family.sweep(pid).await;
            let lines = match capture {
                Some(capture) => capture.last_lines().await,
                None => Vec::new(),
            };
            // Whatever it did then, it did without what the kernel ended in it.
            let ended = match group.as_ref().and_then(Group::killed_for) {
                Some(name) => Ended {
                    code: None,
                    name,
                    line: None,
                },
                None => describe(status.ok(), &lines),
            };
            let news = News::Exited(ended, lines);
            let _ = reports.send(Report { run, news }).await;
            if let Some(group) = group {
                group.remove_soon().await;
            }
        });
    }

    /// Sends a signal to the process, its stop signal by default.
    fn signal(&mut self, index: usize, place: Place, signal: Option<Signal>) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if let Some(live) = slot.part(place).and_then(|part| part.live.as_ref())
            && processes::is_alive(live.pid, live.start_time)
        {
            processes::send(live.pid, signal.unwrap_or(live.stop_signal));
        }
    }

    fn kill(&mut self, index: usize, place: Place) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let name = slot.process.name.clone();
        if let Some(part) = slot.part(place)
            && let Some(live) = part.live.as_ref()
            && processes::is_alive(live.pid, live.start_time)
        {
            let reason = part.machine.reason();
            if let Some(group) = &live.group {
                group.kill();
            }
            tracing::warn!(name, pid = live.pid, reason, "killed");
            let why = reason.as_deref().unwrap_or("it did not end in time");
            self.events.tell("killed", &name, why);
            processes::kill_tree(live.pid);
        }
    }
}

/// The process as it is for one run, and where it tells that it serves.
fn prepare(
    process: &plan::Process,
    ports: &mut Ports,
) -> Result<(plan::Process, Option<u16>, Option<Ear>), StartError> {
    let failed = |error: std::io::Error| StartError {
        why: format!("start {}: {error}", process.command.join(" ")),
        permanent: false,
    };
    let port = process.needs_port().then(|| ports.choose());
    let port = port.transpose().map_err(failed)?;
    let ear = process.rules.notified.then(Ear::open);
    let ear = ear.transpose().map_err(failed)?;
    let run = process.for_run(port, ear.as_ref().map(Ear::address));
    Ok((run, port, ear))
}

/// The tasks that look at one run and report.
pub(super) fn watch(
    run: u64,
    process: &plan::Process,
    ear: Option<Ear>,
    spawner: &Spawner,
    reports: &mpsc::Sender<Report>,
) -> Vec<AbortHandle> {
    let hears = ear.map(|ear| {
        let reports = reports.clone();
        tokio::spawn(async move {
            if ear.ready().await.is_ok() {
                let news = News::Ready;
                let _ = reports.send(Report { run, news }).await;
            }
        })
    });
    let probes = process.probe.clone().map(|probe| {
        let prober = Prober::new(process, spawner);
        let reports = reports.clone();
        tokio::spawn(prober.watch(probe, async move |round| {
            let news = News::Probed(round);
            let report = Report { run, news };
            reports.send(report).await.is_ok()
        }))
    });
    let tasks = [hears, probes].into_iter().flatten();
    tasks.map(|task| task.abort_handle()).collect()
}
