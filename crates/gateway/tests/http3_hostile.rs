//! HTTP/3 against clients that mean ill, or leave: what they cost is bounded, and others lose nothing.

mod rig;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use ::h3::error::{Code, StreamError};
use quinn::{ReadError, ReadToEndError, RecvStream, SendStream, VarInt};
use rig::{Gateway, Reply, Upstream, eventually, h3, ok};
use tokio::net::UdpSocket;

const EXCESSIVE_LOAD: u32 = 0x107;
const MESSAGE_ERROR: u32 = 0x10e;
const ROUTES: &str = "
threads: 1
probe: {interval: 20ms}
limits: {head_bytes_max: 16KiB, client_stall_timeout: 300ms}
routes:
- {methods: [GET, POST], path: '/x/{any}', deadline: 5s}
";

async fn node_and_gateway() -> (Upstream, Gateway) {
    let node = Upstream::start(|seen| ok(&seen.method)).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    (node, gateway)
}

impl Gateway {
    async fn limit_hits(&self, limit: &str) -> f64 {
        let series = format!("bingo_limit_hits_total{{limit=\"{limit}\"}}");
        self.metric(&series).await
    }
}

/// A stream that begins like a HEADERS frame of `declared` bytes and goes on for `sent` of them.
async fn begin_head(client: &h3::Client, declared: u32, sent: usize) -> (SendStream, RecvStream) {
    let (mut send, recv) = client.connection.open_bi().await.unwrap();
    let mut bytes = vec![1];
    bytes.extend((declared | 0x8000_0000).to_be_bytes());
    bytes.extend(vec![0; sent]);
    // An error is the refusal already.
    let _ = send.write_all(&bytes).await;
    (send, recv)
}

async fn was_reset(recv: &mut RecvStream) -> Option<VarInt> {
    match recv.read_to_end(1 << 20).await {
        Err(ReadToEndError::Read(ReadError::Reset(code))) => Some(code),
        _ => None,
    }
}

#[tokio::test]
async fn a_head_that_is_announced_too_long_is_refused_before_it_comes() {
    let (_node, gateway) = node_and_gateway().await;
    let mut client = h3::Client::connect(gateway.tls).await;
    for declared in [16 * 1024 + 1, 1 << 20, (1 << 30) - 1] {
        let (_send, mut recv) = begin_head(&client, declared, 1).await;
        assert_eq!(was_reset(&mut recv).await, Some(EXCESSIVE_LOAD.into()));
    }
    assert_eq!(client.get("/x/1").await.status, 200);
    assert_eq!(gateway.limit_hits("head_bytes_max").await, 3.0);
}

#[tokio::test]
async fn heads_that_never_end_are_held_up_to_a_limit_of_the_connection() {
    let (_node, gateway) = node_and_gateway().await;
    let mut client = h3::Client::connect(gateway.tls).await;
    let mut streams = Vec::new();
    for _ in 0..40 {
        streams.push(begin_head(&client, 16_000, 15_000).await);
    }
    eventually("the limit is hit", async || {
        (gateway.limit_hits("h3_heads_bytes_max").await >= 20.0).then_some(())
    })
    .await;
    assert_eq!(client.get("/x/1").await.status, 200);
    let mut other = h3::Client::connect(gateway.tls).await;
    assert_eq!(other.get("/x/1").await.status, 200);
}

#[tokio::test]
async fn a_large_head_within_its_frame_is_answered_431() {
    let (_node, gateway) = node_and_gateway().await;
    let mut client = h3::Client::connect(gateway.tls).await;
    // QPACK with literal fields that refer to a static name: 32 bytes of overhead each, and
    // a few on the wire (RFC 9204 section 4.5.4).
    let mut fields = vec![0, 0, 0xd1, 0xd7, 0xc1, 0x50, 1, b'a'];
    fields.extend([0x55, 1, b'c'].repeat(4_000));
    let (mut send, mut recv) = client.connection.open_bi().await.unwrap();
    let length = u32::try_from(fields.len()).unwrap() | 0x8000_0000;
    let frame = [&[1][..], &length.to_be_bytes(), &fields].concat();
    send.write_all(&frame).await.unwrap();
    let answer = recv.read_to_end(1 << 20).await.unwrap();
    // A HEADERS frame whose text is the status, as a literal or from the static table.
    assert_eq!(answer.first(), Some(&1), "{answer:?}");
    assert_eq!(gateway.limit_hits("head_bytes_max").await, 1.0);
    assert_eq!(client.get("/x/1").await.status, 200);
}

/// A field line whose name and value are plain literals (RFC 9204 section 4.5.6).
fn line(name: &str, value: &str) -> Vec<u8> {
    let length = |bytes: &str| u8::try_from(bytes.len()).unwrap();
    let mut line = match length(name) {
        short @ 0..7 => vec![0x20 | short],
        long => vec![0x27, long - 7],
    };
    line.extend_from_slice(name.as_bytes());
    line.push(length(value));
    line.extend_from_slice(value.as_bytes());
    line
}

fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let lines = fields.iter().flat_map(|(name, value)| line(name, value));
    let section: Vec<u8> = [0, 0].into_iter().chain(lines).collect();
    frame(1, &section)
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap() | 0x4000;
    [&[kind][..], &length.to_be_bytes(), payload].concat()
}

const METHOD: (&str, &str) = (":method", "POST");
const SCHEME: (&str, &str) = (":scheme", "https");
const AUTHORITY: (&str, &str) = (":authority", "a");
const PATH: (&str, &str) = (":path", "/x/1");
/// Requests by the section of RFC 9114 that they break, with the fields of their heads.
const MALFORMED: [(&str, &[(&str, &str)]); 16] = [
    (
        "4.3.1 two paths",
        &[METHOD, SCHEME, AUTHORITY, PATH, (":path", "/x/2")],
    ),
    (
        "4.3.1 the same path twice",
        &[METHOD, SCHEME, AUTHORITY, PATH, PATH],
    ),
    (
        "4.3.1 two authorities",
        &[METHOD, SCHEME, AUTHORITY, (":authority", "b"), PATH],
    ),
    (
        "4.3.1 an empty path",
        &[METHOD, SCHEME, AUTHORITY, (":path", "")],
    ),
    ("4.3.1 no path", &[METHOD, SCHEME, AUTHORITY]),
    ("4.3.1 no scheme", &[METHOD, AUTHORITY, PATH]),
    ("4.3.1 no method", &[SCHEME, AUTHORITY, PATH]),
    ("4.3.1 no authority", &[METHOD, SCHEME, PATH]),
    (
        "4.3 a path after a field",
        &[METHOD, SCHEME, AUTHORITY, ("a", "b"), PATH],
    ),
    (
        "4.3 one of an answer",
        &[METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")],
    ),
    (
        "4.3 one that is unknown",
        &[METHOD, SCHEME, AUTHORITY, PATH, (":x", "y")],
    ),
    (
        "4.3 :protocol, which was not offered",
        &[
            (":method", "CONNECT"),
            SCHEME,
            AUTHORITY,
            PATH,
            (":protocol", "webtransport"),
        ],
    ),
    (
        "4.4 CONNECT with a path",
        &[(":method", "CONNECT"), SCHEME, AUTHORITY, PATH],
    ),
    (
        "4.2 an upper-case name",
        &[METHOD, SCHEME, AUTHORITY, PATH, ("A", "b")],
    ),
    (
        "4.1.2 two lengths",
        &[
            METHOD,
            SCHEME,
            AUTHORITY,
            PATH,
            ("content-length", "3"),
            ("content-length", "4"),
        ],
    ),
    (
        "4.1.2 no number for a length",
        &[METHOD, SCHEME, AUTHORITY, PATH, ("content-length", "+3")],
    ),
];

#[tokio::test]
async fn a_malformed_request_is_reset_and_reaches_no_node() {
    let (node, gateway) = node_and_gateway().await;
    let mut client = h3::Client::connect(gateway.tls).await;
    for (case, fields) in MALFORMED {
        let (mut send, mut recv) = client.connection.open_bi().await.unwrap();
        let bytes = [headers(fields), frame(0, b"abc")].concat();
        // An error is the refusal already.
        let _ = send.write_all(&bytes).await;
        let _ = send.finish();
        let code = was_reset(&mut recv).await;
        assert_eq!(code, Some(MESSAGE_ERROR.into()), "{case}");
    }
    // The same written as it should be.
    let (mut send, mut recv) = client.connection.open_bi().await.unwrap();
    let good = headers(&[METHOD, SCHEME, AUTHORITY, PATH, ("content-length", "3")]);
    let bytes = [good, frame(0, b"abc"), headers(&[("x-sum", "1")])].concat();
    send.write_all(&bytes).await.unwrap();
    send.finish().unwrap();
    assert!(!recv.read_to_end(1 << 20).await.unwrap().is_empty());
    assert_eq!(client.get("/x/1").await.status, 200);
    assert_eq!(node.seen().len(), 2);
}

#[tokio::test]
async fn a_body_that_turns_out_malformed_resets_its_stream() {
    let (node, gateway) = node_and_gateway().await;
    let mut client = h3::Client::connect(gateway.tls).await;
    let head = [METHOD, SCHEME, AUTHORITY, PATH];
    let trailers = headers(&[("a", "b"), (":path", "/x/2")]);
    let sized = [&head[..], &[("content-length", "4")]].concat();
    for (case, pieces) in [
        (
            "4.3 a path in trailers",
            [headers(&head), frame(0, b"abc"), trailers],
        ),
        (
            "4.1.2 shorter than it said",
            [headers(&sized), frame(0, b"abc"), Vec::new()],
        ),
        (
            "4.1.2 longer than it said",
            [headers(&sized), frame(0, b"abcde"), Vec::new()],
        ),
    ] {
        let (mut send, mut recv) = client.connection.open_bi().await.unwrap();
        let [head, body, trailers] = pieces;
        send.write_all(&head).await.unwrap();
        send.write_all(&body).await.unwrap();
        let _ = send.write_all(&trailers).await;
        let _ = send.finish();
        let code = was_reset(&mut recv).await;
        assert_eq!(code, Some(MESSAGE_ERROR.into()), "{case}");
    }
    assert_eq!(client.get("/x/1").await.status, 200);
    assert_eq!(node.seen().len(), 1);
}

#[tokio::test]
async fn malformed_requests_without_end_cost_their_connection() {
    let (node, gateway) = node_and_gateway().await;
    let flood = h3::Client::connect(gateway.tls).await;
    let bytes = headers(&[METHOD, SCHEME, AUTHORITY, PATH, PATH]);
    for _ in 0..1_000 {
        let Ok((mut send, mut recv)) = flood.connection.open_bi().await else {
            break;
        };
        let _ = send.write_all(&bytes).await;
        let _ = was_reset(&mut recv).await;
    }
    let why = flood.connection.close_reason().unwrap();
    assert!(why.to_string().contains("h3_resets_max"), "{why}");
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn a_request_that_is_given_up_is_cancelled_at_the_node_and_the_connection_lives_on() {
    for reset in [false, true] {
        let cancelled = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&cancelled);
        let node = Upstream::start(move |seen| match seen.target.as_str() {
            "/x/slow" => Reply::Hang(Arc::clone(&flag)),
            _ => ok("quick"),
        })
        .await;
        let gateway = Gateway::start(&[&node], ROUTES);
        let mut client = h3::Client::connect(gateway.tls).await;
        let mut stream = client.begin("GET", "/x/slow", &[]).await.unwrap();
        if !reset {
            stream.finish().await.unwrap();
        }
        eventually("the node has it", async || {
            (!node.seen().is_empty()).then_some(())
        })
        .await;
        let asked = std::time::Instant::now();
        if reset {
            stream.stop_stream(Code::H3_REQUEST_CANCELLED);
        } else {
            stream.stop_sending(Code::H3_REQUEST_CANCELLED);
        }
        eventually("the node is told", async || {
            cancelled.load(SeqCst).then_some(())
        })
        .await;
        // Its deadline would end it after five.
        assert!(asked.elapsed() < Duration::from_secs(3));
        assert_eq!(client.get("/x/quick").await.text(), "quick");
    }
}

#[tokio::test]
async fn an_answer_that_a_node_breaks_off_resets_its_stream() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf".to_vec();
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec();
    for bytes in [half, chunked] {
        let node = Upstream::start(move |_| Reply::RawThenClose(bytes.clone())).await;
        let gateway = Gateway::start(&[&node], ROUTES);
        let mut client = h3::Client::connect(gateway.tls).await;
        let mut stream = client.begin("GET", "/x/1", &[]).await.unwrap();
        stream.finish().await.unwrap();
        let error = h3::read(&mut stream).await.err().unwrap();
        let code = Code::H3_INTERNAL_ERROR;
        assert!(
            matches!(error, StreamError::RemoteTerminate { code: c, .. } if c == code),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_a_client_does_not_take_resets_its_stream() {
    let node = Upstream::start(|_| Reply::Stream(20_000_000)).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut client = h3::Client::connect(gateway.tls).await;
    let mut stream = client.begin("GET", "/x/1", &[]).await.unwrap();
    stream.finish().await.unwrap();
    eventually("the client is given up", async || {
        (gateway.limit_hits("client_stall_timeout").await == 1.0).then_some(())
    })
    .await;
    let error = h3::read(&mut stream).await.err().unwrap();
    assert!(
        matches!(error, StreamError::RemoteTerminate { .. }),
        "{error}"
    );
    assert_eq!(client.connection.close_reason(), None);
}

#[tokio::test]
async fn a_storm_of_resets_costs_its_connection_and_nobody_else() {
    let (_node, gateway) = node_and_gateway().await;
    let mut storm = h3::Client::connect(gateway.tls).await;
    let mut other = h3::Client::connect(gateway.tls).await;
    let mut closed = false;
    for round in 0..10_000 {
        match storm.begin("GET", "/x/1", &[]).await {
            Ok(mut stream) => {
                stream.stop_stream(Code::H3_REQUEST_CANCELLED);
                stream.stop_sending(Code::H3_REQUEST_CANCELLED);
            }
            Err(_) => closed = true,
        }
        if round % 50 == 0 {
            assert_eq!(other.get("/x/1").await.status, 200);
        }
        if closed {
            break;
        }
    }
    assert!(closed, "the connection outlives 10000 resets");
    assert_eq!(gateway.limit_hits("h3_resets_max").await, 1.0);
    assert_eq!(other.get("/x/1").await.status, 200);
    assert_eq!(gateway.metric("bingo_quic_panics_total").await, 0.0);
}

#[tokio::test]
async fn a_flood_of_unknown_frames_costs_its_connection() {
    let (_node, gateway) = node_and_gateway().await;
    let mut other = h3::Client::connect(gateway.tls).await;
    let flood = h3::Client::connect(gateway.tls).await;
    let (mut send, _recv) = flood.connection.open_bi().await.unwrap();
    // Frames of an unknown kind, without a payload.
    let frames = [0x21, 0].repeat(5_000);
    let _ = send.write_all(&frames).await;
    let why = flood.connection.closed().await;
    assert!(why.to_string().contains("h3_control_frames_max"), "{why}");
    assert_eq!(gateway.limit_hits("h3_control_frames_max").await, 1.0);
    assert_eq!(other.get("/x/1").await.status, 200);
}

/// A client of QUIC alone, which signs life so often.
async fn pinging(address: SocketAddr, interval: Duration) -> quinn::Connection {
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(interval));
    of_quic(address, transport).await
}

async fn of_quic(address: SocketAddr, transport: quinn::TransportConfig) -> quinn::Connection {
    let endpoint = h3::endpoint(transport);
    let connecting = endpoint.connect(address, "localhost").unwrap();
    connecting.await.unwrap()
}

#[tokio::test]
async fn a_flood_of_pings_costs_its_connection() {
    let (_node, gateway) = node_and_gateway().await;
    let mut other = h3::Client::connect(gateway.tls).await;
    let flood = pinging(gateway.tls, Duration::from_millis(1)).await;
    let closed = tokio::time::timeout(Duration::from_secs(30), flood.closed());
    let why = closed.await.expect("it is closed");
    assert!(why.to_string().contains("h3_control_frames_max"), "{why}");
    assert_eq!(gateway.limit_hits("h3_control_frames_max").await, 1.0);
    assert_eq!(other.get("/x/1").await.status, 200);
}

#[tokio::test]
async fn a_client_that_takes_its_answer_in_crumbs_is_given_up_and_one_with_a_narrow_window_is_not()
{
    const LENGTH: usize = 2 * 1024 * 1024;
    let node = Upstream::start(|_| Reply::Stream(LENGTH)).await;
    let routes = ROUTES.replace("client_stall_timeout: 300ms", "client_stall_timeout: 60s");
    let gateway = Gateway::start(&[&node], &routes.replace("deadline: 5s", "deadline: 60s"));
    for (window, whole) in [(4 * 1024, true), (64, false)] {
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(VarInt::from_u32(window));
        let mut client = h3::Client::with(gateway.tls, transport).await.unwrap();
        let mut stream = client.begin("GET", "/x/1", &[]).await.unwrap();
        stream.finish().await.unwrap();
        let read = h3::read(&mut stream).await;
        if whole {
            assert_eq!(read.unwrap().0.body.len(), LENGTH);
            continue;
        }
        assert!(read.is_err());
        let why = client.connection.closed().await;
        assert!(why.to_string().contains("h3_control_frames_max"), "{why}");
    }
    let mut other = h3::Client::connect(gateway.tls).await;
    assert_eq!(other.get("/x/1").await.status, 200);
}

#[tokio::test]
async fn signs_of_life_do_not_keep_an_idle_connection() {
    let node = Upstream::start(|seen| ok(&seen.method)).await;
    let routes = ROUTES.replace("head_bytes_max", "head_timeout: 300ms, head_bytes_max");
    let gateway = Gateway::start(&[&node], &routes);
    let idle = pinging(gateway.tls, Duration::from_millis(50)).await;
    let closed = tokio::time::timeout(Duration::from_secs(10), idle.closed());
    let why = closed.await.expect("it is closed");
    assert!(
        matches!(why, quinn::ConnectionError::ApplicationClosed(_)),
        "{why}"
    );
    assert_eq!(gateway.limit_hits("h3_idle_timeout").await, 1.0);
}

#[tokio::test]
async fn open_connections_cost_nobody_a_retry_and_open_handshakes_do() {
    let (_node, gateway) = node_and_gateway().await;
    let mut open = Vec::new();
    for _ in 0..270 {
        open.push(pinging(gateway.tls, Duration::from_secs(5)).await);
    }
    assert_eq!(gateway.limit_hits("quic_retry").await, 0.0);
    // What these clients are answered never arrives.
    let lossy = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = lossy.local_addr().unwrap();
    let gate = gateway.tls;
    tokio::spawn(async move {
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut bytes = [0; 65_536];
        loop {
            let (length, _) = lossy.recv_from(&mut bytes).await.unwrap();
            back.send_to(&bytes[..length], gate).await.unwrap();
        }
    });
    let mut half = tokio::task::JoinSet::new();
    let mut begun = 0;
    eventually("handshakes are many", async || {
        for _ in 0..20 {
            half.spawn(pinging(address, Duration::from_secs(5)));
        }
        begun += 20;
        (gateway.limit_hits("quic_retry").await > 0.0).then_some(())
    })
    .await;
    assert!(begun >= 250, "{begun}");
    let mut client = h3::Client::connect(gateway.tls).await;
    assert_eq!(client.get("/x/1").await.status, 200);
}
