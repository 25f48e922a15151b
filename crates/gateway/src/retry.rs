//! Whether a request that failed on one node may go to another. Pure: the class of the failure, the
//! route's policy and what is left of the request's time decide; the budget is asked last.
//! Leaves out hedging, and who is a suspect.

use std::time::Duration;

use crate::config::Retry;
use crate::trial::Suspicion;

/// How an attempt failed. A 5xx is passed on, but where another node may know better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// The node cannot have seen the whole request: connection refused, idle connection found
    /// dead, or the node said that it is draining.
    NeverSent,
    /// The connection broke after the request was sent and before an answer's head came.
    NoAnswer,
    /// A healthy node answered 5xx to a request that may be sent again.
    ServerError,
    /// The node answered 5xx and is known to be unhealthy, or said that it takes no more.
    NotDone,
    /// The node was lost with the request, which is a suspect now: its next attempt is its trial.
    Suspected,
    /// The node was lost with the request, which is known to be innocent.
    Bystander,
    /// The node said 429: it has done nothing.
    Refused,
    /// The request's time ran out.
    OutOfTime,
}

impl Failure {
    pub(crate) const ALL: [Self; 8] = [
        Self::NeverSent,
        Self::NoAnswer,
        Self::ServerError,
        Self::NotDone,
        Self::Suspected,
        Self::Bystander,
        Self::Refused,
        Self::OutOfTime,
    ];

    /// A metric's label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NeverSent => "never_sent",
            Self::NoAnswer => "no_answer",
            Self::ServerError => "server_error",
            Self::NotDone => "not_done",
            Self::Suspected => "suspected",
            Self::Bystander => "bystander",
            Self::Refused => "refused",
            Self::OutOfTime => "out_of_time",
        }
    }

    /// As it is with what the loss of the node makes of the request.
    pub(crate) fn with(self, suspicion: Option<Suspicion>) -> Self {
        match suspicion {
            Some(Suspicion::Suspect) => Self::Suspected,
            Some(Suspicion::Innocent) if self == Self::NoAnswer => Self::Bystander,
            _ => self,
        }
    }

    /// Whether the next attempt counts as the one repetition that a request has.
    pub(crate) fn repeats(self) -> bool {
        matches!(self, Self::NoAnswer | Self::ServerError)
    }
}

/// What is known of a request when an attempt fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    pub(crate) failure: Failure,
    pub(crate) policy: Retry,
    /// GET or HEAD (RFC 9110 section 9.2.1, of the methods that we route).
    pub(crate) safe_method: bool,
    /// It carries an `Idempotency-Key`.
    pub(crate) keyed: bool,
    /// The request's body is still at hand.
    pub(crate) replayable: bool,
    /// How often it was sent again after it may have reached a node.
    pub(crate) repeats: u32,
    pub(crate) remaining: Duration,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send it to another node; where none is usable, hold it until one is.
    TryAgain,
    /// As `TryAgain`, and the node may see it a second time: took from the budget.
    Repeat,
    /// It may be repeated, and the budget is empty: decide again in a moment.
    Wait,
    /// Answer 502: a node may have begun and cannot be asked again.
    GiveUpBroken,
    /// Answer 504.
    GiveUpOutOfTime,
}

/// A request may be unlucky with one node after another, but not for ever. What kills nodes is no matter
/// of luck, and for `suspects` to find out.
const REPEATS_MAX: u32 = 5;
/// With less than this left another attempt cannot end in time.
const REMAINING_MIN: Duration = Duration::from_millis(5);

/// Decides. `budget` is asked only when everything else allows a repetition.
pub(crate) fn next(situation: &Situation, budget: impl FnOnce() -> bool) -> Next {
    if situation.failure == Failure::OutOfTime || situation.remaining < REMAINING_MIN {
        return Next::GiveUpOutOfTime;
    }
    if !situation.replayable {
        return Next::GiveUpBroken;
    }
    // Of a 5xx the budget was asked before it was given up.
    if matches!(
        situation.failure,
        Failure::NeverSent | Failure::ServerError | Failure::Refused
    ) {
        return Next::TryAgain;
    }
    let allowed = allows(situation.policy, situation.safe_method, situation.keyed);
    if allowed && situation.failure == Failure::NotDone {
        return Next::TryAgain;
    }
    // A trial is bounded by its verdict, and who is innocent by the time it has.
    let unbounded = matches!(situation.failure, Failure::Suspected | Failure::Bystander);
    if !allowed || !unbounded && situation.repeats >= REPEATS_MAX {
        return Next::GiveUpBroken;
    }
    match budget() {
        true => Next::Repeat,
        false => Next::Wait,
    }
}

/// Whether a request may be sent again that a node may have seen.
pub(crate) fn allows(policy: Retry, safe_method: bool, keyed: bool) -> bool {
    match policy {
        Retry::Never => false,
        Retry::Safe => safe_method || keyed,
        Retry::Always => true,
    }
}

/// Share of the live requests that may be repeated.
pub(crate) const RETRY_SHARE: f64 = 0.2;
/// Share of the live requests that may be sent to a second node (hedging).
pub(crate) const HEDGE_SHARE: f64 = 0.05;
/// Seconds over which live requests count.
const WINDOW_SECONDS: f64 = 10.0;

/// A budget of one thread for requests that are sent more than once: a share of the live requests of
/// the last seconds, and a small steady rate so that a quiet gateway may do it at all. Without it,
/// retries would double the load on nodes that fail because of load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    share: f64,
    steady_per_second: f64,
    steady: f64,
    earned: f64,
    at: Duration,
}

impl Budget {
    /// `steady_per_second` repetitions are allowed without any traffic. `now` counts from any fixed
    /// instant.
    pub(crate) fn new(share: f64, steady_per_second: f64, now: Duration) -> Self {
        let mut budget = Self {
            share,
            steady_per_second,
            steady: 0.0,
            earned: 0.0,
            at: now,
        };
        budget.steady = budget.steady_max();
        budget
    }

    /// Counts `requests` live requests that came since the last call. To be called about once a
    /// second: what is told late counts as recent.
    pub(crate) fn earn(&mut self, requests: u32, now: Duration) {
        self.advance(now);
        self.earned += self.share * f64::from(requests);
    }

    /// Takes one repetition out of the budget, if there is one.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        self.advance(now);
        let enough = self.steady + self.earned >= 1.0;
        if enough {
            let steady = self.steady.min(1.0);
            self.steady -= steady;
            self.earned -= 1.0 - steady;
        }
        enough
    }

    /// One at least, where there is a rate: a thread among hundreds has a small one.
    fn steady_max(&self) -> f64 {
        let max = self.steady_per_second * WINDOW_SECONDS;
        if max > 0.0 { max.max(1.0) } else { max }
    }

    fn advance(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        self.earned *= (-seconds / WINDOW_SECONDS).exp();
        self.steady = (self.steady + self.steady_per_second * seconds).min(self.steady_max());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Situation = Situation {
        failure: Failure::NoAnswer,
        policy: Retry::Safe,
        safe_method: true,
        keyed: false,
        replayable: true,
        repeats: 0,
        remaining: Duration::from_secs(1),
    };
    const POST: Situation = Situation {
        safe_method: false,
        ..GET
    };

    fn decide(situation: Situation) -> Next {
        next(&situation, || true)
    }

    #[test]
    fn what_was_never_sent_goes_to_another_node_whatever_the_policy() {
        for policy in [Retry::Never, Retry::Safe, Retry::Always] {
            for repeats in [0, 1] {
                let situation = Situation {
                    failure: Failure::NeverSent,
                    policy,
                    repeats,
                    ..POST
                };
                assert_eq!(next(&situation, || false), Next::TryAgain);
            }
        }
    }

    #[test]
    fn a_broken_connection_repeats_what_the_policy_calls_repeatable() {
        let with = |policy, situation| {
            decide(Situation {
                policy,
                ..situation
            })
        };
        let keyed = Situation {
            keyed: true,
            ..POST
        };
        assert_eq!(with(Retry::Never, GET), Next::GiveUpBroken);
        assert_eq!(with(Retry::Safe, GET), Next::Repeat);
        assert_eq!(with(Retry::Safe, POST), Next::GiveUpBroken);
        assert_eq!(with(Retry::Safe, keyed), Next::Repeat);
        assert_eq!(with(Retry::Never, keyed), Next::GiveUpBroken);
        assert_eq!(with(Retry::Always, POST), Next::Repeat);
    }

    #[test]
    fn a_suspect_goes_to_its_trial_and_what_a_sick_node_said_counts_for_nothing() {
        let with = |failure, situation| Situation {
            failure,
            repeats: REPEATS_MAX,
            ..situation
        };
        for failure in [Failure::Suspected, Failure::Bystander] {
            assert_eq!(decide(with(failure, GET)), Next::Repeat);
            assert_eq!(next(&with(failure, GET), || false), Next::Wait);
            assert_eq!(decide(with(failure, POST)), Next::GiveUpBroken);
        }
        let not_done = with(Failure::NotDone, GET);
        assert_eq!(next(&not_done, || false), Next::TryAgain);
        assert_eq!(decide(with(Failure::NotDone, POST)), Next::GiveUpBroken);
        for failure in [Failure::ServerError, Failure::Refused] {
            assert_eq!(next(&with(failure, POST), || false), Next::TryAgain);
        }
    }

    #[test]
    fn nothing_is_repeated_for_ever_or_without_time_or_body_and_without_budget_it_waits() {
        let often = Situation {
            repeats: REPEATS_MAX,
            ..GET
        };
        assert_eq!(decide(often), Next::GiveUpBroken);
        assert_eq!(next(&GET, || false), Next::Wait);
        let late = Situation {
            remaining: Duration::from_millis(1),
            ..GET
        };
        assert_eq!(decide(late), Next::GiveUpOutOfTime);
        let streamed = Situation {
            replayable: false,
            ..GET
        };
        assert_eq!(decide(streamed), Next::GiveUpBroken);
        let hung = Situation {
            failure: Failure::OutOfTime,
            ..GET
        };
        assert_eq!(decide(hung), Next::GiveUpOutOfTime);
    }

    #[test]
    fn a_quiet_gateway_repeats_at_the_steady_rate() {
        let mut budget = Budget::new(RETRY_SHARE, 10.0, Duration::ZERO);
        let taken = (0..1000).filter(|_| budget.take(Duration::ZERO)).count();
        assert_eq!(taken, 100);
        assert!(budget.take(Duration::from_millis(101)));
        assert!(!budget.take(Duration::from_millis(102)));
    }

    #[test]
    fn one_thread_of_hundreds_may_repeat_too_and_parts_of_both_sources_make_one() {
        let mut budget = Budget::new(RETRY_SHARE, 10.0 / 256.0, Duration::ZERO);
        assert!(budget.take(Duration::ZERO));
        assert!(!budget.take(Duration::ZERO));
        let later = Duration::from_secs(15);
        budget.earn(3, later);
        assert!(budget.take(later), "0.59 and 0.6");
        assert!(!budget.take(later));
    }

    #[test]
    fn a_busy_gateway_repeats_a_fifth_of_its_recent_requests() {
        let mut budget = Budget::new(RETRY_SHARE, 0.0, Duration::ZERO);
        budget.earn(1000, Duration::ZERO);
        let taken = (0..1000).filter(|_| budget.take(Duration::ZERO)).count();
        assert_eq!(taken, 200);
        budget.earn(1000, Duration::ZERO);
        let later = Duration::from_secs(100);
        assert!((0..1000).filter(|_| budget.take(later)).count() < 2);
    }
}
