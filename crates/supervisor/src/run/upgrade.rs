//! The supervisor becomes another program, and goes on where the one before was. See `takeover` for
//! how; here stands when, and what of the supervisor goes along.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::runs::watch;
use super::{FLUSH_MAX, News, Report, Supervisor, VERSION};
use crate::capture::Capture;
use crate::control::{Answer, Beside};
use crate::family::Member;
use crate::groups::Groups;
use crate::notify::Ear;
use crate::own_output::OwnOutput;
use crate::plan::log_path;
use crate::policy::memory::Measured;
use crate::processes;
use crate::scribe;
use crate::slot::{Live, Slot};
use crate::status::SUPERVISOR;
use crate::takeover::{
    CHECK_FLAG, Descriptors, FLAG, KeptLive, KeptSlot, Takeover, become_program,
};

/// How long another program may take to say whether it can take over.
const CHECK_MAX: Duration = Duration::from_secs(4);

/// A program that was checked, and who asked for it.
pub(super) struct Checked {
    result: Result<PathBuf, String>,
    answer: oneshot::Sender<Answer>,
}

impl Supervisor {
    /// Begins to check whether `program` can take over; `answer` hears it.
    pub(super) fn check_program(&mut self, program: PathBuf, answer: oneshot::Sender<Answer>) {
        let refuse = |answer: oneshot::Sender<Answer>, why: &str| {
            // A client that is gone needs no answer.
            let _ = answer.send(Answer::Refused(why.to_owned()));
        };
        if self.stopping {
            return refuse(answer, "everything is being stopped");
        }
        let Some(again) = self.again.clone() else {
            return refuse(answer, "it runs one command, and is not to be replaced");
        };
        let mut descriptors = Descriptors::default();
        let written = self.keep(&mut descriptors).write();
        let (family, reports) = (self.spawner.family.clone(), self.reports.clone());
        tokio::spawn(async move {
            let checked = async {
                let mut command = Command::new(&program);
                command
                    .args(again)
                    .arg(CHECK_FLAG)
                    .stdin(written?)
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped())
                    .kill_on_drop(true);
                let (child, pid) = family.spawn(&mut command)?;
                let ended = tokio::time::timeout(CHECK_MAX, child.wait_with_output()).await;
                family.forget(pid);
                let slow = || std::io::Error::other("it did not answer in time");
                ended.map_err(|_| slow())?
            };
            let result = match checked.await {
                Ok(output) if output.status.success() => Ok(program),
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    Err(format!("{}: {}", output.status, said.trim()))
                }
                Err(error) => Err(error.to_string()),
            };
            let news = News::Checked(Checked { result, answer });
            let _ = reports.send(Report { run: 0, news }).await;
        });
    }

    /// It was checked: the next quiet moment is for it.
    pub(super) fn checked(&mut self, checked: Checked) {
        let answer = match checked.result {
            Ok(program) if !self.stopping => {
                self.next_program = Some(program);
                Answer::Done
            }
            Ok(_) => Answer::Refused("everything is being stopped".to_owned()),
            Err(why) => {
                tracing::error!(why, "the other program cannot take over; this one goes on");
                Answer::Refused(format!("the other program cannot take over: {why}"))
            }
        };
        let _ = checked.answer.send(answer);
    }

    /// Becomes the program that was asked for, if there is one and nothing is half done. Returns where
    /// not.
    pub(super) fn become_next_program(&mut self) {
        if self.stopping {
            self.next_program = None;
        }
        if self.next_program.is_none() || !self.is_quiet() {
            return;
        }
        let (Some(program), Some(mut arguments)) = (self.next_program.take(), self.again.clone())
        else {
            return;
        };
        tracing::info!(program = %program.display(), "becomes another program");
        self.events.flush(FLUSH_MAX);
        let mut descriptors = Descriptors::default();
        self.upgrades += 1;
        let error = match self.keep(&mut descriptors).write() {
            Ok(file) => {
                let number = descriptors.keep(&file).value().to_string();
                arguments.extend([FLAG.into(), number.into()]);
                let family = &self.spawner.family;
                family.without_starts(|| become_program(&program, &arguments, descriptors))
            }
            Err(error) => error,
        };
        self.upgrades = self.upgrades.saturating_sub(1);
        let program = program.display();
        tracing::error!(%program, %error, "could not become another program; this one goes on");
    }

    /// Whether everything that goes along is all there is.
    fn is_quiet(&self) -> bool {
        let is_quiet = |slot: &Slot| {
            let is_there = |live: &Live| {
                // One that was waited for, and whose end is still to be told, has no entry any more.
                processes::start_time(live.pid) == Some(live.start_time)
            };
            slot.successor.is_none()
                && slot.departing.is_none()
                && slot.next.is_none()
                && !slot.leaving
                && !slot.machine.waits_for_word()
                && slot.live.as_ref().is_none_or(is_there)
        };
        let is_idle = self.control.as_ref().is_none_or(Beside::is_idle);
        is_idle && self.slots.iter().all(is_quiet) && !self.rotation.is_running()
    }

    fn keep(&self, descriptors: &mut Descriptors) -> Takeover {
        let own_output = self.own_output.as_ref();
        Takeover {
            version: Takeover::VERSION,
            config: self.config.clone(),
            elapsed: self.origin.elapsed(),
            since: self.since.clone(),
            upgrades: self.upgrades,
            runs: self.runs,
            control: self
                .control
                .as_ref()
                .map(|control| descriptors.keep(&control.socket)),
            metrics: self
                .metrics
                .as_ref()
                .map(|metrics| metrics.keep(descriptors)),
            own_output: own_output.map(|own| own.keep(descriptors)),
            sockets: self.spawner.sockets.keep_open(descriptors),
            family: self.spawner.family.known(),
            slots: self
                .slots
                .iter()
                .map(|slot| keep_slot(slot, descriptors))
                .collect(),
        }
    }
}

/// What of a slot goes along; beside it there is nothing.
fn keep_slot(slot: &Slot, descriptors: &mut Descriptors) -> KeptSlot {
    let live = slot.live.as_ref().map(|live| KeptLive {
        pid: live.pid,
        start_time: live.start_time,
        age: live.started.elapsed(),
        age_at_end: live.age_at_end,
        capture: live
            .capture
            .as_ref()
            .map(|capture| capture.keep(descriptors)),
        ear: live.ear.as_ref().map(|ear| ear.keep(descriptors)),
        port: live.port,
        group: live.group.clone(),
    });
    KeptSlot {
        name: slot.process.name.clone(),
        machine: slot.machine.clone(),
        run: slot.run,
        live,
        standing: slot.standing.clone(),
    }
}

impl Supervisor {
    /// Goes on where the program before was: with its slots, and in its time.
    pub(super) fn go_on(&mut self, takeover: Takeover) {
        let now = Instant::now();
        self.origin = now.checked_sub(takeover.elapsed).unwrap_or(now);
        self.since = takeover.since;
        self.upgrades = takeover.upgrades;
        self.runs = takeover.runs;
        self.spawner.family.recall(takeover.family);
        self.own_output = takeover
            .own_output
            .and_then(|kept| OwnOutput::go_on(&self.spawner, kept));
        let mut lives = takeover.slots.iter().filter_map(|slot| slot.live.as_ref());
        self.groups = lives.any(|live| live.group.is_some()).then(Groups::found);
        for kept in takeover.slots {
            let mut all = self.slots.iter();
            if let Some(index) = all.position(|slot| slot.process.name == kept.name) {
                self.go_on_with(index, kept);
            }
        }
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "took over");
        self.events.tell("upgraded", SUPERVISOR, VERSION);
    }

    fn go_on_with(&mut self, index: usize, kept: KeptSlot) {
        let run = kept.run;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let rules = slot.process.rules.clone();
        slot.machine = kept.machine;
        slot.machine.follow(rules);
        slot.run = run;
        slot.standing = kept.standing;
        let Some(live) = kept.live else { return };
        let process = slot.process.clone();
        let ear = live.ear.and_then(|(name, socket)| {
            Ear::go_on(name, socket)
                .inspect_err(|error| tracing::error!(name = process.name, %error, "is not heard"))
                .ok()
        });
        let capture = live
            .capture
            .and_then(|kept| self.go_on_capturing(&process.name, kept));
        let process = process.for_run(live.port, ear.as_ref().map(Ear::address));
        // Another process of that pid is no child of ours: waiting for it says so.
        let member = self.spawner.family.adopt(live.pid);
        let now = Instant::now();
        let adopted = Live {
            pid: live.pid,
            start_time: live.start_time,
            started: now.checked_sub(live.age).unwrap_or(now),
            capture,
            watchers: Vec::new(),
            ear,
            port: live.port,
            stop_signal: process.stop_signal,
            listen: process.listen.clone(),
            metrics: process.metrics.clone(),
            age_at_end: live.age_at_end,
            group: live.group,
            measured: Measured::default(),
            bytes: 0,
        };
        self.attend(index, run, adopted, &process, member);
    }

    fn go_on_capturing(&self, name: &str, kept: crate::capture::Kept) -> Option<Capture> {
        let settings = scribe::Settings {
            path: log_path(self.spawner.log_folder.as_ref()?, name),
            limits: self.spawner.logs.clone(),
        };
        let (family, launcher) = (&self.spawner.family, &self.spawner.launcher);
        Capture::go_on(family, launcher, settings, kept)
            .inspect_err(|error| tracing::error!(name, %error, "its log goes on unheard"))
            .ok()
    }

    /// Watches a run of which somebody else has seen the start.
    fn attend(
        &mut self,
        index: usize,
        run: u64,
        mut live: Live,
        process: &crate::plan::Process,
        member: Member,
    ) {
        let ear = live.ear.clone();
        live.watchers = watch(run, process, ear, &self.spawner, &self.reports);
        let (capture, group) = (live.capture.clone(), live.group.clone());
        self.wait_for(run, live.pid, member, capture, group);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.live = Some(live);
        }
    }
}
