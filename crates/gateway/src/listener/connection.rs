//! One client connection from its acceptance to its end: the socket, the TLS handshake, which
//! protocol is spoken, and then that protocol. Each step before the first request has a deadline.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::flood::Meter;
use super::stream::{ClientStream, Transport};
use super::taking::UNSENT_BYTES_MAX;
use super::{Kind, Lease, http1, http2, preface};
use crate::connection_metrics::{Handshake, Transport as Carried};
use crate::handle::Client;
use crate::valid::ValidLimits;
use crate::worker::Worker;

/// HTTP/2 over TLS, as ALPN names it (RFC 9113 section 3.2).
const ALPN_H2: &[u8] = b"h2";

pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    kind: Kind,
    lease: Rc<Lease>,
) {
    // A connection keeps the limits it began with; a copy, so that it keeps nothing else alive.
    let limits = &worker.shared.live().limits.clone();
    let prepared = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX));
    if let Err(error) = prepared {
        tracing::debug!(%error, "a client's socket could not be prepared");
    }
    let client = match &kind {
        Kind::Http => Client::new(address, "http"),
        Kind::Https(_) => Client::new(address, "https"),
    };
    let begun = {
        let begin = pin!(begin(&worker, limits, stream, &kind));
        // A client that has not said yet what it speaks has no request to lose.
        tokio::select! {
            begun = begin => begun,
            () = lease.closing() => return,
        }
    };
    match begun {
        Ok((stream, true)) => http2::serve(&worker, limits, stream, client, lease).await,
        Ok((stream, false)) => http1::serve(&worker, limits, stream, client, lease).await,
        Err(error) => tracing::debug!(%address, %error, "a connection ended before its protocol"),
    }
}

/// The connection and whether HTTP/2 is spoken on it.
async fn begin(
    worker: &Worker,
    limits: &ValidLimits,
    stream: TcpStream,
    kind: &Kind,
) -> io::Result<(ClientStream, bool)> {
    let mut transport = match kind {
        Kind::Http => Transport::Plain(stream),
        Kind::Https(config) => handshake(worker, limits, stream, config).await?,
    };
    let http1 = |transport, first| {
        let shared = Arc::clone(&worker.shared);
        ClientStream::http1(transport, first, limits.client_stall_timeout, shared)
    };
    if let Transport::Tls(stream) = &transport
        && stream.get_ref().1.alpn_protocol() != Some(ALPN_H2)
    {
        // Over TLS there is no HTTP/2 without ALPN (RFC 9113 section 3.2).
        return Ok((http1(transport, Bytes::new()), false));
    }
    let first = preface::read(&mut transport, limits.head_timeout)
        .await
        .inspect_err(|error| {
            if error.kind() == io::ErrorKind::TimedOut {
                worker.shared.metrics.limit_hit("head_timeout");
            }
        })?;
    if matches!(transport, Transport::Tls(_)) && !first.http2 {
        return Err(io::Error::other("ALPN chose h2 and the preface is missing"));
    }
    if !first.http2 {
        return Ok((http1(transport, first.bytes), false));
    }
    let meter = Meter::new(
        limits.h2_control_frames_max,
        limits.h2_resets_max,
        Instant::now(),
    );
    let shared = Arc::clone(&worker.shared);
    let timeout = limits.client_stall_timeout;
    let stream = ClientStream::http2(transport, first.bytes, meter, timeout, shared);
    Ok((stream, true))
}

async fn handshake(
    worker: &Worker,
    limits: &ValidLimits,
    stream: TcpStream,
    config: &Arc<ServerConfig>,
) -> io::Result<Transport> {
    let accepting = TlsAcceptor::from(Arc::clone(config)).accept(stream);
    let metrics = &worker.shared.metrics;
    let accepted = tokio::time::timeout(limits.tls_handshake_timeout, accepting).await;
    let ended = match &accepted {
        Ok(Ok(_)) => Handshake::Done,
        Ok(Err(_)) => Handshake::Failed,
        Err(_) => Handshake::TimedOut,
    };
    metrics.connections.shook_hands(Carried::Tcp, ended);
    match accepted {
        Ok(accepted) => accepted.map(|stream| Transport::Tls(Box::new(stream))),
        Err(_) => {
            metrics.limit_hit("tls_handshake_timeout");
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}
