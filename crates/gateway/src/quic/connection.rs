//! One HTTP/3 connection: handshake, requests, end. Each request is a task of its own; all of them end
//! with the connection, so a client that leaves cancels what was asked for it. A single request that
//! a client gives up is noticed when its answer is written: the library does not tell before.

use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::quic::SendStream;
use h3::server::{RequestResolver, RequestStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;

use super::body::QuicBody;
use super::note;
use crate::body::{AnswerBody, BodyError, ClientBody};
use crate::handle::{Client, handle};
use crate::listener::Place;
use crate::worker::{Shared, Worker};

/// After GOAWAY and the last answer a connection stays open this long: requests that are on their way
/// are turned away by it unharmed, and the last bytes arrive.
const GRACE: Duration = Duration::from_secs(2);
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
        shared.metrics.quic_connections.inc();
        Self {
            shared,
            _place: place,
            _permit: permit,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.metrics.quic_connections.dec();
    }
}

/// Serves a connection to its end; an error is why it ended before.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    incoming: quinn::Incoming,
    mut draining: watch::Receiver<bool>,
) -> Result<(), Box<dyn Error>> {
    let live = worker.shared.live();
    let limits = &live.limits;
    let client = Rc::new(Client::new(incoming.remote_address(), "https"));
    let handshake = tokio::time::timeout(limits.tls_handshake_timeout, incoming.accept()?);
    let Ok(connection) = handshake.await else {
        worker.shared.metrics.limit_hit("tls_handshake_timeout");
        return Err("the handshake took too long".into());
    };
    let mut connection = h3::server::builder()
        .max_field_section_size(limits.head_bytes_max as u64)
        .send_grease(false)
        .build::<_, Bytes>(h3_quinn::Connection::new(connection?))
        .await?;
    let mut requests = JoinSet::new();
    let mut told = false;
    loop {
        tokio::select! {
            resolver = connection.accept() => match resolver? {
                Some(resolver) => {
                    let answering = answer(Rc::clone(worker), Rc::clone(&client), resolver);
                    requests.spawn_local(answering);
                }
                None => break,
            },
            Some(ended) = requests.join_next() => note(worker, &ended),
            _ = draining.wait_for(|draining| *draining), if !told => {
                told = true;
                // One past the last that was accepted: what is under way is not turned away, or a
                // client would send a write again elsewhere (RFC 9114 section 5.2).
                connection.shutdown(1).await?;
            }
            () = tokio::time::sleep(GRACE), if told && requests.is_empty() => return Ok(()),
        }
    }
    while let Some(ended) = requests.join_next().await {
        note(worker, &ended);
    }
    Ok(())
}

async fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    resolver: RequestResolver<h3_quinn::Connection, Bytes>,
) {
    let timeout = worker.shared.live().limits.head_timeout;
    let (request, stream) = match tokio::time::timeout(timeout, resolver.resolve_request()).await {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => {
            if matches!(error, StreamError::HeaderTooBig { .. }) {
                worker.shared.metrics.limit_hit("head_bytes_max");
            }
            tracing::debug!(%error, "an HTTP/3 request could not be understood");
            return;
        }
        Err(_) => return worker.shared.metrics.limit_hit("head_timeout"),
    };
    let (mut sending, receiving) = stream.split();
    let (mut parts, ()) = request.into_parts();
    if is_malformed(
        &parts.headers,
        parts.uri.authority().map(|host| host.as_str()),
    ) {
        return sending.stop_stream(Code::H3_MESSAGE_ERROR);
    }
    let is_head = parts.method == Method::HEAD;
    // The body of a request that has no use for one is never read, so that nothing of it is kept;
    // it is kept open to the end, because dropping it tells the client to stop.
    let mut unread = None;
    let body: std::pin::Pin<Box<dyn Body<Data = Bytes, Error = BodyError>>> =
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
    let answer = handle(&worker, &client, request).await;
    if let Err(error) = send(&worker, &mut sending, answer, is_head).await {
        tracing::debug!(%error, "an HTTP/3 answer was not taken");
    }
    drop(unread);
}

fn is_malformed(headers: &HeaderMap, authority: Option<&str>) -> bool {
    let te = headers.get_all(header::TE).iter();
    let host = headers.get(header::HOST);
    OF_CONNECTION.iter().any(|name| headers.contains_key(*name))
        || te.into_iter().any(|te| te != "trailers")
        || host.is_some_and(|host| authority.is_some_and(|authority| host != authority))
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Streams the answer as fast as the client takes it.
async fn send<S>(
    worker: &Worker,
    sending: &mut RequestStream<S, Bytes>,
    answer: Response<AnswerBody>,
    is_head: bool,
) -> Result<(), Box<dyn Error>>
where
    S: SendStream<Bytes>,
{
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
            Ok(data) => {
                within(worker, sending.send_data(data)).await?;
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

/// A client that takes nothing for so long is given up: dropping its stream resets it.
async fn within(
    worker: &Worker,
    sending: impl Future<Output = Result<(), StreamError>>,
) -> Result<(), Box<dyn Error>> {
    let timeout = worker.shared.live().limits.client_stall_timeout;
    match tokio::time::timeout(timeout, sending).await {
        Ok(sent) => Ok(sent?),
        Err(_) => {
            worker.shared.metrics.limit_hit("client_stall_timeout");
            Err("the client takes nothing".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_connection_and_two_different_hosts_are_malformed() {
        let malformed = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )]);
            is_malformed(&headers, Some("a.example"))
        };
        for name in OF_CONNECTION {
            assert!(malformed(name, "x"), "{name}");
        }
        assert!(malformed("te", "gzip") && !malformed("te", "trailers"));
        assert!(malformed("host", "b.example") && !malformed("host", "a.example"));
        assert!(!malformed("accept", "*/*"));
    }
}
