//! Which requests are known to kill nobody: those that were answered 2xx lately, by a node that lived a
//! second longer. Most clients send the same few requests, and two unlucky deaths must not ban them.
//! Pure: the caller brings the time and a hash of the request.
//!
//! A table of fixed size without a lock, because every answer writes to it: two requests that fall on
//! one place forget each other, and one that was forgotten is a suspect at worst.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// So many requests are remembered at most; more forget older ones.
const PLACES: usize = 16_384;
/// How long a node must have lived after its answer.
const LIVED_MS: u32 = 1_000;
/// For so long an answer proves innocence.
const REMEMBERED_MS: u32 = 600_000;

/// A hash of a request that nobody outside this process can foresee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sketch(pub(crate) u64);

/// What is remembered. Times are milliseconds on the gateway's clock.
#[derive(Debug)]
pub(crate) struct Innocents {
    places: Box<[AtomicU64]>,
    /// When a node was lost last, with one added; 0: never.
    lost: AtomicU64,
}

/// One place of the table: 31 bits of the sketch, whether it is proven, and when it was answered: last
/// where it is proven, else first.
#[derive(Clone, Copy)]
struct Place {
    tag: u32,
    proven: bool,
    at_ms: u32,
}

impl Default for Innocents {
    fn default() -> Self {
        Self {
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            lost: AtomicU64::new(0),
        }
    }
}

impl Innocents {
    /// A node answered it 2xx.
    pub(crate) fn answered(&self, sketch: Sketch, now_ms: u32) {
        let Some(place) = self.place(sketch) else {
            return;
        };
        let known = Place::from_bits(place.load(Relaxed));
        let first = Place {
            tag: tag(sketch),
            proven: false,
            at_ms: now_ms,
        };
        let next = if known.tag != first.tag {
            first
        } else if known.proven {
            if age(known, now_ms) < LIVED_MS {
                // Nothing to write for what comes often.
                return;
            }
            Place {
                proven: age(known, now_ms) < REMEMBERED_MS,
                ..first
            }
        } else if self.is_disproved(known) {
            first
        } else if age(known, now_ms) < LIVED_MS {
            return;
        } else {
            Place {
                proven: true,
                ..first
            }
        };
        place.store(next.to_bits(), Relaxed);
    }

    /// Whether it may be taken for innocent of a death that is found now.
    pub(crate) fn knows(&self, sketch: Sketch, now_ms: u32) -> bool {
        let known = self
            .place(sketch)
            .map(|place| Place::from_bits(place.load(Relaxed)));
        known.is_some_and(|known| {
            known.tag == tag(sketch)
                && age(known, now_ms) < REMEMBERED_MS
                && (known.proven || self.lived(known, now_ms))
        })
    }

    /// A node was lost: what it answered just before proves nothing.
    pub(crate) fn lost(&self, now_ms: u32) {
        self.lost.store(u64::from(now_ms) + 1, Relaxed);
    }

    /// The first answer is a second old, and no node was lost in that second.
    fn lived(&self, known: Place, now_ms: u32) -> bool {
        age(known, now_ms) >= LIVED_MS && !self.is_disproved(known)
    }

    /// A node was lost in the second after the first answer.
    fn is_disproved(&self, known: Place) -> bool {
        let first = u64::from(known.at_ms);
        // One was added, to tell it from never.
        let lost = self.lost.load(Relaxed);
        (first + 1..first + 1 + u64::from(LIVED_MS)).contains(&lost)
    }

    fn place(&self, sketch: Sketch) -> Option<&AtomicU64> {
        self.places.get(sketch.0 as usize % PLACES)
    }
}

fn age(place: Place, now_ms: u32) -> u32 {
    now_ms.saturating_sub(place.at_ms)
}

/// Never 0, which is an empty place.
fn tag(sketch: Sketch) -> u32 {
    (sketch.0 >> 33) as u32 | 1
}

impl Place {
    fn from_bits(bits: u64) -> Self {
        Self {
            tag: (bits >> 33) as u32,
            proven: (bits >> 32) & 1 == 1,
            at_ms: bits as u32,
        }
    }

    fn to_bits(self) -> u64 {
        (u64::from(self.tag) << 33) | (u64::from(self.proven) << 32) | u64::from(self.at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Sketch = Sketch(0x1234_5678_9abc_def0);

    #[test]
    fn an_answer_proves_innocence_once_its_node_has_lived_a_second_longer() {
        let innocents = Innocents::default();
        assert!(!innocents.knows(ONE, 5_000));
        innocents.answered(ONE, 5_000);
        assert!(!innocents.knows(ONE, 5_999));
        assert!(innocents.knows(ONE, 6_000));
        assert!(!innocents.knows(Sketch(ONE.0 ^ (1 << 40)), 6_000));
    }

    #[test]
    fn a_node_that_is_lost_within_the_second_proves_nothing() {
        let innocents = Innocents::default();
        innocents.answered(ONE, 5_000);
        innocents.lost(5_500);
        assert!(!innocents.knows(ONE, 9_000));
        innocents.answered(ONE, 9_000);
        assert!(!innocents.knows(ONE, 9_500));
        assert!(innocents.knows(ONE, 10_000));
    }

    #[test]
    fn what_comes_all_the_time_stays_innocent_whoever_dies_later() {
        let innocents = Innocents::default();
        for at in (0..5_000).step_by(100) {
            innocents.answered(ONE, at);
        }
        assert!(innocents.knows(ONE, 5_000));
        innocents.lost(5_000);
        assert!(innocents.knows(ONE, 5_001));
        innocents.answered(ONE, 5_100);
        assert!(innocents.knows(ONE, 5_200));
    }

    #[test]
    fn innocence_ends_after_ten_minutes() {
        let innocents = Innocents::default();
        innocents.answered(ONE, 0);
        innocents.answered(ONE, 2_000);
        assert!(innocents.knows(ONE, 601_000));
        assert!(!innocents.knows(ONE, 602_000));
    }
}
