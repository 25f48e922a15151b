//! What a process takes, against what it may take. Pure: the caller measures. Two things are asked:
//! is it time to replace it, and must it be killed now. Growth counts in both: a soft limit is of use
//! only while there is time to start a successor and to drain, so a process that would be over the
//! hard limit before that is replaced below the soft one; and one that would be over the hard limit at
//! the next look is killed at this one, since the look after it may be the kernel's.

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;

/// How long a replacement may take, from the decision to the end of the old process. The hard limit
/// must be this much growth above the soft one.
const REPLACEMENT: Duration = Duration::from_secs(4);
/// Growth is measured over this time: a single large answer is no leak.
const WINDOW: Duration = Duration::from_secs(1);
/// What was measured is kept for longer, so that one measurement is always old enough.
const KEPT: Duration = Duration::from_millis(1500);
/// The longest pause between two looks, with some room.
const NEXT_LOOK: Duration = Duration::from_millis(150);
/// A limit on measurements kept, whatever the clock does.
const MEASURED_MAX: usize = 64;

/// What one process may take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// Replace it, for this reason.
    Replace(String),
    /// Kill it, for this reason.
    Kill(String),
}

/// What one run took so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Oldest first.
    looks: VecDeque<(Moment, u64)>,
}

impl Measured {
    /// Judges `bytes`, taken at `now`.
    pub(crate) fn judge(&mut self, now: Moment, bytes: u64, limits: Limits) -> Verdict {
        while self.looks.len() >= MEASURED_MAX
            || self
                .looks
                .front()
                .is_some_and(|(at, _)| now.saturating_sub(*at) > KEPT)
        {
            self.looks.pop_front();
        }
        let last = self.looks.back().copied();
        self.looks.push_back((now, bytes));
        let step = last.map_or(0, |last| growth(last, (now, bytes), NEXT_LOOK));
        if bytes >= limits.hard {
            return Verdict::Kill(text("memory hard", bytes, limits.hard));
        }
        // Half of the limits are left to it, however fast it grows: allocating is no fault.
        let half = limits.soft / 2;
        if bytes > half && bytes.saturating_add(step) >= limits.hard {
            let why = text("memory hard", bytes, limits.hard);
            return Verdict::Kill(format!("{why}, and over it at the next look"));
        }
        if bytes >= limits.soft {
            return Verdict::Replace(text("memory soft", bytes, limits.soft));
        }
        let ahead = self
            .steady(now)
            .map_or(0, |then| growth(then, (now, bytes), REPLACEMENT));
        if bytes > half && bytes.saturating_add(ahead) >= limits.hard {
            let why = text("memory soft", bytes, limits.soft);
            let hard = limits.hard >> 20;
            return Verdict::Replace(format!("{why}, and over {hard} MiB within 4 s"));
        }
        Verdict::Fine
    }

    /// The newest measurement that is at least `WINDOW` old.
    fn steady(&self, now: Moment) -> Option<(Moment, u64)> {
        let old = |(at, _): &&(Moment, u64)| now.saturating_sub(*at) >= WINDOW;
        self.looks.iter().rev().find(old).copied()
    }
}

/// What is added within `time` when it goes on as between two measurements.
fn growth(then: (Moment, u64), now: (Moment, u64), time: Duration) -> u64 {
    let passed = now.0.saturating_sub(then.0).as_secs_f64();
    let more = now.1.saturating_sub(then.1) as f64;
    if passed <= 0.0 {
        return 0;
    }
    (more / passed * time.as_secs_f64()) as u64
}

fn text(name: &str, bytes: u64, limit: u64) -> String {
    format!("{name}: {} of {} MiB", bytes >> 20, limit >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMITS: Limits = Limits {
        soft: 256 * MIB,
        hard: 512 * MIB,
    };

    /// Grows by `rate` MiB a second from 20 MiB on; the first verdict that is not fine, in MiB.
    fn first(rate: u64) -> (u64, Verdict) {
        let mut measured = Measured::default();
        for look in 0..100_000 {
            let bytes = 20 * MIB + rate * MIB * look / 10;
            match measured.judge(Duration::from_millis(look * 100), bytes, LIMITS) {
                Verdict::Fine => {}
                other => return (bytes / MIB, other),
            }
        }
        panic!("never");
    }

    #[test]
    fn a_slow_leak_is_replaced_at_the_soft_limit() {
        for rate in [1, 10, 50, 60] {
            let (at, verdict) = first(rate);
            assert!((256..=262).contains(&at), "{rate}: {at}");
            let Verdict::Replace(reason) = verdict else {
                panic!("{verdict:?}");
            };
            assert_eq!(reason, format!("memory soft: {at} of 256 MiB"));
        }
    }

    #[test]
    fn a_fast_leak_is_replaced_while_four_seconds_are_left_to_the_hard_limit() {
        let (at, verdict) = first(90);
        assert!(at < 160, "{at}");
        assert!(512 - at >= 4 * 85, "{at} leaves no four seconds");
        let Verdict::Replace(reason) = verdict else {
            panic!("{verdict:?}");
        };
        assert!(reason.ends_with("and over 512 MiB within 4 s"), "{reason}");
    }

    #[test]
    fn nothing_is_over_the_hard_limit_by_more_than_one_look() {
        let mut measured = Measured::default();
        let mut killed = None;
        for look in 0..200 {
            let bytes = 20 * MIB + 1000 * MIB * look / 10;
            let verdict = measured.judge(Duration::from_millis(look * 100), bytes, LIMITS);
            if let Verdict::Kill(reason) = verdict {
                killed = Some((bytes / MIB, reason));
                break;
            }
        }
        let (at, reason) = killed.unwrap();
        assert!(at < 512, "{at}");
        assert!(reason.starts_with("memory hard: "), "{reason}");
        let over = measured.judge(Duration::from_secs(60), 600 * MIB, LIMITS);
        let expected = Verdict::Kill("memory hard: 600 of 512 MiB".to_owned());
        assert_eq!(over, expected);
    }

    #[test]
    fn a_burst_below_half_of_the_soft_limit_is_nobodys_business() {
        let mut measured = Measured::default();
        for look in 0..40 {
            // A list of 100 MiB within 100 ms, freed again.
            let bytes = if look % 4 == 0 { 120 * MIB } else { 20 * MIB };
            let verdict = measured.judge(Duration::from_millis(look * 100), bytes, LIMITS);
            assert_eq!(verdict, Verdict::Fine);
        }
    }
}
