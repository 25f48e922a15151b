//! Whose turn it is to be replaced by choice: for its memory, its age, or because the operator wants
//! it. Pure. Of one role one at a time, so that as many serve as were meant to; what hurts first goes
//! first, and of two that take too much memory the larger.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Moment, may_end_by_choice};
use crate::status::ProcessState;

/// A process whose predecessor still drains keeps its turn for at most this long: the predecessor
/// serves nobody new, and another that leaks cannot wait for a slow answer.
pub(crate) const DRAIN_TURN: Duration = Duration::from_secs(2);
/// Of its maximal age a process may be spared as much, at random.
const AGE_SPREAD: f64 = 0.25;

/// Why a process is to be replaced; what comes first is more urgent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Wish {
    /// It takes too much memory.
    Memory(String),
    /// The operator, or a new configuration.
    Operator(String),
    Age(String),
}

impl Wish {
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Memory(reason) | Self::Operator(reason) | Self::Age(reason) => reason,
        }
    }
}

/// One process, as far as turns go.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) role: &'a str,
    pub(crate) state: ProcessState,
    pub(crate) wish: Option<&'a Wish>,
    /// What it takes.
    pub(crate) bytes: u64,
    /// Whether a successor can be up before it ends.
    pub(crate) start_first: bool,
    /// It has its turn: a successor starts, or it was ended by choice and is not back yet.
    pub(crate) busy: bool,
    /// Its last successor failed; no other one before this.
    pub(crate) not_before: Option<Moment>,
}

/// Those whose turn it is now, at most one of each role.
pub(crate) fn next(now: Moment, all: &[Candidate<'_>]) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    let mut waiting: Vec<(usize, &Candidate<'_>, &Wish)> = all
        .iter()
        .enumerate()
        .filter_map(|(index, candidate)| Some((index, candidate, candidate.wish?)))
        .filter(|(_, candidate, _)| candidate.not_before.is_none_or(|at| now >= at))
        .filter(|(index, candidate, _)| may_go(*index, candidate, all))
        .collect();
    waiting.sort_by(|(_, a, left), (_, b, right)| {
        let urgency = rank(left).cmp(&rank(right));
        urgency.then_with(|| b.bytes.cmp(&a.bytes))
    });
    let mut roles: Vec<&str> = Vec::new();
    for (index, candidate, _) in waiting {
        let taken = all
            .iter()
            .any(|other| other.busy && other.role == candidate.role);
        if !taken && !roles.contains(&candidate.role) {
            roles.push(candidate.role);
            chosen.push(index);
        }
    }
    chosen
}

/// When a run of this maximal age is to be replaced, counted from its start; `random` is uniform in
/// 0..1 and drawn once for a run, so that processes of one age part.
pub(crate) fn age_at_end(max_age: Duration, random: f64) -> Duration {
    max_age.mul_f64(1.0 - AGE_SPREAD * random.clamp(0.0, 1.0))
}

fn rank(wish: &Wish) -> u8 {
    match wish {
        Wish::Memory(_) => 0,
        Wish::Operator(_) => 1,
        Wish::Age(_) => 2,
    }
}

/// With a successor first nothing is lost; without one somebody else must be there meanwhile.
fn may_go(index: usize, candidate: &Candidate<'_>, all: &[Candidate<'_>]) -> bool {
    if candidate.start_first {
        return true;
    }
    let peers: Vec<ProcessState> = all
        .iter()
        .enumerate()
        .filter(|(other, peer)| *other != index && peer.role == candidate.role)
        .map(|(_, peer)| peer.state)
        .collect();
    may_end_by_choice(candidate.state, &peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(wish: Option<&Wish>, bytes: u64) -> Candidate<'_> {
        Candidate {
            role: "node",
            state: ProcessState::Healthy,
            wish,
            bytes,
            start_first: true,
            busy: false,
            not_before: None,
        }
    }

    fn memory() -> Wish {
        Wish::Memory("memory soft".to_owned())
    }

    #[test]
    fn of_two_over_the_soft_limit_the_larger_goes_first_and_never_both() {
        let wish = memory();
        let mut all = vec![
            node(Some(&wish), 300),
            node(Some(&wish), 400),
            node(None, 900),
        ];
        assert_eq!(next(Duration::ZERO, &all), [1]);
        all[1].busy = true;
        all[1].wish = None;
        assert_eq!(next(Duration::ZERO, &all), [0; 0]);
        all[1].busy = false;
        assert_eq!(next(Duration::ZERO, &all), [0]);
    }

    #[test]
    fn roles_do_not_wait_for_each_other() {
        let wish = memory();
        let mut gateway = node(Some(&wish), 1);
        gateway.role = "gateway";
        let all = [node(Some(&wish), 1), gateway];
        assert_eq!(next(Duration::ZERO, &all).len(), 2);
    }

    #[test]
    fn memory_goes_before_the_operator_and_the_operator_before_age() {
        let wishes = [
            Wish::Age("age".to_owned()),
            Wish::Operator("operator".to_owned()),
            memory(),
        ];
        let mut all: Vec<_> = wishes.iter().map(|wish| node(Some(wish), 1)).collect();
        for expected in [2, 1, 0] {
            assert_eq!(next(Duration::ZERO, &all), [expected]);
            all[expected].wish = None;
        }
    }

    #[test]
    fn the_last_healthy_one_goes_only_behind_its_successor() {
        let wish = memory();
        let mut sick = node(None, 1);
        sick.state = ProcessState::Unhealthy;
        let mut all = vec![node(Some(&wish), 1), sick];
        assert_eq!(next(Duration::ZERO, &all), [0]);
        all[0].start_first = false;
        assert_eq!(next(Duration::ZERO, &all), [0; 0]);
        all[1].state = ProcessState::Healthy;
        assert_eq!(next(Duration::ZERO, &all), [0]);
        assert_eq!(next(Duration::ZERO, &all[..1]), [0], "nobody to wait for");
    }

    #[test]
    fn after_a_successor_that_failed_it_is_tried_again_later() {
        let wish = memory();
        let mut all = [node(Some(&wish), 1)];
        all[0].not_before = Some(Duration::from_secs(5));
        assert_eq!(next(Duration::from_secs(4), &all), [0; 0]);
        assert_eq!(next(Duration::from_secs(5), &all), [0]);
    }

    #[test]
    fn processes_of_one_age_part() {
        let hour = Duration::from_secs(3600);
        assert_eq!(age_at_end(hour, 0.0), hour);
        assert_eq!(age_at_end(hour, 0.5), Duration::from_secs(3150));
        assert_eq!(age_at_end(hour, 1.0), Duration::from_secs(2700));
    }
}
