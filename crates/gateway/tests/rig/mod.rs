//! What the gateway's tests stand on: a gateway on port 0, tiny upstreams that can misbehave on the
//! wire, and a client. Upstreams speak raw TCP, because hyper would not send what a dying node sends.
#![allow(dead_code)] // Each test file uses a part of it.

pub(crate) mod cached;
pub(crate) mod cases;
pub(crate) mod client;
pub(crate) mod file;
pub(crate) mod h2;
pub(crate) mod h3;
pub(crate) mod mortal;
pub(crate) mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chassis::{Failure, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

pub(crate) use client::{Answer, Client};

/// One request as an upstream saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case; several values of a name are joined by ", ".
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// Trailers, as whole lines.
    pub(crate) trailers: Vec<String>,
    /// The very bytes of its head.
    pub(crate) head: String,
    /// Number of the connection it came over.
    pub(crate) connection: usize,
}

/// What an upstream does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Bytes on the wire; the connection stays open.
    Raw(Vec<u8>),
    /// Bytes on the wire, and then the connection is closed.
    RawThenClose(Vec<u8>),
    /// Closed by a reset, without an answer.
    Reset,
    /// Answered after this time.
    After(Duration, Vec<u8>),
    /// Answered once the flag is true.
    When(Arc<AtomicBool>, Vec<u8>),
    /// Never answered; the flag turns true when the gateway closes the connection.
    Hang(Arc<AtomicBool>),
    /// Bytes on the wire, and then back whatever comes.
    Echo(Vec<u8>),
    /// A body of this many bytes, in pieces, with a Content-Length.
    Stream(usize),
    /// A body of one byte after the other, with this pause before each, until the flag is true.
    Drip(Duration, Arc<AtomicBool>),
}

/// A 200 with this text.
pub(crate) fn ok(body: &str) -> Reply {
    Reply::Raw(answer("200 OK", "", body))
}

/// An answer's bytes; `headers` are whole lines.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

type Behaviour = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// An upstream that can be killed and started again on its port.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Arc<UpstreamState>,
    accepting: Option<AbortHandle>,
}

struct UpstreamState {
    behaviour: Behaviour,
    seen: Mutex<Vec<Seen>>,
    probe: Mutex<Vec<u8>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    probes: AtomicUsize,
    connections: Mutex<Vec<AbortHandle>>,
}

impl Upstream {
    pub(crate) async fn start(behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut upstream = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(UpstreamState {
                behaviour: Arc::new(behaviour),
                seen: Mutex::default(),
                probe: Mutex::new(answer("200 OK", "", "pong")),
                accepted: AtomicUsize::new(0),
                open: AtomicUsize::new(0),
                probes: AtomicUsize::new(0),
                connections: Mutex::default(),
            }),
            accepting: None,
        };
        upstream.accept(listener);
        upstream
    }

    /// Dies: every connection breaks, new ones are refused.
    pub(crate) fn kill(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        for connection in self.state.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Comes back on the same port.
    pub(crate) async fn revive(&mut self) {
        let listener = eventually("the port is free again", async || {
            TcpListener::bind(self.address).await.ok()
        })
        .await;
        self.accept(listener);
    }

    /// The same in one try; false while the port is taken.
    pub(crate) async fn try_revive(&mut self) -> bool {
        let listener = TcpListener::bind(self.address).await;
        listener.map(|listener| self.accept(listener)).is_ok()
    }

    /// What probes are answered from now on.
    pub(crate) fn answer_probes(&self, bytes: Vec<u8>) {
        *self.state.probe.lock().unwrap() = bytes;
    }

    /// Requests so far, probes left out.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// How often it was probed.
    pub(crate) fn probes(&self) -> usize {
        self.state.probes.load(SeqCst)
    }

    /// Connections that are open now, those of probes included.
    pub(crate) fn open_connections(&self) -> usize {
        self.state.open.load(SeqCst)
    }

    /// How many connections carried the requests so far.
    pub(crate) fn connections_used(&self) -> usize {
        let mut connections: Vec<usize> = self.seen().iter().map(|seen| seen.connection).collect();
        connections.sort_unstable();
        connections.dedup();
        connections.len()
    }

    fn accept(&mut self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = state.accepted.fetch_add(1, SeqCst);
                let own = Arc::clone(&state);
                let task = tokio::spawn(async move {
                    own.open.fetch_add(1, SeqCst);
                    own.serve(stream, number).await;
                    own.open.fetch_sub(1, SeqCst);
                });
                state.connections.lock().unwrap().push(task.abort_handle());
            }
        });
        self.accepting = Some(task.abort_handle());
    }
}

impl UpstreamState {
    async fn serve(&self, mut stream: TcpStream, number: usize) -> Option<()> {
        let mut buffer = Vec::new();
        loop {
            let seen = read_request(&mut stream, &mut buffer, number).await?;
            if seen.target == "/ping"
                && seen
                    .headers
                    .get("user-agent")
                    .is_some_and(|a| a.contains("probe"))
            {
                self.probes.fetch_add(1, SeqCst);
                let probe = self.probe.lock().unwrap().clone();
                stream.write_all(&probe).await.ok()?;
                continue;
            }
            self.seen.lock().unwrap().push(seen.clone());
            match (self.behaviour)(&seen) {
                Reply::Raw(bytes) => stream.write_all(&bytes).await.ok()?,
                Reply::RawThenClose(bytes) => {
                    stream.write_all(&bytes).await.ok()?;
                    return None;
                }
                Reply::Reset => {
                    stream.set_zero_linger().unwrap();
                    return None;
                }
                Reply::After(time, bytes) => {
                    tokio::time::sleep(time).await;
                    stream.write_all(&bytes).await.ok()?;
                }
                Reply::When(flag, bytes) => {
                    while !flag.load(SeqCst) {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    stream.write_all(&bytes).await.ok()?;
                }
                Reply::Hang(gone) => {
                    let read = stream.read(&mut [0; 1]).await;
                    gone.store(matches!(read, Ok(0) | Err(_)), SeqCst);
                    return None;
                }
                Reply::Echo(bytes) => {
                    stream.write_all(&bytes).await.ok()?;
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.ok()?;
                    return None;
                }
                Reply::Stream(length) => stream_body(&mut stream, length).await?,
                Reply::Drip(pause, until) => drip_body(&mut stream, pause, &until).await?,
            }
        }
    }
}

async fn drip_body(stream: &mut TcpStream, pause: Duration, until: &AtomicBool) -> Option<()> {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await.ok()?;
    while !until.load(SeqCst) {
        tokio::time::sleep(pause).await;
        stream.write_all(b"1\r\nx\r\n").await.ok()?;
    }
    stream.write_all(b"0\r\n\r\n").await.ok()
}

async fn stream_body(stream: &mut TcpStream, length: usize) -> Option<()> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let piece = vec![b'x'; 64 * 1024];
    let mut left = length;
    while left > 0 {
        let now = left.min(piece.len());
        stream.write_all(&piece[..now]).await.ok()?;
        left -= now;
    }
    Some(())
}

async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    connection: usize,
) -> Option<Seen> {
    let end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        read_more(stream, buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer.drain(..end).collect::<Vec<u8>>()).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let mut headers: HashMap<String, String> = HashMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        headers
            .entry(name.to_ascii_lowercase())
            .and_modify(|all| *all = format!("{all}, {value}"))
            .or_insert(value.to_owned());
    }
    let mut trailers = Vec::new();
    let body = if headers.contains_key("transfer-encoding") {
        read_chunks(stream, buffer, &mut trailers).await?
    } else {
        let length = headers
            .get("content-length")
            .map_or(0, |text| text.parse().unwrap());
        while buffer.len() < length {
            read_more(stream, buffer).await?;
        }
        buffer.drain(..length).collect()
    };
    Some(Seen {
        method: first.next().unwrap().to_owned(),
        target: first.next().unwrap().to_owned(),
        headers,
        body,
        trailers,
        head: head.clone(),
        connection,
    })
}

async fn read_chunks(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    trailers: &mut Vec<String>,
) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream, buffer).await?;
        let length = usize::from_str_radix(&line, 16).unwrap();
        if length == 0 {
            break;
        }
        while buffer.len() < length + 2 {
            read_more(stream, buffer).await?;
        }
        body.extend(buffer.drain(..length));
        buffer.drain(..2);
    }
    loop {
        let line = read_line(stream, buffer).await?;
        if line.is_empty() {
            return Some(body);
        }
        trailers.push(line);
    }
}

async fn read_line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = find(buffer, b"\r\n") {
            let line = buffer.drain(..at + 2).take(at).collect();
            return Some(String::from_utf8(line).unwrap());
        }
        read_more(stream, buffer).await?;
    }
}

async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    (stream.read_buf(buffer).await.ok()? > 0).then_some(())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// A TCP and a UDP socket on one port number.
fn same_port() -> (std::net::TcpListener, std::net::UdpSocket) {
    loop {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = std::net::UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (tcp, udp);
        }
    }
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    /// The same over TLS, and over QUIC.
    pub(crate) tls: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) shutdown: Shutdown,
    thread: Option<JoinHandle<Result<(), Failure>>>,
}

impl Gateway {
    /// In front of `nodes`, with these lines of YAML for the rest (routes among them).
    pub(crate) fn start(nodes: &[&Upstream], rest: &str) -> Self {
        let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
        Self::start_at(&addresses, rest)
    }

    pub(crate) fn start_at(nodes: &[SocketAddr], rest: &str) -> Self {
        let nodes: String = nodes
            .iter()
            .enumerate()
            .map(|(i, address)| format!("- {{name: node-{}, address: '{address}'}}\n", i + 1))
            .collect();
        let listen = if rest.contains("listen:") {
            ""
        } else {
            "listen: [{address: '127.0.0.1:1'}]\n"
        };
        let text = format!("{listen}nodes:\n{nodes}{rest}");
        let config: gateway::Config = chassis::config::parse("test", &text).unwrap();
        Self::run(config.validate().unwrap())
    }

    /// On a configuration, whatever its addresses say.
    pub(crate) fn run(valid: gateway::Valid) -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (secure, udp) = same_port();
        let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let shutdown = Shutdown::new();
        let switch = shutdown.clone();
        let address = socket.local_addr().unwrap();
        let tls = secure.local_addr().unwrap();
        let listeners = vec![
            gateway::Listener {
                socket,
                kind: gateway::Kind::Http,
            },
            gateway::Listener {
                socket: secure,
                kind: gateway::Kind::Https(tls::server()),
            },
        ];
        let quic = gateway::QuicListener {
            socket: udp,
            tls: tls::quic(),
            reset_key: [7; 64],
        };
        Self {
            address,
            tls,
            admin: admin.local_addr().unwrap(),
            shutdown,
            thread: Some(std::thread::spawn(move || {
                gateway::run(valid, listeners, vec![quic], vec![admin], switch)
            })),
        }
    }

    /// Waits for the end that was asked for.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(|| thread.join().unwrap())
            .await
            .unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.client().await.get(path).await
    }

    /// The value of one series on the admin listener; 0 where it is missing.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = Client::connect(self.admin)
            .await
            .get("/metrics")
            .await
            .text();
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
            .unwrap_or(0.0)
    }

    /// Waits until the admin listener shows this state of a node.
    pub(crate) async fn node_is(&self, node: &str, state: &str) {
        let series = format!("bingo_node_state{{node=\"{node}\",state=\"{state}\"}}");
        eventually(&format!("{node} is {state}"), async || {
            (self.metric(&series).await == 1.0).then_some(())
        })
        .await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

/// Asks again and again until there is an answer; fails after ten seconds.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Writes bytes and reads until the gateway closes; an error if it ends by a reset.
pub(crate) async fn raw(address: SocketAddr, request: impl AsRef<[u8]>) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_ref()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
