//! What a node is given that said 429: what it can take. Pure.
//!
//! Its rate is found by additive increase and multiplicative decrease (D. Chiu, R. Jain, 1989), from what
//! it took lately; a node that never said so is not limited at all and costs nothing. `Retry-After` is
//! obeyed, within reason. Leaves out what a node that only gets slower can take: its latency says that.

use std::time::{Duration, Instant};

/// A refusal without `Retry-After` pauses the node for so long.
const PAUSE: Duration = Duration::from_millis(50);
/// A longer `Retry-After` is not believed: the node is tried again then.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A refusal takes the rate down to this share of itself, or at first of what was sent.
const DECREASE: f64 = 0.9;
/// Refusals within this time of a decrease belong to it.
const SAME: Duration = Duration::from_millis(200);
/// The rate grows by so much of itself each second, and by one at least.
const INCREASE: f64 = 0.05;
/// After so long without a refusal the node is not limited any more.
const FORGIVEN: Duration = Duration::from_secs(60);
/// Requests that may go at once after a pause. More would meet a node's own small window.
const BURST: f64 = 1.0;
/// What was sent counts over about this time.
const WINDOW_SECONDS: f64 = 1.0;

/// What one node is given by one gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Requests a second; `None` until it refused twice.
    rate: Option<f64>,
    tokens: f64,
    /// Requests of the last second, about.
    sent: f64,
    at: Instant,
    paused_until: Instant,
    /// When the limiting began, or the rate was lowered last.
    lowered: Instant,
    refused: Instant,
}

impl Allowance {
    /// Of a node that refuses for the first time.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            rate: None,
            tokens: 0.0,
            sent: 0.0,
            at: now,
            paused_until: now,
            lowered: now,
            refused: now,
        }
    }

    /// The node said 429, and perhaps when to come back.
    pub(crate) fn refused(&mut self, retry_after: Option<Duration>, now: Instant) {
        self.advance(now);
        self.refused = now;
        let pause = retry_after.unwrap_or(PAUSE).min(PAUSE_MAX);
        self.paused_until = self.paused_until.max(now + pause);
        if now.saturating_duration_since(self.lowered) >= SAME {
            // At first a part of the window is all there is.
            let known = now.saturating_duration_since(self.lowered).as_secs_f64();
            let part = 1.0 - (-known / WINDOW_SECONDS).exp();
            let before = self.rate.unwrap_or(self.sent / (WINDOW_SECONDS * part));
            self.lowered = now;
            self.rate = Some((before * DECREASE).max(1.0));
            self.tokens = 0.0;
        }
    }

    /// A request is sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.advance(now);
        self.sent += 1.0;
        self.tokens -= 1.0;
    }

    /// How long the node is left alone from now; nothing when it can take a request.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        self.advance(now);
        let paused = self.paused_until.saturating_duration_since(now);
        let short = match self.rate {
            Some(rate) if self.tokens < 1.0 => (1.0 - self.tokens) / rate,
            _ => 0.0,
        };
        paused.max(Duration::from_secs_f64(short.clamp(0.0, 60.0)))
    }

    /// It has not refused for long: it is to be forgotten.
    pub(crate) fn is_forgiven(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.refused) >= FORGIVEN
    }

    fn advance(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.sent *= (-seconds / WINDOW_SECONDS).exp();
        if let Some(rate) = &mut self.rate {
            *rate += (*rate * INCREASE).max(1.0) * seconds;
            self.tokens = (self.tokens + *rate * seconds).min(BURST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vendor's quota: so many requests in each 50 ms; over it 429.
    struct Quota {
        window: u128,
        left: u32,
    }

    impl Quota {
        fn takes(&mut self, at: Duration) -> bool {
            let window = at.as_millis() / 50;
            if window != self.window {
                (self.window, self.left) = (window, 5);
            }
            let takes = self.left > 0;
            self.left = self.left.saturating_sub(1);
            takes
        }
    }

    #[test]
    fn a_node_of_a_hundred_a_second_is_given_nearly_that_and_refuses_little() {
        let start = Instant::now();
        let mut quota = Quota { window: 0, left: 5 };
        let mut allowance = Allowance::new(start);
        let (mut taken, mut refused) = (0, 0);
        // Two hundred a second are offered, each millisecond anew while some wait; the first five
        // seconds are for learning.
        for step in 0..25_000_u64 {
            let at = Duration::from_millis(step);
            let now = start + at;
            while allowance.wait(now).is_zero() {
                allowance.sent(now);
                let takes = quota.takes(at);
                if !takes {
                    allowance.refused(None, now);
                }
                if step >= 5_000 {
                    taken += u32::from(takes);
                    refused += u32::from(!takes);
                }
            }
        }
        assert!(taken >= 1_300, "{taken} of 2000");
        assert!(refused <= taken / 10, "{refused} refused");
    }

    #[test]
    fn what_a_node_says_of_when_to_come_back_is_obeyed_within_reason() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        assert_eq!(allowance.wait(now), Duration::ZERO);
        allowance.refused(Some(Duration::from_secs(2)), now);
        assert_eq!(allowance.wait(now), Duration::from_secs(2));
        assert_eq!(allowance.wait(now + Duration::from_secs(2)), Duration::ZERO);
        allowance.refused(Some(Duration::from_secs(3600)), now);
        assert_eq!(allowance.wait(now), PAUSE_MAX);
    }

    #[test]
    fn a_node_that_refuses_no_more_is_free_after_a_minute() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        allowance.refused(None, now);
        assert!(!allowance.is_forgiven(now + Duration::from_secs(59)));
        assert!(allowance.is_forgiven(now + Duration::from_secs(60)));
    }
}
