//! A small random source whose every stream is a pure function of (seed, table, id): any row can be
//! made by itself, in any order, on any machine, and a test can ask for one. Not for secrets.
//! Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators" (SplitMix64).

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Debug)]
pub(super) struct Stream {
    state: u64,
}

impl Stream {
    /// The stream of one row. `table` is a constant of the table.
    pub(super) fn of(seed: u64, table: u64, id: u64) -> Self {
        let state = mix(seed ^ mix(table)).wrapping_add(mix(id.wrapping_mul(GOLDEN)));
        Self { state }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Evenly in 0..bound; 0 for a bound of 0. Its bias is below bound / 2^64.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(super) fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let at = self.below(words.len() as u64) as usize;
        words.get(at).copied().unwrap_or_default()
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_again_and_another_one_for_each_of_its_three_inputs() {
        let first = |seed, table, id| Stream::of(seed, table, id).next();
        assert_eq!(first(1, 2, 3), first(1, 2, 3));
        let others = [first(2, 2, 3), first(1, 3, 3), first(1, 2, 4)];
        assert!(others.iter().all(|other| *other != first(1, 2, 3)));
    }

    #[test]
    fn numbers_below_a_bound_spread_over_it() {
        let mut counts = [0_u32; 10];
        for id in 0..10_000 {
            counts[Stream::of(1, 1, id).below(10) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
        assert_eq!(Stream::of(1, 1, 1).below(0), 0);
    }
}
