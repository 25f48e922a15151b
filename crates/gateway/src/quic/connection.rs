//! One HTTP/3 connection: handshake, requests, end. Each request is a task of its own; all of them end
//! with the connection, so a client that leaves cancels what was asked for it, and one that gives up a
//! single request cancels that.

use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::binding::{Connection, RecvStream, SendStream, Stopped};
use super::body::QuicBody;
use super::meter::{LOOK, Meter};
use super::{Handshake, note};
use crate::body::{AnswerBody, BodyError, ClientBody};
use crate::connection_metrics::{Handshake as Ended, Transport};
use crate::handle::{Client, handle};
use crate::listener::{PIECE_BYTES_MAX, Place};
use crate::worker::{Shared, Worker};

/// After GOAWAY and the last answer a connection stays open this long: requests that are on their way
/// are turned away by it unharmed, and the last bytes arrive.
const GRACE: Duration = Duration::from_secs(2);
/// Bytes of heads that are not whole, of all requests of a connection together: as many requests as it
/// may have at once, each with a head that takes two packets, or sixteen of the largest heads.
const HEADS_BYTES_MAX: usize = 256 * 1024;
/// Fields that belong to a connection: a request that has them is malformed (RFC 9114 section 4.2).
const OF_CONNECTION: [&str; 5] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// Counts a connection out, on a panic as well.
pub(super) struct Counted {
    shared: Arc<Shared>,
    _place: Place,
    _permit: OwnedSemaphorePermit,
}

impl Counted {
    pub(super) fn new(shared: Arc<Shared>, place: Place, permit: OwnedSemaphorePermit) -> Self {
        shared.metrics.connections.quic.inc();
        Self {
            shared,
            _place: place,
            _permit: permit,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.metrics.connections.quic.dec();
    }
}

/// Waits for the end of a handshake, as long as one may take.
pub(super) async fn shake_hands(
    worker: &Worker,
    connecting: quinn::Connecting,
    handshake: Handshake,
) -> Result<quinn::Connection, Box<dyn Error>> {
    let timeout = worker.shared.live().limits.tls_handshake_timeout;
    let metrics = &worker.shared.metrics;
    let ended = |result| metrics.connections.shook_hands(Transport::Quic, result);
    let Ok(connection) = tokio::time::timeout(timeout, connecting).await else {
        metrics.limit_hit("tls_handshake_timeout");
        ended(Ended::TimedOut);
        return Err("the handshake took too long".into());
    };
    drop(handshake);
    ended(match connection {
        Ok(_) => Ended::Done,
        Err(_) => Ended::Failed,
    });
    Ok(connection?)
}

/// Serves a connection to its end; an error is why it ended before.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    connection: quinn::Connection,
    narrow: bool,
    mut draining: watch::Receiver<bool>,
) -> Result<(), Box<dyn Error>> {
    let live = worker.shared.live();
    let limits = &live.limits;
    let client = Rc::new(Client::new(connection.remote_address(), "https"));
    let heads_bytes = if narrow { 0 } else { HEADS_BYTES_MAX };
    let held_max = heads_bytes.max(limits.head_bytes_max * 2);
    let shared = Arc::clone(&worker.shared);
    let meter = Rc::new(Meter::new(connection.clone(), shared, held_max));
    let binding = Connection::new(connection, Rc::clone(&meter), limits.head_bytes_max);
    let stopped = binding.stopped();
    let mut connection = h3::server::builder()
        .max_field_section_size(limits.head_bytes_max as u64)
        .send_grease(false)
        .build::<_, Bytes>(binding)
        .await?;
    let mut requests = JoinSet::new();
    let mut told = false;
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut idle_since = Instant::now();
    let mut told_at = idle_since;
    loop {
        let idle = requests.is_empty();
        tokio::select! {
            resolver = connection.accept() => match resolver? {
                Some(resolver) => {
                    meter.requested();
                    let stopped = stopped.take();
                    let (worker, client) = (Rc::clone(worker), Rc::clone(&client));
                    let meter = Rc::clone(&meter);
                    requests.spawn_local(async move {
                        if answer(worker, client, resolver, stopped).await.is_err() {
                            meter.cancelled();
                        }
                    });
                }
                None => break,
            },
            Some(ended) = requests.join_next() => {
                note(worker, &ended);
                idle_since = Instant::now();
            }
            _ = looks.tick() => meter.look(),
            _ = draining.wait_for(|draining| *draining), if !told => {
                (told, told_at) = (true, Instant::now());
                // One past the last that was accepted: what is under way is not turned away, or a
                // client would send a write again elsewhere (RFC 9114 section 5.2).
                connection.shutdown(1).await?;
            }
            // Signs of life keep QUIC's own idle timeout away, and are no use of a connection.
            () = tokio::time::sleep_until(idle_since + limits.head_timeout), if idle && !told => {
                worker.shared.metrics.limit_hit("h3_idle_timeout");
                (told, told_at) = (true, Instant::now());
                connection.shutdown(1).await?;
            }
            () = tokio::time::sleep_until(idle_since.max(told_at) + GRACE), if told && idle => return Ok(()),
        }
    }
    while let Some(ended) = requests.join_next().await {
        note(worker, &ended);
    }
    Ok(())
}

/// The client gave its request up, or never made a good one: each costs work and has no answer.
struct Cancelled;

async fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    resolver: RequestResolver<Connection, Bytes>,
    stopped: Option<Stopped>,
) -> Result<(), Cancelled> {
    let timeout = worker.shared.live().limits.head_timeout;
    let (request, stream) = match tokio::time::timeout(timeout, resolver.resolve_request()).await {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => {
            tracing::debug!(%error, "an HTTP/3 request could not be understood");
            if matches!(error, StreamError::HeaderTooBig { .. }) {
                // The library has answered it, with 431.
                worker.shared.metrics.limit_hit("head_bytes_max");
                return Ok(());
            }
            return Err(Cancelled);
        }
        Err(_) => {
            worker.shared.metrics.limit_hit("head_timeout");
            return Ok(());
        }
    };
    let (mut sending, mut receiving) = stream.split();
    let (mut parts, ()) = request.into_parts();
    if is_malformed(&parts) {
        receiving.stop_sending(Code::H3_MESSAGE_ERROR);
        sending.stop_stream(Code::H3_MESSAGE_ERROR);
        return Err(Cancelled);
    }
    let is_head = parts.method == Method::HEAD;
    // The body of a request that has no use for one is not taken, so that nothing of it is kept; it is
    // kept open to the end, because dropping it tells the client to stop.
    let mut unread = None;
    let body: Pin<Box<dyn Body<Data = Bytes, Error = BodyError>>> =
        if is_head || parts.method == Method::GET {
            parts.headers.remove(header::CONTENT_LENGTH);
            unread = Some(receiving);
            Box::pin(Empty::new().map_err(BodyError::from))
        } else {
            let declared = declared(&parts.headers);
            let shared = Arc::clone(&worker.shared);
            Box::pin(QuicBody::new(receiving, declared, shared))
        };
    let request = Request::from_parts(parts, ClientBody::Quic(body));
    let answered = async {
        let answer = handle(&worker, &client, request).await;
        send(&worker, &mut sending, answer, is_head).await
    };
    let stopped = stopped.unwrap_or_else(|| Box::pin(std::future::pending()));
    let answered = tokio::select! {
        answered = answered => Some(answered),
        () = stopped => None,
        () = aborted(unread.as_mut()) => None,
    };
    match answered {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => {
            tracing::debug!(%error, "an HTTP/3 answer was not taken");
            let error = error.downcast_ref::<StreamError>();
            cancelled(matches!(error, Some(StreamError::RemoteTerminate { .. })))
        }
        None => {
            sending.stop_stream(Code::H3_REQUEST_CANCELLED);
            Err(Cancelled)
        }
    }
}

fn cancelled(is: bool) -> Result<(), Cancelled> {
    if is { Err(Cancelled) } else { Ok(()) }
}

/// Ends when the client resets a stream whose body nobody reads. A body that is there none the less is
/// left where it is, all but its first piece, and with it what comes after it.
async fn aborted(unread: Option<&mut RequestStream<RecvStream, Bytes>>) {
    if let Some(stream) = unread
        && stream.recv_data().await.is_err()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// What the library lets pass (RFC 9114 sections 4.1.2, 4.2, 4.4).
fn is_malformed(parts: &Parts) -> bool {
    let headers = &parts.headers;
    let te = headers.get_all(header::TE).iter();
    let host = headers.get(header::HOST);
    let authority = parts.uri.authority();
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    let connects = parts.method == Method::CONNECT;
    OF_CONNECTION.iter().any(|name| headers.contains_key(*name))
        || te.into_iter().any(|te| te != "trailers")
        || host.is_some_and(|host| authority.is_some_and(|own| host != own.as_str()))
        || lengths > 1
        || lengths == 1 && declared(headers).is_none()
        || connects && (parts.uri.scheme().is_some() || parts.uri.path_and_query().is_some())
}

/// Digits and nothing else: a sign would be read by some and not by others.
fn declared(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    let digits = length.bytes().all(|byte| byte.is_ascii_digit());
    length.parse().ok().filter(|_| digits)
}

/// Streams the answer as fast as the client takes it.
async fn send(
    worker: &Worker,
    sending: &mut RequestStream<SendStream, Bytes>,
    answer: Response<AnswerBody>,
    is_head: bool,
) -> Result<(), Box<dyn Error>> {
    let (mut head, mut body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact()
        && !is_head
        && head.status != http::StatusCode::NO_CONTENT
        && head.status != http::StatusCode::NOT_MODIFIED
    {
        let length = HeaderValue::from(length);
        head.headers.entry(header::CONTENT_LENGTH).or_insert(length);
    }
    sending
        .send_response(Response::from_parts(head, ()))
        .await?;
    while let Some(frame) = body.frame().await.filter(|_| !is_head) {
        let Ok(frame) = frame else {
            sending.stop_stream(Code::H3_INTERNAL_ERROR);
            return Ok(());
        };
        let frame = match frame.into_data() {
            Ok(mut data) => {
                while !data.is_empty() {
                    let piece = data.split_to(data.len().min(PIECE_BYTES_MAX));
                    within(worker, sending.send_data(piece)).await?;
                }
                continue;
            }
            Err(frame) => frame,
        };
        if let Ok(trailers) = frame.into_trailers() {
            within(worker, sending.send_trailers(trailers)).await?;
        }
    }
    within(worker, sending.finish()).await
}

/// A client that does not take one piece in so long is given up: dropping its stream resets it.
async fn within(
    worker: &Worker,
    sending: impl Future<Output = Result<(), StreamError>>,
) -> Result<(), Box<dyn Error>> {
    let timeout = worker.shared.live().limits.client_stall_timeout;
    match tokio::time::timeout(timeout, sending).await {
        Ok(sent) => Ok(sent?),
        Err(_) => {
            worker.shared.metrics.limit_hit("client_stall_timeout");
            Err("the client takes too little".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn fields_of_a_connection_and_two_different_hosts_are_malformed() {
        let malformed = |name: &str, value: &str| {
            is_malformed(&request("GET", "https://a.example/", &[(name, value)]))
        };
        for name in OF_CONNECTION {
            assert!(malformed(name, "x"), "{name}");
        }
        assert!(malformed("te", "gzip") && !malformed("te", "trailers"));
        assert!(malformed("host", "b.example") && !malformed("host", "a.example"));
        assert!(!malformed("accept", "*/*"));
    }

    #[test]
    fn a_length_is_one_number_and_connect_has_an_authority_alone() {
        let length = |all: &[&str]| {
            let fields: Vec<_> = all.iter().map(|one| ("content-length", *one)).collect();
            is_malformed(&request("POST", "https://a/", &fields))
        };
        assert!(!length(&["3"]) && !length(&[]));
        let too_large = "99999999999999999999";
        for bad in [
            &["3", "4"][..],
            &["3", "3"],
            &["+3"],
            &["3, 3"],
            &[""],
            &[too_large],
        ] {
            assert!(length(bad), "{bad:?}");
        }
        assert!(!is_malformed(&request("CONNECT", "a:1", &[])));
        assert!(is_malformed(&request("CONNECT", "https://a/", &[])));
    }
}
