//! When a stored answer is fetched anew in the background, so that clients never wait for it: by a
//! timer, while it is asked for, and again after a failure, until it expires. Pure.

use std::time::{Duration, Instant};

use chassis::backoff::Backoff;

/// An answer that was not asked for this long is not refreshed any more.
pub(crate) const WANTED: Duration = Duration::from_secs(600);
/// How often it is looked whether somebody asks again for one that nobody wanted.
const LOOK: Duration = Duration::from_secs(1);
/// The pause after a refresh that failed.
const PAUSE: Backoff = Backoff {
    base: Duration::from_millis(250),
    max: Duration::from_secs(5),
};

/// What to do for a stored answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Refresh,
    /// Look again then.
    Wait(Instant),
    /// It has expired: the next request fetches it.
    End,
}

/// `due` is when the next refresh is; `unasked` is for how long nobody has asked.
pub(crate) fn next(now: Instant, due: Instant, expires: Instant, unasked: Duration) -> Next {
    if now >= expires {
        Next::End
    } else if now < due {
        Next::Wait(due.min(expires))
    } else if unasked > WANTED {
        Next::Wait((now + LOOK).min(expires))
    } else {
        Next::Refresh
    }
}

/// When an answer is refreshed first; its second half of life at the earliest, where it lives shorter
/// than `ahead` would have it.
pub(crate) fn due(sent: Instant, lifetime: Duration, ahead: Duration) -> Instant {
    sent + lifetime.saturating_sub(ahead).max(lifetime / 2)
}

/// When it is tried again after so many failures in a row, this one included; `random` is in 0..1.
pub(crate) fn again(now: Instant, failures: u32, random: f64) -> Instant {
    now + PAUSE.pause(failures.saturating_sub(1), random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_wanted_answer_is_refreshed_when_it_is_due_and_until_it_expires() {
        let sent = Instant::now();
        let (due, expires) = (due(sent, s(60), s(20)), sent + s(60));
        assert_eq!(due, sent + s(40));
        assert_eq!(next(sent + s(39), due, expires, s(5)), Next::Wait(due));
        assert_eq!(next(sent + s(40), due, expires, s(5)), Next::Refresh);
        assert_eq!(next(sent + s(59), due, expires, s(5)), Next::Refresh);
        assert_eq!(next(sent + s(60), due, expires, s(5)), Next::End);
    }

    #[test]
    fn one_that_nobody_wants_is_looked_at_again_until_it_expires() {
        let sent = Instant::now();
        let (due, expires) = (sent + s(40), sent + s(60));
        let looked = next(sent + s(40), due, expires, WANTED + s(1));
        assert_eq!(looked, Next::Wait(sent + s(41)));
        let last = next(
            sent + Duration::from_millis(59_500),
            due,
            expires,
            WANTED + s(1),
        );
        assert_eq!(last, Next::Wait(expires));
    }

    #[test]
    fn a_short_life_is_refreshed_at_its_half() {
        let sent = Instant::now();
        assert_eq!(due(sent, s(5), s(20)), sent + Duration::from_millis(2500));
    }

    #[test]
    fn failures_are_tried_again_with_growing_pauses() {
        let now = Instant::now();
        let pauses: Vec<u128> = [1, 2, 3, 9]
            .map(|failures| (again(now, failures, 1.0) - now).as_millis())
            .to_vec();
        assert_eq!(pauses, [250, 500, 1000, 5000]);
    }
}
