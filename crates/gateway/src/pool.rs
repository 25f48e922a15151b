//! Connections to nodes, one pool per worker thread: no lock, and a connection never changes its
//! thread. Last in, first out, so that few connections stay warm and the rest run into their idle
//! timeout, which is below the node's own (stack.md, trap 6).

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::body::RequestBody;
use crate::nodes::{Node, NodeId, Nodes};

/// Idle connections per node and thread; more are closed when they become idle.
const IDLE_MAX: usize = 256;

/// One connection to a node. Dropping it closes the connection, whatever it is doing: that is how
/// a client that goes away cancels its request.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) sender: SendRequest<RequestBody>,
    /// It has carried a request before.
    pub(crate) reused: bool,
    /// The node's life in which it was opened.
    life: u32,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Idle connections by node. Keyed by identity and not by place: a reload moves nodes about.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<NodeId, Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

impl Pool {
    /// The connection that was used last, is idle for less than `idle_timeout` and can take a
    /// request now. None from before the node was lost: a machine that vanished without a word may be
    /// back as another one, which knows nothing of it.
    pub(crate) fn take(&self, node: &Node, idle_timeout: Duration, now: Instant) -> Option<Link> {
        let mut pool = self.idle.borrow_mut();
        let idle = pool.get_mut(&node.id)?;
        let life = node.life();
        if idle.last().is_some_and(|idle| idle.link.life != life) {
            idle.retain(|idle| idle.link.life == life);
        }
        let fresh = |idle: &Idle| now.saturating_duration_since(idle.since) < idle_timeout;
        let index = idle
            .iter()
            .rposition(|idle| idle.link.sender.is_ready() && fresh(idle))?;
        // `remove`, not `swap_remove`: it is nearly always the last, and the order is the age.
        Some(idle.remove(index).link)
    }

    /// Gives a connection back whose answer was read to its end.
    /// A node that was removed gets none back, nor one that was lost meanwhile.
    pub(crate) fn put(&self, node: &Node, mut link: Link, now: Instant) {
        link.reused = true;
        if link.sender.is_closed() || node.is_retired() || link.life != node.life() {
            return;
        }
        let mut pool = self.idle.borrow_mut();
        let idle = pool.entry(node.id).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(Idle { link, since: now });
        }
    }

    /// Closes what is too old, was closed by the node, or belongs to a node that is not `known`.
    pub(crate) fn sweep(&self, idle_timeout: Duration, known: &Nodes, now: Instant) {
        self.idle.borrow_mut().retain(|node, idle| {
            idle.retain(|idle| {
                !idle.link.sender.is_closed()
                    && now.saturating_duration_since(idle.since) < idle_timeout
            });
            known.has(*node)
        });
    }
}

/// Opens a connection to a node (a name is looked up each time, so that a node may move). Must run
/// inside a `LocalSet`.
pub(crate) async fn connect(node: &Node, timeout: Duration) -> io::Result<Link> {
    let life = node.life();
    let stream = tokio::time::timeout(timeout, TcpStream::connect(&node.address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let task = tokio::task::spawn_local(async move {
        // Whoever waits for an answer gets the error as well.
        let _ = connection.with_upgrades().await;
    });
    Ok(Link {
        sender,
        reused: false,
        life,
        task: task.abort_handle(),
    })
}
