//! Requests whose clients left while a node was busy with them. The node may die of one a moment later,
//! when nobody is there any more to say what it was on: a poison whose client gives up early would
//! never be found, however often it comes. So they are remembered for a moment.
//! Leaves out nodes that hang or turn sick: a request that is gone cannot be told from others then.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fingerprint::Fingerprint;
use crate::innocents::Sketch;
use crate::nodes::Node;
use crate::suspects::{Charge, Ended};
use crate::trial::Trial;
use crate::worker::Shared;

/// What a request does to its node it does within this time of its client's leaving.
const LASTING: Duration = Duration::from_secs(2);
/// So many are remembered at once; over it the oldest is forgotten.
const DEPARTED_MAX: usize = 256;

/// A request that a node was busy with when its client left.
#[derive(Debug)]
pub(crate) struct Departed {
    pub(crate) who: Fingerprint,
    pub(crate) sketch: Option<Sketch>,
    /// GET or HEAD.
    pub(crate) safe: bool,
    pub(crate) charge: Charge,
    pub(crate) node: Arc<Node>,
    /// It was on trial, which ends when it is known what came of it.
    pub(crate) trial: Option<Trial>,
    pub(crate) at: Instant,
    /// How often its node had been found dead.
    pub(crate) deaths: u32,
}

/// All of one gateway.
#[derive(Debug, Default)]
pub(crate) struct AllDeparted(Mutex<VecDeque<Departed>>);

impl AllDeparted {
    /// A client has left.
    pub(crate) fn note(&self, shared: &Shared, one: Departed) {
        let mut all = self.lock();
        all.push_back(one);
        let oldest = (all.len() > DEPARTED_MAX).then(|| all.pop_front());
        drop(all);
        if let Some(oldest) = oldest.flatten() {
            shared.metrics.limit_hit("departed_max");
            nothing_came_of(shared, oldest);
        }
    }

    /// Accuses those whose nodes have died since, and forgets those whose time is over. Returns trials
    /// that have ended with a verdict, to be held until other gateways can know of it: they may wait for
    /// this very turn.
    pub(crate) fn settle(&self, shared: &Shared, now: Instant) -> Vec<Trial> {
        let (mut died, mut over) = (Vec::new(), Vec::new());
        let mut all = self.lock();
        for _ in 0..all.len() {
            let Some(one) = all.pop_front() else { break };
            if one.node.deaths() != one.deaths {
                died.push(one);
            } else if now.saturating_duration_since(one.at) >= LASTING {
                over.push(one);
            } else {
                all.push_back(one);
            }
        }
        drop(all);
        over.into_iter()
            .for_each(|one| nothing_came_of(shared, one));
        let accused = died.into_iter().map(|one| accuse(shared, one, now));
        accused.flatten().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Departed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accuse(shared: &Shared, one: Departed, now: Instant) -> Option<Trial> {
    let quarantine = &shared.quarantine;
    if one.trial.is_some() {
        quarantine.ended(shared, one.who, Ended::Lost(one.charge.loss));
        return one.trial;
    }
    let clock = shared.clock(now);
    let knows = |sketch| quarantine.innocents.knows(sketch, clock);
    if !one.sketch.is_some_and(knows) {
        quarantine.accuse(shared, one.who, one.node.id, one.safe, one.charge, now);
    }
    None
}

fn nothing_came_of(shared: &Shared, one: Departed) {
    if let Some(trial) = one.trial {
        shared.quarantine.ended(shared, one.who, Ended::Withdrawn);
        drop(trial);
    }
}
