//! Taking over a new configuration while everything runs. The file is read and checked by a task of
//! its own, one reading after the other, since a disk or a name server may be slow; what it read is
//! carried out by the supervisor, whole or not at all.

use std::path::PathBuf;

use chassis::Failure;
use tokio::sync::{mpsc, oneshot};

use super::Supervisor;
use crate::Config;
use crate::change::{self, Change};
use crate::control::Answer;
use crate::plan::Plan;
use crate::policy::Event;
use crate::policy::turns::Wish;
use crate::slot::{Slot, now_text};
use crate::status::{ProcessState, SUPERVISOR};

/// Reloads that may wait for the one that is being read; more are refused.
const RELOADS_MAX: usize = 4;

/// Why a process is replaced whose entry has changed.
const NEW_CONFIGURATION: &str = "operator: new configuration";

const ATTEMPTED: &str = "take over the new configuration";

/// Asks for reloads.
pub(super) struct Reader {
    asked: mpsc::Sender<Option<oneshot::Sender<Answer>>>,
}

/// What was read, and who waits for an answer.
pub(super) struct Reading {
    result: Result<(Config, Plan), Failure>,
    answer: Option<oneshot::Sender<Answer>>,
}

impl Reader {
    /// Reads `file` whenever it is asked to, until the supervisor ends.
    pub(super) fn start(file: PathBuf) -> (Self, mpsc::Receiver<Reading>) {
        let (asked, mut asks) = mpsc::channel::<Option<oneshot::Sender<Answer>>>(RELOADS_MAX);
        let (readings, read) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(answer) = asks.recv().await {
                let file = file.clone();
                let task = tokio::task::spawn_blocking(move || {
                    let config: Config = Config::read(&file)?;
                    let plan = Plan::new(&config)?;
                    Ok((config, plan))
                });
                let broken = |error| Err(Failure::run_time(ATTEMPTED, error, "try again"));
                let result = task.await.unwrap_or_else(broken);
                if readings.send(Reading { result, answer }).await.is_err() {
                    return;
                }
            }
        });
        (Self { asked }, read)
    }
}

/// `added a, b; removed c`.
fn in_words(change: &Change) -> String {
    let parts = [
        ("added", &change.added),
        ("removed", &change.removed),
        ("changed", &change.changed),
    ];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    let parts = parts.map(|(word, names)| format!("{word} {}", names.join(", ")));
    parts.collect::<Vec<_>>().join("; ")
}

impl Supervisor {
    /// Begins to read the file anew; `answer` hears how it ended.
    pub(super) fn reload(&self, answer: Option<oneshot::Sender<Answer>>) {
        let refuse = |answer: Option<oneshot::Sender<Answer>>, why: &str| {
            tracing::warn!(why, "the configuration is not read anew");
            // A client that is gone needs no answer.
            let _ = answer.map(|answer| answer.send(Answer::Refused(why.to_owned())));
        };
        let Some(reader) = &self.reader else {
            return refuse(answer, "it runs one command and has no file to read anew");
        };
        if let Err(error) = reader.asked.try_send(answer) {
            refuse(error.into_inner(), "too many reloads wait already");
        }
    }

    /// Carries out what was read, and says how that went.
    pub(super) fn take_over(&mut self, reading: Reading) {
        let result = reading.result.and_then(|(config, plan)| {
            let change = self.change(&config, plan)?;
            self.config = config;
            Ok(change)
        });
        let answer = match result {
            Ok(change) => {
                tracing::info!(?change, "reloaded");
                self.events.tell("reloaded", SUPERVISOR, &in_words(&change));
                Answer::Changed(change)
            }
            Err(failure) => {
                tracing::error!(%failure, "the old configuration stays");
                let why = failure.to_string();
                self.events.tell("refused", SUPERVISOR, &why);
                Answer::Refused(failure.to_string())
            }
        };
        let _ = reading.answer.map(|waits| waits.send(answer));
    }

    /// Nothing is changed unless all can be.
    fn change(&mut self, config: &Config, plan: Plan) -> Result<Change, Failure> {
        if self.stopping {
            let why = "everything is being stopped";
            return Err(Failure::run_time(ATTEMPTED, why, "start it again"));
        }
        let change = change::between(&self.config, config)?;
        let leaving = self.slots.iter().filter(|slot| slot.leaving);
        let names = leaving.map(|slot| slot.process.name.as_str());
        let busy: Vec<&str> = names
            .filter(|name| change.added.iter().any(|added| added == name))
            .collect();
        if !busy.is_empty() {
            let why = format!("still being stopped: {}", busy.join(", "));
            return Err(Failure::run_time(
                ATTEMPTED,
                why,
                "try again when they are gone",
            ));
        }
        self.spawner.sockets.open(&plan)?;
        // From here on nothing can fail.
        self.spawner.sockets.keep(&plan);
        let since = now_text();
        for process in plan.processes {
            if change.added.contains(&process.name) {
                self.slots.push(Slot::new(process, &since));
            } else if change.changed.contains(&process.name) {
                self.becomes(process);
            }
        }
        let place = |slot: &Slot| {
            let mut names = config.processes.iter().map(|process| &process.name);
            names.position(|name| *name == slot.process.name)
        };
        for slot in &mut self.slots {
            slot.leaving |= place(slot).is_none();
        }
        // As in the file; those that leave last.
        self.slots
            .sort_by_key(|slot| place(slot).unwrap_or(usize::MAX));
        self.arrange();
        for index in 0..self.slots.len() {
            if self.slots.get(index).is_some_and(|slot| slot.leaving) {
                self.close_slot(index, false);
            }
        }
        Ok(change)
    }

    /// Has a process replaced by what it is to become. One that does not run just now becomes it at
    /// once, and one that failed is started: it may be better now.
    fn becomes(&mut self, process: crate::plan::Process) {
        let mut all = self.slots.iter();
        let Some(index) = all.position(|slot| slot.process.name == process.name) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.next = Some(process);
        if slot.live.is_none() {
            slot.become_next();
        }
        if slot.machine.state() == ProcessState::Failed {
            self.feed(index, Event::Restart(NEW_CONFIGURATION.to_owned()));
        }
    }

    /// What was changed and runs is to be replaced as soon as that is possible.
    pub(super) fn wish_for_changed(&mut self) {
        for index in 0..self.slots.len() {
            let is_due = self.slots.get(index).is_some_and(|slot| {
                let is_free = slot.successor.is_none() && slot.standing.wish.is_none();
                slot.next.is_some() && slot.machine.is_running() && is_free
            });
            if is_due {
                self.wish(index, Wish::Operator(NEW_CONFIGURATION.to_owned()));
            }
        }
    }

    /// Forgets those that were taken away and have ended.
    pub(super) fn forget(&mut self) {
        let before = self.slots.len();
        let gone = |slot: &Slot| slot.leaving && slot.live.is_none() && slot.is_over();
        self.slots.retain(|slot| !gone(slot));
        if self.slots.len() < before {
            self.arrange();
        }
    }

    /// Works out anew who waits for whom: positions have changed.
    fn arrange(&mut self) {
        let processes: Vec<_> = self.slots.iter().map(|slot| &slot.process).collect();
        self.after = crate::plan::positions(&processes);
    }

    /// The positions of those that may be stopped now: all when the whole ends, those that were
    /// taken away otherwise.
    pub(super) fn stoppable(&self) -> Vec<usize> {
        let over: Vec<bool> = self.slots.iter().map(Slot::is_over).collect();
        let stoppable = crate::order::stoppable(&self.after, &over);
        let is_wanted = |index: &usize| {
            self.slots.get(*index).is_some_and(|slot| {
                let ends = slot.machine.is_ending() || slot.machine.is_over();
                (self.stopping || slot.leaving) && !ends
            })
        };
        stoppable.into_iter().filter(is_wanted).collect()
    }
}
