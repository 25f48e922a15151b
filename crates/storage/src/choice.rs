//! Which server is asked. Pure: what the last looks saw goes in, with `now`; out come the server that
//! takes writes and the servers that take reads, best first (contract.md section 2).
//!
//! A primary is a server that is not in recovery. Of two that claim it the one of the newer timeline
//! is it: a promotion begins a timeline, so the other one is what was left behind.
//!
//! How far a replica lags is told by positions in the write-ahead log and not by clocks where that is
//! possible: a replica that has replayed what the primary had written at some look is at most as old
//! as that look. Only where no such look is remembered its last replayed transaction is asked for its
//! age, which is too much after an idle hour. Nobody writes while there is no primary, so lag is
//! counted to the last look at one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A look that is older says nothing any more: whoever looks has stopped.
const STALE: Duration = Duration::from_secs(5);
/// Looks at the primary that are remembered: longer ago than any lag that is worth allowing.
const WRITTEN_MAX: usize = 64;

/// What is known of one server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sight {
    /// Not looked at yet.
    Unknown,
    Seen(Seen),
    /// It did not answer, or a connection to it proved worthless since.
    Lost,
}

/// A server that answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) round_trip: Duration,
    pub(crate) standing: Standing,
}

/// Positions are bytes of the write-ahead log (`pg_lsn`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Standing {
    Primary {
        timeline: u32,
        written: u64,
    },
    Replica {
        replayed: u64,
        /// All that was received is replayed.
        is_drained: bool,
        /// Of the last replayed transaction; `None` where none was replayed since the start.
        age: Option<Duration>,
    },
}

/// What the configuration says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) use_closest_node: bool,
    pub(crate) max_replica_lag: Duration,
}

/// Indices of servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Takes writes, and reads that must see them.
    pub(crate) primary: Option<usize>,
    /// Take reads, best first.
    pub(crate) readers: Vec<usize>,
}

/// How far the primary had written, look by look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written(VecDeque<(Instant, u64)>);

impl Written {
    pub(crate) fn record(&mut self, at: Instant, position: u64) {
        // A promoted replica may go on before the point that the lost primary had reached.
        if self.0.back().is_some_and(|(_, last)| *last > position) {
            self.0.clear();
        }
        if self.0.len() == WRITTEN_MAX {
            self.0.pop_front();
        }
        self.0.push_back((at, position));
    }

    /// When the primary had written no more than this.
    fn reached_by(&self, replayed: u64) -> Option<Instant> {
        let mut looks = self.0.iter().rev();
        looks.find(|(_, at)| *at <= replayed).map(|(when, _)| *when)
    }
}

/// Chooses anew. `current` is the primary of the last choice, which stays where all else is equal.
pub(crate) fn choose(
    now: Instant,
    sights: &[Sight],
    written: &Written,
    current: Option<usize>,
    rules: &Rules,
) -> Choice {
    let primary = primary_choice(now, sights, current);
    let readers = match rules.use_closest_node {
        false => primary.into_iter().collect(),
        true => reads_choice(now, sights, written, primary, rules.max_replica_lag),
    };
    Choice { primary, readers }
}

/// The server that takes writes.
fn primary_choice(now: Instant, sights: &[Sight], current: Option<usize>) -> Option<usize> {
    let primaries = fresh(now, sights).filter_map(|(i, seen)| match seen.standing {
        Standing::Primary { timeline, .. } => Some((i, timeline)),
        Standing::Replica { .. } => None,
    });
    // Of equals `max_by_key` takes the last: hence the first of the configuration.
    primaries
        .max_by_key(|(i, timeline)| (*timeline, Some(*i) == current, std::cmp::Reverse(*i)))
        .map(|(i, _)| i)
}

/// The primary and the replicas that lag no more than allowed, by round-trip time.
fn reads_choice(
    now: Instant,
    sights: &[Sight],
    written: &Written,
    primary: Option<usize>,
    max_replica_lag: Duration,
) -> Vec<usize> {
    let mut readers: Vec<_> = fresh(now, sights)
        .filter(|(i, seen)| match seen.standing {
            Standing::Primary { .. } => Some(*i) == primary,
            Standing::Replica { .. } => {
                lag(seen, written).is_some_and(|lag| lag <= max_replica_lag)
            }
        })
        .map(|(i, seen)| (seen.round_trip, i))
        .collect();
    readers.sort_unstable();
    readers.into_iter().map(|(_, i)| i).collect()
}

/// How far a server lags behind the primary's last known position; `None`: not known. Zero for a
/// primary.
pub(crate) fn lag(seen: &Seen, written: &Written) -> Option<Duration> {
    let Standing::Replica {
        replayed,
        is_drained,
        age,
    } = seen.standing
    else {
        return Some(Duration::ZERO);
    };
    let Some((last_look, position)) = written.0.back() else {
        // No primary was ever seen: what it sent before is all that there is to know.
        return if is_drained {
            Some(Duration::ZERO)
        } else {
            age
        };
    };
    if replayed >= *position {
        return Some(Duration::ZERO);
    }
    let by_position = written
        .reached_by(replayed)
        .map(|reached| last_look.saturating_duration_since(reached));
    let by_age = age.map(|age| (*last_look + age).saturating_duration_since(seen.at));
    match (by_position, by_age) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn fresh(now: Instant, sights: &[Sight]) -> impl Iterator<Item = (usize, &Seen)> {
    sights
        .iter()
        .enumerate()
        .filter_map(move |(i, sight)| match sight {
            Sight::Seen(seen) if now.saturating_duration_since(seen.at) <= STALE => Some((i, seen)),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn primary(at: Instant, round_trip_ms: u32, timeline: u32) -> Sight {
        Sight::Seen(Seen {
            at,
            round_trip: MS * round_trip_ms,
            standing: Standing::Primary {
                timeline,
                written: 100,
            },
        })
    }

    fn replica(at: Instant, round_trip_ms: u32, replayed: u64, age_ms: Option<u32>) -> Sight {
        Sight::Seen(Seen {
            at,
            round_trip: MS * round_trip_ms,
            standing: Standing::Replica {
                replayed,
                is_drained: true,
                age: age_ms.map(|ms| MS * ms),
            },
        })
    }

    fn written(looks: &[(Instant, u64)]) -> Written {
        let mut written = Written::default();
        for (at, position) in looks {
            written.record(*at, *position);
        }
        written
    }

    fn chosen(now: Instant, sights: &[Sight], written: &Written) -> (Option<usize>, Vec<usize>) {
        let rules = Rules {
            use_closest_node: true,
            max_replica_lag: MS * 1000,
        };
        let choice = choose(now, sights, written, None, &rules);
        (choice.primary, choice.readers)
    }

    #[test]
    fn writes_go_to_the_primary_and_reads_to_the_closest_that_is_near_enough() {
        let now = Instant::now();
        let written = written(&[(now, 100)]);
        let sights = [
            replica(now, 1, 50, Some(1001)),
            primary(now, 3, 1),
            replica(now, 2, 100, Some(90_000)),
            replica(now, 9, 99, Some(1000)),
        ];
        assert_eq!(chosen(now, &sights, &written), (Some(1), vec![2, 1, 3]));
    }

    #[test]
    fn without_use_closest_node_every_read_asks_the_primary_and_waits_for_one() {
        let now = Instant::now();
        let rules = Rules {
            use_closest_node: false,
            max_replica_lag: MS,
        };
        let mut sights = [replica(now, 1, 100, None), primary(now, 5, 1)];
        let choice = choose(now, &sights, &Written::default(), None, &rules);
        assert_eq!((choice.primary, choice.readers), (Some(1), vec![1]));
        sights[1] = Sight::Lost;
        let choice = choose(now, &sights, &Written::default(), Some(1), &rules);
        assert_eq!(choice, Choice::default());
    }

    #[test]
    fn of_two_primaries_the_promoted_one_is_believed_and_the_other_takes_no_reads() {
        let now = Instant::now();
        let sights = [primary(now, 1, 4), primary(now, 2, 5)];
        assert_eq!(
            chosen(now, &sights, &Written::default()),
            (Some(1), vec![1])
        );
    }

    #[test]
    fn of_equal_primaries_the_current_one_stays() {
        let now = Instant::now();
        let sights = [primary(now, 1, 1), primary(now, 2, 1)];
        assert_eq!(primary_choice(now, &sights, Some(1)), Some(1));
        assert_eq!(primary_choice(now, &sights, None), Some(0));
    }

    #[test]
    fn lag_is_counted_from_the_look_at_the_primary_that_the_replica_has_reached() {
        let now = Instant::now();
        let written = written(&[(now, 100), (now + MS * 500, 200), (now + MS * 1000, 300)]);
        let lag_at = |replayed, age| {
            let Sight::Seen(seen) = replica(now + MS * 1000, 1, replayed, age) else {
                unreachable!()
            };
            lag(&seen, &written)
        };
        assert_eq!(lag_at(300, None), Some(Duration::ZERO));
        assert_eq!(lag_at(299, None), Some(MS * 500));
        assert_eq!(lag_at(100, Some(3_600_000)), Some(MS * 1000));
        assert_eq!(lag_at(299, Some(20)), Some(MS * 20));
        assert_eq!(lag_at(99, Some(7000)), Some(MS * 7000));
        assert_eq!(lag_at(99, None), None);
    }

    #[test]
    fn a_replica_ages_no_more_once_the_primary_is_gone() {
        let start = Instant::now();
        let written = written(&[(start, 100)]);
        let later = start + MS * 60_000;
        // It missed the last byte, replayed its last transaction 300 ms before the last look.
        let sights = [Sight::Lost, replica(later, 1, 99, Some(60_300))];
        assert_eq!(chosen(later, &sights, &written), (None, vec![1]));
    }

    #[test]
    fn a_replica_alone_is_enough_to_read_from() {
        let now = Instant::now();
        let sights = [Sight::Unknown, replica(now, 1, 5, Some(900_000))];
        assert_eq!(chosen(now, &sights, &Written::default()), (None, vec![1]));
    }

    #[test]
    fn a_promoted_replica_that_lost_a_little_begins_a_new_count() {
        let now = Instant::now();
        let mut written = written(&[(now, 100), (now + MS, 200)]);
        written.record(now + MS * 2, 150);
        assert_eq!(written.reached_by(199), Some(now + MS * 2));
        assert_eq!(written.reached_by(149), None);
    }

    #[test]
    fn an_old_look_says_nothing() {
        let start = Instant::now();
        let sights = [primary(start, 1, 1)];
        let late = start + STALE + MS;
        assert_eq!(chosen(late, &sights, &Written::default()), (None, vec![]));
    }
}
