//! How slowly a client may send a body, or take an answer. Whoever is below the floor uses up a grace
//! and is then given up: slow clients are how few connections are made to hold many (slowloris).
//!
//! Only time spent waiting for the client counts, so a slow node is not laid at its door, and every
//! byte that comes earns time again. Pure: the caller brings the time. (The node has the like for
//! answers; gateway and node share no code but chassis.)

use std::time::{Duration, Instant};

/// How long a client may send nothing before it counts as below the floor.
const GRACE: Duration = Duration::from_secs(5);

/// One account: of a body, or of a connection's answers.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    seconds_per_byte: f64,
    /// How long it may still let us wait.
    left: Duration,
    /// The most that can be earned.
    most: Duration,
    waiting_since: Option<Instant>,
}

impl Pace {
    /// Of a body; `rate_min`: bytes a second.
    pub(crate) fn new(rate_min: u64) -> Self {
        Self::with(1.0 / rate_min.max(1) as f64, GRACE, GRACE)
    }

    pub(crate) fn with(seconds_per_byte: f64, grace: Duration, most: Duration) -> Self {
        Self {
            seconds_per_byte,
            left: grace,
            most,
            waiting_since: None,
        }
    }

    /// Nothing has come, or is taken. Returns when the client is to be given up, unless something comes before.
    pub(crate) fn waits(&mut self, now: Instant) -> Instant {
        *self.waiting_since.get_or_insert(now) + self.left
    }

    /// So many bytes came, or were taken.
    pub(crate) fn came(&mut self, bytes: usize, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            let waited = now.saturating_duration_since(since);
            self.left = self.left.saturating_sub(waited);
        }
        self.earned(bytes);
    }

    /// The same where nobody waited for them.
    pub(crate) fn earned(&mut self, bytes: usize) {
        let earned = Duration::from_secs_f64(bytes as f64 * self.seconds_per_byte);
        self.left = self.left.saturating_add(earned).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_client_that_sends_nothing_is_given_up_after_the_grace() {
        let (mut pace, now) = (Pace::new(100), Instant::now());
        assert_eq!(pace.waits(now), now + GRACE);
        // Asked again, the end does not move.
        assert_eq!(pace.waits(now + SECOND), now + GRACE);
    }

    #[test]
    fn a_client_above_the_floor_goes_on_for_ever_and_one_below_does_not() {
        for (bytes, goes_on) in [(100, true), (90, false)] {
            let (mut pace, mut now) = (Pace::new(100), Instant::now());
            let mut given_up = false;
            for _ in 0..1000 {
                given_up |= pace.waits(now) <= now + SECOND;
                now += SECOND;
                pace.came(bytes, now);
            }
            assert_eq!(given_up, !goes_on, "{bytes} bytes a second");
        }
    }

    #[test]
    fn what_was_taken_at_once_gives_time_up_to_the_most() {
        let (mut pace, now) = (Pace::with(0.001, SECOND, 4 * SECOND), Instant::now());
        assert_eq!(pace.waits(now), now + SECOND);
        pace.came(2_000, now + SECOND);
        assert_eq!(pace.waits(now + SECOND), now + 3 * SECOND);
        pace.came(1_000_000, now + SECOND);
        assert_eq!(pace.waits(now + SECOND), now + 5 * SECOND);
    }

    #[test]
    fn time_in_which_nobody_waited_for_the_client_costs_it_nothing() {
        let (mut pace, now) = (Pace::new(100), Instant::now());
        pace.came(1, now + 100 * SECOND);
        assert_eq!(pace.waits(now + 100 * SECOND), now + 100 * SECOND + GRACE);
    }
}
