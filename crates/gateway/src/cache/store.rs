//! What the cache holds, for all threads: answers by target and variant, bounded in bytes; the fetches
//! that are under way, one per target; targets whose answers cannot be stored, for a moment.
//! Answers are shared, never copied: `Bytes` and a prepared head.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use moka::Expiry;
use moka::notification::RemovalCause;
use moka::sync::Cache;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use super::policy;

/// Variants of one target (`Vary`); the oldest makes room.
const VARIANTS_MAX: usize = 16;
/// How long a target whose answer could not be stored is not waited for by others.
const UNSTORABLE_FOR: Duration = Duration::from_secs(5);
/// Such targets at most; the rest only wait for each other once more.
const UNSTORABLE_MAX: u64 = 4096;
/// Answers that are refreshed in the background at most: a stranger who asks for a thousand queries
/// must not have each of them asked of the nodes for ten minutes.
const KEPT_MAX: usize = 64;
/// What an entry weighs besides its bytes: maps, pointers, the store's own books.
const OVERHEAD_BYTES: usize = 1024;

/// A stored answer.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The fields that the node got: what `Vary` chooses by, and what a refresh sends again.
    pub(crate) request: HeaderMap,
    pub(crate) vary: Vec<HeaderName>,
    /// As they are sent, but for what each answer gets anew.
    pub(crate) headers: HeaderMap,
    pub(crate) etag: HeaderValue,
    pub(crate) body: Bytes,
    /// When its request was sent; it came into being then or later.
    pub(crate) sent: Instant,
    /// How old it was by then, where it comes from a cache behind the node (`Age`).
    pub(crate) age: Duration,
    pub(crate) expires: Instant,
    /// When somebody asked for it last, in milliseconds of the store's clock; shared by all answers of
    /// this variant.
    pub(crate) asked: Arc<AtomicU64>,
}

/// The variants of one target.
#[derive(Debug, Default)]
struct Resource {
    variants: Vec<Arc<Entry>>,
}

/// What the store has for a request.
#[derive(Debug)]
pub(crate) enum Found {
    Fresh(Arc<Entry>),
    /// It has expired.
    Stale,
    /// Another variant of it is there.
    OtherVariant,
    Nothing,
}

/// How a fetch ended, for those who wait for it.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    UnderWay,
    Stored(Arc<Entry>),
    /// It failed, or its answer is not to be stored: each goes on by itself.
    Nothing,
}

/// What becomes of a request for which nothing is there.
#[derive(Debug)]
pub(crate) enum Role {
    /// It fetches the answer, for all.
    Lead(Lead),
    /// Somebody does already.
    Follow(watch::Receiver<Outcome>),
    /// Somebody just did.
    Hit(Arc<Entry>),
}

#[derive(Debug)]
pub(crate) struct Store {
    started: Instant,
    entries: Cache<Arc<str>, Arc<Resource>>,
    fetches: Mutex<HashMap<Arc<str>, watch::Receiver<Outcome>>>,
    unstorable: Cache<Arc<str>, ()>,
    /// Hashes of the targets and variants that have a keeper.
    kept: Mutex<HashMap<u64, Arc<AtomicU64>>>,
}

impl Store {
    /// `displaced` counts what was thrown out for want of room.
    pub(crate) fn new(bytes_max: u64, displaced: Counter) -> Arc<Self> {
        let entries = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|target: &Arc<str>, resource: &Arc<Resource>| resource.weigh(target))
            .expire_after(ByExpiry)
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    displaced.inc();
                }
            })
            .build();
        Arc::new(Self {
            started: Instant::now(),
            entries,
            fetches: Mutex::default(),
            unstorable: Cache::builder()
                .max_capacity(UNSTORABLE_MAX)
                .time_to_live(UNSTORABLE_FOR)
                .build(),
            kept: Mutex::default(),
        })
    }

    /// The answer to a request, not older than `ttl_max`, which may be less than when it was stored.
    pub(crate) fn find(
        &self,
        target: &str,
        request: &HeaderMap,
        ttl_max: Duration,
        now: Instant,
    ) -> Found {
        let Some(resource) = self.entries.get(target) else {
            return Found::Nothing;
        };
        let chosen = resource
            .variants
            .iter()
            .find(|entry| policy::selects(&entry.vary, &entry.request, request));
        match chosen {
            Some(entry) if entry.is_fresh(ttl_max, now) => Found::Fresh(Arc::clone(entry)),
            Some(_) => Found::Stale,
            None => Found::OtherVariant,
        }
    }

    /// Who fetches a target. `find` looks once more, where an answer that has just come will do.
    pub(crate) fn join(
        self: &Arc<Self>,
        target: &str,
        find: impl FnOnce() -> Option<Arc<Entry>>,
    ) -> Role {
        let mut fetches = self.fetches();
        if let Some(outcome) = fetches.get(target) {
            return Role::Follow(outcome.clone());
        }
        // A fetch stores first and leaves the table then: whoever is not there has stored.
        if let Some(entry) = find() {
            return Role::Hit(entry);
        }
        let target: Arc<str> = Arc::from(target);
        let (outcome, receiver) = watch::channel(Outcome::UnderWay);
        fetches.insert(Arc::clone(&target), receiver);
        Role::Lead(Lead {
            store: Arc::clone(self),
            target,
            outcome,
        })
    }

    /// Whether the last answer for a target could not be stored, so that nobody should wait for the
    /// next one.
    pub(crate) fn is_unstorable(&self, target: &str) -> bool {
        self.unstorable.contains_key(target)
    }

    /// Forgets a target: something changed it (RFC 9111 section 4.4). A fetch that is under way may
    /// have begun before that and is not stored either.
    pub(crate) fn invalidate(&self, target: &str) {
        self.fetches().remove(target);
        self.entries.invalidate(target);
    }

    /// The right to keep an answer fresh in the background: one keeper for each, and not too many.
    pub(crate) fn keep(self: &Arc<Self>, target: &str, entry: &Entry) -> Option<Keeping> {
        let mut hasher = DefaultHasher::new();
        target.hash(&mut hasher);
        for name in &entry.vary {
            name.hash(&mut hasher);
            for value in entry.request.get_all(name) {
                value.hash(&mut hasher);
            }
        }
        let hash = hasher.finish();
        let mut kept = self.kept();
        if kept.contains_key(&hash) {
            return None;
        }
        // What was asked for longest ago makes room: a thousand queries of a stranger, each asked once,
        // must not take the place of what everybody asks for.
        let oldest = kept.iter().min_by_key(|(_, asked)| asked.load(Relaxed));
        let oldest = oldest.map(|(hash, _)| *hash);
        let displaces = kept.len() >= KEPT_MAX;
        if let Some(oldest) = oldest.filter(|_| displaces) {
            kept.remove(&oldest);
        }
        let asked = Arc::clone(&entry.asked);
        kept.insert(hash, Arc::clone(&asked));
        Some(Keeping {
            store: Arc::clone(self),
            hash,
            asked,
            displaces,
        })
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<u64, Arc<AtomicU64>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that somebody asked for an answer.
    pub(crate) fn asked(&self, entry: &Entry, now: Instant) {
        entry.asked.store(self.clock(now), Relaxed);
    }

    /// For how long nobody has asked for it.
    pub(crate) fn unasked(&self, entry: &Entry, now: Instant) -> Duration {
        let ago = self.clock(now).saturating_sub(entry.asked.load(Relaxed));
        Duration::from_millis(ago)
    }

    /// Bytes and entries, after what has expired was thrown away.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.weighted_size(), self.entries.entry_count())
    }

    fn put(&self, target: &Arc<str>, entry: &Arc<Entry>, now: Instant) {
        self.unstorable.invalidate(target);
        self.entries.entry_by_ref(target).and_upsert_with(|old| {
            let mut variants = old.map_or_else(Vec::new, |old| old.value().variants.clone());
            variants.retain(|old| {
                old.expires > now
                    && (old.vary != entry.vary
                        || !policy::selects(&entry.vary, &entry.request, &old.request))
            });
            // What the newest answer varies with is what counts: it is found first.
            variants.insert(0, Arc::clone(entry));
            variants.truncate(VARIANTS_MAX);
            Arc::new(Resource { variants })
        });
    }

    fn fetches(&self) -> MutexGuard<'_, HashMap<Arc<str>, watch::Receiver<Outcome>>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }
}

impl Entry {
    pub(crate) fn is_fresh(&self, ttl_max: Duration, now: Instant) -> bool {
        now < self.ends(ttl_max)
    }

    /// When it is used no more.
    pub(crate) fn ends(&self, ttl_max: Duration) -> Instant {
        self.expires
            .min(self.sent + ttl_max.saturating_sub(self.age))
    }

    fn bytes(&self) -> usize {
        let fields = |headers: &HeaderMap| -> usize {
            let one =
                |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
            headers.iter().map(one).sum()
        };
        self.body.len() + fields(&self.headers) + fields(&self.request) + OVERHEAD_BYTES
    }
}

impl Resource {
    fn weigh(&self, target: &str) -> u32 {
        let bytes: usize = self.variants.iter().map(|entry| entry.bytes()).sum();
        u32::try_from(bytes + target.len()).unwrap_or(u32::MAX)
    }

    fn expires_in(&self, now: Instant) -> Option<Duration> {
        let last = self.variants.iter().map(|entry| entry.expires).max()?;
        Some(last.saturating_duration_since(now))
    }
}

/// Throws a target away when its last variant has expired.
struct ByExpiry;

impl Expiry<Arc<str>, Arc<Resource>> for ByExpiry {
    fn expire_after_create(
        &self,
        _: &Arc<str>,
        resource: &Arc<Resource>,
        now: Instant,
    ) -> Option<Duration> {
        resource.expires_in(now)
    }

    fn expire_after_update(
        &self,
        _: &Arc<str>,
        resource: &Arc<Resource>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        resource.expires_in(now)
    }
}

/// The fetch of one target; while it lives others follow it. Dropped without a word, it sends each
/// of them on its own way.
#[derive(Debug)]
pub(crate) struct Lead {
    store: Arc<Store>,
    pub(crate) target: Arc<str>,
    outcome: watch::Sender<Outcome>,
}

impl Lead {
    /// The answer came. It is given to those who wait, and stored unless the target was changed
    /// meanwhile.
    pub(crate) fn store(self, entry: &Arc<Entry>, now: Instant) {
        // Locked until it is stored, so that nothing is invalidated between the two.
        let fetches = self.store.fetches();
        if self.is_current(&fetches) {
            self.store.put(&self.target, entry, now);
            self.outcome
                .send_replace(Outcome::Stored(Arc::clone(entry)));
        }
    }

    /// A good answer came that is not to be stored, nor will the next one be.
    pub(crate) fn unstorable(self) {
        self.store.unstorable.insert(Arc::clone(&self.target), ());
    }

    fn is_current(&self, fetches: &HashMap<Arc<str>, watch::Receiver<Outcome>>) -> bool {
        fetches
            .get(&self.target)
            .is_some_and(|receiver| receiver.same_channel(&self.outcome.subscribe()))
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut fetches = self.store.fetches();
        if self.is_current(&fetches) {
            fetches.remove(&self.target);
        }
        self.outcome.send_if_modified(|outcome| {
            let lost = matches!(outcome, Outcome::UnderWay);
            if lost {
                *outcome = Outcome::Nothing;
            }
            lost
        });
    }
}

/// A place among the keepers.
#[derive(Debug)]
pub(crate) struct Keeping {
    store: Arc<Store>,
    hash: u64,
    asked: Arc<AtomicU64>,
    /// Another one had to go for it.
    pub(crate) displaces: bool,
}

impl Keeping {
    /// Whether the place was given to another one.
    pub(crate) fn is_displaced(&self) -> bool {
        let kept = self.store.kept();
        let mine = kept.get(&self.hash);
        !mine.is_some_and(|asked| Arc::ptr_eq(asked, &self.asked))
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if !self.is_displaced() {
            self.store.kept().remove(&self.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn store(bytes_max: u64) -> Arc<Store> {
        Store::new(bytes_max, Counter::default())
    }

    fn entry(body: &str, accept: Option<&'static str>, age: Duration) -> Arc<Entry> {
        let mut request = HeaderMap::new();
        if let Some(accept) = accept {
            request.insert("accept", HeaderValue::from_static(accept));
        }
        let sent = Instant::now() - age;
        Arc::new(Entry {
            vary: request.keys().cloned().collect(),
            request,
            headers: HeaderMap::new(),
            etag: HeaderValue::from_static("\"x\""),
            body: Bytes::copy_from_slice(body.as_bytes()),
            sent,
            age: Duration::ZERO,
            expires: sent + TTL,
            asked: Arc::default(),
        })
    }

    fn lead(store: &Arc<Store>, target: &str) -> Lead {
        match store.join(target, || None) {
            Role::Lead(lead) => lead,
            other => panic!("{other:?}"),
        }
    }

    fn found(store: &Store, target: &str, request: &HeaderMap) -> String {
        match store.find(target, request, TTL, Instant::now()) {
            Found::Fresh(entry) => String::from_utf8_lossy(&entry.body).into_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_is_found_until_it_expires_or_the_bound_is_lowered() {
        let store = store(1 << 20);
        let (none, now) = (HeaderMap::new(), Instant::now());
        lead(&store, "/a").store(&entry("a", None, Duration::from_secs(30)), now);
        assert_eq!(found(&store, "/a", &none), "a");
        assert_eq!(found(&store, "/a?", &none), "Nothing");
        let lowered = store.find("/a", &none, Duration::from_secs(29), now);
        assert!(matches!(lowered, Found::Stale));
        let later = store.find("/a", &none, TTL, now + Duration::from_secs(31));
        assert!(matches!(later, Found::Stale));
    }

    #[test]
    fn variants_stand_beside_each_other_and_the_newer_replaces_its_own() {
        let store = store(1 << 20);
        let now = Instant::now();
        for (body, accept) in [("a1", "a"), ("b1", "b"), ("a2", "a")] {
            lead(&store, "/").store(&entry(body, Some(accept), Duration::ZERO), now);
        }
        let asks = |accept| entry("", Some(accept), Duration::ZERO).request.clone();
        assert_eq!(found(&store, "/", &asks("a")), "a2");
        assert_eq!(found(&store, "/", &asks("b")), "b1");
        assert_eq!(found(&store, "/", &asks("c")), "OtherVariant");
    }

    #[test]
    fn one_leads_and_the_others_learn_how_it_ended() {
        let store = store(1 << 20);
        let first = lead(&store, "/");
        let Role::Follow(receiver) = store.join("/", || None) else {
            panic!("two lead");
        };
        first.store(&entry("a", None, Duration::ZERO), Instant::now());
        assert!(matches!(&*receiver.borrow(), Outcome::Stored(_)));
        let stored = entry("a", None, Duration::ZERO);
        assert!(matches!(store.join("/", || Some(stored)), Role::Hit(_)));
        let second = lead(&store, "/");
        let Role::Follow(receiver) = store.join("/", || None) else {
            panic!("two lead");
        };
        drop(second);
        assert!(matches!(&*receiver.borrow(), Outcome::Nothing));
    }

    #[test]
    fn what_was_changed_during_its_fetch_is_not_stored() {
        let store = store(1 << 20);
        let old = lead(&store, "/");
        store.invalidate("/");
        let new = lead(&store, "/");
        old.store(&entry("old", None, Duration::ZERO), Instant::now());
        assert_eq!(found(&store, "/", &HeaderMap::new()), "Nothing");
        assert!(matches!(store.join("/", || None), Role::Follow(_)));
        new.store(&entry("new", None, Duration::ZERO), Instant::now());
        assert_eq!(found(&store, "/", &HeaderMap::new()), "new");
    }

    #[test]
    fn the_store_stays_below_its_bytes_whatever_is_put_into_it() {
        let store = store(256 * 1024);
        let body = "x".repeat(4096);
        for number in 0..1000 {
            let fresh = entry(&body, None, Duration::ZERO);
            lead(&store, &format!("/{number}")).store(&fresh, Instant::now());
        }
        let (bytes, entries) = store.size();
        assert!(
            bytes <= 256 * 1024 && entries > 10,
            "{bytes} bytes, {entries} entries"
        );
    }

    #[test]
    fn keepers_are_one_for_each_answer_and_bounded() {
        let store = store(1 << 20);
        let asked_at = |ms| {
            let one = entry("a", None, Duration::ZERO);
            one.asked.store(ms, Relaxed);
            one
        };
        let often = store.keep("/often", &asked_at(1_000_000)).unwrap();
        assert!(store.keep("/often", &asked_at(1)).is_none());
        let keep = |number| store.keep(&format!("/{number}"), &asked_at(number));
        let junk: Vec<Keeping> = (1..1000).map(|number| keep(number).unwrap()).collect();
        let displaced = junk.iter().filter(|one| one.is_displaced()).count();
        assert_eq!(displaced, 1000 - KEPT_MAX);
        assert!(!often.is_displaced() && !often.displaces);
        assert!(junk[998].displaces && !junk[998].is_displaced());
        drop(junk);
        assert_eq!(store.kept().len(), 1);
    }
}
