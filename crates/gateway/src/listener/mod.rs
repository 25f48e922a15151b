//! One worker thread's side of the public listeners: serve, and end in order. `accept` takes
//! connections, `connection` settles what is spoken on one, `http1` and `http2` speak it; all of them
//! end in the one `handle`.
//!
//! A plain listener speaks HTTP/1.1, and HTTP/2 to a client that begins with HTTP/2's preface (prior
//! knowledge, RFC 9113 section 3.3); `Upgrade: h2c` is not offered, because RFC 9113 gave it up. A
//! TLS listener speaks what ALPN settled. HTTP/3 is the `quic` folder's.

mod accept;
mod connection;
mod flood;
mod http1;
mod http2;
mod preface;
mod progress;
mod refused;
mod stream;
mod taking;

use std::cell::Cell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use chassis::Shutdown;
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::worker::Worker;

use accept::Counted;
pub(crate) use accept::{PerClient, Place};
pub(crate) use flood::Budget;
pub(crate) use progress::PIECE_BYTES_MAX;

/// When asked to end, an idle connection of HTTP/1.1 stays open this long: a request that is on its
/// way over it is still answered, with `Connection: close`.
const IDLE_GRACE: Duration = Duration::from_millis(500);
/// How often idle node connections are looked through and the retry budget is told.
const SWEEP: Duration = Duration::from_secs(1);

/// A public listener, opened or inherited, and what is spoken on it.
#[derive(Debug)]
pub struct Listener {
    pub socket: TcpListener,
    pub kind: Kind,
}

/// What is spoken on a public listener.
#[derive(Clone, Debug)]
pub enum Kind {
    /// HTTP/1.1, and HTTP/2 with prior knowledge.
    Http,
    /// TLS with this configuration; its ALPN names settle between HTTP/2 and HTTP/1.1. A certificate
    /// is changed inside it, by its resolver.
    Https(Arc<ServerConfig>),
}

/// A listener inside a worker's runtime.
pub(crate) struct Open {
    pub(crate) socket: tokio::net::TcpListener,
    pub(crate) kind: Kind,
}

/// How far the end of this thread has come. HTTP/2 is told at once, for its GOAWAY loses no request
/// (RFC 9113 section 6.8); HTTP/1.1 has no such word, and its idle connections wait a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    Draining,
    /// Idle connections close.
    Closing,
}

/// A client connection as it is counted, from its acceptance to the end of whatever it became.
#[derive(Debug)]
pub(crate) struct Lease {
    _counted: Counted,
    stages: watch::Receiver<Stage>,
}

impl Lease {
    /// Waits until the process is asked to end.
    async fn draining(&self) {
        until(&mut self.stages.clone(), Stage::Draining).await;
    }

    /// Waits until the process ends and idle connections close.
    pub(crate) async fn closing(&self) {
        until(&mut self.stages.clone(), Stage::Closing).await;
    }
}

/// The client connections of one thread.
#[derive(Debug)]
struct Connections {
    stage: watch::Sender<Stage>,
    open: Cell<usize>,
    closed: tokio::sync::Notify,
}

/// Serves until `shutdown`, then finishes what is open within the drain deadline. Must run inside a
/// `LocalSet`.
pub(crate) async fn serve(worker: Rc<Worker>, listeners: Vec<Open>, shutdown: Shutdown) {
    let connections = Rc::new(Connections {
        stage: watch::Sender::new(Stage::Serving),
        open: Cell::new(0),
        closed: tokio::sync::Notify::new(),
    });
    let sweeping = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
    tokio::select! {
        () = accept::all(&worker, &connections, &listeners) => {}
        () = shutdown.requested() => {}
    }
    worker.draining.set(true);
    connections.stage.send_replace(Stage::Draining);
    drop(listeners);
    let deadline = worker.shared.live().limits.drain_deadline;
    if tokio::time::timeout(deadline, connections.drain())
        .await
        .is_err()
    {
        let open = connections.open.get();
        tracing::warn!(open, "connections were cut off at the drain deadline");
        worker.shared.metrics.limit_hit("drain_deadline");
    }
    sweeping.abort();
}

impl Connections {
    async fn drain(&self) {
        let idle = async {
            tokio::time::sleep(IDLE_GRACE).await;
            self.stage.send_replace(Stage::Closing);
            std::future::pending::<()>().await;
        };
        let empty = async {
            while self.open.get() > 0 {
                self.closed.notified().await;
            }
        };
        tokio::select! {
            () = idle => {}
            () = empty => {}
        }
    }
}

/// Waits until the end has come to `stage`; at once where whoever tells is gone.
async fn until(stages: &mut watch::Receiver<Stage>, stage: Stage) {
    let _ = stages.wait_for(|now| *now >= stage).await;
}

/// What is due once a second.
pub(crate) async fn sweep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        worker.sweep();
    }
}
