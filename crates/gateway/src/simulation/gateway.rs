//! A simulated gateway: what `exchange`, `attempt` and `trial` join, in the same order.

use std::collections::BTreeMap;
use std::time::Duration;

use super::node::Condition;
use super::world::{Attempt, DEADLINE_MS, Event, Kind, Request, World};
use crate::balancer::{self, Drawn, Estimate, Home, View};
use crate::config::Retry;
use crate::ejection::{self, Health, Reason, State, Thresholds};
use crate::innocents::{Innocents, Sketch};
use crate::retry::{self, Budget, Failure, Next, RETRY_SHARE, Situation};
use crate::suspects::{Charge, Ended, Loss, Standing, Suspects, Terms, Verdict};
use crate::trial::Suspicion;

const THRESHOLDS: Thresholds = Thresholds { rise: 2, fall: 1 };
const TERMS: Terms = Terms {
    suspect_wait: Duration::from_secs(2),
    quarantine: Duration::from_secs(600),
};

#[derive(Debug)]
pub(super) struct Gateway {
    healths: Vec<Health>,
    latencies: Vec<Estimate>,
    in_flight: Vec<u32>,
    lost_at: Vec<Option<u64>>,
    trials: Vec<u32>,
    pub(super) suspects: Suspects<usize>,
    innocents: Innocents,
    budget: Budget,
    /// What is known of requests on their way: repetitions, the node to avoid, whether it is on trial.
    calls: BTreeMap<usize, Call>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Call {
    repeats: u32,
    avoid: Option<usize>,
    failed_by: Option<usize>,
    refused_by: Option<usize>,
    trial: Option<usize>,
}

impl Gateway {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            healths: vec![Health::default(); nodes],
            latencies: vec![Estimate::NONE; nodes],
            in_flight: vec![0; nodes],
            lost_at: vec![None; nodes],
            trials: vec![0; nodes],
            suspects: Suspects::default(),
            innocents: Innocents::default(),
            budget: Budget::new(RETRY_SHARE, 10.0, Duration::ZERO),
            calls: BTreeMap::new(),
        }
    }

    fn state(&self, node: usize) -> State {
        self.healths[node].state
    }

    fn any_usable(&self) -> bool {
        self.healths.iter().any(|one| one.state.is_usable())
    }

    fn view(&self, node: usize, now: u64) -> View {
        View {
            state: self.state(node),
            taken_out: false,
            on_trial: self.trials[node] > 0,
            half_open: false,
            paused: false,
            back_for: None,
            latency: self.latencies[node].at(now as u32),
            in_flight: self.in_flight[node],
        }
    }

    fn learn(&mut self, node: usize, event: ejection::Event, now: u64) {
        if let Some(change) = self.healths[node].apply(event, THRESHOLDS) {
            if change.reason.is_some() {
                self.lost_at[node] = Some(now);
            } else if change.from == State::Ejected {
                self.latencies[node] = Estimate::NONE;
            }
        }
    }
}

fn sketch(request: &Request) -> Sketch {
    Sketch(request.who.draw("sketch"))
}

impl World {
    /// A client's request comes.
    pub(super) fn begin(&mut self, request: usize) {
        let own = &mut self.gateways[self.requests[request].gateway];
        own.calls.insert(request, Call::default());
        own.budget.earn(1, Duration::from_millis(self.now));
    }

    /// A request looks where it may go.
    pub(super) fn go(&mut self, request: usize) {
        let Request {
            gateway,
            who,
            kind,
            begun,
            answer,
            ..
        } = self.requests[request];
        if answer.is_some() {
            return;
        }
        let (instant, late) = (self.instant(), self.now >= begun + DEADLINE_MS);
        let own = &mut self.gateways[gateway];
        let healths = &own.healths;
        let is_back = |node: usize| healths[node].state.is_usable();
        let missing = healths.iter().any(|one| one.state == State::Ejected);
        let suspects = &mut own.suspects;
        let left = Duration::from_millis((begun + DEADLINE_MS).saturating_sub(self.now));
        let standing = suspects.standing(who, TERMS, instant, left, missing, is_back);
        if late && matches!(standing, Standing::Trial(_) | Standing::Elsewhere(_)) {
            own.suspects.ended(who, Ended::Withdrawn, TERMS, instant);
        }
        match standing {
            Standing::Convicted => self.end(request, 422),
            _ if late => self.end(request, 504),
            Standing::Wait => self.after(5, Event::Again(request)),
            Standing::Trial(_) | Standing::Elsewhere(_) => self.try_alone(request, standing),
            Standing::Free => {
                let Call {
                    avoid, failed_by, ..
                } = *self.call(request);
                let node = match self.home(gateway, request, kind) {
                    Home::Wait => return self.after(5, Event::Again(request)),
                    Home::Node(node) if Some(node) != failed_by => Some(node),
                    Home::Node(_) | Home::Anywhere => self.choose(gateway, avoid),
                };
                match node {
                    Some(node) => self.attempt(request, node),
                    None => self.after(5, Event::Again(request)),
                }
            }
        }
    }

    pub(super) fn learn(&mut self, gateway: usize, node: usize, event: ejection::Event) {
        let before = self.gateways[gateway].state(node);
        self.gateways[gateway].learn(node, event, self.now);
        let after = self.gateways[gateway].state(node);
        if before != after {
            self.tell(|| format!("g{gateway} takes n{node} for {after:?}"));
        }
    }

    /// Notes a request that is tried on a node with a fault of its own.
    pub(super) fn mind_luck(&mut self, request: usize, node: usize) {
        let Request { gateway, who, .. } = self.requests[request];
        let call = self.gateways[gateway].calls.get(&request);
        if call.is_some_and(|call| call.trial == Some(node)) {
            self.unlucky.insert(who);
        }
    }

    fn call(&mut self, request: usize) -> &mut Call {
        let gateway = self.requests[request].gateway;
        self.gateways[gateway].calls.entry(request).or_default()
    }

    fn home(&self, gateway: usize, request: usize, kind: Kind) -> Home {
        let own = &self.gateways[gateway];
        let known = own
            .innocents
            .knows(sketch(&self.requests[request]), self.now as u32);
        if kind == Kind::Get || known {
            return Home::Anywhere;
        }
        let who = self.requests[request].who;
        let drawn = (0..self.nodes.len()).map(|node| Drawn {
            draw: who.draw(&format!("node-{node}")),
            view: own.view(node, self.now),
            lost_for: own.lost_at[node].map(|at| Duration::from_millis(self.now - at)),
        });
        balancer::home(&drawn.collect::<Vec<_>>())
    }

    fn choose(&mut self, gateway: usize, avoid: Option<usize>) -> Option<usize> {
        let random = self.chance.next();
        let own = &self.gateways[gateway];
        let views = (0..self.nodes.len()).map(|node| own.view(node, self.now));
        balancer::choose(views, avoid, random)
    }

    fn try_alone(&mut self, request: usize, standing: Standing<usize>) {
        let (gateway, who) = (self.requests[request].gateway, self.requests[request].who);
        let free = self.turn.is_none_or(|turn| turn == gateway);
        let node = match standing {
            _ if !free => None,
            Standing::Trial(node) => Some(node),
            Standing::Elsewhere(not) => {
                let chosen = self.choose(gateway, Some(not));
                let own = &self.gateways[gateway];
                chosen.filter(|node| *node != not && own.state(*node).is_usable())
            }
            _ => None,
        };
        // With the turn comes what others have found out.
        if free {
            self.share(gateway);
        }
        let instant = self.instant();
        let own = &mut self.gateways[gateway];
        let convicted = own.suspects.conviction(who).is_some();
        match node.filter(|_| !convicted) {
            Some(node) => {
                self.turn = Some(gateway);
                self.gateways[gateway].trials[node] += 1;
                self.call(request).trial = Some(node);
                self.attempt(request, node);
            }
            None => {
                own.suspects.ended(who, Ended::Withdrawn, TERMS, instant);
                self.after(5, Event::Again(request));
            }
        }
    }

    fn attempt(&mut self, request: usize, node: usize) {
        let gateway = self.requests[request].gateway;
        let trial = self.call(request).trial.is_some();
        self.tell(|| format!("g{gateway} r{request} goes to n{node}, trial {trial}"));
        self.call(request).avoid = Some(node);
        self.gateways[gateway].in_flight[node] += 1;
        let trusted = self.gateways[gateway].state(node).is_usable();
        self.send(request, node, trusted);
        if self.nodes[node].is_lost() {
            self.mind_luck(request, node);
        }
    }

    /// An attempt has ended; false where nobody waits for it any more.
    fn close(&mut self, attempt: usize, failed: bool) -> Option<Attempt> {
        let closed = self.attempts[attempt].clone();
        if !closed.open {
            return None;
        }
        self.attempts[attempt].open = false;
        let own = &mut self.gateways[self.requests[closed.request].gateway];
        own.in_flight[closed.node] -= 1;
        let seconds = (self.now - closed.begun) as f32 / 1000.0;
        let latency = &mut own.latencies[closed.node];
        *latency = latency.after(seconds, failed, self.now as u32);
        Some(closed)
    }

    pub(super) fn answered(&mut self, attempt: usize, well: bool) {
        let Some(Attempt {
            request,
            node,
            trusted,
            ..
        }) = self.close(attempt, !well)
        else {
            return;
        };
        let (gateway, kind) = (self.requests[request].gateway, self.requests[request].kind);
        if well {
            let (sketch, now) = (sketch(&self.requests[request]), self.now as u32);
            self.gateways[gateway].innocents.answered(sketch, now);
            self.end_trial(request, Ended::Survived);
            return self.end(request, 200);
        }
        if kind == Kind::Plain {
            return self.end(request, 500);
        }
        // The node is asked how it is before it is believed.
        if !matches!(
            self.nodes[node].condition,
            Condition::Sick | Condition::Down
        ) {
            let last = self.call(request).repeats > 0;
            if !last && self.call(request).trial.is_none() {
                return self.failed(request, Failure::ServerError, None);
            }
            self.end_trial(request, Ended::Survived);
            return self.end(request, 500);
        }
        let reason = Reason::Status;
        let bad = ejection::Event::ProbeBad { reason };
        self.learn(gateway, node, bad);
        self.failed(
            request,
            Failure::NotDone,
            trusted.then_some((node, Loss::Unhealthy)),
        );
    }

    pub(super) fn broken(&mut self, attempt: usize, refused: bool) {
        let Some(Attempt { request, node, .. }) = self.close(attempt, true) else {
            return;
        };
        let gateway = self.requests[request].gateway;
        let reason = Reason::Broken;
        let event = ejection::Event::Broken { reason };
        self.learn(gateway, node, event);
        if refused {
            return self.failed(request, Failure::NeverSent, None);
        }
        let lost = match self.nodes[node].condition {
            Condition::Down => Some((node, Loss::Crash)),
            _ => None,
        };
        self.failed(request, Failure::NoAnswer, lost);
    }

    /// An attempt from which nothing came yet.
    pub(super) fn look(&mut self, attempt: usize) {
        let Attempt {
            request,
            node,
            trusted,
            open,
            ..
        } = self.attempts[attempt];
        if !open {
            return;
        }
        let Request { gateway, begun, .. } = self.requests[request];
        let own = &self.gateways[gateway];
        let late = self.now >= begun + DEADLINE_MS;
        let hung = own.state(node) == State::Ejected;
        let leaves = late || (hung && own.any_usable());
        if !leaves {
            return self.after(50, Event::Look(attempt));
        }
        self.close(attempt, true);
        let failure = if late {
            Failure::OutOfTime
        } else {
            Failure::NoAnswer
        };
        let lost = (hung && trusted).then_some((node, Loss::Hang));
        self.failed(request, failure, lost);
    }

    fn failed(&mut self, request: usize, failure: Failure, lost: Option<(usize, Loss)>) {
        self.tell(|| format!("r{request} failed: {failure:?}, lost {lost:?}"));
        let call = self.call(request);
        match failure == Failure::NeverSent && call.refused_by != call.avoid {
            true => call.refused_by = call.avoid,
            false => call.failed_by = call.avoid,
        }
        let suspicion = self.blame(request, failure, lost);
        self.decide(request, failure.with(suspicion));
    }

    /// What becomes of a request that failed.
    pub(super) fn decide(&mut self, request: usize, failure: Failure) {
        let Request {
            gateway,
            kind,
            begun,
            ..
        } = self.requests[request];
        let call = *self.call(request);
        let situation = Situation {
            failure,
            policy: match kind {
                Kind::Plain => Retry::Safe,
                Kind::Poison => Retry::Always,
                Kind::Get | Kind::Keyed => Retry::Safe,
            },
            safe_method: kind == Kind::Get,
            keyed: kind == Kind::Keyed,
            replayable: true,
            repeats: call.repeats,
            remaining: Duration::from_millis((begun + DEADLINE_MS).saturating_sub(self.now)),
        };
        let now = Duration::from_millis(self.now);
        let mut taken = 0;
        let budget = &mut self.gateways[gateway].budget;
        let next = retry::next(&situation, || {
            taken = 1;
            budget.take(now)
        });
        match next {
            Next::Wait => self.after(25, Event::Decide(request, failure)),
            Next::TryAgain | Next::Repeat => {
                self.count.repeated += taken;
                self.call(request).repeats += u32::from(failure.repeats());
                let usable = self.gateways[gateway].any_usable();
                self.after(if usable { 0 } else { 25 }, Event::Again(request));
            }
            Next::GiveUpBroken => self.end(request, 502),
            Next::GiveUpOutOfTime => self.end(request, 504),
        }
    }

    /// As `Subject::failed`.
    fn blame(
        &mut self,
        request: usize,
        failure: Failure,
        lost: Option<(usize, Loss)>,
    ) -> Option<Suspicion> {
        if self.call(request).trial.is_some() {
            let how = match (lost, failure) {
                (Some((_, how)), _) => Ended::Lost(how),
                (None, Failure::NoAnswer) => Ended::Survived,
                (None, _) => Ended::Withdrawn,
            };
            self.end_trial(request, how);
            return matches!(how, Ended::Lost(_)).then_some(Suspicion::Suspect);
        }
        let (node, how) = lost?;
        let (instant, now) = (self.instant(), self.now as u32);
        let Request {
            gateway, who, kind, ..
        } = self.requests[request];
        let sketch = sketch(&self.requests[request]);
        let own = &mut self.gateways[gateway];
        let innocent = own.innocents.knows(sketch, now);
        own.innocents.lost(now);
        if innocent {
            return Some(Suspicion::Innocent);
        }
        if how == Loss::Hang && !own.suspects.hung(who, TERMS, instant) {
            return None;
        }
        let charge = Charge {
            method: String::new(),
            target: String::new(),
            node: String::new(),
            loss: how,
        };
        own.suspects
            .accuse(who, node, kind == Kind::Get, charge, instant);
        self.write(gateway);
        Some(Suspicion::Suspect)
    }

    fn end_trial(&mut self, request: usize, how: Ended) {
        let Some(node) = self.call(request).trial.take() else {
            return;
        };
        let (gateway, instant) = (self.requests[request].gateway, self.instant());
        let own = &mut self.gateways[gateway];
        own.trials[node] -= 1;
        let verdict = own
            .suspects
            .ended(self.requests[request].who, how, TERMS, instant);
        self.tell(|| format!("g{gateway} r{request} {how:?}: {verdict:?}"));
        self.count.acquitted += usize::from(verdict == Verdict::Acquitted);
        self.count.convicted += usize::from(verdict == Verdict::Convicted);
        if self.gateways[gateway]
            .trials
            .iter()
            .all(|trials| *trials == 0)
        {
            self.turn = None;
        }
        self.write(gateway);
    }

    fn end(&mut self, request: usize, status: u16) {
        self.tell(|| format!("r{request} ends with {status}"));
        let gateway = self.requests[request].gateway;
        self.end_trial(request, Ended::Withdrawn);
        self.requests[request].answer = Some(status);
        self.gateways[gateway].calls.remove(&request);
    }
}
