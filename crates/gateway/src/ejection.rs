//! When a node leaves the rotation and when it comes back (outlier detection). Pure: events in,
//! state out. Probes and live requests feed the same state, because a request notices a dead node
//! before the next probe, and only a probe notices that it is back.
//! Leaves out nodes that answer, and worse than others do (`outliers`).

use std::time::Duration;

/// Where a node stands for this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Not probed yet: counts as healthy, else the first second would be all 503 (trap 23).
    Unknown = 0,
    Healthy = 1,
    /// It told us that it is ending, or an operator wants it to: out of rotation, not sick.
    Draining = 2,
    Ejected = 3,
    /// An operator took it out; it is not even probed.
    Maintenance = 4,
}

impl State {
    pub(crate) const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Healthy,
        Self::Draining,
        Self::Ejected,
        Self::Maintenance,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Draining => "draining",
            Self::Ejected => "ejected",
            Self::Maintenance => "maintenance",
        }
    }

    pub(crate) fn from_u8(value: u8) -> Self {
        Self::ALL
            .into_iter()
            .find(|state| *state as u8 == value)
            .unwrap_or(Self::Unknown)
    }

    /// In rotation.
    pub(crate) fn is_usable(self) -> bool {
        matches!(self, Self::Unknown | Self::Healthy)
    }
}

/// What an operator wants of a node. It goes before what probes say, and is kept until the operator
/// says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub(crate) enum Wanted {
    /// In rotation, as far as it is healthy.
    #[default]
    Active = 0,
    /// No new request; what it has, it finishes. It is probed on.
    Draining = 1,
    /// Out, and not probed.
    Maintenance = 2,
}

impl Wanted {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
        }
    }

    pub(crate) fn from_u8(value: u8) -> Self {
        [Self::Active, Self::Draining, Self::Maintenance]
            .into_iter()
            .find(|wanted| *wanted as u8 == value)
            .unwrap_or_default()
    }

    /// Where a node stands of which probes and requests say `health`.
    pub(crate) fn with(self, health: State) -> State {
        match (self, health) {
            (Self::Maintenance, _) => State::Maintenance,
            (Self::Draining, State::Unknown | State::Healthy) => State::Draining,
            (Self::Draining | Self::Active, health) => health,
        }
    }
}

/// Something that was learned about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    ProbeGood,
    ProbeBad {
        reason: Reason,
    },
    /// A probe or a request was answered with `Bingo-State: draining`.
    Draining,
    /// A live request could not connect, or its connection broke.
    Broken {
        reason: Reason,
    },
}

/// Why a node is taken for bad; its name is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    /// A probe was answered, but not by 200.
    Status = 0,
    /// A probe could not connect, or its connection broke.
    Unreachable = 1,
    /// A probe was not answered in time.
    Timeout = 2,
    /// A request could not connect.
    Connect = 3,
    /// A connection broke before it answered a request.
    Broken = 4,
    /// It failed requests that other nodes answered.
    Outlier = 5,
}

impl Reason {
    pub(crate) const ALL: [(Self, &'static str); 6] = [
        (Self::Status, "status"),
        (Self::Unreachable, "unreachable"),
        (Self::Timeout, "timeout"),
        (Self::Connect, "connect"),
        (Self::Broken, "broken"),
        (Self::Outlier, "outlier"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL
            .get(self as usize)
            .map_or("unknown", |(_, name)| name)
    }
}

/// How many probes in a row change a node's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub(crate) rise: u32,
    pub(crate) fall: u32,
}

/// A change of state; `reason` is set when the node was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: State,
    pub(crate) to: State,
    pub(crate) reason: Option<Reason>,
}

/// One node's state and the run of probes behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health {
    pub(crate) state: State,
    good: u32,
    bad: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            state: State::Unknown,
            good: 0,
            bad: 0,
        }
    }
}

impl Health {
    /// After maintenance: nobody has looked at the node for long, so that it must show first that it
    /// is well. Where no other is left, it is tried nonetheless.
    pub(crate) fn after_maintenance() -> Self {
        Self {
            state: State::Ejected,
            good: 0,
            bad: 0,
        }
    }

    /// Takes an event in; returns what changed.
    pub(crate) fn apply(&mut self, event: Event, thresholds: Thresholds) -> Option<Change> {
        let from = self.state;
        let mut reason = None;
        match event {
            Event::ProbeGood => {
                self.bad = 0;
                self.good = self.good.saturating_add(1);
                if from == State::Unknown || self.good >= thresholds.rise {
                    self.state = State::Healthy;
                }
            }
            Event::ProbeBad { reason: why } => {
                self.good = 0;
                self.bad = self.bad.saturating_add(1);
                if self.bad >= thresholds.fall {
                    self.state = State::Ejected;
                    reason = Some(why);
                }
            }
            Event::Draining => {
                self.good = 0;
                self.state = State::Draining;
            }
            Event::Broken { reason: why } => {
                self.good = 0;
                self.state = State::Ejected;
                reason = Some(why);
            }
        }
        (from != self.state).then_some(Change {
            from,
            to: self.state,
            reason,
        })
    }
}

/// What one probe came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    Good,
    Draining,
    /// Answered, but not 200.
    BadStatus,
    /// The connection was refused, or broke.
    Unreachable,
    TimedOut,
}

/// A prober whose own timer was later than this was starved of CPU: it knows nothing about nodes.
const LATE_MAX: Duration = Duration::from_millis(100);

/// The event that a probe stands for, if any. `late`: by how much the prober's own timer was late.
/// `answered_meanwhile`: the node answered a live request since the probe was sent, so that a
/// timeout says "busy", not "hung".
pub(crate) fn judge(probed: Probed, late: Duration, answered_meanwhile: bool) -> Option<Event> {
    let void = late > LATE_MAX;
    match probed {
        Probed::Good => Some(Event::ProbeGood),
        Probed::Draining => Some(Event::Draining),
        Probed::BadStatus => Some(Event::ProbeBad {
            reason: Reason::Status,
        }),
        Probed::Unreachable if void => None,
        Probed::Unreachable => Some(Event::ProbeBad {
            reason: Reason::Unreachable,
        }),
        Probed::TimedOut if void || answered_meanwhile => None,
        Probed::TimedOut => Some(Event::ProbeBad {
            reason: Reason::Timeout,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { rise: 2, fall: 1 };
    const BAD: Event = Event::ProbeBad {
        reason: Reason::Timeout,
    };
    const BROKEN: Event = Event::Broken {
        reason: Reason::Broken,
    };

    fn state_after(events: &[Event]) -> State {
        let mut health = Health::default();
        for event in events {
            health.apply(*event, THRESHOLDS);
        }
        health.state
    }

    #[test]
    fn an_unknown_node_is_usable_and_healthy_after_one_good_probe() {
        assert!(State::Unknown.is_usable());
        assert_eq!(state_after(&[Event::ProbeGood]), State::Healthy);
    }

    #[test]
    fn one_bad_probe_or_one_broken_connection_ejects_and_two_good_probes_bring_back() {
        for event in [BAD, BROKEN] {
            assert_eq!(state_after(&[Event::ProbeGood, event]), State::Ejected);
            assert_eq!(state_after(&[event, Event::ProbeGood]), State::Ejected);
            let back = [event, Event::ProbeGood, Event::ProbeGood];
            assert_eq!(state_after(&back), State::Healthy);
        }
    }

    #[test]
    fn good_probes_must_come_in_a_row() {
        let events = [BAD, Event::ProbeGood, BAD, Event::ProbeGood];
        assert_eq!(state_after(&events), State::Ejected);
        let events = [BAD, Event::ProbeGood, BROKEN, Event::ProbeGood];
        assert_eq!(state_after(&events), State::Ejected);
    }

    #[test]
    fn a_higher_fall_waits_for_that_many_bad_probes() {
        let thresholds = Thresholds { rise: 2, fall: 3 };
        let mut health = Health::default();
        assert_eq!(health.apply(BAD, thresholds), None);
        assert_eq!(health.apply(BAD, thresholds), None);
        let change = health.apply(BAD, thresholds).unwrap();
        assert_eq!(
            (change.to, change.reason),
            (State::Ejected, Some(Reason::Timeout))
        );
    }

    #[test]
    fn a_draining_node_is_out_of_rotation_without_an_ejection() {
        let mut health = Health::default();
        let change = health.apply(Event::Draining, THRESHOLDS).unwrap();
        assert_eq!((change.to, change.reason), (State::Draining, None));
        assert!(!change.to.is_usable());
        assert_eq!(health.apply(Event::Draining, THRESHOLDS), None);
    }

    #[test]
    fn a_starved_prober_blames_nobody() {
        let late = Duration::from_millis(150);
        assert_eq!(judge(Probed::TimedOut, late, false), None);
        assert_eq!(judge(Probed::Unreachable, late, false), None);
        assert_eq!(judge(Probed::Good, late, false), Some(Event::ProbeGood));
        assert!(judge(Probed::BadStatus, late, false).is_some());
    }

    #[test]
    fn a_probe_that_timed_out_while_requests_were_answered_does_not_count() {
        assert_eq!(judge(Probed::TimedOut, Duration::ZERO, true), None);
        assert!(judge(Probed::TimedOut, Duration::ZERO, false).is_some());
        assert!(judge(Probed::BadStatus, Duration::ZERO, true).is_some());
    }

    #[test]
    fn what_an_operator_wants_goes_before_what_probes_say() {
        use State::{Draining, Ejected, Healthy, Maintenance, Unknown};
        for health in [Unknown, Healthy, Draining, Ejected] {
            assert_eq!(Wanted::Active.with(health), health);
            assert_eq!(Wanted::Maintenance.with(health), Maintenance);
            assert!(!Wanted::Draining.with(health).is_usable());
        }
        assert_eq!(Wanted::Draining.with(Healthy), Draining);
        // Whoever drains a node wants to see that it died.
        assert_eq!(Wanted::Draining.with(Ejected), Ejected);
    }

    #[test]
    fn after_maintenance_a_node_must_show_that_it_is_well() {
        let mut health = Health::after_maintenance();
        assert!(!health.state.is_usable());
        health.apply(Event::ProbeGood, THRESHOLDS);
        health.apply(Event::ProbeGood, THRESHOLDS);
        assert_eq!(health.state, State::Healthy);
    }

    #[test]
    fn every_wish_survives_its_atomic() {
        for wanted in [Wanted::Active, Wanted::Draining, Wanted::Maintenance] {
            assert_eq!(Wanted::from_u8(wanted as u8), wanted);
        }
    }

    #[test]
    fn every_state_survives_its_atomic() {
        for state in State::ALL {
            assert_eq!(State::from_u8(state as u8), state);
        }
    }
}
