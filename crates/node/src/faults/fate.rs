//! How long a process lives and how it dies: a pure function of a draw. Processes that were started
//! together draw the same and die together, as the vendor's did; with jitter each draws for itself.

use std::time::Duration;

use super::settings::Lifetime;

/// Seconds; processes that start within the same span draw the same.
const TOGETHER: u64 = 600;

/// A way for a process to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Exit code 0.
    Exit,
    /// `panic: ` and this text on stderr, and exit code 2.
    Panic(&'static str),
    /// It takes memory without end.
    Leak,
    /// It answers 500 to everything.
    Sick,
}

/// When it ends, counted from its start, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) after: Duration,
    pub(super) way: Way,
}

const WAYS: [Way; 4] = [
    Way::Exit,
    Way::Panic("we're all gonna die"),
    Way::Leak,
    Way::Sick,
];

/// The draw that all processes share that are started at about this time, seconds since 1970.
pub(super) fn common_draw(start: u64) -> u64 {
    start / TOGETHER
}

/// The fate that a draw stands for; draws that are alike give fates that are not.
pub(super) fn fate(lifetime: Lifetime, draw: u64) -> Fate {
    let mixed = mix(draw);
    let way = WAYS.get((mixed % WAYS.len() as u64) as usize).copied();
    let share = (mixed >> 32) as f64 / f64::from(u32::MAX);
    let span = lifetime.max.saturating_sub(lifetime.min);
    Fate {
        after: lifetime.min + span.mul_f64(share),
        way: way.unwrap_or(Way::Exit),
    }
}

/// What bits 32 to 35 of an operation ask for.
pub(super) fn way_of_operation(value: i64) -> Option<Way> {
    match (value >> 32) & 0xF {
        3 => Some(Way::Leak),
        4 => Some(Way::Panic("operation")),
        5 => Some(Way::Sick),
        _ => None,
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014).
fn mix(draw: u64) -> u64 {
    let mut z = draw.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Lifetime = Lifetime {
        min: Duration::from_secs(1200),
        max: Duration::from_secs(1500),
    };

    #[test]
    fn every_fate_lies_within_the_lifetime_and_every_way_is_met() {
        let fates: Vec<Fate> = (0..100).map(|draw| fate(LIFETIME, draw)).collect();
        for fate in &fates {
            assert!(
                (LIFETIME.min..=LIFETIME.max).contains(&fate.after),
                "{fate:?}"
            );
        }
        for way in WAYS {
            assert!(fates.iter().any(|fate| fate.way == way), "{way:?}");
        }
    }

    #[test]
    fn processes_started_together_share_their_fate() {
        let start = 1_800_000_001;
        assert_eq!(common_draw(start), common_draw(start + 5));
        assert_ne!(common_draw(start), common_draw(start + TOGETHER));
    }

    #[test]
    fn bits_32_to_35_of_an_operation_decide_and_no_others() {
        for (value, way) in [
            (0x3_0000_0000, Some(Way::Leak)),
            (0x4_0000_0000, Some(Way::Panic("operation"))),
            (0x5_0000_0000, Some(Way::Sick)),
            (0x7FFF_FFF3_FFFF_FFFF, Some(Way::Leak)),
            (0x6_0000_0000, None),
            (0x3, None),
            (0x30_0000_0000, None),
            (i64::MAX, None),
        ] {
            assert_eq!(way_of_operation(value), way, "{value:#x}");
        }
    }
}
