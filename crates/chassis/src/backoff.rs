//! Exponential backoff with full jitter. Pure: the caller brings the random number, so a test can
//! replay it. Without jitter, everything that failed together would come back together.

use std::time::Duration;

/// `base`, doubled with every attempt, at most `max`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub base: Duration,
    pub max: Duration,
}

impl Backoff {
    /// The pause before attempt number `attempt` (0 = the first repetition). `random` is uniform in
    /// 0..1; the pause lies between half and the whole of the exponential step, so that it is never
    /// zero and never in step with others.
    pub fn pause(&self, attempt: u32, random: f64) -> Duration {
        let step = self
            .base
            .saturating_mul(2_u32.saturating_pow(attempt.min(30)))
            .min(self.max);
        step.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let backoff = Backoff {
            base: Duration::from_millis(100),
            max: Duration::from_secs(1),
        };
        let pauses: Vec<u128> = (0..6).map(|n| backoff.pause(n, 1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn jitter_takes_away_at_most_half() {
        let backoff = Backoff {
            base: Duration::from_millis(100),
            max: Duration::from_secs(1),
        };
        assert_eq!(backoff.pause(0, 0.0), Duration::from_millis(50));
        assert_eq!(backoff.pause(u32::MAX, 0.0), Duration::from_millis(500));
    }
}
