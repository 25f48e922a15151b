//! What the operator asks of one process: to be stopped and stay so, or to be started again.

use super::Supervisor;
use crate::control::Answer;
use crate::policy::{self, Event};
use crate::status::ProcessState;

impl Supervisor {
    /// Ends a process in order and keeps it stopped; the last healthy one of several only by force,
    /// since the operator may not know that the others are down.
    pub(super) fn stop_process(&mut self, name: &str, force: bool) -> Answer {
        let (at, state) = match self.find(name) {
            Ok(found) => found,
            Err(why) => return Answer::Refused(why),
        };
        if matches!(state, ProcessState::Done | ProcessState::Failed) {
            let word = format!("{state:?}").to_lowercase();
            return Answer::Refused(format!("`{name}` does not run: it is {word}"));
        }
        let role = self.slots.get(at).map(|slot| slot.process.role.clone());
        let role = role.unwrap_or_default();
        let peers = self.slots.iter().enumerate();
        let peers = peers.filter(|(peer, slot)| *peer != at && slot.process.role == role);
        let states: Vec<ProcessState> = peers.map(|(_, slot)| slot.machine.state()).collect();
        if !force && !policy::may_end_by_choice(state, &states) {
            return Answer::Refused(format!("`{name}` is the last healthy {role}"));
        }
        tracing::info!(name, "the operator stops it");
        if let Some(slot) = self.slots.get_mut(at) {
            slot.standing.held = true;
        }
        self.feed(at, Event::Stop);
        self.drop_successor(at);
        Answer::Done
    }

    /// Starts a process that nothing else would start; one that runs goes on.
    pub(super) fn start_process(&mut self, name: &str) -> Answer {
        let (at, _) = match self.find(name) {
            Ok(found) => found,
            Err(why) => return Answer::Refused(why),
        };
        let Some(slot) = self.slots.get(at) else {
            return Answer::Done;
        };
        if slot.machine.is_ending() {
            return Answer::Refused(format!("`{name}` is still being stopped"));
        }
        if slot.machine.is_over() {
            tracing::info!(name, "the operator starts it");
            self.feed(at, Event::Restart("operator".to_owned()));
        }
        Answer::Done
    }

    fn find(&self, name: &str) -> Result<(usize, ProcessState), String> {
        if self.stopping {
            return Err("everything is being stopped".to_owned());
        }
        let mut slots = self.slots.iter().enumerate();
        let found = slots.find(|(_, slot)| slot.process.name == name && !slot.leaving);
        let found = found.map(|(at, slot)| (at, slot.machine.state()));
        found.ok_or_else(|| format!("there is no process `{name}`"))
    }
}
