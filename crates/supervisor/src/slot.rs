//! One process as the supervisor keeps it: its plan, its machine, its present run, how its last one
//! ended, and how all that is shown.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::capture::Capture;
use crate::log_files;
use crate::plan;
use crate::policy::{Ended, Machine};
use crate::processes;
use crate::status::{ProcessState, ProcessStatus, STOPPED_BY_OPERATOR};

pub(crate) struct Slot {
    pub(crate) process: plan::Process,
    pub(crate) machine: Machine,
    /// The number of its present or last run; what is reported of another one is stale.
    pub(crate) run: u64,
    pub(crate) live: Option<Live>,
    /// No longer in the configuration: to be ended and forgotten.
    pub(crate) leaving: bool,
    /// The operator stopped it, and nobody else starts it again.
    pub(crate) held: bool,
    pub(crate) state: ProcessState,
    pub(crate) since: String,
    pub(crate) last_exit: Option<Ended>,
    pub(crate) last_lines: Vec<String>,
}

pub(crate) struct Live {
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) started: Instant,
    pub(crate) prober: Option<JoinHandle<()>>,
    pub(crate) capture: Option<Capture>,
}

impl Slot {
    pub(crate) fn new(process: plan::Process, since: &str) -> Self {
        Self {
            machine: Machine::new(process.rules.clone()),
            process,
            run: 0,
            live: None,
            leaving: false,
            held: false,
            state: ProcessState::Starting,
            since: since.to_owned(),
            last_exit: None,
            last_lines: Vec::new(),
        }
    }

    /// Whether it is stopped, or about to be, because the operator wants it so.
    pub(crate) fn is_held(&self) -> bool {
        self.held && (self.machine.is_over() || self.machine.is_ending())
    }

    fn held_reason(&self) -> Option<String> {
        self.is_held().then(|| STOPPED_BY_OPERATOR.to_owned())
    }

    pub(crate) fn status(&self, figures: bool) -> ProcessStatus {
        let live = self.live.as_ref();
        ProcessStatus {
            name: self.process.name.clone(),
            role: self.process.role.clone(),
            pid: live.map(|live| live.pid),
            start_time: live.map(|live| live.start_time),
            state: self.machine.state(),
            reason: self.machine.reason().or_else(|| self.held_reason()),
            since: self.since.clone(),
            listen: self.process.listen.clone(),
            metrics: self.process.metrics.clone(),
            restarts: self.machine.restarts(),
            last_restart_reason: self.machine.last_restart_reason().map(str::to_owned),
            last_exit: self.last_exit.as_ref().map(Ended::reason),
            last_lines: self.last_lines.clone(),
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
        }
    }
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
