//! The limit of requests: a quota for each span of 50 ms, over which a request waits for a later
//! span. Places are given in the order of arrival, so nobody is overtaken. Pure: the caller brings
//! the time and does the waiting.

use std::time::{Duration, Instant};

/// Spans in a second; the vendor's were 50 ms, with five places each.
const SPANS: f64 = 20.0;

/// Places given so far.
#[derive(Debug)]
pub(super) struct Quota {
    places: u32,
    span: Duration,
    /// When the span began, or will begin, that places are given of now.
    current: Option<Instant>,
    used: u32,
}

impl Quota {
    /// `limit` requests a second. The span is stretched where 50 ms are not a whole number of places.
    pub(super) fn new(limit: u32) -> Self {
        let limit = f64::from(limit.max(1));
        let places = (limit / SPANS).round().max(1.0);
        Self {
            places: places as u32,
            span: Duration::from_secs_f64(places / limit),
            current: None,
            used: 0,
        }
    }

    /// How long this request has to wait for its place; `None`, and no place is taken, where that
    /// would be longer than `wait_max`.
    pub(super) fn reserve(&mut self, now: Instant, wait_max: Duration) -> Option<Duration> {
        let begun = match self.current {
            Some(current) if now < current + self.span => current,
            _ => {
                self.used = 0;
                now
            }
        };
        let (span, used) = if self.used < self.places {
            (begun, self.used)
        } else {
            (begun + self.span, 0)
        };
        let wait = span.saturating_duration_since(now);
        if wait > wait_max {
            return None;
        }
        self.current = Some(span);
        self.used = used + 1;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT_MAX: Duration = Duration::from_secs(10);

    #[test]
    fn five_requests_pass_in_each_span_of_fifty_milliseconds() {
        let (mut quota, now) = (Quota::new(100), Instant::now());
        let waits: Vec<u128> = (0..12)
            .map(|_| quota.reserve(now, WAIT_MAX).unwrap().as_millis())
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 50, 50, 50, 50, 50, 100, 100]);
    }

    #[test]
    fn one_request_after_the_other_passes_a_hundred_times_a_second() {
        let (mut quota, start) = (Quota::new(100), Instant::now());
        let mut now = start;
        let mut passed = 0;
        while now < start + Duration::from_secs(10) {
            // Each takes 2 ms, and its timer comes 1 ms late.
            let wait = quota.reserve(now, WAIT_MAX).unwrap();
            let late = Duration::from_millis(u64::from(wait > Duration::ZERO));
            now += wait + late + Duration::from_millis(2);
            passed += 1;
        }
        assert!((990..=1010).contains(&passed), "{passed}");
    }

    #[test]
    fn a_request_that_would_wait_too_long_is_refused_and_takes_no_place() {
        let (mut quota, now) = (Quota::new(100), Instant::now());
        let passed = (0..2000).filter(|_| quota.reserve(now, WAIT_MAX).is_some());
        assert_eq!(passed.count(), 1005);
        let later = now + Duration::from_millis(50);
        assert_eq!(quota.reserve(later, WAIT_MAX), Some(WAIT_MAX));
    }

    #[test]
    fn a_limit_that_does_not_fill_its_spans_is_still_met() {
        let (mut quota, now) = (Quota::new(30), Instant::now());
        let last = (0..61)
            .filter_map(|_| quota.reserve(now, WAIT_MAX))
            .last()
            .unwrap();
        assert_eq!(last.as_millis(), 2000);
    }
}
