//! The cache: answers of routes that turn it on, never older than the route's `ttl_max`, counted from
//! when the request was sent, whatever fails. One request per target and gateway fetches; the others
//! wait for it within their own time. While an answer is wanted, it is fetched anew before it
//! expires, so that no client waits.
//!
//! `policy` and `keeper` decide, `freshness` reads what the node allows (RFC 9111), `store` holds,
//! `fetch` asks nodes. moka has no refresh ahead and http-cache-semantics no notion of who waits for
//! whom, hence the rest. Left out: revalidation with the node (an answer is small, and asking costs as
//! much), stale answers, storing anything but 200.

pub(crate) mod config;
mod fetch;
mod freshness;
mod keeper;
mod policy;
mod store;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::account::Record;
use crate::body::AnswerBody;
use crate::problem::Refusal;
use crate::request_id;
use crate::router::Route;
use crate::worker::Worker;
use config::Rules;
use fetch::Handed;
use policy::Treatment;
pub(crate) use store::Store;
use store::{Entry, Found, Outcome, Role};

/// RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// How often a request waits for a fetch that turns out to be of another variant.
const ROUNDS_MAX: usize = 2;

/// What the cache has for a request.
pub(crate) enum Way {
    Answered(Response<AnswerBody>),
    /// The request goes on to a node by itself; its answer says so in these words.
    GoOn(&'static str),
}

/// A client's request on a route with a cache.
pub(crate) struct Asked<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) route: &'a Route,
    pub(crate) rules: Rules,
    pub(crate) parts: &'a Parts,
    /// It has no body and wants no other protocol.
    pub(crate) bare: bool,
    pub(crate) record: &'a Rc<Record>,
    pub(crate) deadline: Instant,
}

/// Says on an answer that came from a node how the cache was passed.
pub(crate) fn tell(headers: &mut http::HeaderMap, status: &'static str) {
    headers.append(CACHE_STATUS, HeaderValue::from_static(status));
}

impl Asked<'_> {
    /// Answers from the cache, or by the one fetch that all wait for.
    pub(crate) async fn answer(&self) -> Result<Way, Refusal> {
        let (headers, now) = (&self.parts.headers, Instant::now());
        let treatment = policy::treatment(&self.parts.method, headers, self.bare);
        let target = self
            .parts
            .uri
            .path_and_query()
            .map(|target| target.as_str());
        let (Some(target), Treatment::Use | Treatment::Look) = (target, treatment) else {
            return Ok(self.go_on("bingo; fwd=method", "bypass"));
        };
        let store = &self.worker.shared.cache;
        let missed = match store.find(target, headers, self.rules.ttl_max, now) {
            Found::Fresh(entry) => return Ok(self.hit(&entry, now)),
            Found::Stale => "bingo; fwd=stale",
            Found::OtherVariant => "bingo; fwd=vary-miss",
            Found::Nothing => "bingo; fwd=uri-miss",
        };
        if policy::only_if_cached(headers) {
            self.count("miss");
            return Err(Refusal::NotCached);
        }
        if treatment == Treatment::Look || store.is_unstorable(target) {
            return Ok(self.go_on(missed, "bypass"));
        }
        self.fetch(target, missed).await
    }

    async fn fetch(&self, target: &str, missed: &'static str) -> Result<Way, Refusal> {
        let store = &self.worker.shared.cache;
        for _ in 0..ROUNDS_MAX {
            let now = Instant::now();
            let find = || match store.find(target, &self.parts.headers, self.rules.ttl_max, now) {
                Found::Fresh(entry) => Some(entry),
                _ => None,
            };
            match store.join(target, find) {
                Role::Hit(entry) => return Ok(self.hit(&entry, now)),
                Role::Lead(lead) => {
                    let asked = Arc::new(AtomicU64::new(0));
                    let handed = fetch::begin(self.worker, lead, self.parts, self.deadline, asked);
                    return self.led(handed.await.ok(), missed);
                }
                Role::Follow(outcome) => match self.follow(outcome).await? {
                    Outcome::Stored(entry) => {
                        let now = Instant::now();
                        let (headers, ttl_max) = (&self.parts.headers, self.rules.ttl_max);
                        let mine = policy::selects(&entry.vary, &entry.request, headers);
                        if mine && entry.is_fresh(ttl_max, now) {
                            self.count("collapsed");
                            let status = format!("{missed}; collapsed");
                            return Ok(self.of_entry(&entry, now, &status));
                        }
                    }
                    Outcome::Nothing | Outcome::UnderWay => break,
                },
            }
        }
        Ok(self.go_on(missed, "uncacheable"))
    }

    /// What the request gets that began the fetch.
    fn led(&self, handed: Option<Handed>, missed: &'static str) -> Result<Way, Refusal> {
        match handed {
            Some(Handed::Stored(entry)) => {
                self.count("miss");
                let status = format!("{missed}; stored");
                Ok(self.of_entry(&entry, Instant::now(), &status))
            }
            Some(Handed::Unstored(answered)) => {
                self.count("uncacheable");
                let mut head = answered.head;
                tell(&mut head.headers, missed);
                let body = AnswerBody::of_node(answered.body, Rc::clone(self.record));
                Ok(Way::Answered(Response::from_parts(head, body)))
            }
            Some(Handed::Refused(refusal)) => {
                self.count("failed");
                Err(refusal)
            }
            None => Ok(self.go_on(missed, "uncacheable")),
        }
    }

    /// Waits for somebody else's fetch, within this request's own time.
    async fn follow(&self, mut outcome: watch::Receiver<Outcome>) -> Result<Outcome, Refusal> {
        let deadline = tokio::time::Instant::from_std(self.deadline);
        let ended = outcome.wait_for(|outcome| !matches!(outcome, Outcome::UnderWay));
        match tokio::time::timeout_at(deadline, ended).await {
            Ok(Ok(outcome)) => Ok(outcome.clone()),
            // The thread that fetched has ended.
            Ok(Err(_)) => Ok(Outcome::Nothing),
            Err(_) => Err(Refusal::NoNodeInTime { reached: true }),
        }
    }

    fn hit(&self, entry: &Entry, now: Instant) -> Way {
        self.count("hit");
        let ends = entry.ends(self.rules.ttl_max);
        let ttl = ends.saturating_duration_since(now).as_secs();
        self.of_entry(entry, now, &format!("bingo; hit; ttl={ttl}"))
    }

    fn of_entry(&self, entry: &Entry, now: Instant, status: &str) -> Way {
        self.worker.shared.cache.asked(entry, now);
        let unchanged = policy::not_modified(&self.parts.headers, &entry.etag);
        let mut headers = if unchanged {
            policy::not_modified_headers(&entry.headers)
        } else {
            entry.headers.clone()
        };
        // Rounded up, so that a cache further on does not add up to more than was allowed.
        let age = now.saturating_duration_since(entry.sent) + entry.age;
        let metrics = &self.worker.shared.metrics.cache;
        metrics.served(self.route.path, age.as_secs_f64());
        let age = age.as_millis().div_ceil(1000);
        headers.insert(header::AGE, HeaderValue::from(age as u64));
        if let Ok(status) = HeaderValue::from_str(status) {
            headers.append(CACHE_STATUS, status);
        }
        if let Some(id) = self.parts.headers.get(request_id::NAME) {
            headers.insert(request_id::NAME, id.clone());
        }
        let mut body = entry.body.clone();
        if unchanged {
            body.clear();
        } else if self.parts.method == Method::HEAD {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            body.clear();
        }
        let mut answer = Response::new(AnswerBody::own(body, Rc::clone(self.record)));
        if unchanged {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        }
        *answer.headers_mut() = headers;
        Way::Answered(answer)
    }

    fn go_on(&self, status: &'static str, result: &'static str) -> Way {
        self.count(result);
        Way::GoOn(status)
    }

    fn count(&self, result: &'static str) {
        self.record.journal.cached(result);
        let metrics = &self.worker.shared.metrics.cache;
        metrics.count(self.route.path, result);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

/// Ages in seconds; none may be beyond the last one, the longest `ttl_max` of the service.
const AGES: [f64; 7] = [1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0];

/// Makes histograms of ages.
#[derive(Clone, Debug, Default)]
struct Ages;

impl MetricConstructor<Histogram> for Ages {
    fn new_metric(&self) -> Histogram {
        Histogram::new(AGES)
    }
}

/// What the cache shows.
#[derive(Debug)]
pub(crate) struct CacheMetrics {
    requests: Family<RequestLabels, Counter>,
    ages: Family<RouteLabels, Histogram, Ages>,
    bytes: Gauge,
    entries: Gauge,
}

impl CacheMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            ages: Family::new_with_constructor(Ages),
            bytes: Gauge::default(),
            entries: Gauge::default(),
        };
        registry.register(
            "bingo_cache_requests",
            "Requests of routes with a cache by what became of them, and refreshes in the background",
            metrics.requests.clone(),
        );
        registry.register(
            "bingo_cache_age_seconds",
            "Age of the answers that came out of the cache, in seconds; none is older than its \
             route's ttl_max",
            metrics.ages.clone(),
        );
        registry.register(
            "bingo_cache_bytes",
            "Bytes of stored answers, heads and books included",
            metrics.bytes.clone(),
        );
        registry.register(
            "bingo_cache_entries",
            "Targets with a stored answer",
            metrics.entries.clone(),
        );
        metrics
    }

    /// `result`: hit, miss (fetched and stored), collapsed (waited for somebody's fetch), uncacheable
    /// (fetched and not stored), failed, bypass (went on by itself), refresh, refresh_failed.
    pub(crate) fn count(&self, route: &'static str, result: &'static str) {
        self.requests
            .get_or_create(&RequestLabels { route, result })
            .inc();
    }

    /// An answer of this age was given to a client.
    pub(crate) fn served(&self, route: &'static str, age: f64) {
        self.ages.get_or_create(&RouteLabels { route }).observe(age);
    }

    /// Requests of a route so far: answered by the cache, and those that a node was asked for.
    pub(crate) fn answered(&self, route: &'static str) -> (u64, u64) {
        let of = |result| {
            let labels = RequestLabels { route, result };
            self.requests.get(&labels).map_or(0, |count| count.get())
        };
        let fetched = ["miss", "uncacheable", "failed", "bypass"];
        (
            of("hit") + of("collapsed"),
            fetched.into_iter().map(of).sum(),
        )
    }

    /// Takes the sizes over from the store; due about once a second.
    pub(crate) fn show(&self, store: &Store) {
        let (bytes, entries) = store.size();
        self.bytes.set(bytes as i64);
        self.entries.set(entries as i64);
    }
}
