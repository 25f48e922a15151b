//! The one way through the gateway: `handle(Request) -> Response`, the same behind every listener.
//! Every error becomes an answer here; what goes wrong later, in a body, breaks the connection.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, Uri, Version};
use http_body::Body;
use http_body_util::BodyExt;

use crate::account::Record;
use crate::body::{AnswerBody, ClientBody, RequestBody};
use crate::exchange::{Outgoing, OutgoingBody, exchange};
use crate::forwarded::Forwarded;
use crate::hop_by_hop;
use crate::live::Live;
use crate::problem::Refusal;
use crate::router::{Match, Route};
use crate::worker::Worker;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const BINGO_NODE: HeaderName = HeaderName::from_static("bingo-node");
/// Metrics' route of a path that no route names.
const OTHER: &str = "other";
/// A body up to this size is collected, so that the request can be sent again; a route that takes
/// more streams what is larger.
const COLLECTED_BYTES_MAX: u64 = 64 * 1024;
/// A body that is too large is read a little further, so that a client that writes before it reads
/// sees the 413 instead of a reset connection.
const DISCARDED_BYTES_MAX: u64 = 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// One client connection, as far as requests care.
#[derive(Debug)]
pub(crate) struct Client {
    forwarded: Forwarded,
    /// Its listener speaks TLS over TCP: it may be told of HTTP/3.
    tls: bool,
    /// The last request was HTTP/1.0: the end of an answer may be the end of the connection.
    pub(crate) old: Cell<bool>,
}

impl Client {
    /// `scheme` is `http` or `https`.
    pub(crate) fn new(address: SocketAddr, scheme: &'static str) -> Self {
        Self {
            forwarded: Forwarded::new(address, scheme),
            tls: scheme == "https",
            old: Cell::new(false),
        }
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
    // hyper drops a Content-Length that came beside it and does not say so: the connection of such
    // a request must end (RFC 9112 section 6.3), so that of every chunked one does.
    let chunked = parts.headers.contains_key(header::TRANSFER_ENCODING);
    let request_id = worker.request_ids.ensure(&mut parts.headers);
    let uri = parts.uri.clone();

    // Held to the end of the request: it lives by one configuration.
    let live = worker.shared.live();
    let matched = live.router.find(&method, uri.path());
    let label = match &matched {
        Match::Route(route) => route.path,
        _ => OTHER,
    };
    let probe = label == live.probe.path;
    let record = Record::new(worker, started, label, &method, version, probe);
    let record = Rc::new(record);
    let answer = match matched {
        Match::Route(route) => forward(worker, client, &live, route, parts, body, &record).await,
        Match::WrongMethod(allow) => Err(Refusal::WrongMethod(allow)),
        Match::None => Err(Refusal::NoRoute),
    };
    let mut answer = answer.unwrap_or_else(|refusal| {
        if let Some(limit) = refusal.limit() {
            worker.shared.metrics.limit_hit(limit);
        }
        refusal
            .answer(uri.path(), Some(request_id))
            .map(|bytes| AnswerBody::own(bytes, Rc::clone(&record)))
    });
    record.answered(answer.status());
    if let Some(alt_svc) = live.alt_svc.as_ref().filter(|_| client.tls) {
        answer
            .headers_mut()
            .insert(header::ALT_SVC, alt_svc.clone());
    }
    if version >= Version::HTTP_2 {
        // RFC 9113 section 8.2.2: nothing of the connection in its answers.
        answer.headers_mut().remove(header::CONNECTION);
    } else if worker.draining.get() || chunked {
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
    check_head(&mut parts, limits.uri_bytes_max)?;
    let body = collect(&parts.headers, body, route.body_bytes_max, deadline).await?;
    let headers = prepare(client, parts.headers, &body)?;
    let outgoing = Outgoing {
        keyed: headers.contains_key(IDEMPOTENCY_KEY),
        method: parts.method,
        uri: origin_form(parts.uri),
        headers,
        body,
        deadline,
    };
    let (answer, flight) = exchange(worker, live, route, outgoing).await?;
    let (mut head, body) = answer.into_parts();
    head.version = Version::HTTP_11;
    hop_by_hop::strip(&mut head.headers);
    // Where else a client may connect is for the gateway to say (RFC 7838).
    head.headers.remove(header::ALT_SVC);
    if live.expose_node {
        let label = flight.node().label.clone();
        head.headers.insert(BINGO_NODE, label);
    }
    let body = AnswerBody::of_node(body, flight, limits.node_stall_timeout, Rc::clone(record));
    Ok(Response::from_parts(head, body))
}

/// Refuses what hyper lets through, and settles which host is meant.
fn check_head(parts: &mut Parts, uri_bytes_max: usize) -> Result<(), Refusal> {
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > uri_bytes_max {
        return Err(Refusal::UriTooLong);
    }
    // An absolute target overrules `Host` (RFC 9112 section 3.2.2).
    if let Some(authority) = parts.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|_| Refusal::BadRequest("the target's host is none"))?;
        parts.headers.insert(header::HOST, host);
    }
    let hosts = parts.headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && parts.version == Version::HTTP_11) {
        return Err(Refusal::BadRequest("a request needs exactly one Host"));
    }
    Ok(())
}

/// The headers that a node gets. Framing is made anew by hyper from the body itself.
fn prepare(
    client: &Client,
    mut headers: HeaderMap,
    body: &OutgoingBody,
) -> Result<HeaderMap, Refusal> {
    hop_by_hop::strip(&mut headers);
    headers.remove(header::EXPECT);
    if let OutgoingBody::Whole(bytes) = body
        && !bytes.is_empty()
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    }
    let host = headers.get(header::HOST).cloned();
    if client.forwarded.set(&mut headers, host.as_ref()) {
        Ok(headers)
    } else {
        Err(Refusal::BadRequest("Host is no host"))
    }
}

fn origin_form(uri: Uri) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    uri.into_parts()
        .path_and_query
        .map_or_else(Uri::default, Uri::from)
}

async fn collect(
    headers: &HeaderMap,
    mut body: ClientBody,
    bytes_max: u64,
    deadline: Instant,
) -> Result<OutgoingBody, Refusal> {
    if body.is_end_stream() {
        return Ok(OutgoingBody::Whole(Bytes::new()));
    }
    let hint = body.size_hint();
    if hint.lower() > bytes_max {
        // A client that waits for `100 Continue` has sent nothing that could be in the way.
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(Refusal::BodyTooLarge);
    }
    if bytes_max > COLLECTED_BYTES_MAX
        && hint.upper().is_none_or(|upper| upper > COLLECTED_BYTES_MAX)
    {
        return Ok(OutgoingBody::Streamed(Some(RequestBody::Streamed {
            body,
            left: bytes_max,
        })));
    }
    let whole = read_whole(&mut body, bytes_max);
    let whole = tokio::time::timeout_at(tokio::time::Instant::from_std(deadline), whole)
        .await
        .unwrap_or(Err(Refusal::SlowBody));
    if matches!(whole, Err(Refusal::BodyTooLarge)) {
        discard(body).await;
    }
    whole.map(OutgoingBody::Whole)
}

/// Most bodies come in one piece, which is then not copied.
async fn read_whole(body: &mut ClientBody, bytes_max: u64) -> Result<Bytes, Refusal> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::BadRequest("the body was broken off"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if (first.len() + rest.len() + data.len()) as u64 > bytes_max {
            return Err(Refusal::BodyTooLarge);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

async fn discard(mut body: ClientBody) {
    let mut left = DISCARDED_BYTES_MAX;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Out of time is as good as done: the connection closes either way.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}
