//! How long requests took, in few numbers: counts by bucket, only of buckets that have any. Counts of
//! several seconds and of several gateways add up, which percentiles do not. Pure.

use serde::{Deserialize, Serialize};

/// Upper bounds in seconds; longer ones are in a bucket behind the last. Fine enough that a percentile
/// is off by a fifth at most; 0.4 and 1 are the service's own objectives and therefore exact.
pub(crate) const BOUNDS: [f64; 34] = [
    0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04,
    0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5,
    10.0, 15.0, 20.0, 30.0,
];
/// One more than there are bounds.
pub(crate) const BUCKETS: usize = BOUNDS.len() + 1;

/// The bucket of one request.
pub(crate) fn bucket(seconds: f64) -> usize {
    BOUNDS.partition_point(|bound| *bound < seconds)
}

/// Requests by bucket, in the buckets' order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Latency(Vec<(u8, u32)>);

impl Latency {
    /// `counts` by bucket; those behind the last bucket are left out.
    pub(crate) fn of(counts: impl IntoIterator<Item = u32>) -> Self {
        let numbered = (0_u8..).zip(counts).take(BUCKETS);
        Self(numbered.filter(|(_, count)| *count > 0).collect())
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let known = |(bucket, _): &&(u8, u32)| usize::from(*bucket) < BUCKETS;
        for (bucket, count) in other.0.iter().filter(known) {
            match self.0.binary_search_by_key(bucket, |(bucket, _)| *bucket) {
                Ok(at) => {
                    if let Some((_, own)) = self.0.get_mut(at) {
                        *own = own.saturating_add(*count);
                    }
                }
                Err(at) => self.0.insert(at, (*bucket, *count)),
            }
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Seconds below which this share of the requests was, as if they were evenly spread in their
    /// bucket; `None` without requests. Behind the last bound: that bound.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.count();
        let wanted = share * total as f64;
        let mut below = 0.0;
        for (bucket, count) in &self.0 {
            let (low, high) = edges(usize::from(*bucket));
            let with = below + f64::from(*count);
            if with >= wanted {
                let part = ((wanted - below) / f64::from(*count)).clamp(0.0, 1.0);
                return Some(low + (high - low) * part);
            }
            below = with;
        }
        None
    }

    /// How many took at most so long, where `seconds` is one of `BOUNDS`; else those of whole buckets.
    pub(crate) fn within(&self, seconds: f64) -> u64 {
        let inside = self.0.iter().filter(|(bucket, _)| {
            let (_, high) = edges(usize::from(*bucket));
            usize::from(*bucket) < BOUNDS.len() && high <= seconds
        });
        inside.map(|(_, count)| u64::from(*count)).sum()
    }
}

fn edges(bucket: usize) -> (f64, f64) {
    let at = |index: usize| BOUNDS.get(index).copied();
    let low = bucket.checked_sub(1).and_then(at).unwrap_or(0.0);
    (low, at(bucket).unwrap_or(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(seconds: &[f64]) -> Latency {
        let mut counts = [0; BUCKETS];
        for one in seconds {
            counts[bucket(*one)] += 1;
        }
        Latency::of(counts)
    }

    #[test]
    fn a_percentile_of_nothing_is_nothing_and_not_zero() {
        assert_eq!(Latency::default().quantile(0.99), None);
    }

    #[test]
    fn one_slow_request_of_a_hundred_shows_in_the_last_percentile_only() {
        let mut seconds = vec![0.004; 99];
        seconds.push(8.0);
        let latency = of(&seconds);
        assert!(latency.quantile(0.5).unwrap() <= 0.005);
        assert!(latency.quantile(0.99).unwrap() <= 0.005);
        assert!(latency.quantile(0.999).unwrap() > 7.5);
    }

    #[test]
    fn the_objectives_own_bounds_are_exact() {
        let latency = of(&[0.39, 0.4, 0.41, 1.0, 1.01, 99.0]);
        assert_eq!(latency.within(0.4), 2);
        assert_eq!(latency.within(1.0), 4);
    }

    #[test]
    fn a_bucket_that_does_not_exist_is_not_taken_over_from_a_peer() {
        let mut latency = Latency::default();
        latency.add(&Latency(vec![(3, 1), (200, 7)]));
        assert_eq!(latency.count(), 1);
    }

    proptest! {
        #[test]
        fn what_was_added_up_has_the_percentiles_of_all_together(
            one in prop::collection::vec(0.0..40.0_f64, 1..50),
            other in prop::collection::vec(0.0..40.0_f64, 1..50),
            share in 0.01..1.0_f64,
        ) {
            let mut sum = of(&one);
            sum.add(&of(&other));
            let all: Vec<f64> = one.iter().chain(&other).copied().collect();
            prop_assert_eq!(sum.quantile(share), of(&all).quantile(share));
            prop_assert_eq!(sum.count(), all.len() as u64);
        }

        #[test]
        fn a_percentile_lies_in_the_bucket_of_the_request_that_it_stands_for(
            mut seconds in prop::collection::vec(0.0..29.0_f64, 1..100),
            share in 0.01..1.0_f64,
        ) {
            let found = of(&seconds).quantile(share).unwrap();
            seconds.sort_by(f64::total_cmp);
            let rank = ((share * seconds.len() as f64).ceil() as usize).clamp(1, seconds.len());
            let (low, high) = edges(bucket(seconds[rank - 1]));
            prop_assert!(low <= found && found <= high, "{low} <= {found} <= {high}");
        }
    }
}
