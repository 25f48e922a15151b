//! What to do with one process: a state machine that is told what happened and when, and answers
//! with what to do. Pure: `now` is a duration since an origin that the caller chose, randomness is
//! brought along, nothing here waits. So every rule below is a line in a table of tests, and the
//! rest of the crate carries out and decides nothing.
//!
//! The decisions that need the others' states are `may_end_by_choice` and, in `turns`, who is replaced
//! next; `memory` judges what a process takes.

use std::time::Duration;

use chassis::backoff::Backoff;
use serde::{Deserialize, Serialize};

use crate::config::Restart;
use crate::status::ProcessState;

mod causes;
mod events;
pub(crate) mod memory;
mod probed;
mod succession;
pub(crate) mod turns;

pub(crate) use causes::Causes;
pub(crate) use events::{Action, Ended, Event, Kind, Outcome, Round, Rules};

/// Time since an origin of the caller's choice.
pub(crate) type Moment = Duration;

/// Pauses before the second and later restarts in a row; the first one is at once.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(100),
    max: Duration::from_secs(10),
};
/// The same for one that could start and then died, by a request perhaps: the pauses are there to
/// spare the machine a program that cannot start, and this one is missed.
const BACKOFF_AFTER_SERVING: Backoff = Backoff {
    max: Duration::from_secs(1),
    ..BACKOFF
};
/// A process that was healthy for so long starts again with a clean record.
const HEALTHY_AGAIN: Duration = Duration::from_secs(2);
/// Restarts in a row after which a human must look. Trying goes on.
const ALARM_AFTER: u32 = 5;
/// A silent PostgreSQL is killed only after this: killing it costs a crash recovery.
const SILENT_POSTGRES: Duration = Duration::from_secs(30);
/// After SIGQUIT PostgreSQL gives its own children 5 s (PostgreSQL 5, "Shutting Down the Server").
const QUIT_PATIENCE: Duration = Duration::from_secs(6);
/// A killed process that is still there after this hangs in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// A probe whose own timers were later than this says nothing about the process.
const LATE: Duration = Duration::from_millis(100);
/// The exit code of a wrong configuration or environment: trying again cannot help.
const EXIT_CONFIGURATION: i32 = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Waiting,
    Pause {
        until: Moment,
    },
    /// Started, no good probe yet.
    Starting {
        deadline: Option<Moment>,
        /// It need not tell that it serves, or has told.
        told: bool,
        last: Option<String>,
        /// So often in a row it answered badly since it told.
        #[serde(default)]
        sick: u32,
    },
    Running {
        failures: u32,
        failing_since: Option<Moment>,
        why: String,
        draining: bool,
    },
    /// Asked to end; at `deadline` it is killed, or, once killed, given up.
    Ending {
        deadline: Moment,
        killed: bool,
        then: Then,
    },
    Done,
    Failed {
        why: String,
    },
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Then {
    Stop,
    Restart { reason: String, by_choice: bool },
}

/// One process. What it has gone through may be written down and read again; then it must be told
/// which rules to `follow`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    #[serde(skip)]
    rules: Rules,
    phase: Phase,
    closing: bool,
    healthy_since: Option<Moment>,
    /// In this run it was seen healthy, or told that it serves.
    #[serde(default)]
    served: bool,
    /// Restarts since it was last healthy for `HEALTHY_AGAIN`.
    quick: u32,
    restarts: u32,
    #[serde(default)]
    causes: Causes,
    last_reason: Option<String>,
}

impl Machine {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            phase: Phase::Waiting,
            closing: false,
            healthy_since: None,
            served: false,
            quick: 0,
            restarts: 0,
            causes: Causes::default(),
            last_reason: None,
        }
    }

    /// What to do after `event` at `now`, in this order; `random` is uniform in 0..1.
    pub(crate) fn on(&mut self, now: Moment, event: Event, random: f64) -> Vec<Action> {
        match event {
            Event::Release if self.phase == Phase::Waiting => self.begin(now),
            Event::Release => Vec::new(),
            Event::StartFailed { why, permanent } => {
                if permanent {
                    self.phase = Phase::Failed { why };
                    Vec::new()
                } else {
                    self.again(now, why, random)
                }
            }
            Event::Exited(ended) => self.exited(now, &ended, random),
            Event::Probed(round) => self.probed(now, round),
            Event::Ready => self.ready(now),
            Event::TooLarge(reason) => self.too_large(now, reason),
            Event::Stalled(by) => self.stalled(by),
            Event::Wake => self.wake(now),
            Event::Restart(reason) => self.restart(now, reason),
            Event::Close => {
                self.closing = true;
                if matches!(self.phase, Phase::Waiting | Phase::Pause { .. }) {
                    self.phase = Phase::Stopped;
                }
                Vec::new()
            }
            Event::Stop => self.stop(now),
            Event::StopNow => self.stop_now(now),
        }
    }

    /// When `Event::Wake` is due.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Pause { until } => Some(*until),
            Phase::Starting { deadline, .. } => *deadline,
            Phase::Running { failing_since, .. } if self.rules.kind == Kind::Postgres => {
                failing_since.map(|since| since + SILENT_POSTGRES)
            }
            Phase::Ending { deadline, .. } => Some(*deadline),
            _ => None,
        }
    }

    pub(crate) fn state(&self) -> ProcessState {
        match &self.phase {
            Phase::Waiting => ProcessState::Starting,
            Phase::Pause { .. } | Phase::Starting { .. } if self.quick >= ALARM_AFTER => {
                ProcessState::Unhealthy
            }
            Phase::Pause { .. } | Phase::Starting { .. } => ProcessState::Starting,
            Phase::Running { draining: true, .. } => ProcessState::Draining,
            Phase::Running { failures, .. } if *failures >= self.rules.fall => {
                ProcessState::Unhealthy
            }
            Phase::Running { .. } => ProcessState::Healthy,
            Phase::Ending { then, .. } => match then {
                Then::Restart {
                    by_choice: false, ..
                } => ProcessState::Unhealthy,
                _ => ProcessState::Draining,
            },
            Phase::Done => ProcessState::Done,
            Phase::Failed { .. } => ProcessState::Failed,
            Phase::Stopped => ProcessState::Stopped,
        }
    }

    /// Why it is not healthy, where there is more to say than its state.
    pub(crate) fn reason(&self) -> Option<String> {
        match &self.phase {
            Phase::Failed { why } => Some(why.clone()),
            Phase::Running { failures, why, .. } if *failures > 0 => Some(why.clone()),
            Phase::Starting {
                last: Some(last), ..
            } => Some(last.clone()),
            Phase::Starting { .. } | Phase::Pause { .. } => self.last_reason.clone(),
            Phase::Ending {
                then: Then::Restart { reason, .. },
                ..
            } => Some(reason.clone()),
            _ => None,
        }
    }

    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    pub(crate) fn causes(&self) -> &Causes {
        &self.causes
    }

    pub(crate) fn last_restart_reason(&self) -> Option<&str> {
        self.last_reason.as_deref()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.phase == Phase::Waiting
    }

    /// It was started and has yet to tell that it serves.
    pub(crate) fn waits_for_word(&self) -> bool {
        matches!(self.phase, Phase::Starting { told: false, .. })
    }

    /// Whether those that wait for it may start.
    pub(crate) fn is_there(&self) -> bool {
        match self.rules.kind {
            Kind::Job => self.phase == Phase::Done,
            _ => self.state() == ProcessState::Healthy,
        }
    }

    /// Nothing runs, and nothing will without the operator.
    pub(crate) fn is_over(&self) -> bool {
        matches!(
            self.phase,
            Phase::Done | Phase::Failed { .. } | Phase::Stopped
        )
    }

    /// It runs and is not about to end: a successor can take over from it.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// It was asked to end.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(
            self.phase,
            Phase::Ending {
                then: Then::Stop,
                ..
            }
        )
    }

    fn begin(&mut self, now: Moment) -> Vec<Action> {
        self.healthy_since = None;
        self.served = false;
        self.phase = match self.rules.kind {
            Kind::Service | Kind::Postgres if !self.rules.probed && !self.rules.notified => {
                self.healthy_since = Some(now);
                running()
            }
            kind => Phase::Starting {
                // A job takes as long as it needs, and so does PostgreSQL's crash recovery.
                deadline: (kind == Kind::Service).then(|| now + self.rules.startup_timeout),
                told: !self.rules.notified,
                last: None,
                sick: 0,
            },
        };
        vec![Action::Start]
    }

    fn exited(&mut self, now: Moment, ended: &Ended, random: f64) -> Vec<Action> {
        if let Phase::Ending { then, .. } = &self.phase {
            return match then.clone() {
                Then::Stop => self.end(Phase::Stopped),
                _ if self.closing => self.end(Phase::Stopped),
                Then::Restart { reason, by_choice } if by_choice => self.restarted(now, reason),
                Then::Restart { reason, .. } => self.again_unless_never(now, reason, random),
            };
        }
        if !matches!(self.phase, Phase::Starting { .. } | Phase::Running { .. }) {
            return Vec::new();
        }
        let why = ended.reason();
        match (ended.code, self.rules.restart) {
            (Some(0), Restart::OnFailure | Restart::Never) => self.end(Phase::Done),
            (Some(EXIT_CONFIGURATION), _) => self.end(Phase::Failed { why }),
            _ if self.closing => self.end(Phase::Stopped),
            _ => self.again_unless_never(now, why, random),
        }
    }

    fn again_unless_never(&mut self, now: Moment, why: String, random: f64) -> Vec<Action> {
        if self.rules.restart == Restart::Never {
            return self.end(Phase::Failed { why });
        }
        self.again(now, why, random)
    }

    fn end(&mut self, phase: Phase) -> Vec<Action> {
        self.phase = phase;
        self.healthy_since = None;
        Vec::new()
    }

    /// A restart that nobody chose: at once the first time, then after a growing pause.
    fn again(&mut self, now: Moment, reason: String, random: f64) -> Vec<Action> {
        if self.closing {
            return self.end(Phase::Stopped);
        }
        self.forgive(now);
        let before = self.quick;
        self.quick = self.quick.saturating_add(1);
        let mut actions = Vec::new();
        if self.quick == ALARM_AFTER {
            actions.push(Action::Alarm(format!(
                "ended {ALARM_AFTER} times in a row; trying goes on: {reason}"
            )));
        }
        if before == 0 {
            actions.extend(self.restarted(now, reason));
        } else {
            self.last_reason = Some(reason);
            self.healthy_since = None;
            let backoff = if self.served {
                BACKOFF_AFTER_SERVING
            } else {
                BACKOFF
            };
            self.phase = Phase::Pause {
                until: now + backoff.pause(before - 1, random),
            };
        }
        actions
    }

    fn restarted(&mut self, now: Moment, reason: String) -> Vec<Action> {
        self.causes.count(&reason);
        self.last_reason = Some(reason);
        self.restarts = self.restarts.saturating_add(1);
        self.begin(now)
    }

    fn forgive(&mut self, now: Moment) {
        if self
            .healthy_since
            .is_some_and(|since| now.saturating_sub(since) >= HEALTHY_AGAIN)
        {
            self.quick = 0;
        }
    }

    fn too_large(&mut self, now: Moment, reason: String) -> Vec<Action> {
        match &self.phase {
            Phase::Starting { .. } | Phase::Running { .. } => self.kill_sick(now, reason),
            Phase::Ending {
                killed: false,
                then,
                ..
            } => {
                let then = then.clone();
                self.phase = Phase::Ending {
                    deadline: now + KILL_PATIENCE,
                    killed: true,
                    then,
                };
                vec![Action::Kill]
            }
            _ => Vec::new(),
        }
    }

    /// What was due while this supervisor stood still may have been done in time, unseen: each
    /// deadline moves on by as much.
    fn stalled(&mut self, by: Duration) -> Vec<Action> {
        match &mut self.phase {
            Phase::Starting { deadline, .. } => *deadline = deadline.map(|at| at + by),
            Phase::Running { failing_since, .. } => {
                *failing_since = failing_since.map(|since| since + by);
            }
            Phase::Ending { deadline, .. } => *deadline += by,
            _ => {}
        }
        Vec::new()
    }

    fn kill_sick(&mut self, now: Moment, reason: String) -> Vec<Action> {
        self.phase = Phase::Ending {
            deadline: now + KILL_PATIENCE,
            killed: true,
            then: Then::Restart {
                reason,
                by_choice: false,
            },
        };
        vec![Action::Kill]
    }

    fn wake(&mut self, now: Moment) -> Vec<Action> {
        if self.wake_at().is_none_or(|at| now < at) {
            return Vec::new();
        }
        match self.phase.clone() {
            Phase::Pause { .. } => {
                let reason = self.last_reason.take().unwrap_or_default();
                self.restarted(now, reason)
            }
            Phase::Starting { last, .. } => {
                let seconds = self.rules.startup_timeout.as_secs_f64();
                let last = last.map_or(String::new(), |last| format!("; last: {last}"));
                let reason =
                    format!("probe timeout: not healthy {seconds} s after its start{last}");
                self.kill_sick(now, reason)
            }
            Phase::Running { why, .. } => self.kill_sick(now, why),
            Phase::Ending { killed, then, .. } => self.overdue(now, killed, then),
            _ => Vec::new(),
        }
    }

    fn overdue(&mut self, now: Moment, killed: bool, then: Then) -> Vec<Action> {
        let stuck = "still there 30 s after SIGKILL: it hangs in the kernel, on a disk perhaps";
        if killed && then == Then::Stop {
            return self.end(Phase::Failed {
                why: stuck.to_owned(),
            });
        }
        self.phase = Phase::Ending {
            deadline: now + KILL_PATIENCE,
            killed: true,
            then,
        };
        if killed {
            vec![Action::Alarm(stuck.to_owned())]
        } else {
            vec![Action::Kill]
        }
    }

    fn restart(&mut self, now: Moment, reason: String) -> Vec<Action> {
        match self.phase {
            _ if self.closing => Vec::new(),
            Phase::Waiting | Phase::Ending { .. } => Vec::new(),
            Phase::Starting { .. } | Phase::Running { .. } => {
                self.phase = Phase::Ending {
                    deadline: now + self.rules.stop_timeout,
                    killed: false,
                    then: Then::Restart {
                        reason,
                        by_choice: true,
                    },
                };
                vec![Action::Stop]
            }
            Phase::Pause { .. } | Phase::Done | Phase::Failed { .. } | Phase::Stopped => {
                self.restarted(now, reason)
            }
        }
    }

    fn stop(&mut self, now: Moment) -> Vec<Action> {
        match &mut self.phase {
            Phase::Waiting | Phase::Pause { .. } => self.end(Phase::Stopped),
            Phase::Starting { .. } | Phase::Running { .. } => {
                self.phase = Phase::Ending {
                    deadline: now + self.rules.stop_timeout,
                    killed: false,
                    then: Then::Stop,
                };
                vec![Action::Stop]
            }
            Phase::Ending { then, .. } => {
                *then = Then::Stop;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn stop_now(&mut self, now: Moment) -> Vec<Action> {
        match &self.phase {
            Phase::Waiting | Phase::Pause { .. } => self.end(Phase::Stopped),
            Phase::Ending { killed: true, .. } => self.stop(now),
            Phase::Starting { .. } | Phase::Running { .. } | Phase::Ending { .. } => {
                let gently = self.rules.kind == Kind::Postgres;
                let patience = if gently { QUIT_PATIENCE } else { KILL_PATIENCE };
                self.phase = Phase::Ending {
                    deadline: now + patience,
                    killed: !gently,
                    then: Then::Stop,
                };
                vec![if gently { Action::Quit } else { Action::Kill }]
            }
            _ => Vec::new(),
        }
    }
}

/// Whether a process in `state` may be ended by choice (restart, age, memory; not sickness), given
/// its peers, the other processes of its role: the last healthy one of several may not. A sick one
/// is not healthy, so killing it is no choice; one without peers has nothing to fall back on, and
/// refusing would only make a restart impossible.
pub(crate) fn may_end_by_choice(state: ProcessState, peers: &[ProcessState]) -> bool {
    state != ProcessState::Healthy || peers.is_empty() || peers.contains(&ProcessState::Healthy)
}

fn running() -> Phase {
    Phase::Running {
        failures: 0,
        failing_since: None,
        why: String::new(),
        draining: false,
    }
}

#[cfg(test)]
mod tests;
