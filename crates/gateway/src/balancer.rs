//! Which node takes a request: the one of least cost, cost = latency estimate × (in flight + 1).
//! Pure: the caller brings the views of the nodes, the time and the random number. Round robin was
//! not taken, because it sends half of the requests to a node that answers ten times slower.
//! A node that came back counts as slower at first, because its caches are cold and its pools empty.
//! Leaves out what a node can take that asks for less (`allowance`).

use std::time::Duration;

use crate::ejection::State;

/// What the balancer knows of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) state: State,
    /// An operator took it out: it takes nothing, whatever befalls the others.
    pub(crate) taken_out: bool,
    /// A suspect is tried there, and may take with it whoever is there too.
    pub(crate) on_trial: bool,
    /// It failed lately, and is tried with one request at a time.
    pub(crate) half_open: bool,
    /// It said that it can take no more for the moment.
    pub(crate) paused: bool,
    /// Seconds since it came back into rotation; `None` where it was never out, or long ago.
    pub(crate) back_for: Option<f32>,
    /// Expected seconds until the end of an answer of this class; `None` until one was seen.
    pub(crate) latency: Option<f32>,
    /// Requests that this node is working on for this gateway.
    pub(crate) in_flight: u32,
}

/// Index of the node that takes the next request; `None` without nodes, or when all are taken out.
///
/// Nodes in rotation come first. Without one, the gateway fails open: draining nodes (they still
/// answer), then ejected ones. `avoid` (the node that has just failed this request) is taken only
/// where it is the only one of its rank. `random` decides between nodes of equal cost.
pub(crate) fn choose(
    views: impl Iterator<Item = View> + Clone,
    avoid: Option<usize>,
    random: u64,
) -> Option<usize> {
    let fastest = views
        .clone()
        .filter(|view| !view.taken_out)
        .filter_map(|view| view.latency)
        .fold(f32::INFINITY, f32::min);
    // A node that nobody has measured is taken for as fast as the best: it is tried, not flooded.
    let unmeasured = if fastest.is_finite() { fastest } else { 0.001 };

    let mut best: Option<(usize, (u8, bool), f32)> = None;
    let mut equals = 1;
    for (index, view) in views.enumerate() {
        if view.taken_out {
            continue;
        }
        let rank = (rank(&view), avoid == Some(index));
        let latency = view.latency.unwrap_or(unmeasured).max(1e-6);
        let cost = latency * (view.in_flight as f32 + 1.0) * coldness(view.back_for);
        let better = match best {
            None => true,
            Some((_, best_rank, _)) if rank != best_rank => rank < best_rank,
            #[allow(clippy::float_cmp)] // Equal cost is the case of two unmeasured nodes.
            Some((_, _, best_cost)) if cost == best_cost => {
                equals += 1;
                random.is_multiple_of(equals)
            }
            Some((_, _, best_cost)) => cost < best_cost,
        };
        if better {
            if best.is_some_and(|(_, best_rank, best_cost)| (best_rank, best_cost) != (rank, cost))
            {
                equals = 1;
            }
            best = Some((index, rank, cost));
        }
    }
    best.map(|(index, _, _)| index)
}

/// How long after the loss of its home a write waits for news from other gateways; more than they take.
const NEWS: Duration = Duration::from_millis(150);
/// A home that is slower than the fastest node by so much and more is passed over.
const SLOWER: f32 = 4.0;
const SLOWER_SECONDS: f32 = 0.05;

/// One node before a request that has a home.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawn {
    /// How much the request is drawn to it.
    pub(crate) draw: u64,
    pub(crate) view: View,
    /// How long ago it was ejected last.
    pub(crate) lost_for: Option<Duration>,
}

/// Where a request goes that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// To the node of this index.
    Node(usize),
    /// Where others go.
    Anywhere,
    /// Not yet: another gateway may be about to say whom it suspects.
    Wait,
}

/// The node in rotation that a request is drawn to most, the same at every gateway that sees the same
/// nodes in rotation.
pub(crate) fn home(nodes: &[Drawn]) -> Home {
    let mut order: Vec<(usize, &Drawn)> = nodes.iter().enumerate().collect();
    order.sort_unstable_by_key(|(_, node)| std::cmp::Reverse(node.draw));
    let usable = nodes.iter().filter(|node| node.view.state.is_usable());
    let fastest = usable.filter_map(|node| node.view.latency);
    let fastest = fastest.fold(f32::INFINITY, f32::min);
    let just_lost = |node: &Drawn| {
        !node.view.state.is_usable() && node.lost_for.is_some_and(|lost| lost < NEWS)
    };
    // Whichever it was, copies of this request may have been on it: nodes that come back or get slow
    // change homes.
    if nodes.iter().any(just_lost) {
        return Home::Wait;
    }
    for (index, node) in order {
        if node.view.taken_out || !node.view.state.is_usable() || node.view.is_set_apart() {
            continue;
        }
        // One that is slow is passed over for the next, and not for anywhere: copies shall meet.
        if node.view.latency.unwrap_or(0.0) <= fastest * SLOWER + SLOWER_SECONDS {
            return Home::Node(index);
        }
    }
    Home::Anywhere
}

/// Over so many seconds a node that came back gets from little to its full share.
pub(crate) const SLOW_START_SECONDS: f32 = 5.0;
/// What it costs at first, in times of its cost.
const COLD: f32 = 8.0;

fn coldness(back_for: Option<f32>) -> f32 {
    let warm = back_for.map_or(1.0, |seconds| {
        (seconds / SLOW_START_SECONDS).clamp(0.0, 1.0)
    });
    COLD - (COLD - 1.0) * warm
}

impl View {
    /// In rotation, for what nobody else can take.
    fn is_set_apart(&self) -> bool {
        self.on_trial || self.paused || (self.half_open && self.in_flight > 0)
    }
}

fn rank(view: &View) -> u8 {
    match view.state {
        State::Unknown | State::Healthy if view.is_set_apart() => 1,
        State::Unknown | State::Healthy => 0,
        State::Draining => 2,
        State::Ejected | State::Maintenance => 3,
    }
}

/// A failed request counts as one that took this many seconds: plain averages are drawn to a node
/// that fails fast (stack.md, trap 4).
const PENALTY_SECONDS: f32 = 1.0;
/// Weight of a new measurement.
const WEIGHT: f32 = 0.2;
/// An estimate fades by the factor e in this time, so that a node that was slow once and is left
/// alone since is tried again.
const FADE_MS: f32 = 5000.0;

/// A latency estimate and when it was made, small enough for one atomic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// Seconds; 0 stands for "never measured".
    seconds: f32,
    /// Milliseconds on the gateway's clock.
    at_ms: u32,
}

impl Estimate {
    /// Nothing measured yet.
    pub(crate) const NONE: Self = Self {
        seconds: 0.0,
        at_ms: 0,
    };

    /// The estimate in seconds as it stands at `now_ms`.
    pub(crate) fn at(self, now_ms: u32) -> Option<f32> {
        let age = now_ms.saturating_sub(self.at_ms) as f32;
        (self.seconds > 0.0).then(|| self.seconds * (-age / FADE_MS).exp().max(0.01))
    }

    /// The estimate after one more answer that took `seconds`; `failed` adds the penalty.
    pub(crate) fn after(self, seconds: f32, failed: bool, now_ms: u32) -> Self {
        let sample = if failed {
            seconds.max(PENALTY_SECONDS)
        } else {
            seconds
        };
        let seconds = match self.at(now_ms) {
            Some(faded) => faded + WEIGHT * (sample - faded),
            None => sample,
        };
        Self {
            seconds: seconds.max(1e-6),
            at_ms: now_ms,
        }
    }

    pub(crate) fn to_bits(self) -> u64 {
        (u64::from(self.seconds.to_bits()) << 32) | u64::from(self.at_ms)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self {
            seconds: f32::from_bits((bits >> 32) as u32),
            at_ms: (bits & u64::from(u32::MAX)) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: State, latency: f32, in_flight: u32) -> View {
        View {
            state,
            taken_out: false,
            on_trial: false,
            half_open: false,
            paused: false,
            back_for: None,
            latency: (latency > 0.0).then_some(latency),
            in_flight,
        }
    }

    fn chosen(views: &[View], avoid: Option<usize>) -> Option<usize> {
        choose(views.iter().copied(), avoid, 0)
    }

    #[test]
    fn the_faster_node_takes_the_request_until_it_has_more_in_flight() {
        let slow = view(State::Healthy, 0.010, 0);
        assert_eq!(
            chosen(&[slow, view(State::Healthy, 0.004, 0)], None),
            Some(1)
        );
        assert_eq!(
            chosen(&[slow, view(State::Healthy, 0.004, 1)], None),
            Some(1)
        );
        assert_eq!(
            chosen(&[slow, view(State::Healthy, 0.004, 2)], None),
            Some(0)
        );
    }

    #[test]
    fn an_unmeasured_node_is_tried_but_not_flooded() {
        let known = view(State::Healthy, 0.010, 0);
        assert_eq!(
            chosen(&[known, view(State::Unknown, 0.0, 1)], None),
            Some(0)
        );
        assert_eq!(
            chosen(
                &[view(State::Healthy, 0.010, 2), view(State::Unknown, 0.0, 1)],
                None
            ),
            Some(1)
        );
    }

    #[test]
    fn an_ejected_node_is_left_out_while_another_is_in_rotation() {
        let views = [
            view(State::Ejected, 0.001, 0),
            view(State::Unknown, 5.0, 50),
        ];
        assert_eq!(chosen(&views, None), Some(1));
    }

    #[test]
    fn with_no_node_in_rotation_the_gateway_fails_open_draining_ones_first() {
        let ejected = view(State::Ejected, 0.001, 0);
        assert_eq!(
            chosen(&[ejected, view(State::Draining, 1.0, 9)], None),
            Some(1)
        );
        assert_eq!(chosen(&[ejected], None), Some(0));
        assert_eq!(chosen(&[], None), None);
    }

    #[test]
    fn a_node_that_an_operator_took_out_gets_nothing_even_if_it_is_the_last() {
        let out = View {
            taken_out: true,
            ..view(State::Draining, 0.001, 0)
        };
        assert_eq!(chosen(&[out, view(State::Ejected, 1.0, 9)], None), Some(1));
        assert_eq!(chosen(&[out, out], None), None);
    }

    #[test]
    fn the_node_that_failed_the_request_is_avoided_unless_it_is_the_only_one_left() {
        let node = view(State::Healthy, 0.001, 0);
        assert_eq!(
            chosen(&[node, view(State::Healthy, 1.0, 5)], Some(0)),
            Some(1)
        );
        assert_eq!(
            chosen(&[node, view(State::Ejected, 1.0, 0)], Some(0)),
            Some(0)
        );
    }

    #[test]
    fn a_node_that_is_tried_paused_or_half_open_and_busy_takes_only_what_nobody_else_can() {
        let node = view(State::Healthy, 0.001, 0);
        let busy = view(State::Healthy, 1.0, 50);
        for set_apart in [
            View {
                on_trial: true,
                ..node
            },
            View {
                paused: true,
                ..node
            },
            View {
                half_open: true,
                in_flight: 1,
                ..node
            },
        ] {
            assert_eq!(chosen(&[set_apart, busy], None), Some(1));
            let out = view(State::Ejected, 0.001, 0);
            assert_eq!(chosen(&[set_apart, out], None), Some(0));
        }
    }

    #[test]
    fn a_node_that_came_back_gets_little_at_first_and_its_share_after_a_while() {
        let share = |seconds| {
            let mut in_flight = [0, 0];
            for random in 0..90 {
                let back = View {
                    back_for: Some(seconds),
                    ..view(State::Healthy, 0.01, in_flight[0])
                };
                let views = [back, view(State::Healthy, 0.01, in_flight[1])];
                in_flight[choose(views.iter().copied(), None, random).unwrap()] += 1;
            }
            in_flight[0]
        };
        assert!((8..13).contains(&share(0.0)), "{}", share(0.0));
        assert!(share(2.5) > share(0.0) && share(2.5) < 45);
        assert_eq!(share(SLOW_START_SECONDS), 45);
    }

    #[test]
    fn a_home_is_the_usable_node_of_the_highest_draw_and_waits_for_news_of_one_just_lost() {
        let node = |draw, state, lost_for| Drawn {
            draw,
            view: view(state, 0.01, 7),
            lost_for,
        };
        let (well, lost) = (State::Healthy, State::Ejected);
        let idle = node(1, well, None);
        assert_eq!(home(&[idle, node(2, well, Some(NEWS / 2))]), Home::Node(1));
        let just = node(2, lost, Some(NEWS / 2));
        assert_eq!(home(&[idle, just]), Home::Wait);
        assert_eq!(home(&[idle, node(2, lost, Some(NEWS))]), Home::Node(0));
        assert_eq!(home(&[node(3, well, None), just]), Home::Wait);
        assert_eq!(home(&[node(1, lost, Some(NEWS))]), Home::Anywhere);
        let mut slow = node(2, well, None);
        slow.view.latency = Some(1.0);
        assert_eq!(home(&[idle, slow]), Home::Node(0));
        assert_eq!(home(&[slow, node(1, lost, Some(NEWS))]), Home::Node(0));
    }

    #[test]
    fn equal_nodes_share_evenly() {
        let views = [view(State::Unknown, 0.0, 0); 3];
        let mut hits = [0; 3];
        for random in 0..6000 {
            hits[choose(views.iter().copied(), None, random).unwrap()] += 1;
        }
        assert_eq!(hits, [2000, 2000, 2000]);
    }

    #[test]
    fn a_node_that_fails_fast_looks_slow() {
        let good = Estimate::NONE.after(0.010, false, 0);
        let bad = Estimate::NONE.after(0.010, false, 0).after(0.0001, true, 1);
        assert!(bad.at(1) > good.at(1));
    }

    #[test]
    fn a_slow_estimate_fades_when_nobody_asks() {
        let slow = Estimate::NONE.after(1.0, false, 0);
        assert!(slow.at(5_000).unwrap() < 0.4);
        assert!(slow.at(600_000).unwrap() >= 0.009);
        assert_eq!(Estimate::NONE.at(5), None);
    }

    #[test]
    fn an_estimate_survives_its_atomic() {
        let estimate = Estimate::NONE.after(0.123, false, 77);
        assert_eq!(Estimate::from_bits(estimate.to_bits()), estimate);
        assert_eq!(Estimate::from_bits(0), Estimate::NONE);
    }
}
