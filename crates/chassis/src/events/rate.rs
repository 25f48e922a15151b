//! How many events one process may tell: a bucket of tokens, so that a burst of news passes and a
//! flapping node does not fill the file. Pure.

use std::time::Duration;

/// Events at once. Too low: the night's one great failure is not whole; too high: a flood is.
const BURST: f64 = 200.0;
/// Events a second in the long run.
const PER_SECOND: f64 = 10.0;

/// What is left of the allowance.
#[derive(Debug)]
pub(super) struct Rate {
    tokens: f64,
    at: Duration,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            tokens: BURST,
            at: Duration::ZERO,
        }
    }
}

impl Rate {
    /// Whether one more may be told at `now`, a time since an origin of the caller's choice.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now.max(self.at);
        self.tokens = (self.tokens + passed * PER_SECOND).min(BURST);
        let may = self.tokens >= 1.0;
        if may {
            self.tokens -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_gets_the_steady_rate() {
        let mut rate = Rate::default();
        let count = |rate: &mut Rate, now| (0..1000).filter(|_| rate.take(now)).count();
        assert_eq!(count(&mut rate, Duration::ZERO), 200);
        assert_eq!(count(&mut rate, Duration::from_secs(2)), 20);
        // A clock that goes back gives nothing.
        assert_eq!(count(&mut rate, Duration::from_secs(1)), 0);
        assert_eq!(count(&mut rate, Duration::from_secs(1000)), 200);
    }
}
