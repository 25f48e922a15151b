//! Which nodes fail requests that their neighbours do not (outlier detection by failure share), beside
//! probes and broken connections. Pure: what was counted since the last look in, who leaves and who comes
//! back out.
//!
//! A route has one vote, however often it is asked for, and it counts only where other nodes answer that
//! route well: whoever knows one URL that fails everywhere takes nobody out. Half of the nodes stay in
//! whatever happens, and never does the last one go. A node comes back half-open: one request at a time
//! until a few went well; the next time it stays out twice as long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What was counted fades by the factor e in this time.
const WINDOW_SECONDS: f32 = 10.0;
/// A route with fewer requests on a node, or on all others together, has no vote.
const REQUESTS_MIN: f32 = 8.0;
/// A route fails on a node from this share of failures on.
const FAILING: f32 = 0.5;
/// It is well on others up to this share.
const WELL: f32 = 0.1;
/// How long a node is out for the first time; twice as long each time after that.
const OUT: Duration = Duration::from_secs(1);
const OUT_MAX: Duration = Duration::from_secs(30);
/// Requests that a half-open node has to answer well.
const PROVEN: f32 = 3.0;
/// A node that was well for so long begins anew with its strikes.
const FORGIVEN: Duration = Duration::from_secs(60);

/// Requests of one route on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) good: f32,
    pub(crate) bad: f32,
}

/// Where a node stands by this measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Place {
    #[default]
    In = 0,
    /// One request at a time.
    HalfOpen = 1,
    Out = 2,
}

/// All nodes of a gateway. `N` is what tells them apart.
#[derive(Debug)]
pub(crate) struct Outliers<N> {
    records: BTreeMap<N, Record>,
    at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Record {
    routes: BTreeMap<usize, Tally>,
    place: Place,
    until: Option<Instant>,
    strikes: u32,
    /// Of a half-open node.
    since_half_open: Tally,
}

impl<N> Default for Outliers<N> {
    fn default() -> Self {
        Self {
            records: BTreeMap::new(),
            at: None,
        }
    }
}

impl<N: Copy + Ord> Outliers<N> {
    /// Takes in what was counted since the last look, by node and route; `usable` says whether probes and
    /// operators have a node in rotation. Returns the nodes whose place changed.
    pub(crate) fn look(
        &mut self,
        counted: &[(N, Vec<(usize, Tally)>)],
        usable: impl Fn(N) -> bool,
        now: Instant,
    ) -> Vec<(N, Place)> {
        let seconds = self
            .at
            .map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f32());
        self.at = Some(now);
        self.records
            .retain(|node, _| counted.iter().any(|(known, _)| known == node));
        for (node, tallies) in counted {
            let record = self.records.entry(*node).or_default();
            record.take_in(tallies, (-seconds / WINDOW_SECONDS).exp());
        }
        let mut changes = Vec::new();
        for (node, record) in &mut self.records {
            if record.turn(now) {
                changes.push((*node, record.place));
            }
        }
        let suspects: Vec<N> = self.records.keys().copied().collect();
        for node in suspects {
            if usable(node) && self.may_leave(node, &usable) && self.is_outlier(node) {
                if let Some(record) = self.records.get_mut(&node) {
                    record.leave(now);
                }
                changes.push((node, Place::Out));
            }
        }
        changes
    }

    /// At least half of the nodes stay, and one of them at least is in rotation.
    fn may_leave(&self, node: N, usable: &impl Fn(N) -> bool) -> bool {
        let records = self.records.iter();
        let out = records.filter(|(_, one)| one.place == Place::Out).count();
        let mut others = self.records.iter().filter(|(other, _)| **other != node);
        let stays = others.any(|(other, one)| one.place == Place::In && usable(*other));
        let is_in = self
            .records
            .get(&node)
            .is_some_and(|record| record.place == Place::In);
        is_in && stays && (out + 1) * 2 <= self.records.len()
    }

    fn is_outlier(&self, node: N) -> bool {
        let Some(record) = self.records.get(&node) else {
            return false;
        };
        let (mut votes, mut failing) = (0, 0);
        for (route, own) in &record.routes {
            if own.all() < REQUESTS_MIN {
                continue;
            }
            votes += 1;
            let mut others = Tally::default();
            for (other, record) in &self.records {
                if let Some(tally) = record.routes.get(route).filter(|_| *other != node) {
                    others.add(*tally);
                }
            }
            let others_well = others.all() >= REQUESTS_MIN && others.share() <= WELL;
            failing += u32::from(own.share() >= FAILING && others_well);
        }
        failing > 0 && failing * 2 >= votes
    }
}

impl Tally {
    fn all(self) -> f32 {
        self.good + self.bad
    }

    fn share(self) -> f32 {
        self.bad / self.all().max(1e-6)
    }

    fn add(&mut self, other: Self) {
        self.good += other.good;
        self.bad += other.bad;
    }
}

impl Record {
    fn take_in(&mut self, tallies: &[(usize, Tally)], fade: f32) {
        for tally in self.routes.values_mut() {
            tally.good *= fade;
            tally.bad *= fade;
        }
        self.routes.retain(|_, tally| tally.all() > 0.01);
        for (route, tally) in tallies {
            self.routes.entry(*route).or_default().add(*tally);
            if self.place == Place::HalfOpen {
                self.since_half_open.add(*tally);
            }
        }
    }

    /// What time and a half-open node's answers bring; whether its place changed.
    fn turn(&mut self, now: Instant) -> bool {
        let due = self.until.is_none_or(|until| now >= until);
        match self.place {
            Place::In => {
                if due {
                    self.strikes = 0;
                }
                false
            }
            Place::Out if due => {
                self.place = Place::HalfOpen;
                // What was before it left is known.
                self.routes.clear();
                self.since_half_open = Tally::default();
                true
            }
            Place::Out => false,
            Place::HalfOpen if self.since_half_open.bad > 0.0 => {
                self.leave(now);
                true
            }
            Place::HalfOpen if self.since_half_open.good >= PROVEN => {
                self.place = Place::In;
                self.until = Some(now + FORGIVEN);
                true
            }
            Place::HalfOpen => false,
        }
    }

    fn leave(&mut self, now: Instant) {
        let times = 1_u32.checked_shl(self.strikes.min(8)).unwrap_or(1);
        self.strikes = self.strikes.saturating_add(1);
        self.place = Place::Out;
        self.until = Some(now + (OUT * times).min(OUT_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(good: u8, bad: u8) -> Tally {
        Tally {
            good: f32::from(good),
            bad: f32::from(bad),
        }
    }

    /// One look at two nodes or more, whose routes count so.
    fn look(nodes: &[&[Tally]]) -> Vec<(usize, Place)> {
        let counted: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(node, routes)| (node, routes.iter().copied().enumerate().collect()))
            .collect();
        Outliers::default().look(&counted, |_| true, Instant::now())
    }

    #[test]
    fn a_node_that_fails_what_its_neighbours_answer_leaves_at_the_first_look() {
        let well = [tally(20, 0), tally(20, 0)];
        assert_eq!(
            look(&[&[tally(2, 8), tally(1, 9)], &well]),
            [(0, Place::Out)]
        );
        assert_eq!(look(&[&[tally(9, 1), tally(9, 1)], &well]), []);
        // Too few to say.
        assert_eq!(look(&[&[tally(0, 7)], &well]), []);
    }

    #[test]
    fn one_bad_url_takes_nobody_out_however_often_it_is_asked_for() {
        let bad_everywhere = [tally(0, 200), tally(50, 0), tally(50, 0)];
        assert_eq!(look(&[&bad_everywhere, &bad_everywhere]), []);
        let well = [tally(50, 0), tally(50, 0), tally(50, 0)];
        assert_eq!(look(&[&bad_everywhere, &well]), []);
        // On the one node alone that nobody else was asked for.
        assert_eq!(look(&[&[tally(0, 200)], &[]]), []);
    }

    #[test]
    fn half_of_the_nodes_stay_and_never_does_the_last_one_go() {
        let (bad, well) = ([tally(0, 20)], [tally(250, 0)]);
        let left = |nodes: &[&[Tally]]| look(nodes).len();
        assert_eq!(left(&[&bad, &bad, &well, &well]), 2);
        assert_eq!(left(&[&bad, &well, &well]), 1);
        assert_eq!(left(&[&bad]), 0);
        let counted = vec![(0, vec![(0, bad[0])]), (1, vec![(0, well[0])])];
        // The other one is out by its probes.
        let changes = Outliers::default().look(&counted, |node| node == 0, Instant::now());
        assert_eq!(changes, []);
    }

    #[test]
    fn a_node_comes_back_half_open_and_stays_out_twice_as_long_when_it_fails_again() {
        let mut now = Instant::now();
        let mut outliers = Outliers::default();
        let mut step = |outliers: &mut Outliers<usize>, after: Duration, first: Tally| {
            now += after;
            let counted = vec![(0, vec![(0, first)]), (1, vec![(0, tally(20, 0))])];
            outliers.look(&counted, |_| true, now)
        };
        let (none, second) = (tally(0, 0), Duration::from_secs(1));
        assert_eq!(step(&mut outliers, second, tally(0, 9)), [(0, Place::Out)]);
        assert_eq!(step(&mut outliers, second, none), [(0, Place::HalfOpen)]);
        assert_eq!(step(&mut outliers, second, tally(1, 1)), [(0, Place::Out)]);
        assert_eq!(step(&mut outliers, second, none), []);
        assert_eq!(step(&mut outliers, second, none), [(0, Place::HalfOpen)]);
        assert_eq!(step(&mut outliers, second, tally(2, 0)), []);
        assert_eq!(step(&mut outliers, second, tally(2, 0)), [(0, Place::In)]);
    }
}
