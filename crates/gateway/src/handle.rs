//! The one way through the gateway: `handle(Request) -> Response`, the same behind every listener.
//! Every error becomes an answer here; what goes wrong later, in a body, breaks the connection.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Version};
use http_body::Body;

use crate::account::{Record, Seen};
use crate::ask::ask;
use crate::body::{AnswerBody, ClientBody};
use crate::cache::{self, Asked, Way};
use crate::forwarded::Forwarded;
use crate::intake::{self, Bounds};
use crate::listener::Lease;
use crate::live::Live;
use crate::outgoing::{Outgoing, OutgoingBody};
use crate::problem::Refusal;
use crate::router::{Match, Route};
use crate::worker::Worker;
use crate::{head, hop_by_hop, request_id, upgrade};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Metrics' route of a path that no route names.
const OTHER: &str = "other";
/// One client connection, as far as requests care.
#[derive(Debug)]
pub(crate) struct Client {
    forwarded: Forwarded,
    /// Its listener speaks TLS over TCP: it may be told of HTTP/3.
    tls: bool,
    /// The last request was HTTP/1.0: the end of an answer may be the end of the connection.
    pub(crate) old: Cell<bool>,
    /// The connection as it is counted, for what outlives its requests: only then can they upgrade.
    lease: Option<Rc<Lease>>,
}

impl Client {
    /// `scheme` is `http` or `https`.
    pub(crate) fn new(address: SocketAddr, scheme: &'static str) -> Self {
        Self {
            forwarded: Forwarded::new(address, scheme),
            tls: scheme == "https",
            old: Cell::new(false),
            lease: None,
        }
    }

    /// The same with a connection that upgrades can take over.
    pub(crate) fn with_lease(mut self, lease: Rc<Lease>) -> Self {
        self.lease = Some(lease);
        self
    }
}

/// Answers one request.
pub(crate) async fn handle(
    worker: &Rc<Worker>,
    client: &Client,
    request: Request<ClientBody>,
) -> Response<AnswerBody> {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let (method, version) = (parts.method.clone(), parts.version);
    client.old.set(version < Version::HTTP_11);
    let uri = parts.uri.clone();

    // Held to the end of the request: it lives by one configuration.
    let live = worker.shared.live();
    let checked = head::check(&mut parts, live.limits.head());
    let request_id = worker.request_ids.ensure(&mut parts.headers);
    let matched = live.router.find(&method, uri.path());
    let label = match &matched {
        Match::Route(route) => route.path,
        _ => OTHER,
    };
    let probe = label == live.probe.path;
    let seen = Seen {
        route: label,
        is_probe: probe,
        request_id: request_id.clone(),
        access_log: live.access_log,
    };
    let record = Rc::new(Record::new(worker, started, &method, version, seen));
    let answer = match matched {
        _ if let Err(refusal) = checked => Err(refusal),
        Match::Route(route) => forward(worker, client, &live, route, parts, body, &record).await,
        Match::WrongMethod(allow) => Err(Refusal::WrongMethod(allow)),
        Match::None => Err(Refusal::NoRoute),
    };
    let mut answer = answer.unwrap_or_else(|refusal| {
        record.journal.refused(refusal.error());
        if let Some(limit) = refusal.limit() {
            worker.shared.metrics.limit_hit(limit);
        }
        refusal
            .answer(uri.path(), Some(request_id.clone()))
            .map(|bytes| AnswerBody::own(bytes, Rc::clone(&record)))
    });
    record.answered(answer.status());
    answer
        .headers_mut()
        .entry(request_id::NAME)
        .or_insert(request_id);
    if let Some(alt_svc) = live.alt_svc.as_ref().filter(|_| client.tls) {
        answer
            .headers_mut()
            .insert(header::ALT_SVC, alt_svc.clone());
    }
    if version >= Version::HTTP_2 {
        // RFC 9113 section 8.2.2: nothing of the connection in its answers.
        answer.headers_mut().remove(header::CONNECTION);
    } else if worker.draining.get() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer
}

async fn forward(
    worker: &Rc<Worker>,
    client: &Client,
    live: &Live,
    route: &Route,
    mut parts: Parts,
    body: ClientBody,
    record: &Rc<Record>,
) -> Result<Response<AnswerBody>, Refusal> {
    let limits = &live.limits;
    let deadline = Instant::now() + route.deadline;
    let wish = upgrade::wish(&mut parts).zip(client.lease.clone());
    let trailers = parts.version >= Version::HTTP_2 || hop_by_hop::wants_trailers(&parts.headers);
    let mut passed = None;
    if let Some(rules) = route.cache {
        let asked = Asked {
            worker,
            route,
            rules,
            parts: &parts,
            bare: body.is_end_stream() && wish.is_none(),
            record,
            deadline,
        };
        match asked.answer().await? {
            Way::Answered(answer) => return Ok(answer),
            Way::GoOn(status) => passed = Some(status),
        }
    }
    let changed = changed_target(&parts);
    let bounds = Bounds {
        bytes_max: route.body_bytes_max,
        rate_min: limits.body_rate_min,
        deadline,
    };
    let body = intake::take(&parts.headers, body, bounds).await?;
    let mut headers = prepare(client, parts.headers, &body)?;
    if let Some((wish, _)) = &wish {
        wish.pass(&mut headers);
    }
    if route.idempotency_key && !parts.method.is_safe() {
        headers
            .entry(IDEMPOTENCY_KEY)
            .or_insert_with(request_id::unguessable);
    }
    let outgoing = Outgoing {
        keyed: headers.contains_key(IDEMPOTENCY_KEY),
        method: parts.method,
        uri: head::origin_form(parts.uri),
        headers,
        body,
        deadline,
        journal: Rc::clone(&record.journal),
    };
    let given = ask(worker, live, route, &outgoing).await?;
    if given.answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (wish, lease) = wish.ok_or(Refusal::NoAnswer)?;
        let idle_timeout = limits.upgrade_idle_timeout;
        // Without its permit: it is a connection now, and counted as one.
        let (answer, flight) = (given.answer, given.flight);
        return wish.grant(worker, lease, idle_timeout, answer, flight, record);
    }
    let mut answered = given.prepare(live);
    if !trailers {
        answered.head.headers.remove(header::TRAILER);
    }
    if let Some(status) = passed {
        cache::tell(&mut answered.head.headers, status);
    }
    if let Some(target) = changed.filter(|_| answered.head.status.as_u16() < 400) {
        worker.shared.cache.invalidate(target.as_str());
    }
    let body = AnswerBody::of_node(answered.body, Rc::clone(record));
    Ok(Response::from_parts(answered.head, body))
}

/// The target that a request may change, so that nothing that is stored of it holds any more
/// (RFC 9111 section 4.4).
fn changed_target(parts: &Parts) -> Option<PathAndQuery> {
    let target = parts.uri.path_and_query();
    target.filter(|_| !parts.method.is_safe()).cloned()
}

/// The headers that a node gets. Framing is made anew by hyper from the body itself.
fn prepare(
    client: &Client,
    mut headers: HeaderMap,
    body: &OutgoingBody,
) -> Result<HeaderMap, Refusal> {
    let trailers = hop_by_hop::wants_trailers(&headers);
    head::strip(&mut headers);
    match body {
        OutgoingBody::Whole(bytes, None) => {
            headers.remove(header::TRAILER);
            if !bytes.is_empty() {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            }
        }
        OutgoingBody::Whole(_, Some(trailers)) => {
            headers.remove(header::CONTENT_LENGTH);
            hop_by_hop::announce(&mut headers, trailers);
        }
        OutgoingBody::Streamed { .. } => {}
    }
    if trailers {
        hop_by_hop::ask_for_trailers(&mut headers);
    }
    let host = headers.get(header::HOST).cloned();
    if client.forwarded.set(&mut headers, host.as_ref()) {
        Ok(headers)
    } else {
        Err(Refusal::BadRequest("Host is no host"))
    }
}
