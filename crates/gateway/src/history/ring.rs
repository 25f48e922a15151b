//! Slots of one length, in the order of time, as many as fit; the oldest leave. A span in which nobody
//! counted has no slot, so that a gap is a gap. Pure.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::slot::Slot;

/// Slots of `step` seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ring {
    step: u64,
    slots_max: usize,
    slots: VecDeque<Slot>,
}

impl Ring {
    /// `step` in seconds.
    pub(crate) fn new(step: u64, slots_max: usize) -> Self {
        Self {
            step: step.max(1),
            slots_max: slots_max.max(1),
            slots: VecDeque::new(),
        }
    }

    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    /// Seconds that it covers at most.
    pub(crate) fn span(&self) -> u64 {
        self.step * self.slots_max as u64
    }

    /// Adds numbers to the slot of their time; what is older than all of a full ring is left out.
    pub(crate) fn add(&mut self, slot: &Slot) {
        let at = slot.at - slot.at % self.step;
        let place = self.slots.partition_point(|own| own.at < at);
        if let Some(own) = self.slots.get_mut(place)
            && own.at == at
        {
            own.add(slot);
            return;
        }
        if self.slots.len() >= self.slots_max {
            if place == 0 {
                return;
            }
            self.slots.pop_front();
            self.slots.insert(place - 1, Slot { at, ..slot.clone() });
            return;
        }
        self.slots.insert(place, Slot { at, ..slot.clone() });
    }

    /// From one second on (inclusive), before another.
    pub(crate) fn between(&self, from: u64, before: u64) -> impl Iterator<Item = &Slot> {
        let first = self.slots.partition_point(|slot| slot.at < from);
        let slots = self.slots.iter().skip(first);
        slots.take_while(move |slot| slot.at < before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at: u64) -> Slot {
        let protocols = [0, 1, 0, 0];
        Slot {
            at,
            protocols,
            ..Slot::default()
        }
    }

    fn times(ring: &Ring) -> Vec<(u64, u32)> {
        let all = ring.between(0, u64::MAX);
        all.map(|slot| (slot.at, slot.protocols[1])).collect()
    }

    #[test]
    fn seconds_of_one_span_add_up_whatever_their_order() {
        let mut ring = Ring::new(10, 3);
        for second in [25, 11, 19, 30, 21] {
            ring.add(&at(second));
        }
        assert_eq!(times(&ring), [(10, 2), (20, 2), (30, 1)]);
    }

    #[test]
    fn a_full_ring_loses_its_oldest_and_takes_nothing_that_is_older() {
        let mut ring = Ring::new(1, 3);
        for second in [1, 2, 4, 5, 1, 3] {
            ring.add(&at(second));
        }
        assert_eq!(times(&ring), [(3, 1), (4, 1), (5, 1)]);
    }

    #[test]
    fn a_time_without_a_count_is_a_gap_and_not_a_zero() {
        let mut ring = Ring::new(1, 10);
        ring.add(&at(1));
        ring.add(&at(4));
        assert_eq!(times(&ring), [(1, 1), (4, 1)]);
    }
}
