//! What a route promises (`objective` of gateway.yaml), how much of it was kept, and what is left of
//! the budget of errors: of the requests that may fail, the share that has not failed yet. Pure.

use std::time::Duration;

use serde::Serialize;

use super::slot::Tally;

/// A promise as valid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Objective {
    /// Answers of 5xx, of all.
    pub(crate) errors_percent_max: f64,
    /// At least so many of all answers come in so short a time.
    pub(crate) within: Option<(Duration, f64)>,
}

/// How a promise stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Standing {
    pub(crate) requests: u32,
    pub(crate) errors: Part,
    /// Nothing is promised of the time of lists.
    pub(crate) slow: Option<Part>,
    pub(crate) within_seconds: Option<f64>,
}

/// One half of a promise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Part {
    pub(crate) percent_max: f64,
    /// Null without requests.
    pub(crate) percent: Option<f64>,
    /// Of the budget, in percent: 100 untouched, 0 used up, below it broken. Null without requests.
    pub(crate) left_percent: Option<f64>,
}

impl Objective {
    pub(crate) fn standing(&self, served: &Tally) -> Standing {
        let requests = f64::from(served.requests);
        let slow = self.within.map(|(within, percent_min)| {
            let fast = served.latency.within(within.as_secs_f64()) as f64;
            part(100.0 - percent_min, requests - fast, requests)
        });
        Standing {
            requests: served.requests,
            errors: part(self.errors_percent_max, f64::from(served.errors), requests),
            slow,
            within_seconds: self.within.map(|(within, _)| within.as_secs_f64()),
        }
    }
}

fn part(percent_max: f64, bad: f64, all: f64) -> Part {
    let percent = (all > 0.0).then(|| bad.max(0.0) / all * 100.0);
    let left = percent.map(|percent| match percent_max > 0.0 {
        true => (1.0 - percent / percent_max) * 100.0,
        false if percent > 0.0 => -100.0,
        false => 100.0,
    });
    Part {
        percent_max,
        percent,
        left_percent: left,
    }
}

#[cfg(test)]
mod tests {
    use super::super::latency::{BUCKETS, Latency, bucket};
    use super::*;

    const PROMISE: Objective = Objective {
        errors_percent_max: 1.0,
        within: Some((Duration::from_millis(400), 90.0)),
    };

    fn served(requests: u32, errors: u32, slow: u32) -> Tally {
        let mut counts = [0; BUCKETS];
        counts[bucket(0.01)] = requests - slow;
        counts[bucket(0.41)] = slow;
        Tally {
            requests,
            errors,
            latency: Latency::of(counts),
            ..Tally::default()
        }
    }

    #[test]
    fn half_of_the_errors_allowed_leave_half_of_the_budget() {
        let standing = PROMISE.standing(&served(1000, 5, 100));
        assert_eq!(standing.errors.percent, Some(0.5));
        assert_eq!(standing.errors.left_percent, Some(50.0));
        let slow = standing.slow.unwrap();
        assert_eq!(slow.percent, Some(10.0));
        assert!(slow.left_percent.unwrap().abs() < 1e-9);
    }

    #[test]
    fn more_errors_than_allowed_leave_less_than_nothing() {
        let standing = PROMISE.standing(&served(100, 3, 0));
        assert_eq!(standing.errors.left_percent, Some(-200.0));
    }

    #[test]
    fn without_a_request_nothing_is_known_of_the_promise() {
        let standing = PROMISE.standing(&Tally::default());
        assert_eq!(standing.errors.percent, None);
        assert_eq!(standing.slow.unwrap().left_percent, None);
    }
}
