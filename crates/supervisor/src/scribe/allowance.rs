//! How much of a child's output is kept: so many bytes a second, with a burst of some seconds. Once
//! the burst is spent nothing is kept until a whole second's worth has come together again, so that a
//! flood leaves whole stretches and one line about each gap, not every third line. Pure.

use std::time::Duration;

/// Seconds of the rate that may come at once: a stack trace, the noise of a start.
const BURST_SECONDS: u64 = 10;

#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    bytes_per_second: u64,
    left: f64,
    refilled: Duration,
    is_open: bool,
}

impl Allowance {
    /// Full; `now` counts from any origin.
    pub(crate) fn new(bytes_per_second: u64, now: Duration) -> Self {
        Self {
            bytes_per_second,
            left: burst(bytes_per_second),
            refilled: now,
            is_open: true,
        }
    }

    /// Whether `bytes` that came at `now` are kept.
    pub(crate) fn take(&mut self, now: Duration, bytes: usize) -> bool {
        let rate = self.bytes_per_second as f64;
        let passed = now.saturating_sub(self.refilled).as_secs_f64();
        self.refilled = self.refilled.max(now);
        self.left = (self.left + passed * rate).min(burst(self.bytes_per_second));
        self.is_open |= self.left >= rate;
        if !self.is_open {
            return false;
        }
        self.left -= bytes as f64;
        self.is_open = self.left > 0.0;
        true
    }
}

fn burst(bytes_per_second: u64) -> f64 {
    bytes_per_second.saturating_mul(BURST_SECONDS) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_flood_keeps_its_beginning_and_then_its_rate() {
        let mut allowance = Allowance::new(100, Duration::ZERO);
        let mut kept = 0;
        // A hundred times the rate, for a hundred seconds.
        for step in 0..10_000_u32 {
            if allowance.take(step * SECOND / 100, 100) {
                kept += 100;
            }
        }
        // A burst of 1000, then 100 a second, and one block of a hundred over.
        assert!((10_000..=11_100).contains(&kept), "{kept}");
    }

    #[test]
    fn a_gap_lasts_at_least_until_a_second_is_together() {
        let mut allowance = Allowance::new(100, Duration::ZERO);
        assert!(allowance.take(Duration::ZERO, 1000));
        assert!(!allowance.take(SECOND / 2, 1));
        assert!(!allowance.take(SECOND * 9 / 10, 1));
        assert!(allowance.take(SECOND, 1));
    }

    #[test]
    fn what_stays_within_the_rate_is_kept_for_ever() {
        let mut allowance = Allowance::new(100, Duration::ZERO);
        assert!((0..100_000_u32).all(|second| allowance.take(SECOND * second, 100)));
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing_back() {
        let mut allowance = Allowance::new(100, SECOND);
        assert!(allowance.take(SECOND, 2000));
        assert!(!allowance.take(Duration::ZERO, 1));
        assert!(!allowance.take(SECOND * 2, 1), "a debt is paid first");
    }
}
