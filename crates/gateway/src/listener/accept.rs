//! Takes connections off the listeners, within the limits of how many there may be in all and of one
//! client. Each thread polls its own duplicate of every listener; the kernel wakes whoever is free.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::{Connections, Kind, Lease, Open, connection};
use crate::worker::{Shared, Worker};

/// A pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Open connections by client. All threads share it, but only a connection's beginning and its end
/// take the lock.
#[derive(Debug, Default)]
pub(crate) struct PerClient(Mutex<HashMap<IpAddr, usize>>);

impl PerClient {
    /// Counts one in, unless the client has `max` already.
    pub(crate) fn enter(&self, client: IpAddr, max: usize) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.entry(network(client)).or_default();
        if *open >= max {
            return false;
        }
        *open += 1;
        true
    }

    pub(crate) fn leave(&self, client: IpAddr) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let client = network(client);
        if let Some(open) = all.get_mut(&client) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                all.remove(&client);
            }
        }
    }
}

/// A connection that is counted to its client, and counts itself out, on a panic as well.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    client: IpAddr,
}

impl Place {
    /// `None` where the client has as many as it may have.
    pub(crate) fn take(shared: &Arc<Shared>, client: IpAddr) -> Option<Self> {
        let max = shared.live().limits.connections_per_client_max;
        if !shared.per_client.enter(client, max) {
            shared.metrics.limit_hit("connections_per_client_max");
            return None;
        }
        let shared = Arc::clone(shared);
        Some(Self { shared, client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.per_client.leave(self.client);
    }
}

/// Whom an address stands for: with IPv6 one client has a whole /64 (RFC 6177).
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
        address => address,
    }
}

pub(super) async fn all(worker: &Rc<Worker>, connections: &Rc<Connections>, listeners: &[Open]) {
    let mut turn = 0;
    loop {
        let permit = permit(worker).await;
        match accept(listeners, turn).await {
            Ok((stream, client, kind)) => {
                start(worker, connections, stream, client, kind, permit);
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
async fn accept(listeners: &[Open], turn: usize) -> io::Result<(TcpStream, SocketAddr, &Kind)> {
    poll_fn(|cx| {
        let (late, early) = listeners.split_at(turn % listeners.len().max(1));
        for listener in early.iter().chain(late) {
            if let Poll::Ready(result) = listener.socket.poll_accept(cx) {
                return Poll::Ready(result.map(|(stream, from)| (stream, from, &listener.kind)));
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
    client: SocketAddr,
    kind: &Kind,
    permit: Option<OwnedSemaphorePermit>,
) {
    let Some(place) = Place::take(&worker.shared, client.ip()) else {
        // Nobody can be answered before it is known what he speaks, and a TLS handshake is what such
        // a client must not cost: it is closed by a reset, which leaves nothing behind.
        let _ = stream.set_zero_linger();
        return;
    };
    connections.open.set(connections.open.get() + 1);
    worker.shared.metrics.connections.tcp.inc();
    let counted = Counted {
        place,
        connections: Rc::clone(connections),
        _permit: permit,
    };
    let worker = Rc::clone(worker);
    let kind = kind.clone();
    let lease = Rc::new(Lease {
        _counted: counted,
        stages: connections.stage.subscribe(),
    });
    // One task per connection: a panic ends this connection and nothing else.
    tokio::task::spawn_local(connection::serve(worker, stream, client, kind, lease));
}

/// Counts a connection out, on a panic as well.
#[derive(Debug)]
pub(super) struct Counted {
    place: Place,
    connections: Rc<Connections>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let open = &self.connections.open;
        open.set(open.get().saturating_sub(1));
        self.place.shared.metrics.connections.tcp.dec();
        self.connections.closed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_connections_and_then_no_more_until_one_closes() {
        let clients = PerClient::default();
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert!(clients.enter(one, 2) && clients.enter(one, 2));
        assert!(!clients.enter(one, 2));
        assert!(clients.enter(other, 2));
        clients.leave(one);
        assert!(clients.enter(one, 2));
    }

    #[test]
    fn a_client_of_ipv6_is_its_network_and_one_of_mapped_ipv4_is_the_ipv4_one() {
        let clients = PerClient::default();
        assert!(clients.enter("2001:db8::1".parse().unwrap(), 1));
        assert!(!clients.enter("2001:db8::ffff:2".parse().unwrap(), 1));
        assert!(clients.enter("2001:db8:0:1::1".parse().unwrap(), 1));
        assert!(clients.enter("::ffff:192.0.2.1".parse().unwrap(), 1));
        assert!(!clients.enter("192.0.2.1".parse().unwrap(), 1));
    }

    #[test]
    fn a_client_without_connections_is_forgotten() {
        let clients = PerClient::default();
        let client = "192.0.2.1".parse().unwrap();
        clients.enter(client, 1);
        clients.leave(client);
        clients.leave(client);
        assert!(clients.0.lock().unwrap().is_empty());
    }
}
