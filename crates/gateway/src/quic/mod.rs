//! HTTP/3: QUIC endpoints on a thread of their own, whose requests end in the same `handle` as all
//! others. Apart from the TCP threads, because a flood of datagrams must not slow those down, and
//! because the HTTP/3 library is young (h3 0.0.8, not released since): each connection is a task, a
//! panic ends that task and is counted. `connection` speaks HTTP/3 on one connection, `binding` is what
//! QUIC looks like to the library, `frames` and `meter` bound what it may hold and cost, `section` finds
//! malformed requests that the library takes, `body` reads a request's body within its fences.
//!
//! A socket is read by one process at a time: two would split a connection's packets. A successor that
//! was given the socket of a process that still drains waits for its turn. The key of
//! stateless resets and the one of connection ids come from outside, so that the next process can
//! tell the clients of a dead one to connect anew (RFC 9000 section 10.3).

mod binding;
mod body;
mod connection;
mod frames;
mod meter;
mod section;

use std::cell::Cell;
use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use chassis::{Failure, Shutdown};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, Incoming, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::listener::{self, Place};
use crate::valid::ValidLimits;
use crate::worker::Worker;

/// Bytes that one stream may have under way towards us.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all streams of a connection: with what heads may hold (`connection`), all that a client
/// can make us keep beside what a route collects.
const CONNECTION_WINDOW: u32 = 128 * 1024;
/// What is taken of a connection's answers before the client takes it.
const SEND_WINDOW: u64 = 256 * 1024;
/// Connections from which on new ones are narrow. A wide one holds 128 KiB in its window and 256 KiB
/// of heads at worst, a narrow one 16 KiB and two heads: 384 MiB for the wide ones, and another
/// 48 MiB for each thousand over them.
const WIDE_CONNECTIONS_MAX: usize = 1024;
const NARROW_WINDOW: u32 = 16 * 1024;
const NARROW_SEND_WINDOW: u64 = 64 * 1024;
/// Control and QPACK streams are three; a few more may be greasing (RFC 9114 section 6.2).
const UNI_STREAMS_MAX: u32 = 8;
/// Handshakes that are not finished, of an endpoint at once; from half of it on, clients must first show
/// that their address is theirs (a Retry packet, RFC 9000 section 8.1.2).
const HANDSHAKES_MAX: usize = 512;
/// Waiting for the last packets of an endpoint that has closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a successor asks whether the socket is read still.
const TURN_POLL: Duration = Duration::from_millis(20);
/// RFC 9114 section 8.1, H3_NO_ERROR.
const NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// A UDP socket on which HTTP/3 is spoken.
#[derive(Debug)]
pub struct Listener {
    pub socket: UdpSocket,
    /// TLS 1.3 with the ALPN name `h3`; a certificate is changed inside it, by its resolver.
    pub tls: Arc<rustls::ServerConfig>,
    /// Secret of stateless resets; the same for every process that ever reads this socket.
    pub reset_key: [u8; 64],
}

/// A socket that is not read yet, and how it will be.
#[derive(Debug)]
pub(crate) struct Open {
    socket: UdpSocket,
    endpoint: EndpointConfig,
    server: quinn::ServerConfig,
    /// For connections over `WIDE_CONNECTIONS_MAX`.
    narrow: Arc<quinn::ServerConfig>,
}

/// A handshake that is not finished; counted out when it is dropped.
struct Handshake(Rc<Cell<usize>>);

impl Handshake {
    fn begin(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Listener {
    /// Exit 64 where the TLS configuration cannot serve QUIC, 1 where
    /// the system refuses.
    pub(crate) fn open(self, limits: &ValidLimits) -> Result<Open, Failure> {
        let attempted = "serve HTTP/3";
        let crypto = QuicServerConfig::try_from(self.tls).map_err(|error| {
            let help = "it needs TLS 1.3 with TLS_AES_128_GCM_SHA256";
            Failure::configuration(attempted, error, help)
        })?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server.max_incoming(HANDSHAKES_MAX);
        let mut narrow = server.clone();
        server.transport_config(Arc::new(transport(limits)));
        let mut windows = transport(limits);
        windows
            .stream_receive_window(VarInt::from_u32(NARROW_WINDOW))
            .receive_window(VarInt::from_u32(NARROW_WINDOW))
            .send_window(NARROW_SEND_WINDOW);
        narrow.transport_config(Arc::new(windows));
        let narrow = Arc::new(narrow);
        let refused = |error: std::io::Error| {
            let help = "look at the limits of memory and open files";
            Failure::run_time(attempted, error, help)
        };
        self.socket.set_nonblocking(true).map_err(refused)?;
        Ok(Open {
            socket: self.socket,
            endpoint: endpoint_config(&self.reset_key),
            server,
            narrow,
        })
    }
}

impl Open {
    /// Begins to read when nobody else does any more. Must be called inside a runtime.
    async fn read(self) -> std::io::Result<Endpoint> {
        self.turn().await?;
        let runtime = Arc::new(quinn::TokioRuntime);
        Endpoint::new(self.endpoint, Some(self.server), self.socket, runtime)
    }

    /// Waits until this process alone may read. The lock is on the socket itself and belongs to the
    /// process (fcntl(2), F_SETLK), so it ends when the process closes the socket, or dies. Who has a
    /// socket to itself has it at once.
    async fn turn(&self) -> std::io::Result<()> {
        let mut waits = false;
        loop {
            let tried = fcntl_lock(&self.socket, FlockOperation::NonBlockingLockExclusive);
            match tried {
                Ok(()) => return Ok(()),
                Err(Errno::AGAIN | Errno::ACCESS) if !waits => {
                    waits = true;
                    tracing::info!("HTTP/3 waits until the gateway before this one has drained");
                }
                Err(Errno::AGAIN | Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(TURN_POLL).await;
        }
    }
}

fn transport(limits: &ValidLimits) -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    let idle = IdleTimeout::try_from(limits.head_timeout).ok();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.h3_streams_max))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(idle);
    transport
}

/// Connection ids carry a keyed hash of their own, and an endpoint answers with a reset only for ids
/// that could be its own: both keys must outlive the process.
fn endpoint_config(key: &[u8; 64]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key)));
    let id_key = key
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    config
}

/// Serves until `shutdown`, then tells clients (GOAWAY), finishes what is open within the drain
/// deadline and stops reading. Must run inside a `LocalSet`.
pub(crate) async fn serve(worker: Rc<Worker>, endpoints: Vec<Open>, shutdown: Shutdown) {
    let sweeping = tokio::task::spawn_local(listener::sweep(Rc::clone(&worker)));
    let mut serving = JoinSet::new();
    for open in endpoints {
        let (worker, shutdown) = (Rc::clone(&worker), shutdown.clone());
        serving.spawn_local(async move {
            let narrow = Arc::clone(&open.narrow);
            let endpoint = tokio::select! {
                endpoint = open.read() => endpoint,
                () = shutdown.requested() => return,
            };
            match endpoint {
                Ok(endpoint) => serve_one(worker, endpoint, narrow, shutdown).await,
                Err(error) => tracing::error!(%error, "HTTP/3 is not served; look at the limits of memory and open files"),
            }
        });
    }
    while serving.join_next().await.is_some() {}
    sweeping.abort();
}

async fn serve_one(
    worker: Rc<Worker>,
    endpoint: Endpoint,
    narrow: Arc<quinn::ServerConfig>,
    shutdown: Shutdown,
) {
    let handshakes = Rc::default();
    let draining = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => {
                    let narrow = (connections.len() >= WIDE_CONNECTIONS_MAX).then_some(&narrow);
                    if let Some(taken) = take(&worker, &handshakes, incoming, narrow) {
                        connections.spawn_local(taken.serve(Rc::clone(&worker), draining.subscribe()));
                    }
                }
                None => break,
            },
            Some(ended) = connections.join_next() => note(&worker, &ended),
            () = shutdown.requested() => break,
        }
    }
    worker.draining.set(true);
    endpoint.set_server_config(None);
    draining.send_replace(true);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            note(&worker, &ended);
        }
    };
    let deadline = worker.shared.live().limits.drain_deadline;
    if tokio::time::timeout(deadline, drained).await.is_err() {
        tracing::warn!("HTTP/3 connections were cut off at the drain deadline");
        worker.shared.metrics.limit_hit("drain_deadline");
    }
    endpoint.close(NO_ERROR, b"");
    // Late packets are then answered by whoever reads the socket next.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
}

/// A connection that has begun.
struct Taken {
    incoming: Incoming,
    counted: connection::Counted,
    handshake: Handshake,
    narrow: Option<Arc<quinn::ServerConfig>>,
}

/// Takes a connection within the limits that TCP's connections have too.
fn take(
    worker: &Worker,
    handshakes: &Rc<Cell<usize>>,
    incoming: Incoming,
    narrow: Option<&Arc<quinn::ServerConfig>>,
) -> Option<Taken> {
    let shared = &worker.shared;
    // Connections do not count: their clients have shown where they are.
    if handshakes.get() >= HANDSHAKES_MAX / 2 && incoming.may_retry() {
        shared.metrics.limit_hit("quic_retry");
        // The client comes again with a token, or was nobody.
        let _ = incoming.retry();
        return None;
    }
    if handshakes.get() >= HANDSHAKES_MAX {
        shared.metrics.limit_hit("quic_handshakes_max");
        incoming.refuse();
        return None;
    }
    let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
        shared.metrics.limit_hit("connections_max");
        incoming.refuse();
        return None;
    };
    let Some(place) = Place::take(shared, incoming.remote_address().ip()) else {
        incoming.refuse();
        return None;
    };
    Some(Taken {
        incoming,
        counted: connection::Counted::new(Arc::clone(shared), place, permit),
        handshake: Handshake::begin(handshakes),
        narrow: narrow.cloned(),
    })
}

impl Taken {
    async fn serve(self, worker: Rc<Worker>, draining: watch::Receiver<bool>) {
        let _counted = self.counted;
        let address = self.incoming.remote_address();
        let narrow = self.narrow.is_some();
        let connecting = match self.narrow {
            Some(config) => self.incoming.accept_with(config),
            None => self.incoming.accept(),
        };
        let served = async {
            let connection = connection::shake_hands(&worker, connecting?, self.handshake).await?;
            connection::serve(&worker, connection, narrow, draining).await
        };
        if let Err(error) = served.await {
            tracing::debug!(%address, %error, "an HTTP/3 connection ended");
        }
    }
}

/// A panic inside the HTTP/3 library costs the task it is in, and must be seen.
fn note(worker: &Worker, ended: &Result<(), tokio::task::JoinError>) {
    if ended.as_ref().is_err_and(tokio::task::JoinError::is_panic) {
        worker.shared.metrics.quic_panics.inc();
    }
}
