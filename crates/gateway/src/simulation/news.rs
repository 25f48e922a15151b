//! What the simulated gateways learn without a request: by their probes, and from each other.

use std::time::Duration;

use super::node::Condition;
use super::world::{Event, World};
use crate::ejection::{self, Probed};

const PROBE_MS: u64 = 100;
const PROBE_TIMEOUT_MS: u64 = 200;
/// How late the book of another gateway is read.
const SHARE_MS: u64 = 45;

impl World {
    /// What a gateway knows goes into the book at once and is read by others a moment later.
    pub(super) fn write(&mut self, gateway: usize) {
        let own = &self.gateways[gateway].suspects;
        let suspected = own.suspected().map(|(who, _)| who).collect();
        self.book.insert(gateway, suspected);
        for other in (0..self.gateways.len()).filter(|other| *other != gateway) {
            self.after(SHARE_MS, Event::Share(other));
        }
    }

    /// A gateway reads the book.
    pub(super) fn share(&mut self, gateway: usize) {
        let all = self
            .gateways
            .iter()
            .flat_map(|one| one.suspects.convicted());
        let convicted = all.map(|(who, one)| (who, one.clone())).collect();
        let others = self.book.iter().filter(|(other, _)| **other != gateway);
        let until = self.instant() + Duration::from_secs(10);
        let suspected = others.flat_map(|(_, all)| all.iter().map(|who| (*who, until)));
        let suspected = suspected.collect();
        self.gateways[gateway].suspects.agree(convicted, suspected);
    }

    pub(super) fn probe(&mut self, gateway: usize, node: usize) {
        let delay = self.delay();
        let (found, delay) = match self.nodes[node].condition {
            Condition::Up | Condition::Slow => (0, delay),
            Condition::Sick => (1, delay),
            Condition::Down => (2, delay),
            Condition::Frozen | Condition::Cut => (3, PROBE_TIMEOUT_MS),
        };
        self.after(delay, Event::Probed(gateway, node, found));
        // Later than the requests' deadlines nobody needs to know.
        if self
            .requests
            .iter()
            .rev()
            .take(200)
            .any(|one| one.answer.is_none())
            || self.now < 20_000
        {
            self.after(PROBE_MS + delay, Event::Probe(gateway, node));
        }
    }

    pub(super) fn probed(&mut self, gateway: usize, node: usize, found: u8) {
        let probed = match found {
            0 => Probed::Good,
            1 => Probed::BadStatus,
            2 => Probed::Unreachable,
            _ => Probed::TimedOut,
        };
        if let Some(event) = ejection::judge(probed, Duration::ZERO, false) {
            self.learn(gateway, node, event);
        }
    }
}
