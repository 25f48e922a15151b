//! How slowly a client may take an answer. Whoever takes nothing, or less than the floor, uses up a
//! grace and is then broken off: it holds memory, and for a list one of few database connections.
//!
//! Only time in which the client made us wait counts, so a slow database is not laid at its door, and
//! every byte that it takes earns time again. Pure: the caller brings the time.

use std::time::{Duration, Instant};

/// One connection's account.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    grace: Duration,
    seconds_per_byte: f64,
    /// How long it may still make us wait.
    left: Duration,
    blocked_since: Option<Instant>,
}

impl Pace {
    /// `rate_min`: bytes a second; `grace`: the longest wait in which nothing is taken.
    pub(crate) fn new(rate_min: u64, grace: Duration) -> Self {
        Self {
            grace,
            seconds_per_byte: 1.0 / rate_min.max(1) as f64,
            left: grace,
            blocked_since: None,
        }
    }

    /// The client takes nothing now. Returns when it is to be broken off, unless it takes some before.
    pub(crate) fn blocked(&mut self, now: Instant) -> Instant {
        *self.blocked_since.get_or_insert(now) + self.left
    }

    /// The client took so many bytes.
    pub(crate) fn took(&mut self, bytes: usize, now: Instant) {
        if let Some(since) = self.blocked_since.take() {
            self.left = self
                .left
                .saturating_sub(now.saturating_duration_since(since));
        }
        let earned = Duration::from_secs_f64(bytes as f64 * self.seconds_per_byte);
        self.left = self.left.saturating_add(earned).min(self.grace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(20);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_client_that_takes_nothing_is_broken_off_after_the_grace() {
        let (mut pace, now) = (Pace::new(1000, GRACE), Instant::now());
        assert_eq!(pace.blocked(now), now + GRACE);
        // Asked again, the end does not move.
        assert_eq!(pace.blocked(now + SECOND), now + GRACE);
    }

    #[test]
    fn a_client_above_the_floor_goes_on_for_ever_and_one_below_does_not() {
        for (bytes, goes_on) in [(1000, true), (900, false)] {
            let (mut pace, mut now) = (Pace::new(1000, GRACE), Instant::now());
            for _ in 0..1000 {
                if pace.blocked(now) <= now + SECOND {
                    break;
                }
                now += SECOND;
                pace.took(bytes, now);
            }
            assert_eq!(pace.left > SECOND, goes_on, "{bytes}");
        }
    }

    #[test]
    fn time_in_which_nothing_had_to_be_taken_costs_nothing() {
        let (mut pace, now) = (Pace::new(1000, GRACE), Instant::now());
        pace.took(1, now + 100 * SECOND);
        assert_eq!(pace.blocked(now + 200 * SECOND), now + 200 * SECOND + GRACE);
    }
}
