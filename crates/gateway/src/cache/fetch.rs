//! Asks nodes for what the cache wants to have: for the first request that finds nothing, and again
//! in the background. A fetch is a task of its own on the thread that began it: a client that goes
//! away takes nothing from those who wait with it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Uri};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::config::Rules;
use super::keeper::{self, Next};
use super::store::{Entry, Found, Keeping, Lead, Role};
use super::{freshness, policy};
use crate::ask::{Answered, ask};
use crate::body::NodeBody;
use crate::head;
use crate::live::Live;
use crate::outgoing::{Outgoing, OutgoingBody};
use crate::problem::Refusal;
use crate::request_id;
use crate::router::{Match, Route};
use crate::worker::Worker;

/// What the client gets whose request began a fetch. Nothing where it has to go on by itself.
pub(super) enum Handed {
    Stored(Arc<Entry>),
    /// Not for the cache, but for this client.
    Unstored(Box<Answered>),
    Refused(Refusal),
}

/// How a fetch ended.
enum Fetched {
    Entry(Arc<Entry>),
    Unstorable(Box<Answered>),
    Failed(Refusal),
}

/// What is asked for.
struct Wanted {
    /// Path and query.
    uri: Uri,
    headers: HeaderMap,
    asked: Arc<AtomicU64>,
}

/// Begins the fetch that `lead` stands for, and keeps what came of it fresh.
pub(super) fn begin(
    worker: &Rc<Worker>,
    lead: Lead,
    parts: &Parts,
    deadline: Instant,
    asked: Arc<AtomicU64>,
) -> oneshot::Receiver<Handed> {
    let mut headers = parts.headers.clone();
    head::strip(&mut headers);
    let wanted = Wanted {
        uri: lead.target.parse().unwrap_or_default(),
        headers: policy::fetch_headers(headers),
        asked,
    };
    let (hand, handed) = oneshot::channel();
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let fetched = fetch_now(&worker, &wanted, deadline).await;
        if let Some((entry, keeping)) = settle(&worker, lead, fetched, hand) {
            keep(&worker, wanted, entry, keeping).await;
        }
    });
    handed
}

/// Tells everybody how it ended. What has to be kept fresh is returned.
fn settle(
    worker: &Worker,
    lead: Lead,
    fetched: Option<Fetched>,
    hand: oneshot::Sender<Handed>,
) -> Option<(Arc<Entry>, Keeping)> {
    // A client that is gone by now needs nothing.
    match fetched? {
        Fetched::Entry(entry) => {
            let keeping = worker.shared.cache.keep(&lead.target, &entry);
            lead.store(&entry, Instant::now());
            let _ = hand.send(Handed::Stored(Arc::clone(&entry)));
            let keeping = keeping?;
            if keeping.displaces {
                worker.shared.metrics.limit_hit("cache_kept_max");
            }
            return Some((entry, keeping));
        }
        Fetched::Unstorable(answered) => {
            let status = answered.head.status;
            if !status.is_server_error() {
                lead.unstorable();
            }
            if policy::hands_over(status) {
                let _ = hand.send(Handed::Unstored(answered));
            }
        }
        Fetched::Failed(refusal) => {
            let _ = hand.send(Handed::Refused(refusal));
        }
    }
    None
}

/// Fetches an answer anew when it is due, until it has expired or its route has no cache any more.
async fn keep(worker: &Rc<Worker>, wanted: Wanted, mut entry: Arc<Entry>, keeping: Keeping) {
    let Some(target) = wanted.uri.path_and_query().map(|target| target.as_str()) else {
        return;
    };
    let store = &worker.shared.cache;
    let mut failures = 0;
    let mut again = None;
    while !worker.draining.get() && !keeping.is_displaced() {
        let live = worker.shared.live();
        let Some((route, rules)) = cached_route(&live, &wanted.uri) else {
            return;
        };
        let lifetime = entry
            .ends(rules.ttl_max)
            .saturating_duration_since(entry.sent);
        let due = keeper::due(entry.sent, lifetime, rules.refresh_ahead);
        let now = Instant::now();
        let unasked = store.unasked(&entry, now);
        match keeper::next(now, again.unwrap_or(due), entry.sent + lifetime, unasked) {
            Next::End => return,
            Next::Wait(until) => tokio::time::sleep_until(until.into()).await,
            Next::Refresh => {
                let (path, deadline) = (route.path, now + route.deadline);
                let fresh = refresh(worker, target, &wanted, rules, &entry, deadline).await;
                if let Some(fresh) = fresh {
                    worker.shared.metrics.cache.count(path, "refresh");
                    (entry, failures, again) = (fresh, 0, None);
                } else {
                    worker.shared.metrics.cache.count(path, "refresh_failed");
                    failures += 1;
                    let random = (worker.random() >> 11) as f64 / (1_u64 << 53) as f64;
                    again = Some(keeper::again(Instant::now(), failures, random));
                }
            }
        }
    }
}

/// A newer answer than `entry`: fetched, or just fetched by somebody else.
async fn refresh(
    worker: &Rc<Worker>,
    target: &str,
    wanted: &Wanted,
    rules: Rules,
    entry: &Entry,
    deadline: Instant,
) -> Option<Arc<Entry>> {
    let store = &worker.shared.cache;
    match store.join(target, || None) {
        Role::Lead(lead) => {
            let Some(Fetched::Entry(fresh)) = fetch_now(worker, wanted, deadline).await else {
                return None;
            };
            lead.store(&fresh, Instant::now());
            Some(fresh)
        }
        Role::Follow(mut outcome) => {
            let until = tokio::time::Instant::from_std(deadline);
            let ended = outcome.wait_for(|outcome| !matches!(outcome, super::Outcome::UnderWay));
            // However it ended, what counts is what is there now.
            let _ = tokio::time::timeout_at(until, ended).await;
            match store.find(target, &wanted.headers, rules.ttl_max, Instant::now()) {
                Found::Fresh(fresh) if fresh.sent > entry.sent => Some(fresh),
                _ => None,
            }
        }
        Role::Hit(fresh) => Some(fresh),
    }
}

fn cached_route<'a>(live: &'a Live, uri: &Uri) -> Option<(&'a Route, Rules)> {
    match live.router.find(&Method::GET, uri.path()) {
        Match::Route(route) => Some((route, route.cache?)),
        _ => None,
    }
}

/// `None` where the route has just lost its cache.
async fn fetch_now(worker: &Rc<Worker>, wanted: &Wanted, deadline: Instant) -> Option<Fetched> {
    let live = worker.shared.live();
    let (route, rules) = cached_route(&live, &wanted.uri)?;
    Some(
        fetch(worker, &live, route, rules, wanted, deadline)
            .await
            .unwrap_or_else(Fetched::Failed),
    )
}

async fn fetch(
    worker: &Rc<Worker>,
    live: &Live,
    route: &Route,
    rules: Rules,
    wanted: &Wanted,
    deadline: Instant,
) -> Result<Fetched, Refusal> {
    let mut headers = wanted.headers.clone();
    worker.request_ids.ensure(&mut headers);
    let outgoing = Outgoing {
        method: Method::GET,
        uri: wanted.uri.clone(),
        headers,
        body: OutgoingBody::empty(),
        deadline,
        keyed: false,
        journal: Rc::default(),
    };
    let given = ask(worker, live, route, &outgoing).await?;
    if given.answer.status().is_informational() {
        // Nobody asked for another protocol.
        return Err(Refusal::NoAnswer);
    }
    let mut answered = given.prepare(live);
    let (status, headers) = (answered.head.status, &answered.head.headers);
    let (request, took) = (&wanted.headers, answered.sent.elapsed());
    let age = freshness::age(headers);
    let lifetime = policy::keeps(status, headers)
        .then(|| {
            freshness::lifetime(
                &wanted.uri,
                request,
                status,
                headers,
                took,
                SystemTime::now(),
            )
        })
        .flatten()
        .map(|lifetime| lifetime.min(rules.ttl_max.saturating_sub(age)))
        .filter(|lifetime| *lifetime > took);
    let (Some(lifetime), Some(vary)) = (lifetime, policy::vary(headers)) else {
        return Ok(Fetched::Unstorable(Box::new(answered)));
    };
    let bytes_max = live.cache.entry_bytes_max;
    let whole = read_whole(&mut answered.body, bytes_max);
    let whole = tokio::time::timeout_at(deadline.into(), whole).await;
    let body = match whole {
        Ok(Ok(Some(body))) => body,
        Ok(Ok(None)) => {
            worker.shared.metrics.limit_hit("cache_entry_bytes_max");
            return Ok(Fetched::Unstorable(Box::new(answered)));
        }
        Ok(Err(())) => return Err(Refusal::NoAnswer),
        Err(_) => return Err(Refusal::NoNodeInTime { reached: true }),
    };
    let etag = match answered.head.headers.get(header::ETAG) {
        Some(etag) => etag.clone(),
        None => made_etag(&body),
    };
    let mut request = wanted.headers.clone();
    request.remove(request_id::NAME);
    Ok(Fetched::Entry(Arc::new(Entry {
        request,
        vary,
        headers: policy::stored_headers(answered.head.headers, &etag),
        etag,
        body,
        sent: answered.sent,
        age,
        expires: answered.sent + lifetime,
        asked: Arc::clone(&wanted.asked),
    })))
}

/// A body of at most `bytes_max`. A larger one is `None`, and left as if nothing had been read. An
/// error where the node breaks it off. Copied into a piece of its own, because a piece of a
/// connection's buffer would keep all of the buffer.
async fn read_whole(body: &mut NodeBody, bytes_max: usize) -> Result<Option<Bytes>, ()> {
    let hint = body.size_hint().lower();
    if hint > bytes_max as u64 {
        return Ok(None);
    }
    let mut whole = BytesMut::with_capacity(hint as usize);
    while let Some(frame) = body.next().await {
        let frame = frame.map_err(|_| ())?;
        if let Some(data) = frame.data_ref() {
            whole.extend_from_slice(data);
        }
        if whole.len() > bytes_max {
            body.put_back(whole.freeze());
            return Ok(None);
        }
    }
    Ok(Some(whole.freeze()))
}

/// A strong validator: the same only for the same bytes.
fn made_etag(body: &[u8]) -> HeaderValue {
    let hash = Sha256::digest(body);
    let mut text = String::with_capacity(34);
    text.push('"');
    for byte in hash.iter().take(16) {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('"');
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""))
}
