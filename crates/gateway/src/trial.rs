//! One request's way past the quarantine: whether it may go to a node, to which, and what is made of how
//! it ended. What is decided stands in `suspects` and `innocents`.
//!
//! A write that is not known to be innocent goes to its home: the node that its fingerprint is drawn to,
//! the same at every gateway. So the same poison that comes many times at once, or through two gateways,
//! meets one node and not all of them; and while its home has just been lost it waits a moment, because
//! another gateway may be about to say whom it suspects.

use std::cell::OnceCell;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::account::{Blame, Flight};
use crate::attempt::{self, Call, Lost};
use crate::balancer;
use crate::departed::Departed;
use crate::ejection::{self, Probed};
use crate::fingerprint::Fingerprint;
use crate::innocents::Sketch;
use crate::nodes::{Node, NodeId};
use crate::outgoing::OutgoingBody;
use crate::problem::Refusal;
use crate::quarantine::{self, Turn};
use crate::retry::Failure;
use crate::suspects::{Charge, Ended, Loss, Standing, Verdict};

/// How often a request that waits for a verdict asks for it.
const LOOK: Duration = Duration::from_millis(5);
/// So long a trial waits for those of other gateways, longer than most answers take: beside one of them
/// a poison would be convicted together with whoever is tried there. One that is frozen must not hold it
/// up for ever.
const TURN_WAIT: Duration = Duration::from_secs(10);

/// A request before the quarantine.
pub(crate) struct Subject<'a> {
    call: Call<'a>,
    who: OnceCell<Option<Fingerprint>>,
    sketch: OnceCell<Option<Sketch>>,
    trial: Option<Trial>,
    /// The node that is busy with it, and how often that had died when it was sent.
    on: Option<(Arc<Node>, u32)>,
}

/// What the loss of its node makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// It goes to no healthy node but its own.
    Suspect,
    Innocent,
}

/// What a trial holds until its end.
#[derive(Debug)]
pub(crate) struct Trial {
    node: Option<Arc<Node>>,
    /// The right to try somebody.
    _turn: Option<Arc<File>>,
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(node) = &self.node {
            node.end_trial();
        }
    }
}

/// Where a request that is no suspect goes.
enum Home {
    Anywhere,
    On(Flight),
    /// Not yet.
    Wait,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(call: Call<'a>) -> Self {
        Self {
            call,
            who: OnceCell::new(),
            sketch: OnceCell::new(),
            trial: None,
            on: None,
        }
    }

    /// It is sent to a node.
    pub(crate) fn goes_to(&mut self, flight: &Flight) {
        let node = flight.own_node();
        let deaths = node.deaths();
        self.on = Some((node, deaths));
    }

    /// It is being tried: it goes to its node alone, and to no second one.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Waits until the request may go to a node. `None`: to any. `failed_by` is the node that it was on
    /// last, or that refused it twice. Once is not enough: a poison would part from its copies. `reached`: a
    /// node may have seen it.
    pub(crate) async fn cleared(
        &mut self,
        failed_by: Option<NodeId>,
        reached: bool,
    ) -> Result<Option<Flight>, Refusal> {
        loop {
            let standing = self.standing();
            match standing {
                Standing::Free => match self.home(failed_by) {
                    Home::Anywhere => return Ok(None),
                    Home::On(flight) => return Ok(Some(flight)),
                    Home::Wait => {}
                },
                Standing::Convicted => return Err(Refusal::Quarantined),
                Standing::Wait => {}
                Standing::Trial(_) | Standing::Elsewhere(_) => {
                    if let Some(flight) = self.begin(standing).await {
                        return Ok(Some(flight));
                    }
                }
            }
            if self.call.outgoing.remaining().is_zero() {
                return Err(Refusal::NoNodeInTime { reached });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A node answered.
    pub(crate) fn answered(&mut self, status: http::StatusCode) {
        self.on = None;
        let shared = &self.call.worker.shared;
        if status.is_success()
            && let Some(sketch) = self.sketch()
        {
            let now = shared.clock(Instant::now());
            shared.quarantine.innocents.answered(sketch, now);
        }
        self.end(Ended::Survived);
    }

    /// An attempt failed. Returns what that makes of the request, if its node was lost.
    pub(crate) async fn failed(
        &mut self,
        failure: Failure,
        lost: Option<&Lost>,
    ) -> Option<Suspicion> {
        self.on = None;
        if self.is_on_trial() {
            let how = match (lost, failure) {
                (Some(lost), _) => Ended::Lost(lost.how),
                (None, Failure::NoAnswer | Failure::ServerError) => Ended::Survived,
                (None, _) => Ended::Withdrawn,
            };
            // Not before others can know of it: they may wait for this very turn.
            let trial = self.trial.take();
            if self.tell(how) == Verdict::Convicted {
                self.share().await;
            }
            drop(trial);
            return matches!(how, Ended::Lost(_)).then_some(Suspicion::Suspect);
        }
        let (lost, who) = (lost?, self.who()?);
        let shared = &self.call.worker.shared;
        let (quarantine, now) = (&shared.quarantine, Instant::now());
        let clock = shared.clock(now);
        let innocent = self
            .sketch()
            .is_some_and(|sketch| quarantine.innocents.knows(sketch, clock));
        quarantine.innocents.lost(clock);
        if innocent {
            quarantine.found_innocent();
            return Some(Suspicion::Innocent);
        }
        let safe = self.call.outgoing.is_safe();
        let charge = self.charge(&lost.node, lost.how);
        let accused = quarantine.accuse(shared, who, lost.node.id, safe, charge, now);
        accused.then_some(Suspicion::Suspect)
    }

    fn charge(&self, node: &Node, loss: Loss) -> Charge {
        let outgoing = self.call.outgoing;
        Charge {
            method: outgoing.method.to_string(),
            target: target(outgoing).to_owned(),
            node: node.name.clone(),
            loss,
        }
    }

    fn standing(&self) -> Standing<NodeId> {
        let quarantine = &self.call.worker.shared.quarantine;
        if quarantine.is_calm() {
            return Standing::Free;
        }
        let Some(who) = self.who() else {
            return Standing::Free;
        };
        let (terms, live) = (self.call.live.limits.terms, self.call.worker.shared.live());
        let left = self.call.outgoing.remaining();
        quarantine.standing(who, terms, Instant::now(), left, &live.nodes)
    }

    /// Begins a trial that was granted; `None` where it cannot be held now.
    async fn begin(&mut self, standing: Standing<NodeId>) -> Option<Flight> {
        // From here on it is withdrawn where this is dropped.
        self.trial = Some(Trial {
            node: None,
            _turn: None,
        });
        let Ok(turn) = self.take_turn().await else {
            self.end(Ended::Withdrawn);
            return None;
        };
        let worker = self.call.worker;
        let (route, now) = (self.call.route, Instant::now());
        let who = self.who()?;
        let flight = match standing {
            // Another gateway's trial has just ended: of the same poison, perhaps.
            _ if worker.shared.quarantine.is_convicted(who, now) => None,
            Standing::Trial(id) => {
                let live = worker.shared.live();
                let node = live.nodes.by_id(id);
                // One that has said 429 is left alone for a moment.
                let node = node.filter(|node| node.wait(now).is_zero());
                node.map(|node| Flight::begin(worker, node, route, now))
            }
            Standing::Elsewhere(id) => worker
                .choose(route, Some(id), now)
                .ok()
                .flatten()
                .filter(|flight| flight.node().id != id && flight.blame() == Blame::All),
            _ => None,
        };
        let Some(mut flight) = flight else {
            self.end(Ended::Withdrawn);
            return None;
        };
        // Another gateway's trial may have broken the node a moment ago: it would prove nothing.
        let probed = attempt::look(self.call, flight.node()).await;
        if !matches!(probed, Probed::Good | Probed::Draining) {
            flight.never_sent(ejection::judge(probed, Duration::ZERO, false));
            self.end(Ended::Withdrawn);
            return None;
        }
        let node = flight.own_node();
        node.begin_trial();
        self.trial = Some(Trial {
            node: Some(node),
            _turn: turn,
        });
        Some(flight)
    }

    /// The right to try somebody, which one gateway has at a time; `Err` while another one has it.
    async fn take_turn(&self) -> Result<Option<Arc<File>>, ()> {
        let shared = Arc::clone(&self.call.worker.shared);
        let Some(book) = quarantine::book(&shared) else {
            return Ok(None);
        };
        let now = Instant::now();
        let taken = tokio::task::spawn_blocking(move || shared.quarantine.take_trials(&book, now));
        match taken.await {
            Ok(Ok(Turn::Own(turn))) => Ok(Some(turn)),
            Ok(Ok(Turn::Other(since))) if now.saturating_duration_since(since) < TURN_WAIT => {
                Err(())
            }
            // Told by whoever shares the book.
            _ => Ok(None),
        }
    }

    /// The node that a write goes to which nobody knows.
    fn home(&self, failed_by: Option<NodeId>) -> Home {
        let (worker, outgoing) = (self.call.worker, self.call.outgoing);
        if outgoing.is_safe() {
            return Home::Anywhere;
        }
        let (Some(who), Some(sketch)) = (self.who(), self.sketch()) else {
            return Home::Anywhere;
        };
        let (shared, now) = (&worker.shared, Instant::now());
        let innocents = &shared.quarantine.innocents;
        if innocents.knows(sketch, shared.clock(now)) {
            return Home::Anywhere;
        }
        let (live, route) = (shared.live(), self.call.route);
        match live.nodes.home(route.class, who, now) {
            balancer::Home::Wait => Home::Wait,
            balancer::Home::Anywhere => Home::Anywhere,
            balancer::Home::Node(index) => match live.nodes.get(index) {
                // It failed this very request, and lives.
                Some(node) if Some(node.id) == failed_by => Home::Anywhere,
                Some(node) => Home::On(Flight::begin(worker, node, route, now)),
                None => Home::Anywhere,
            },
        }
    }

    fn end(&mut self, how: Ended) {
        if self.trial.take().is_some() {
            self.tell(how);
        }
    }

    fn tell(&self, how: Ended) -> Verdict {
        let shared = &self.call.worker.shared;
        match self.who() {
            Some(who) => shared.quarantine.ended(shared, who, how),
            None => Verdict::Open,
        }
    }

    async fn share(&self) {
        let shared = Arc::clone(&self.call.worker.shared);
        if let Some(book) = quarantine::book(&shared) {
            // A failure is told by whoever shares the book.
            let _ = tokio::task::spawn_blocking(move || shared.quarantine.exchange(&book)).await;
        }
    }

    /// `None` for a body that streams: it cannot be sent twice anyway.
    fn who(&self) -> Option<Fingerprint> {
        let outgoing = self.call.outgoing;
        *self.who.get_or_init(|| match &outgoing.body {
            OutgoingBody::Whole(bytes, _) => {
                Some(Fingerprint::of(&outgoing.method, target(outgoing), bytes))
            }
            OutgoingBody::Streamed { .. } => None,
        })
    }

    fn sketch(&self) -> Option<Sketch> {
        let outgoing = self.call.outgoing;
        let quarantine = &self.call.worker.shared.quarantine;
        *self.sketch.get_or_init(|| match &outgoing.body {
            OutgoingBody::Whole(bytes, _) => {
                Some(quarantine.sketch(&outgoing.method, target(outgoing), bytes))
            }
            OutgoingBody::Streamed { .. } => None,
        })
    }
}

impl Drop for Subject<'_> {
    fn drop(&mut self) {
        let (Some((node, deaths)), Some(who)) = (self.on.take(), self.who()) else {
            return self.end(Ended::Withdrawn);
        };
        // Its client left while the node was busy with it.
        let shared = &self.call.worker.shared;
        let one = Departed {
            who,
            sketch: self.sketch(),
            safe: self.call.outgoing.is_safe(),
            charge: self.charge(&node, Loss::Crash),
            node,
            trial: self.trial.take(),
            at: Instant::now(),
            deaths,
        };
        shared.quarantine.departed.note(shared, one);
    }
}

fn target(outgoing: &crate::outgoing::Outgoing) -> &str {
    let target = outgoing.uri.path_and_query();
    target.map_or("/", |target| target.as_str())
}
