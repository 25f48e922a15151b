//! The fault proxy: stands between the gateways and one node and does to what passes what a bad
//! network does, where this machine's kernel has no queueing discipline for it. It knows bytes, no
//! HTTP. Left out: loss of single packets, which TCP hides as delay.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::scenario::Mode;

const PIECE_BYTES: usize = 16 * 1024;

/// Dropped, it ends with all its connections.
pub(super) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free loopback port and hands on to `node`.
    ///
    /// # Errors
    /// The operating system's, where it can have no port.
    pub(super) async fn start(node: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (mode, seen) = watch::channel(Mode::Pass);
        let accepting = tokio::spawn(accept(listener, node, seen));
        Ok(Self {
            address,
            mode,
            accepting,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// For what is open and for what comes.
    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, node: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let mut open = tokio::task::JoinSet::new();
    loop {
        // Only a closed channel ends the wait with an error: then nobody wants the proxy any more.
        if mode.wait_for(|mode| *mode != Mode::Cut).await.is_err() {
            return;
        }
        while open.try_join_next().is_some() {}
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    open.spawn(connection(client, node, mode.clone()));
                }
            }
            changed = mode.changed() => if changed.is_err() { return },
        }
    }
}

/// One connection until either side ends it or the mode resets it.
async fn connection(mut client: TcpStream, node: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let _ = client.set_nodelay(true);
    if *mode.borrow_and_update() == Mode::Reset {
        return reset(&client);
    }
    let Ok(mut node) = TcpStream::connect(node).await else {
        return reset(&client);
    };
    let _ = node.set_nodelay(true);
    let (asked, answered) = (mode.clone(), mode.clone());
    let is_reset = {
        let ((from_client, to_client), (from_node, to_node)) = (client.split(), node.split());
        let both = async {
            tokio::join!(
                hand_on(from_client, to_node, asked, false),
                hand_on(from_node, to_client, answered, true)
            )
        };
        tokio::select! {
            _ = both => false,
            _ = mode.wait_for(|mode| *mode == Mode::Reset) => true,
        }
    };
    if is_reset {
        reset(&client);
        reset(&node);
    }
}

/// One direction until its end, which is handed on too.
async fn hand_on(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut mode: watch::Receiver<Mode>,
    is_answer: bool,
) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(bytes) = from.read(&mut piece).await {
        if bytes == 0 {
            break;
        }
        let piece = piece.get(..bytes).unwrap_or_default();
        if write(piece, &mut to, &mut mode, is_answer).await.is_none() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Writes one piece as the mode has it; none where this direction ends.
async fn write(
    piece: &[u8],
    to: &mut WriteHalf<'_>,
    mode: &mut watch::Receiver<Mode>,
    is_answer: bool,
) -> Option<()> {
    let is_moving = |mode: &Mode| !matches!(mode, Mode::Cut | Mode::Stall);
    let now = *mode.wait_for(is_moving).await.ok()?;
    match now {
        Mode::Delay { milliseconds } => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        Mode::HalfClose if is_answer => {
            to.write_all(piece).await.ok()?;
            return None;
        }
        Mode::Trickle { bytes_per_second } if is_answer => {
            let pause = Duration::from_secs(1) / bytes_per_second.max(1);
            for byte in piece {
                if *mode.borrow() == now {
                    tokio::time::sleep(pause).await;
                }
                to.write_all(std::slice::from_ref(byte)).await.ok()?;
            }
            return Some(());
        }
        _ => {}
    }
    to.write_all(piece).await.ok()
}

/// Closing sends RST instead of FIN (socket(7), SO_LINGER of zero).
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that answers each piece with itself, and a client of it through the proxy.
    async fn through() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let node = listener.local_addr().expect("address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let proxy = Proxy::start(node).await.expect("start");
        let client = TcpStream::connect(proxy.address()).await.expect("connect");
        (proxy, client)
    }

    async fn echoed(client: &mut TcpStream, text: &str) -> std::io::Result<()> {
        client.write_all(text.as_bytes()).await?;
        let mut read = vec![0; text.len()];
        client.read_exact(&mut read).await.map(drop)
    }

    #[tokio::test]
    async fn what_is_stalled_comes_when_it_is_over() {
        let (proxy, mut client) = through().await;
        echoed(&mut client, "one").await.expect("passes");
        proxy.set(Mode::Stall);
        let mut waiting = std::pin::pin!(echoed(&mut client, "two"));
        let soon = tokio::time::timeout(Duration::from_millis(50), waiting.as_mut()).await;
        assert!(soon.is_err(), "nothing comes while it is stalled");
        proxy.set(Mode::Pass);
        waiting.await.expect("comes");
    }

    #[tokio::test]
    async fn a_reset_breaks_what_is_open_and_what_comes() {
        let (proxy, mut client) = through().await;
        echoed(&mut client, "one").await.expect("passes");
        proxy.set(Mode::Reset);
        let error = client.read(&mut [0]).await.expect_err("is reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let mut next = TcpStream::connect(proxy.address()).await.expect("connect");
        assert!(echoed(&mut next, "two").await.is_err());
    }

    #[tokio::test]
    async fn a_half_closed_answer_ends_after_its_first_piece() {
        let (proxy, mut client) = through().await;
        proxy.set(Mode::HalfClose);
        echoed(&mut client, "one").await.expect("the first piece");
        assert_eq!(client.read(&mut [0]).await.expect("ends in order"), 0);
    }

    #[tokio::test]
    async fn answers_trickle_and_arrive_whole() {
        let (proxy, mut client) = through().await;
        proxy.set(Mode::Trickle {
            bytes_per_second: 1000,
        });
        echoed(&mut client, "a few bytes").await.expect("arrives");
    }
}
