//! When a certificate is renewed, an authority made anew, a ticket key replaced, an operator warned.
//! Pure: time comes in as seconds since 1970, so that a test can live through years. A clock that
//! jumps and comes back must cost a new certificate at most, never a new authority: an authority was
//! imported by people, so it is looked at when a gateway starts and never while it runs.

/// Seconds since 1970 (UTC).
pub(crate) type Seconds = i64;

pub(crate) const HOUR: Seconds = 3600;
pub(crate) const DAY: Seconds = 24 * HOUR;
/// Of a certificate that our authority issues.
pub(crate) const CERTIFICATE_LIFETIME: Seconds = 90 * DAY;
/// Of an authority: long, because making a new one asks everybody to import it.
pub(crate) const AUTHORITY_LIFETIME: Seconds = 3650 * DAY;
/// An authority with less left than this could not back a whole certificate for long.
const AUTHORITY_LEFT_MIN: Seconds = CERTIFICATE_LIFETIME + 30 * DAY;
/// Certificates begin in the past: clients' clocks are late.
pub(crate) const BACKDATED: Seconds = HOUR;
/// A ticket key seals for so long, and opens for twice as long.
pub(crate) const TICKET_KEY_SEALS: Seconds = 6 * HOUR;
pub(crate) const TICKET_KEY_OPENS: Seconds = 2 * TICKET_KEY_SEALS;
/// A certificate that we cannot renew ourselves is warned about from here on.
const NEAR_ITS_END: Seconds = 14 * DAY;

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: Seconds,
    pub(crate) not_after: Seconds,
}

impl Validity {
    pub(crate) fn of_authority(now: Seconds) -> Self {
        Self {
            not_before: now - BACKDATED,
            not_after: now + AUTHORITY_LIFETIME,
        }
    }

    /// Of a certificate issued now; inside its authority's, or clients would refuse it.
    pub(crate) fn of_certificate(now: Seconds, authority: Self) -> Self {
        Self {
            not_before: (now - BACKDATED).max(authority.not_before),
            not_after: (now + CERTIFICATE_LIFETIME).min(authority.not_after),
        }
    }

    pub(crate) fn contains(self, now: Seconds) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Whether a certificate of ours is to be renewed: a third of its life is left, or it begins in
    /// the future (the clock was wrong when it was issued) and a new one would begin earlier.
    pub(crate) fn is_certificate_due(self, now: Seconds, authority: Self) -> bool {
        let third = (self.not_after - self.not_before) / 3;
        let renewed = Self::of_certificate(now, authority);
        let used_up = now >= self.not_after - third && renewed.not_after > self.not_after;
        let too_early = now < self.not_before && renewed.not_before < self.not_before;
        used_up || too_early
    }

    /// Whether an authority that is found at a start is to be replaced.
    pub(crate) fn is_authority_due(self, now: Seconds) -> bool {
        now < self.not_before || self.not_after - now < AUTHORITY_LEFT_MIN
    }

    /// Whether to warn that a certificate from files ends soon; `warned` is when that was last done.
    pub(crate) fn is_to_be_warned_of(self, now: Seconds, warned: Option<Seconds>) -> bool {
        let lately = warned.is_some_and(|at| at <= now && now - at < DAY);
        self.not_after - now < NEAR_ITS_END && !lately
    }
}

/// Whether a new ticket key is to be made; `newest` is when the last one was.
pub(crate) fn is_ticket_key_due(newest: Option<Seconds>, now: Seconds) -> bool {
    newest.is_none_or(|made| now - made >= TICKET_KEY_SEALS || made - now >= TICKET_KEY_SEALS)
}

/// Whether tickets sealed with a key made then are still opened.
pub(crate) fn opens(made: Seconds, now: Seconds) -> bool {
    (now - made).abs() < TICKET_KEY_OPENS
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Seconds = 1_800_000_000;

    fn authority() -> Validity {
        Validity::of_authority(NOW)
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left_and_not_before() {
        let issued = Validity::of_certificate(NOW, authority());
        assert!(issued.contains(NOW) && issued.contains(NOW - BACKDATED));
        let due = (0..91).find(|day| issued.is_certificate_due(NOW + day * DAY, authority()));
        assert_eq!(due, Some(60));
    }

    #[test]
    fn a_clock_that_jumped_and_came_back_costs_one_new_certificate_each_way() {
        let issued = Validity::of_certificate(NOW, authority());
        let year = NOW + 365 * DAY;
        assert!(issued.is_certificate_due(year, authority()));
        let ahead = Validity::of_certificate(year, authority());
        assert!(ahead.is_certificate_due(NOW, authority()));
        let back = Validity::of_certificate(NOW, authority());
        assert!(!back.is_certificate_due(NOW, authority()));
        // Before the authority itself began, nothing better can be issued: no loop of renewals.
        let early = NOW - 30 * DAY;
        let issued = Validity::of_certificate(early, authority());
        assert!(!issued.is_certificate_due(early, authority()));
    }

    #[test]
    fn at_an_authoritys_end_certificates_are_cut_and_not_renewed_in_a_loop() {
        let end = authority().not_after;
        let issued = Validity::of_certificate(end - DAY, authority());
        assert_eq!(issued.not_after, end);
        assert!(!issued.is_certificate_due(end - 60, authority()));
    }

    #[test]
    fn an_authority_is_replaced_before_it_cannot_back_a_whole_certificate() {
        assert!(!authority().is_authority_due(NOW));
        assert!(!authority().is_authority_due(NOW + AUTHORITY_LIFETIME - 121 * DAY));
        assert!(authority().is_authority_due(NOW + AUTHORITY_LIFETIME - 119 * DAY));
    }

    #[test]
    fn a_certificate_near_its_end_is_warned_of_once_a_day() {
        let files = Validity {
            not_before: NOW - 300 * DAY,
            not_after: NOW + 20 * DAY,
        };
        let mut warned = None;
        let mut warnings = Vec::new();
        for hour in 0..24 * 22 {
            let now = NOW + hour * HOUR;
            if files.is_to_be_warned_of(now, warned) {
                warned = Some(now);
                warnings.push(hour / 24);
            }
        }
        let expected: Vec<i64> = (6..22).collect();
        assert_eq!(warnings, expected);
    }

    #[test]
    fn a_ticket_key_seals_six_hours_and_opens_twelve() {
        assert!(is_ticket_key_due(None, NOW));
        assert!(!is_ticket_key_due(Some(NOW), NOW + TICKET_KEY_SEALS - 1));
        assert!(is_ticket_key_due(Some(NOW), NOW + TICKET_KEY_SEALS));
        assert!(opens(NOW, NOW + TICKET_KEY_OPENS - 1));
        assert!(!opens(NOW, NOW + TICKET_KEY_OPENS));
        // A clock that was far ahead must not leave a key in use for ever.
        assert!(is_ticket_key_due(Some(NOW + DAY), NOW) && !opens(NOW + DAY, NOW));
    }
}
