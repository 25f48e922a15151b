//! The simulated nodes: what befalls them, and what they do with what reaches them.

use super::world::{Attempt, Event, Kind, Request, World};
use crate::fingerprint::Fingerprint;

/// Within this time of a death the other gateway knows who is suspected.
const NEWS_MS: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Up,
    Down,
    Frozen,
    Sick,
    Slow,
    /// Nothing comes in or goes out.
    Cut,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) condition: Condition,
    /// Changes with each start.
    pub(super) life: u32,
    /// The poison, the gateway that it came through, and when.
    pub(super) killed_by: Option<(Fingerprint, usize, u64)>,
}

impl Node {
    /// It runs, and answers nobody well.
    pub(super) fn is_lost(&self) -> bool {
        matches!(
            self.condition,
            Condition::Frozen | Condition::Sick | Condition::Cut
        )
    }
}

impl World {
    pub(super) fn reach(&mut self, attempt: usize) {
        let node = self.attempts[attempt].node;
        let (condition, life) = (self.nodes[node].condition, self.nodes[node].life);
        let delay = self.delay();
        match condition {
            Condition::Down => self.after(delay, Event::Broken(attempt, true)),
            Condition::Frozen | Condition::Cut => self.attempts[attempt].held = true,
            Condition::Up | Condition::Sick | Condition::Slow => {
                self.attempts[attempt].held = true;
                let who = self.attempts[attempt].request;
                if self.requests[who].kind == Kind::Poison && condition != Condition::Sick {
                    // What a frozen node was sent it does when it thaws, whoever has given it up: the
                    // one death that no gateway can prevent.
                    match self.attempts[attempt].open {
                        true => self.poisoned(node, attempt),
                        false => self.crash(node),
                    }
                    return;
                }
                self.attempts[attempt].working = true;
                let slow = if condition == Condition::Slow { 100 } else { 1 };
                let work = self.chance.between(1, 10) * slow;
                self.after(work, Event::Work(attempt, life));
            }
        }
    }

    /// The node has done its work.
    pub(super) fn work(&mut self, attempt: usize, life: u32) {
        let node = self.attempts[attempt].node;
        if self.nodes[node].life != life || self.nodes[node].condition == Condition::Down {
            return;
        }
        if self.nodes[node].condition == Condition::Frozen {
            return self.after(20, Event::Work(attempt, life));
        }
        self.attempts[attempt].held = false;
        let sick = self.nodes[node].condition == Condition::Sick;
        let request = &mut self.requests[self.attempts[attempt].request];
        if !sick {
            match request.kind {
                // The key is stored with the effect.
                Kind::Keyed => request.applied = 1,
                Kind::Plain => request.applied += 1,
                Kind::Get | Kind::Poison => {}
            }
        }
        let delay = self.delay();
        self.after(delay, Event::Answer(attempt, !sick));
    }

    fn poisoned(&mut self, node: usize, attempt: usize) {
        let Attempt { request, begun, .. } = self.attempts[attempt];
        let Request { who, gateway, .. } = self.requests[request];
        let now = self.now;
        // Two gateways that see different nodes in rotation at the same moment cannot know of each
        // other: it was sent before there was any news of the other death.
        let wrong = |(poison, via, at): (Fingerprint, usize, u64)| {
            poison == who && (via == gateway || begun > at + NEWS_MS)
        };
        let mut others = self.nodes.iter().enumerate();
        if others.any(|(other, one)| other != node && one.killed_by.is_some_and(wrong)) {
            let text = format!("{now} ms: one poison has two nodes down");
            self.wrong.push(text);
        }
        self.tell(|| format!("n{node} is poisoned by r{request} over g{gateway}"));
        self.nodes[node].killed_by = Some((who, gateway, now));
        self.crash(node);
    }

    fn crash(&mut self, node: usize) {
        self.count.deaths += 1;
        self.tell(|| format!("n{node} dies"));
        self.nodes[node].life += 1;
        self.nodes[node].condition = Condition::Down;
        for attempt in 0..self.attempts.len() {
            if self.attempts[attempt].node == node && self.attempts[attempt].held {
                self.attempts[attempt].held = false;
                let delay = self.delay();
                self.after(delay, Event::Broken(attempt, false));
            }
        }
        // Now and then it is one that starts slowly.
        let start = match self.chance.between(0, 5) {
            0 => self.chance.between(2_500, 4_000),
            _ => self.chance.between(30, 300),
        };
        self.after(start, Event::Start(node));
    }

    /// One node at a time has a fault of its own, so that another one is well.
    pub(super) fn fault(&mut self, node: usize) {
        if self.nodes.iter().any(|one| one.condition != Condition::Up) {
            return self.after(50, Event::Fault(node));
        }
        let life = self.nodes[node].life;
        let (condition, lasts) = match self.chance.between(0, 5) {
            0 => {
                self.strike(node);
                return self.crash(node);
            }
            1 => (Condition::Frozen, self.chance.between(100, 1_000)),
            2 => (Condition::Sick, self.chance.between(300, 1_000)),
            3 => (Condition::Slow, self.chance.between(500, 3_000)),
            _ => (Condition::Cut, self.chance.between(100, 2_000)),
        };
        self.tell(|| format!("n{node} is {condition:?} for {lasts} ms"));
        self.nodes[node].condition = condition;
        if self.nodes[node].is_lost() {
            self.strike(node);
        }
        self.after(lasts, Event::Mend(node, life));
    }

    /// Whoever is tried there is unlucky: nothing tells it from a request that does this to its node.
    fn strike(&mut self, node: usize) {
        for at in 0..self.attempts.len() {
            if self.attempts[at].open && self.attempts[at].node == node {
                self.mind_luck(self.attempts[at].request, node);
            }
        }
    }

    /// A fault ends. A sick node is killed and started again; what was sent meanwhile comes now.
    pub(super) fn thaw(&mut self, node: usize) {
        let before = self.nodes[node].condition;
        if before == Condition::Sick {
            return self.crash(node);
        }
        self.nodes[node].condition = Condition::Up;
        if matches!(before, Condition::Frozen | Condition::Cut) {
            for attempt in 0..self.attempts.len() {
                let one = &self.attempts[attempt];
                if one.node == node && one.held && !one.working {
                    self.after(0, Event::Reach(attempt));
                }
            }
        }
    }
}
