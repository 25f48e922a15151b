//! Upgrades of HTTP/1.1 (RFC 9110 section 7.8), such as WebSocket: the wish is passed to the node, and
//! when the node agrees the two connections are spliced. A spliced connection counts as a client
//! connection until its end, ends when nothing moves on it for `upgrade_idle_timeout`, and at a drain.
//!
//! Left out: upgrades to another version of HTTP (requests would pass the gateway unseen: h2c
//! smuggling), and extended CONNECT of HTTP/2 and 3, which no node speaks.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::account::{Flight, Record};
use crate::body::AnswerBody;
use crate::hop_by_hop;
use crate::listener::Lease;
use crate::problem::Refusal;
use crate::worker::Worker;

/// Bytes on their way in each direction.
const BUFFER_BYTES: usize = 16 * 1024;

/// An upgrade that a client wishes for.
#[derive(Debug)]
pub(crate) struct Wish {
    client: OnUpgrade,
    protocol: HeaderValue,
}

/// The wish of a request, where it has one that can be passed on. A request without it is served as
/// any other: nobody has to obey an `Upgrade`.
pub(crate) fn wish(parts: &mut Parts) -> Option<Wish> {
    let client = parts.extensions.remove::<OnUpgrade>()?;
    let headers = &parts.headers;
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let protocol = protocols.next()?;
    let passable = parts.version == Version::HTTP_11
        && parts.method == Method::GET
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::TRANSFER_ENCODING)
        && names_upgrade(headers)
        && protocols.next().is_none()
        && is_foreign(protocol.as_bytes());
    passable.then(|| Wish {
        client,
        protocol: protocol.clone(),
    })
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    })
}

/// One protocol, and none that carries requests which the gateway would have to see.
fn is_foreign(protocol: &[u8]) -> bool {
    let begins = |name: &[u8]| {
        protocol
            .get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    !protocol.is_empty()
        && !protocol.contains(&b',')
        && ![&b"h2"[..], b"h3", b"http", b"tls"].into_iter().any(begins)
}

impl Wish {
    /// Puts it on the request for the node.
    pub(crate) fn pass(&self, headers: &mut HeaderMap) {
        agree(headers, self.protocol.clone());
    }

    /// The node agreed (`answer` is its 101): agrees with the client and splices the two, in a task of
    /// its own. Fails where the node agreed to something else.
    pub(crate) fn grant(
        self,
        worker: &Rc<Worker>,
        lease: Rc<Lease>,
        idle_timeout: Duration,
        mut answer: Response<Incoming>,
        flight: Flight,
        record: &Rc<Record>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let agreed = answer.headers().get(header::UPGRADE);
        let same = agreed.is_some_and(|agreed| {
            agreed
                .as_bytes()
                .eq_ignore_ascii_case(self.protocol.as_bytes())
        });
        if !same {
            return Err(Refusal::NoAnswer);
        }
        let node = hyper::upgrade::on(&mut answer);
        let (client, protocol) = (self.client, self.protocol);
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            let mut flight = flight;
            let (Ok(client), Ok(node)) = (client.await, node.await) else {
                return;
            };
            let moved = Cell::new(Instant::now());
            tokio::select! {
                () = splice(client, node, &moved) => {}
                () = lease.closing() => {}
                () = idle(&moved, idle_timeout) => {
                    worker.shared.metrics.limit_hit("upgrade_idle_timeout");
                }
            }
            flight.ended_upgrade();
        });
        let (mut head, _) = answer.into_parts();
        hop_by_hop::strip(&mut head.headers);
        head.headers.remove(header::CONTENT_LENGTH);
        agree(&mut head.headers, protocol);
        let body = AnswerBody::own(Bytes::new(), Rc::clone(record));
        Ok(Response::from_parts(head, body))
    }
}

fn agree(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// Copies in both directions until both have ended, or one has broken.
async fn splice(client: Upgraded, node: Upgraded, moved: &Cell<Instant>) {
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_node, to_node) = tokio::io::split(TokioIo::new(node));
    // Whoever breaks, the other is closed when both are dropped.
    let _ = tokio::try_join!(
        copy(from_client, to_node, moved),
        copy(from_node, to_client, moved)
    );
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Cell<Instant>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        moved.set(Instant::now());
        to.write_all(buffer.get(..length).unwrap_or_default())
            .await?;
        to.flush().await?;
        moved.set(Instant::now());
    }
}

/// Returns when nothing has moved for `timeout`.
async fn idle(moved: &Cell<Instant>, timeout: Duration) {
    loop {
        let end = moved.get() + timeout;
        if Instant::now() >= end {
            return;
        }
        tokio::time::sleep_until(end.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_carries_requests_is_not_passed_on() {
        for (protocol, expected) in [
            ("websocket", true),
            ("WebSocket", true),
            ("h2c", false),
            ("H2C", false),
            ("HTTP/2.0", false),
            ("TLS/1.0", false),
            ("websocket, h2c", false),
            ("", false),
        ] {
            assert_eq!(is_foreign(protocol.as_bytes()), expected, "{protocol}");
        }
    }

    #[test]
    fn a_wish_needs_the_word_of_the_connection() {
        for (connection, expected) in [
            ("upgrade", true),
            ("keep-alive, Upgrade", true),
            ("keep-alive", false),
            ("upgraded", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
            assert_eq!(names_upgrade(&headers), expected, "{connection}");
        }
    }
}
