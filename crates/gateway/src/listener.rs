//! One worker thread's side of the public listeners: accept, speak HTTP/1.1, and end in order.
//! Each thread polls its own duplicate of every listener; the kernel wakes whoever is free.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use chassis::Shutdown;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use crate::body::ClientBody;
use crate::handle::{Client, handle};
use crate::worker::Worker;

/// Most that hyper buffers of one connection in each direction.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// A pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// When asked to end, an idle connection stays open this long: a request that is on its way over it
/// is still answered, with `Connection: close`.
const IDLE_GRACE: Duration = Duration::from_millis(500);
/// How often idle node connections are looked through and the retry budget is told.
const SWEEP: Duration = Duration::from_secs(1);

/// The client connections of one thread.
#[derive(Default)]
struct Connections {
    next: Cell<u64>,
    /// A word to each that it shall end.
    open: RefCell<HashMap<u64, oneshot::Sender<()>>>,
    closed: Notify,
}

/// Serves until `shutdown`, then finishes what is open within the drain deadline. Must run inside a
/// `LocalSet`.
pub(crate) async fn serve(worker: Rc<Worker>, listeners: Vec<TcpListener>, shutdown: Shutdown) {
    let connections = Rc::new(Connections::default());
    let sweeping = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
    tokio::select! {
        () = accept_all(&worker, &connections, &listeners) => {}
        () = shutdown.requested() => {}
    }
    worker.draining.set(true);
    drop(listeners);
    let deadline = worker.shared.live().limits.drain_deadline;
    if tokio::time::timeout(deadline, connections.drain())
        .await
        .is_err()
    {
        let open = connections.open.borrow().len();
        tracing::warn!(open, "connections were cut off at the drain deadline");
        worker.shared.metrics.limit_hit("drain_deadline");
    }
    sweeping.abort();
}

impl Connections {
    async fn drain(&self) {
        let idle = async {
            tokio::time::sleep(IDLE_GRACE).await;
            for (_, end) in self.open.borrow_mut().iter_mut() {
                // Replaced by one that nobody waits for; an error means that it has just closed.
                let _ = std::mem::replace(end, oneshot::channel().0).send(());
            }
            std::future::pending::<()>().await;
        };
        let empty = async {
            while !self.open.borrow().is_empty() {
                self.closed.notified().await;
            }
        };
        tokio::select! {
            () = idle => {}
            () = empty => {}
        }
    }
}

async fn accept_all(worker: &Rc<Worker>, connections: &Rc<Connections>, listeners: &[TcpListener]) {
    let mut turn = 0;
    loop {
        let permit = permit(worker).await;
        match accept(listeners, turn).await {
            Ok((stream, client)) => {
                start(worker, connections, stream, client, permit);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "connections cannot be accepted; raise the limit of open files (ulimit -n) or lower limits.connections_max");
                worker.shared.metrics.limit_hit("open_files");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        turn += 1;
    }
}

/// Waits where there are too many connections: what is not accepted here, another gateway on the
/// same socket can take.
async fn permit(worker: &Worker) -> Option<OwnedSemaphorePermit> {
    let connections = &worker.shared.connections;
    if let Ok(permit) = Arc::clone(connections).try_acquire_owned() {
        return Some(permit);
    }
    worker.shared.metrics.limit_hit("connections_max");
    Arc::clone(connections).acquire_owned().await.ok()
}

/// The next connection of any listener; `turn` decides whose queue is looked at first.
async fn accept(listeners: &[TcpListener], turn: usize) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        let (late, early) = listeners.split_at(turn % listeners.len().max(1));
        for listener in early.iter().chain(late) {
            if let Poll::Ready(result) = listener.poll_accept(cx) {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    })
    .await
}

/// accept(2): errors that are already pending on the new connection are passed on.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
    )
}

fn start(
    worker: &Rc<Worker>,
    connections: &Rc<Connections>,
    stream: TcpStream,
    address: SocketAddr,
    permit: Option<OwnedSemaphorePermit>,
) {
    let (end, ended) = oneshot::channel();
    let id = connections.next.get();
    connections.next.set(id.wrapping_add(1));
    connections.open.borrow_mut().insert(id, end);
    let closing = Closing {
        id,
        connections: Rc::clone(connections),
        _permit: permit,
    };
    let worker = Rc::clone(worker);
    // One task per connection: a panic ends this connection and nothing else.
    tokio::task::spawn_local(async move {
        let _closing = closing;
        connection(worker, stream, address, ended).await;
    });
}

/// Counts a connection out, on a panic as well.
struct Closing {
    id: u64,
    connections: Rc<Connections>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.id);
        self.connections.closed.notify_one();
    }
}

async fn connection(
    worker: Rc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    mut ended: oneshot::Receiver<()>,
) {
    // A connection keeps the limits it began with; a copy, so that it keeps nothing else alive.
    let limits = worker.shared.live().limits.clone();
    // tcp(7), TCP_USER_TIMEOUT: the kernel gives a client up that takes nothing for so long, be it
    // gone or only not reading.
    let prepared = stream.set_nodelay(true).and_then(|()| {
        SockRef::from(&stream).set_tcp_user_timeout(Some(limits.client_stall_timeout))
    });
    if let Err(error) = prepared {
        tracing::debug!(%error, "a client's socket could not be prepared");
    }
    let client = Rc::new(Client::new(address, "http"));
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
        let request = request.map(ClientBody::Http);
        async move { Ok::<_, Infallible>(handle(&worker, &client, request).await) }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(BUFFER_BYTES_MAX.max(limits.head_bytes_max))
        .max_header_size(limits.head_bytes_max)
        .max_headers(limits.fields_max)
        .serve_connection(TokioIo::new(stream), service);

    let mut told = false;
    let result = poll_fn(|cx| {
        if !told && Pin::new(&mut ended).poll(cx).is_ready() {
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        Pin::new(&mut connection).poll(cx)
    });
    if let Err(error) = pin!(result).await {
        if error.is_parse_too_large() {
            worker.shared.metrics.limit_hit("head_bytes_max");
        }
        tracing::debug!(%address, error = %chassis::failure::chain(&error), "client connection ended");
        // To a client of HTTP/1.0 the orderly end of the connection is the end of the answer: one
        // that was broken off must end in disorder.
        if client.old.get() && error.is_user() {
            let _ = connection.into_parts().io.into_inner().set_zero_linger();
        }
    }
}

/// What is due once a second.
async fn sweep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        worker.sweep();
    }
}
