//! One process as the supervisor keeps it: its plan, its machine, its present run, those beside it (a
//! successor that is on its way, a predecessor that drains), how its last run ended, and how all that
//! is shown.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::capture::Capture;
use crate::groups::Group;
use crate::log_files;
use crate::notify::Ear;
use crate::plan;
use crate::policy::memory::Measured;
use crate::policy::turns::Wish;
use crate::policy::{Ended, Machine, Moment};
use crate::processes;
use crate::status::{Beside as BesideStatus, ProcessState, ProcessStatus, STOPPED_BY_OPERATOR};

pub(crate) struct Slot {
    pub(crate) process: plan::Process,
    pub(crate) machine: Machine,
    /// The number of its present or last run; what is reported of another one is stale.
    pub(crate) run: u64,
    pub(crate) live: Option<Live>,
    /// Starts, to take over when it is healthy.
    pub(crate) successor: Option<Beside>,
    /// Was replaced, and finishes what it has.
    pub(crate) departing: Option<Beside>,
    /// What it is to become, by a new configuration; its next run is that.
    pub(crate) next: Option<plan::Process>,
    /// No longer in the configuration: to be ended and forgotten.
    pub(crate) leaving: bool,
    pub(crate) standing: Standing,
}

/// How it stands, whichever run is present: what another program of the supervisor goes on with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// It is to be replaced, when it is its turn.
    pub(crate) wish: Option<Wish>,
    /// The run that was ended by choice without a successor, until another one is there.
    pub(crate) maintained: Option<u64>,
    /// Successors that failed since one last took over, and the words of the last.
    pub(crate) failed_successors: u32,
    pub(crate) failed_successor: Option<String>,
    /// No other successor before this.
    pub(crate) not_before: Option<Moment>,
    /// Since when nothing serves by choice, and for how long that was the last time.
    pub(crate) gap_since: Option<Moment>,
    pub(crate) last_gap: Option<Duration>,
    /// The operator stopped it, and nobody else starts it again.
    pub(crate) held: bool,
    /// As it was last shown, and since when it is so.
    pub(crate) state: ProcessState,
    pub(crate) since: String,
    pub(crate) last_exit: Option<Ended>,
    pub(crate) last_lines: Vec<String>,
}

/// A run beside the present one.
pub(crate) struct Beside {
    pub(crate) machine: Machine,
    pub(crate) run: u64,
    pub(crate) live: Option<Live>,
    pub(crate) since: Moment,
    /// What the slot becomes with it; None: it stays what it is.
    pub(crate) process: Option<plan::Process>,
}

/// Which run of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Present,
    Successor,
    Departing,
}

pub(crate) struct Live {
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) started: Instant,
    pub(crate) capture: Option<Capture>,
    /// Tasks that end with the run: they probe it and hear it.
    pub(crate) watchers: Vec<AbortHandle>,
    /// Where it tells that it serves, and its own port.
    pub(crate) ear: Option<Ear>,
    pub(crate) port: Option<u16>,
    pub(crate) stop_signal: Signal,
    pub(crate) listen: Option<String>,
    pub(crate) metrics: Option<String>,
    /// When it is too old, counted from its start.
    pub(crate) age_at_end: Option<Duration>,
    /// Where the kernel limits its memory; None where only we look.
    pub(crate) group: Option<Group>,
    pub(crate) measured: Measured,
    /// What it takes with all that it started; 0 until it is first measured, and without limits.
    pub(crate) bytes: u64,
}

impl Live {
    pub(crate) fn end_watchers(&self) {
        for watcher in &self.watchers {
            watcher.abort();
        }
    }
}

/// One run of a slot, wherever it is.
pub(crate) struct Part<'a> {
    pub(crate) machine: &'a mut Machine,
    pub(crate) run: &'a mut u64,
    pub(crate) live: &'a mut Option<Live>,
}

impl Slot {
    pub(crate) fn new(process: plan::Process, since: &str) -> Self {
        Self {
            machine: Machine::new(process.rules.clone()),
            process,
            run: 0,
            live: None,
            successor: None,
            departing: None,
            next: None,
            leaving: false,
            standing: Standing {
                wish: None,
                maintained: None,
                failed_successors: 0,
                failed_successor: None,
                not_before: None,
                gap_since: None,
                last_gap: None,
                held: false,
                state: ProcessState::Starting,
                since: since.to_owned(),
                last_exit: None,
                last_lines: Vec::new(),
            },
        }
    }

    /// Whether it is stopped, or about to be, because the operator wants it so.
    pub(crate) fn is_held(&self) -> bool {
        self.standing.held && (self.machine.is_over() || self.machine.is_ending())
    }

    fn held_reason(&self) -> Option<String> {
        self.is_held().then(|| STOPPED_BY_OPERATOR.to_owned())
    }

    pub(crate) fn part(&mut self, place: Place) -> Option<Part<'_>> {
        let beside = match place {
            Place::Present => {
                return Some(Part {
                    machine: &mut self.machine,
                    run: &mut self.run,
                    live: &mut self.live,
                });
            }
            Place::Successor => self.successor.as_mut()?,
            Place::Departing => self.departing.as_mut()?,
        };
        Some(Part {
            machine: &mut beside.machine,
            run: &mut beside.run,
            live: &mut beside.live,
        })
    }

    /// What a run at this place is started from.
    pub(crate) fn process_at(&self, place: Place) -> &plan::Process {
        let successor = self
            .successor
            .as_ref()
            .filter(|_| place == Place::Successor);
        let process = successor.and_then(|next| next.process.as_ref());
        process.unwrap_or(&self.process)
    }

    /// Becomes what a new configuration says; to be called where nothing runs.
    pub(crate) fn become_next(&mut self) {
        if let Some(next) = self.next.take() {
            self.machine.follow(next.rules.clone());
            self.process = next;
            self.standing
                .wish
                .take_if(|wish| matches!(wish, Wish::Operator(_)));
        }
    }

    /// Of all its runs.
    pub(crate) fn machines(&self) -> impl Iterator<Item = &Machine> {
        let beside = [&self.successor, &self.departing].into_iter().flatten();
        std::iter::once(&self.machine).chain(beside.map(|beside| &beside.machine))
    }

    /// Where the run of that number is.
    pub(crate) fn place_of(&self, run: u64) -> Option<Place> {
        let is = |beside: &Option<Beside>| beside.as_ref().is_some_and(|beside| beside.run == run);
        match run {
            _ if self.run == run => Some(Place::Present),
            _ if is(&self.successor) => Some(Place::Successor),
            _ if is(&self.departing) => Some(Place::Departing),
            _ => None,
        }
    }

    /// Nothing of it runs, and nothing will without the operator.
    pub(crate) fn is_over(&self) -> bool {
        self.machine.is_over() && self.successor.is_none() && self.departing.is_none()
    }

    pub(crate) fn status(&self, figures: bool) -> ProcessStatus {
        let live = self.live.as_ref();
        let beside = [&self.successor, &self.departing].into_iter().flatten();
        ProcessStatus {
            name: self.process.name.clone(),
            role: self.process.role.clone(),
            pid: live.map(|live| live.pid),
            start_time: live.map(|live| live.start_time),
            state: self.machine.state(),
            reason: self
                .machine
                .reason()
                .or_else(|| self.held_reason())
                .or(self.standing.failed_successor.clone()),
            since: self.standing.since.clone(),
            listen: live
                .and_then(|live| live.listen.clone())
                .or(self.process.listen.clone()),
            metrics: live
                .and_then(|live| live.metrics.clone())
                .or(self.process.metrics.clone()),
            restarts: self.machine.restarts(),
            last_restart_reason: self.machine.last_restart_reason().map(str::to_owned),
            last_exit: self.standing.last_exit.as_ref().map(Ended::reason),
            last_lines: self.standing.last_lines.clone(),
            log_lines_dropped: live
                .and_then(|live| live.capture.as_ref())
                .map_or(0, Capture::dropped_lines),
            uptime_seconds: live
                .filter(|_| figures)
                .map(|live| live.started.elapsed().as_secs()),
            rss_bytes: live
                .filter(|_| figures)
                .and_then(|live| processes::rss_bytes(live.pid)),
            stop_signal: self.process.stop_signal_name.clone(),
            beside: beside.filter_map(beside_status).collect(),
            replaced: match self.process.start_first {
                true => "successor first".to_owned(),
                false => "after a gap".to_owned(),
            },
            last_gap_milliseconds: self
                .standing
                .last_gap
                .and_then(|gap| u64::try_from(gap.as_millis()).ok()),
            memory: self.process.memory.map(|limits| crate::status::Memory {
                soft_bytes: limits.soft,
                hard_bytes: limits.hard,
                watched_by: live
                    .and_then(|live| live.group.as_ref())
                    .map_or(crate::status::WATCHED_BY, Group::watched_by)
                    .to_owned(),
            }),
        }
    }
}

fn beside_status(beside: &Beside) -> Option<BesideStatus> {
    let live = beside.live.as_ref()?;
    Some(BesideStatus {
        pid: live.pid,
        start_time: live.start_time,
        state: beside.machine.state(),
    })
}

/// How a process ended; `lines` are the last ones it wrote.
pub(crate) fn describe(status: Option<ExitStatus>, lines: &[String]) -> Ended {
    let code = status.and_then(|status| status.code());
    let name = match (code, status.and_then(|status| status.signal())) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {}", processes::name_of_signal(signal)),
        (None, None) => "exit unknown".to_owned(),
    };
    // Whoever sends SIGKILL has reasons that the log does not know.
    let killed = status.is_some_and(|s| s.signal() == Some(Signal::KILL.as_raw()));
    let line = log_files::telling_line(lines).filter(|_| !killed);
    Ended { code, name, line }
}

pub(crate) fn now_text() -> String {
    jiff::Timestamp::now().to_string()
}
