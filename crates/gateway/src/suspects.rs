//! Suspects (queries of death): which requests may have killed a node, who is tried when and where,
//! who is convicted. Pure: events and the time in, what to do out.
//!
//! A suspect waits for the node that it was lost with and runs there, the only one from its gateway:
//! so a poisonous request costs that node a second restart and no other node any. Who is lost with its
//! node when alone, and in the same way, is convicted. More than `ALONE_MAX` suspects of one node are tried in halves, because
//! a trial each would take too long. A node that does not come back keeps nobody waiting for ever: then
//! they are tried on another one, one at a time.
//!
//! All is kept by fingerprint and not by request: a flood of one poison is one suspect, and whoever
//! sends it meanwhile waits for the verdict. Leaves out who is innocent (`innocents`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::fingerprint::Fingerprint;

/// Fingerprints under suspicion at once; over it nobody else becomes a suspect.
pub(crate) const SUSPECTS_MAX: usize = 1_024;
/// Convictions at once; over it the one that ends first is lifted.
pub(crate) const CONVICTIONS_MAX: usize = 1_024;
/// Hangs that are remembered; over it the oldest is forgotten.
const HANGS_MAX: usize = 1_024;
/// So many suspects of one node are tried one by one, more in halves.
const ALONE_MAX: usize = 16;
/// A write goes to another node than its own only when so little of its time is left: what writes are is
/// seldom known, and the poisonous ones among them would meet a second node. By then the first one is
/// back, or will be before those are out of time that wait for both.
const WRITE_LEFT: Duration = Duration::from_secs(3);
/// So long a suspect that another gateway suspects as well waits until no node is missing.
const MISSING_WAIT: Duration = Duration::from_secs(10);
/// A suspect for whom nobody has asked for so long has nobody who waits.
const PRESENT: Duration = Duration::from_secs(1);
/// After so long without being asked for it is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// How a node was lost with a request on it; its name is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Loss {
    /// Its connections broke and it takes none.
    Crash,
    /// Its connections stay open and it answers nothing.
    Hang,
    /// It answers 500 to requests and probes.
    Unhealthy,
}

impl Loss {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What people want to know of a suspect.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Charge {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// The node's name.
    pub(crate) node: String,
    pub(crate) loss: Loss,
}

/// Times that the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// So long a suspect waits for its node before it may go to another; one that is not GET or HEAD
    /// waits until `WRITE_LEFT`.
    pub(crate) suspect_wait: Duration,
    /// So long a conviction holds.
    pub(crate) quarantine: Duration,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing<N> {
    /// It may go to any node.
    Free,
    /// It is refused.
    Convicted,
    /// It has to ask again in a moment.
    Wait,
    /// It goes to this node now; how that ended has to be told.
    Trial(N),
    /// It goes to a node in rotation that is not this one; how that ended has to be told.
    Elsewhere(N),
}

/// What became of an accusation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accused {
    New,
    /// Under suspicion already.
    Known,
    /// There is no room for more suspects.
    Full,
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The node lived.
    Survived,
    /// The node was lost again.
    Lost(Loss),
    /// The request never got there, or its client went away.
    Withdrawn,
}

/// What follows from the end of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Acquitted,
    Convicted,
    /// It stays a suspect.
    Open,
}

/// A conviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conviction {
    pub(crate) until: Instant,
    pub(crate) charge: Charge,
}

/// What one gateway knows. `N` is what tells nodes apart.
#[derive(Debug)]
pub(crate) struct Suspects<N> {
    suspects: BTreeMap<Fingerprint, Suspect<N>>,
    /// One for each node on which somebody is tried.
    batches: Vec<Batch<N>>,
    /// The suspect that is tried on another node than its own.
    elsewhere: Option<Fingerprint>,
    hangs: BTreeMap<Fingerprint, Instant>,
    convictions: BTreeMap<Fingerprint, Conviction>,
    /// Whom other gateways suspect, and until when that counts.
    others: BTreeMap<Fingerprint, Instant>,
}

#[derive(Debug)]
struct Suspect<N> {
    node: N,
    charge: Charge,
    /// GET or HEAD.
    safe: bool,
    since: Instant,
    asked: Instant,
    /// So many batches died that it was in: those of the most are tried first.
    level: u32,
    on_trial: bool,
}

/// Suspects that are tried on one node at the same time.
#[derive(Debug)]
struct Batch<N> {
    node: N,
    level: u32,
    room: usize,
    entered: usize,
    running: usize,
    /// Somebody has ended: nobody enters any more.
    closed: bool,
}

impl<N> Suspect<N> {
    /// Somebody waits for its trial.
    fn is_present(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.asked) < PRESENT
    }
}

impl<N> Default for Suspects<N> {
    fn default() -> Self {
        Self {
            suspects: BTreeMap::new(),
            batches: Vec::new(),
            elsewhere: None,
            hangs: BTreeMap::new(),
            convictions: BTreeMap::new(),
            others: BTreeMap::new(),
        }
    }
}

impl<N: Copy + PartialEq> Suspects<N> {
    /// Nobody has to ask for anybody.
    pub(crate) fn is_calm(&self) -> bool {
        self.suspects.is_empty() && self.convictions.is_empty() && self.others.is_empty()
    }

    /// A node was lost with this request on it.
    pub(crate) fn accuse(
        &mut self,
        who: Fingerprint,
        node: N,
        safe: bool,
        charge: Charge,
        now: Instant,
    ) -> Accused {
        if self.suspects.contains_key(&who) || self.convictions.contains_key(&who) {
            return Accused::Known;
        }
        if self.suspects.len() >= SUSPECTS_MAX {
            return Accused::Full;
        }
        let suspect = Suspect {
            node,
            charge,
            safe,
            since: now,
            asked: now,
            level: 0,
            on_trial: false,
        };
        self.suspects.insert(who, suspect);
        Accused::New
    }

    /// A node hung with this request on it; whether that makes it a suspect, as the second time does.
    pub(crate) fn hung(&mut self, who: Fingerprint, terms: Terms, now: Instant) -> bool {
        self.hangs
            .retain(|_, at| now.saturating_duration_since(*at) < terms.quarantine);
        if self.hangs.remove(&who).is_some() {
            return true;
        }
        if self.hangs.len() >= HANGS_MAX
            && let Some(oldest) = self.hangs.iter().min_by_key(|(_, at)| **at)
        {
            let oldest = *oldest.0;
            self.hangs.remove(&oldest);
        }
        self.hangs.insert(who, now);
        false
    }

    /// Where a request stands that has so much time `left`. `is_back` says whether a node is in rotation;
    /// `missing`, whether any node has been lost and is not back.
    pub(crate) fn standing(
        &mut self,
        who: Fingerprint,
        terms: Terms,
        now: Instant,
        left: Duration,
        missing: bool,
        is_back: impl Fn(N) -> bool,
    ) -> Standing<N> {
        if self.is_convicted(who, now) {
            return Standing::Convicted;
        }
        let elsewhere = self.others.get(&who).is_some_and(|until| *until > now);
        let Some(suspect) = self.suspects.get_mut(&who) else {
            return match elsewhere {
                true => Standing::Wait,
                false => Standing::Free,
            };
        };
        suspect.asked = now;
        let waited = now.saturating_duration_since(suspect.since);
        // The node that is missing may be the one that the other gateway lost with it at the same
        // moment: a trial now could have both down.
        if suspect.on_trial || (elsewhere && missing && waited < MISSING_WAIT) {
            return Standing::Wait;
        }
        let (node, level) = (suspect.node, suspect.level);
        let waited_enough = waited >= terms.suspect_wait && (suspect.safe || left <= WRITE_LEFT);
        let standing = if is_back(node) {
            match self.call_up(node, level, now) {
                true => Standing::Trial(node),
                false => Standing::Wait,
            }
        } else if waited_enough && self.elsewhere.is_none() && self.batches.is_empty() {
            self.elsewhere = Some(who);
            Standing::Elsewhere(node)
        } else {
            Standing::Wait
        };
        if standing != Standing::Wait
            && let Some(suspect) = self.suspects.get_mut(&who)
        {
            suspect.on_trial = true;
        }
        standing
    }

    /// A trial has ended.
    pub(crate) fn ended(
        &mut self,
        who: Fingerprint,
        how: Ended,
        terms: Terms,
        now: Instant,
    ) -> Verdict {
        let Some(suspect) = self.suspects.get_mut(&who) else {
            return Verdict::Open;
        };
        suspect.on_trial = false;
        let (node, first) = (suspect.node, suspect.charge.loss);
        let alone = if self.elsewhere == Some(who) {
            self.elsewhere = None;
            true
        } else {
            self.leave_batch(node)
        };
        match how {
            Ended::Withdrawn => Verdict::Open,
            Ended::Survived => {
                self.suspects.remove(&who);
                Verdict::Acquitted
            }
            // What befell the node the first time would have befallen it again: another fault is
            // most likely its own.
            Ended::Lost(loss) if alone && loss != first => {
                if let Some(suspect) = self.suspects.get_mut(&who) {
                    suspect.charge.loss = loss;
                    suspect.since = now;
                }
                Verdict::Open
            }
            Ended::Lost(_) if alone => {
                if let Some(suspect) = self.suspects.remove(&who) {
                    let until = now + terms.quarantine;
                    let charge = suspect.charge;
                    self.convict(who, Conviction { until, charge });
                }
                Verdict::Convicted
            }
            Ended::Lost(_) => {
                if let Some(suspect) = self.suspects.get_mut(&who) {
                    suspect.level += 1;
                    suspect.since = now;
                }
                Verdict::Open
            }
        }
    }

    /// Clears the suspects of nodes that are no more: their trial can never be.
    pub(crate) fn clear_of_removed(&mut self, exists: impl Fn(N) -> bool) {
        self.suspects
            .retain(|_, suspect| suspect.on_trial || exists(suspect.node));
    }

    /// Takes a conviction back, and a suspicion, another gateway's too; a trial that runs goes on. False
    /// where there was none.
    pub(crate) fn lift(&mut self, who: Fingerprint) -> bool {
        self.hangs.remove(&who);
        let elsewhere = self.others.remove(&who).is_some();
        let suspect = self.suspects.get(&who);
        let dropped = suspect.is_some_and(|suspect| !suspect.on_trial);
        if dropped {
            self.suspects.remove(&who);
        }
        self.convictions.remove(&who).is_some() || dropped || elsewhere
    }

    /// The conviction of a fingerprint.
    pub(crate) fn conviction(&self, who: Fingerprint) -> Option<&Conviction> {
        self.convictions.get(&who)
    }

    /// The next conviction lifts another one.
    pub(crate) fn is_full(&self) -> bool {
        self.convictions.len() >= CONVICTIONS_MAX
    }

    /// Whoever was convicted by another gateway, or by this one in an earlier life, in the place of all
    /// that is known; and whom others suspect.
    pub(crate) fn agree(
        &mut self,
        convictions: BTreeMap<Fingerprint, Conviction>,
        others: BTreeMap<Fingerprint, Instant>,
    ) {
        self.convictions = convictions;
        while self.convictions.len() > CONVICTIONS_MAX {
            self.drop_first_conviction();
        }
        self.others = others;
        while self.others.len() > SUSPECTS_MAX {
            self.others.pop_first();
        }
    }

    /// Forgets what is over.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.suspects.retain(|_, suspect| {
            suspect.on_trial || now.saturating_duration_since(suspect.asked) < FORGOTTEN
        });
        self.convictions.retain(|_, one| one.until > now);
        self.others.retain(|_, until| *until > now);
    }

    pub(crate) fn suspected(&self) -> impl Iterator<Item = (Fingerprint, &Charge)> {
        self.suspects.iter().map(|(who, one)| (*who, &one.charge))
    }

    /// Suspects whom somebody asks for, or who are tried. Of the others no gateway need know: whoever
    /// waited there for their trial would wait in vain.
    pub(crate) fn awaited(&self, now: Instant) -> impl Iterator<Item = Fingerprint> {
        let suspects = self.suspects.iter();
        suspects
            .filter(move |(_, one)| one.on_trial || one.is_present(now))
            .map(|(who, _)| *who)
    }

    pub(crate) fn convicted(&self) -> impl Iterator<Item = (Fingerprint, &Conviction)> {
        self.convictions.iter().map(|(who, one)| (*who, one))
    }

    fn is_convicted(&self, who: Fingerprint, now: Instant) -> bool {
        self.convictions
            .get(&who)
            .is_some_and(|one| one.until > now)
    }

    /// Notes a conviction.
    pub(crate) fn convict(&mut self, who: Fingerprint, conviction: Conviction) {
        if self.convictions.len() >= CONVICTIONS_MAX {
            self.drop_first_conviction();
        }
        self.convictions.insert(who, conviction);
    }

    fn drop_first_conviction(&mut self) {
        let first = self.convictions.iter().min_by_key(|(_, one)| one.until);
        if let Some(who) = first.map(|(who, _)| *who) {
            self.convictions.remove(&who);
        }
    }

    /// Whether a suspect may be tried on its node now.
    fn call_up(&mut self, node: N, level: u32, now: Instant) -> bool {
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.node == node) {
            let enters = !batch.closed && batch.entered < batch.room && batch.level == level;
            if enters {
                batch.entered += 1;
                batch.running += 1;
            }
            return enters;
        }
        // It may be on this very node.
        if self.elsewhere.is_some() {
            return false;
        }
        let of_node = self.suspects.values().filter(|one| one.node == node);
        let present = of_node.filter(|one| one.is_present(now));
        if present.clone().any(|one| one.level > level) {
            return false;
        }
        let room = match present.filter(|one| one.level == level).count() {
            count if count > ALONE_MAX => count / 2,
            _ => 1,
        };
        self.batches.push(Batch {
            node,
            level,
            room,
            entered: 1,
            running: 1,
            closed: false,
        });
        true
    }

    /// Returns whether it was the only one there. One whose client went away counts: the node may have
    /// died of it.
    fn leave_batch(&mut self, node: N) -> bool {
        let Some(batch) = self.batches.iter_mut().find(|batch| batch.node == node) else {
            return false;
        };
        let alone = batch.entered == 1;
        batch.closed = true;
        batch.running = batch.running.saturating_sub(1);
        self.batches.retain(|batch| batch.running > 0);
        alone
    }
}

#[cfg(test)]
mod tests;
