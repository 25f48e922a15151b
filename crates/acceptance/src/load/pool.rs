//! Kept-alive HTTP/1.1 connections to one target, opened as needed up to a limit. Its own pool and
//! not a ready-made client's, because those resend by themselves and do not say when a request left.
//! The one used last is used next, so that a low rate keeps few connections warm, as clients do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::chain;
use crate::http::Base;

pub(super) type Sender = SendRequest<Full<Bytes>>;

pub(super) struct Pool {
    authority: String,
    addresses: Vec<SocketAddr>,
    /// One permit for each connection in use; idle ones are fewer than the permits left.
    in_use: Semaphore,
    idle: Mutex<Vec<Sender>>,
    pub(super) opened: AtomicU64,
    /// Kept-alive connections that the server had closed when they were wanted again.
    pub(super) found_closed: AtomicU64,
    /// Requests that found `connections_max` connections busy.
    pub(super) waited: AtomicU64,
}

/// A connection in use; its place is free again when this is dropped.
pub(super) struct Lease<'pool> {
    pub(super) sender: Sender,
    /// Whether it served another request before.
    pub(super) reused: bool,
    _place: SemaphorePermit<'pool>,
}

impl Pool {
    pub(super) fn new(base: &Base, addresses: Vec<SocketAddr>, connections_max: usize) -> Self {
        Self {
            authority: base.authority().to_owned(),
            addresses,
            in_use: Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)),
            idle: Mutex::new(Vec::new()),
            opened: AtomicU64::new(0),
            found_closed: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        }
    }

    /// `HOST:PORT`, as in the `Host` header.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// An idle connection that is still open, else a new one; waits for a place without limit (the
    /// caller has a deadline).
    pub(super) async fn lease(&self) -> Result<Lease<'_>, String> {
        let place = match self.in_use.try_acquire() {
            Ok(place) => place,
            Err(_) => {
                self.waited.fetch_add(1, Ordering::Relaxed);
                self.in_use.acquire().await.map_err(|error| chain(&error))?
            }
        };
        while let Some(mut sender) = self.pop() {
            if sender.ready().await.is_ok() {
                return Ok(Lease {
                    sender,
                    reused: true,
                    _place: place,
                });
            }
            self.found_closed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Lease {
            sender: self.connect().await?,
            reused: false,
            _place: place,
        })
    }

    /// Puts a new connection in the place of one that was found closed.
    pub(super) async fn replace(&self, lease: &mut Lease<'_>) -> Result<(), String> {
        self.found_closed.fetch_add(1, Ordering::Relaxed);
        lease.sender = self.connect().await?;
        lease.reused = false;
        Ok(())
    }

    /// Takes back a connection whose last answer was read to its end.
    pub(super) fn give_back(&self, lease: Lease<'_>) {
        // The server said `Connection: close`, or did it: nothing to keep.
        if !lease.sender.is_closed() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(lease.sender);
        }
    }

    fn pop(&self) -> Option<Sender> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    async fn connect(&self) -> Result<Sender, String> {
        let stream = TcpStream::connect(self.addresses.as_slice())
            .await
            .map_err(|error| chain(&error))?;
        stream.set_nodelay(true).map_err(|error| chain(&error))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| chain(&error))?;
        // Ends by itself when the sender is dropped; its error reaches the request that it hits.
        tokio::spawn(connection);
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(sender)
    }
}
