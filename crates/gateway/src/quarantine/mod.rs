//! What a gateway knows of suspects and convicts (`suspects` decides), for all of its threads and, over
//! `book`, for the other gateways. A request takes the lock only while there is somebody to look up.

mod book;

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::departed::AllDeparted;
use crate::ejection::State;
use crate::fingerprint::Fingerprint;
use crate::innocents::{Innocents, Sketch};
use crate::nodes::{NodeId, Nodes};
use crate::suspects::{Accused, Charge, Ended, Loss, Standing, Suspects, Terms, Verdict};
use crate::worker::Shared;
use book::{Told, Writer};

/// How soon a gateway learns what others wrote.
const LOOK: Duration = Duration::from_millis(40);
/// Changes that are still to be written; over it the oldest is told to nobody else.
const UNTOLD_MAX: usize = 1_024;
/// Whoever waits for the right to try somebody asks far more often.
const ASKED: Duration = Duration::from_secs(1);

/// Shared by all threads.
#[derive(Debug)]
pub(crate) struct Quarantine {
    pub(crate) innocents: Innocents,
    pub(crate) departed: AllDeparted,
    suspects: Mutex<Suspects<NodeId>>,
    /// Nobody is suspected or convicted, so that nobody needs to ask.
    calm: AtomicBool,
    sketches: RandomState,
    untold: Mutex<Vec<Told>>,
    /// There is something to write.
    changed: Notify,
    writer: Mutex<Writer>,
    trials: Mutex<Trials>,
    metrics: QuarantineMetrics,
}

/// The right to try somebody, of all gateways that share the book.
#[derive(Debug, Default)]
struct Trials {
    own: Weak<File>,
    /// When another gateway had it whenever this one asked: for the first time, and for the last.
    refused: Option<(Instant, Instant)>,
}

/// Whose turn it is to try somebody.
#[derive(Debug)]
pub(crate) enum Turn {
    Own(Arc<File>),
    /// Another gateway's, ever since then.
    Other(Instant),
}

impl Quarantine {
    pub(crate) fn new(metrics: QuarantineMetrics) -> Self {
        Self {
            innocents: Innocents::default(),
            departed: AllDeparted::default(),
            suspects: Mutex::default(),
            calm: AtomicBool::new(true),
            sketches: RandomState::new(),
            untold: Mutex::default(),
            changed: Notify::new(),
            writer: Mutex::default(),
            trials: Mutex::default(),
            metrics,
        }
    }

    /// A request's hash for `innocents`.
    pub(crate) fn sketch(&self, method: &Method, target: &str, body: &[u8]) -> Sketch {
        Sketch(self.sketches.hash_one((method.as_str(), target, body)))
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Relaxed)
    }

    /// Where a request that has so much time `left` stands among these nodes.
    pub(crate) fn standing(
        &self,
        who: Fingerprint,
        terms: Terms,
        now: Instant,
        left: Duration,
        nodes: &Nodes,
    ) -> Standing<NodeId> {
        let missing = nodes.iter().any(|node| node.state() == State::Ejected);
        let is_back = |id| nodes.by_id(id).is_some_and(|node| node.state().is_usable());
        let mut suspects = self.lock();
        suspects.standing(who, terms, now, left, missing, is_back)
    }

    pub(crate) fn is_convicted(&self, who: Fingerprint, now: Instant) -> bool {
        let suspects = self.lock();
        suspects.conviction(who).is_some_and(|one| one.until > now)
    }

    /// A node was lost with a request on it. Returns whether that is under suspicion now.
    pub(crate) fn accuse(
        &self,
        shared: &Shared,
        who: Fingerprint,
        node: NodeId,
        safe: bool,
        charge: Charge,
        now: Instant,
    ) -> bool {
        let terms = shared.live().limits.terms;
        let loss = charge.loss;
        let mut suspects = self.lock();
        if loss == Loss::Hang && !suspects.hung(who, terms, now) {
            return false;
        }
        let event = json!({"fingerprint": who, "charge": charge});
        let accused = suspects.accuse(who, node, safe, charge, now);
        self.show(&suspects);
        drop(suspects);
        match accused {
            Accused::Full => {
                shared.metrics.limit_hit("suspects_max");
                return false;
            }
            Accused::Known => {}
            Accused::New => {
                self.metrics.suspected(loss);
                tracing::warn!(fingerprint = %who, reason = loss.name(), "a node was lost with a request, which waits for its trial");
                shared.events.push("request_suspected", event);
                self.changed.notify_one();
            }
        }
        true
    }

    /// A trial has ended.
    pub(crate) fn ended(&self, shared: &Shared, who: Fingerprint, how: Ended) -> Verdict {
        let terms = shared.live().limits.terms;
        let now = Instant::now();
        let mut suspects = self.lock();
        if matches!(how, Ended::Lost(_)) && suspects.is_full() {
            shared.metrics.limit_hit("convictions_max");
        }
        let verdict = suspects.ended(who, how, terms, now);
        let conviction = suspects.conviction(who).cloned();
        self.show(&suspects);
        drop(suspects);
        match verdict {
            Verdict::Open => {}
            Verdict::Acquitted => {
                self.metrics.verdict("acquitted");
                self.changed.notify_one();
            }
            Verdict::Convicted => {
                self.metrics.verdict("convicted");
                if let Some(conviction) = conviction {
                    let charge = &conviction.charge;
                    let (method, target, node) = (&charge.method, &charge.target, &charge.node);
                    tracing::error!(
                        fingerprint = %who, method, target, node, reason = charge.loss.name(),
                        "nodes were lost with this request twice: it is refused until it is lifted"
                    );
                    let data = json!({"fingerprint": who, "charge": charge});
                    shared.events.push("request_convicted", data);
                    self.tell(Told::Convicted(who, conviction));
                }
            }
        }
        verdict
    }

    /// A request that is known to kill nobody was on a node that was lost.
    pub(crate) fn found_innocent(&self) {
        self.metrics.verdict("innocent");
    }

    /// Takes a conviction back, here and at all gateways that share the book. False without one.
    pub(crate) fn lift(&self, shared: &Shared, who: Fingerprint) -> bool {
        let mut suspects = self.lock();
        let lifted = suspects.lift(who);
        self.show(&suspects);
        drop(suspects);
        if lifted {
            tracing::info!(fingerprint = %who, "a conviction was lifted by an operator");
            let data = json!({"fingerprint": who});
            shared.events.push("conviction_lifted", data);
            self.tell(Told::Lifted(who));
        }
        lifted
    }

    /// All suspects and convicts, for people.
    pub(crate) fn list(&self) -> Value {
        let suspects = self.lock();
        let now = Instant::now();
        let describe = |who: Fingerprint, charge: &Charge| {
            json!({
                "fingerprint": who, "method": charge.method, "target": charge.target,
                "node": charge.node, "reason": charge.loss,
            })
        };
        let convicted = suspects.convicted().filter(|(_, one)| one.until > now);
        let convicted: Vec<Value> = convicted
            .map(|(who, one)| {
                let mut value = describe(who, &one.charge);
                if let Some(members) = value.as_object_mut() {
                    let until = jiff::Timestamp::now()
                        .checked_add(one.until.saturating_duration_since(now))
                        .map(|until| until.to_string());
                    members.insert("until".to_owned(), json!(until.unwrap_or_default()));
                }
                value
            })
            .collect();
        let suspected: Vec<Value> = suspects
            .suspected()
            .map(|(who, charge)| describe(who, charge))
            .collect();
        json!({"convicted": convicted, "suspected": suspected})
    }

    /// The right to try somebody, which one gateway has at a time: without it a request that is tried
    /// beside another gateway's poison would be convicted for it. Brings what that one found out.
    pub(crate) fn take_trials(&self, book: &Path, now: Instant) -> io::Result<Turn> {
        let mut trials = self.trials.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = trials.own.upgrade() {
            return Ok(Turn::Own(own));
        }
        let Some(lock) = book::take_trials(book)? else {
            // While nobody asks, it may have been free.
            let lasting = trials
                .refused
                .filter(|(_, last)| now.saturating_duration_since(*last) < ASKED);
            let first = lasting.map_or(now, |(first, _)| first);
            trials.refused = Some((first, now));
            return Ok(Turn::Other(first));
        };
        let lock = Arc::new(lock);
        *trials = Trials {
            own: Arc::downgrade(&lock),
            refused: None,
        };
        drop(trials);
        self.exchange(book)?;
        Ok(Turn::Own(lock))
    }

    /// Writes what is new here, and takes over what is new elsewhere. Blocks.
    pub(crate) fn exchange(&self, path: &Path) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let told = std::mem::take(&mut *self.untold());
        let own: Vec<Fingerprint> = {
            let mut suspects = self.lock();
            suspects.sweep(Instant::now());
            self.show(&suspects);
            suspects.awaited(Instant::now()).collect()
        };
        match writer.exchange(path, &own, &told) {
            Ok(Some(page)) => {
                let mut suspects = self.lock();
                for who in page.lifted {
                    suspects.lift(who);
                }
                suspects.agree(page.convicted, page.suspected);
                // Told since the page was read.
                for told in self.untold().iter() {
                    match told {
                        Told::Convicted(who, one) => suspects.convict(*who, one.clone()),
                        Told::Lifted(who) => drop(suspects.lift(*who)),
                    }
                }
                self.show(&suspects);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                let mut untold = self.untold();
                untold.splice(0..0, told);
                Err(error)
            }
        }
    }

    fn tell(&self, told: Told) {
        let mut untold = self.untold();
        if untold.len() >= UNTOLD_MAX {
            untold.remove(0);
        }
        untold.push(told);
        drop(untold);
        self.changed.notify_one();
    }

    fn show(&self, suspects: &Suspects<NodeId>) {
        self.calm.store(suspects.is_calm(), Relaxed);
        let (suspected, convicted) = (suspects.suspected().count(), suspects.convicted().count());
        self.metrics.show(suspected, convicted);
    }

    fn lock(&self) -> MutexGuard<'_, Suspects<NodeId>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn untold(&self) -> MutexGuard<'_, Vec<Told>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the book of these gateways is: beside what operators want of nodes.
pub(crate) fn book(shared: &Shared) -> Option<PathBuf> {
    let live = shared.live();
    let file = live.state_file.as_deref()?;
    Some(file.with_file_name("quarantine.json"))
}

/// Tells other gateways, and learns from them, for ever. Without a shared file each is on its own.
pub(crate) async fn share(shared: Arc<Shared>) {
    let mut failing = false;
    loop {
        let quarantine = &shared.quarantine;
        // Out of time is as good as told: others may have written.
        let _ = tokio::time::timeout(LOOK, quarantine.changed.notified()).await;
        let ended = quarantine.departed.settle(&shared, Instant::now());
        if !quarantine.is_calm() {
            let live = shared.live();
            let exists = |id| live.nodes.by_id(id).is_some();
            quarantine.lock().clear_of_removed(exists);
        }
        let Some(path) = book(&shared) else {
            quarantine.untold().clear();
            let mut suspects = quarantine.lock();
            suspects.sweep(Instant::now());
            quarantine.show(&suspects);
            continue;
        };
        let own = Arc::clone(&shared);
        let exchanged = tokio::task::spawn_blocking(move || own.quarantine.exchange(&path)).await;
        drop(ended);
        let result = exchanged.map_err(io::Error::other).flatten();
        if let Err(error) = &result
            && !failing
        {
            tracing::error!(%error, "the quarantine cannot be shared with other gateways");
        }
        failing = result.is_err();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
}

/// What the quarantine shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuarantineMetrics {
    fingerprints: Family<StateLabels, Gauge>,
    suspected: Family<ReasonLabels, Counter>,
    verdicts: Family<VerdictLabels, Counter>,
}

impl QuarantineMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "bingo_quarantine",
            "Fingerprints of requests that are suspected now, or convicted and refused",
            metrics.fingerprints.clone(),
        );
        registry.register(
            "bingo_suspects",
            "Requests that became suspects, by how their node was lost",
            metrics.suspected.clone(),
        );
        registry.register(
            "bingo_verdicts",
            "What became of requests that a node was lost with: innocent by what is known of them, \
             acquitted or convicted by a trial",
            metrics.verdicts.clone(),
        );
        metrics.show(0, 0);
        for reason in [Loss::Crash, Loss::Hang, Loss::Unhealthy].map(Loss::name) {
            drop(metrics.suspected.get_or_create(&ReasonLabels { reason }));
        }
        for verdict in ["innocent", "acquitted", "convicted"] {
            drop(metrics.verdicts.get_or_create(&VerdictLabels { verdict }));
        }
        metrics
    }

    fn show(&self, suspected: usize, convicted: usize) {
        for (state, count) in [("suspected", suspected), ("convicted", convicted)] {
            let gauge = self.fingerprints.get_or_create(&StateLabels { state });
            gauge.set(count as i64);
        }
    }

    fn suspected(&self, loss: Loss) {
        let reason = loss.name();
        self.suspected.get_or_create(&ReasonLabels { reason }).inc();
    }

    fn verdict(&self, verdict: &'static str) {
        self.verdicts
            .get_or_create(&VerdictLabels { verdict })
            .inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> Quarantine {
        Quarantine::new(QuarantineMetrics::default())
    }

    #[test]
    fn one_gateway_at_a_time_tries_somebody_and_another_one_knows_for_how_long_it_was_refused() {
        let folder = tempfile::tempdir().unwrap();
        let book = folder.path().join("quarantine.json");
        let (one, two, begin) = (gateway(), gateway(), Instant::now());
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        let turn = one.take_trials(&book, at(0)).unwrap();
        assert!(matches!(turn, Turn::Own(_)));
        // Its threads share it.
        assert!(matches!(
            one.take_trials(&book, at(0)).unwrap(),
            Turn::Own(_)
        ));
        let refused = |now| match two.take_trials(&book, now).unwrap() {
            Turn::Other(since) => since,
            Turn::Own(_) => panic!("two at a time"),
        };
        for now in [100, 600, 1_500] {
            assert_eq!(refused(at(now)), at(100));
        }
        // It did not ask for so long that the turn may have been free.
        assert_eq!(refused(at(12_000)), at(12_000));
        drop(turn);
        let turn = two.take_trials(&book, at(12_100)).unwrap();
        assert!(matches!(turn, Turn::Own(_)));
    }
}
