//! HTTP/3: the same answers as over TCP, its own limits, and how it ends.

mod rig;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use rig::{Gateway, Reply, Upstream, answer, eventually, h3, ok};
use tokio::net::UdpSocket;
use tokio::sync::watch;

const ROUTES: &str = "
threads: 1
probe: {interval: 20ms}
limits: {head_timeout: 10s, h3_streams_max: 50, connections_per_client_max: 4}
routes:
- {methods: [GET, POST, DELETE], path: '/x/{any}', deadline: 5s}
- {methods: [POST], path: /big, body_bytes_max: 8MiB}
";

async fn node_and_gateway() -> (Upstream, Gateway) {
    let node = Upstream::start(|seen| ok(&format!("{} {}", seen.method, seen.body.len()))).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    (node, gateway)
}

#[tokio::test]
async fn every_method_reaches_the_same_nodes_as_over_tcp() {
    let (node, gateway) = node_and_gateway().await;
    let mut client = h3::Client::connect(gateway.tls).await;
    assert_eq!(client.get("/x/1?a=b").await.text(), "GET 0");
    for (method, body) in [("POST", "abc"), ("DELETE", "")] {
        let answer = client.send(method, "/x/1", &[], body).await.unwrap();
        assert_eq!(answer.text(), format!("{method} {}", body.len()));
    }
    let head = client.send("HEAD", "/x/1", &[], "").await.unwrap();
    assert_eq!((head.status.as_u16(), head.text().as_str()), (200, ""));
    let missing = client.get("/nowhere").await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.header("content-type"), "application/problem+json");
    let head = client.send("HEAD", "/nowhere", &[], "").await.unwrap();
    assert_eq!((head.status.as_u16(), head.text().as_str()), (404, ""));
    let wrong = client.send("PUT", "/x/1", &[], "").await.unwrap();
    assert_eq!(wrong.status, 405);
    let seen = node.seen().remove(0);
    assert_eq!(seen.target, "/x/1?a=b");
    assert_eq!(seen.headers["host"], "test.example");
    assert_eq!(seen.headers["x-forwarded-proto"], "https");
    let series = "http_server_request_duration_seconds_count{http_route=\"/x/{any}\",http_request_method=\"POST\",http_response_status_code=\"200\",network_protocol_version=\"3\"}";
    eventually("HTTP/3 is counted", async || {
        (gateway.metric(series).await == 1.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("bingo_quic_connections").await, 1.0);
    drop(client);
    eventually("the connection is counted out", async || {
        (gateway.metric("bingo_quic_connections").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("bingo_quic_panics_total").await, 0.0);
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let node = Upstream::start(|seen| {
        if seen.method == "POST" {
            return ok(&seen.body.len().to_string());
        }
        Reply::Stream(5_000_000)
    })
    .await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut client = h3::Client::connect(gateway.tls).await;
    assert_eq!(client.get("/x/1").await.body.len(), 5_000_000);
    let mut stream = client.begin("POST", "/big", &[]).await.unwrap();
    for _ in 0..50 {
        let piece = Bytes::from(vec![b'x'; 100_000]);
        stream.send_data(piece).await.unwrap();
    }
    stream.finish().await.unwrap();
    let (answer, _) = h3::read(&mut stream).await.unwrap();
    assert_eq!(answer.text(), "5000000");
}

#[tokio::test]
async fn many_requests_of_one_connection_are_answered_at_once() {
    let reply = answer("200 OK", "", "late");
    let node =
        Upstream::start(move |_| Reply::After(Duration::from_millis(300), reply.clone())).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut client = h3::Client::connect(gateway.tls).await;
    let asked = std::time::Instant::now();
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = client.begin("GET", "/x/1", &[]).await.unwrap();
        stream.finish().await.unwrap();
        streams.push(stream);
    }
    for mut stream in streams {
        assert_eq!(h3::read(&mut stream).await.unwrap().0.status, 200);
    }
    // One after the other they would take six seconds.
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn what_breaks_the_rules_is_refused_and_the_connection_lives_on() {
    let (node, gateway) = node_and_gateway().await;
    let mut client = h3::Client::connect(gateway.tls).await;
    for (name, value) in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
    ] {
        let refused = client.send("GET", "/x/1", &[(name, value)], "").await;
        assert!(refused.is_err(), "{name}: {value}");
    }
    for (declared, sent) in [("2", "abc"), ("9", "abc")] {
        let headers = [("content-length", declared)];
        let answer = client.send("POST", "/x/1", &headers, sent).await;
        assert!(
            answer.is_err() || answer.unwrap().status == 400,
            "{declared}"
        );
    }
    let large = "y".repeat(70_000);
    let answer = client.send("POST", "/x/1", &[], &large).await;
    assert_eq!(answer.unwrap().status, 413);
    assert_eq!(client.get("/x/1").await.status, 200);
    assert_eq!(node.seen().len(), 1);
}

#[tokio::test]
async fn a_body_of_tiny_frames_is_refused() {
    let (_node, gateway) = node_and_gateway().await;
    let mut client = h3::Client::connect(gateway.tls).await;
    let mut stream = client.begin("POST", "/x/1", &[]).await.unwrap();
    for _ in 0..400 {
        // An error is the refusal already.
        if stream.send_data(Bytes::from_static(b"t")).await.is_err() {
            break;
        }
    }
    let _ = stream.finish().await;
    let status = h3::read(&mut stream).await.map(|(answer, _)| answer.status);
    assert!(status.is_err() || status.unwrap() == 400);
    let hits = gateway.metric("bingo_limit_hits_total{limit=\"h3_frame_bytes_min\"}");
    assert_eq!(hits.await, 1.0);
}

#[tokio::test]
async fn a_client_has_so_many_connections_over_quic_as_over_tcp() {
    let (_node, gateway) = node_and_gateway().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(h3::Client::connect(gateway.tls).await);
    }
    assert!(h3::Client::try_connect(gateway.tls).await.is_err());
    clients.pop();
    eventually("there is room again", async || {
        h3::Client::try_connect(gateway.tls).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request_at_the_node() {
    let cancelled = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancelled);
    let node = Upstream::start(move |_| Reply::Hang(Arc::clone(&flag))).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut client = h3::Client::connect(gateway.tls).await;
    let mut stream = client.begin("GET", "/x/1", &[]).await.unwrap();
    stream.finish().await.unwrap();
    eventually("the node has it", async || {
        (!node.seen().is_empty()).then_some(())
    })
    .await;
    client.connection.close(0x100_u32.into(), b"");
    eventually("the node is told", async || {
        cancelled.load(SeqCst).then_some(())
    })
    .await;
}

#[tokio::test]
async fn asked_to_end_it_says_so_and_finishes_what_is_open() {
    let reply = answer("200 OK", "", "late");
    let node =
        Upstream::start(move |_| Reply::After(Duration::from_millis(500), reply.clone())).await;
    let mut gateway = Gateway::start(&[&node], ROUTES);
    let mut client = h3::Client::connect(gateway.tls).await;
    let mut stream = client.begin("GET", "/x/1", &[]).await.unwrap();
    stream.finish().await.unwrap();
    eventually("the node has it", async || {
        (!node.seen().is_empty()).then_some(())
    })
    .await;
    gateway.shutdown.request();
    let (answer, _) = h3::read(&mut stream).await.unwrap();
    assert_eq!(answer.text(), "late");
    gateway.ended().await.unwrap();
    let why = client.ended.await.unwrap();
    assert!(why.is_h3_no_error(), "{why}");
}

/// Stands between one client and a gateway, and can be turned to another gateway: to the client it
/// looks as if the first had died and the second had taken its port over.
struct Relay {
    address: SocketAddr,
    target: watch::Sender<SocketAddr>,
}

impl Relay {
    async fn start(target: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let (target, to) = watch::channel(target);
        tokio::spawn(async move {
            let mut client = address;
            let (mut there, mut here) = ([0; 65_536], [0; 65_536]);
            loop {
                tokio::select! {
                    got = front.recv_from(&mut there) => {
                        let (length, from) = got.unwrap();
                        client = from;
                        let to = *to.borrow();
                        back.send_to(&there[..length], to).await.unwrap();
                    }
                    got = back.recv_from(&mut here) => {
                        let (length, _) = got.unwrap();
                        front.send_to(&here[..length], client).await.unwrap();
                    }
                }
            }
        });
        Self { address, target }
    }
}

#[tokio::test]
async fn clients_of_a_dead_gateway_are_told_to_connect_anew_by_the_next_one() {
    let (_node, first) = node_and_gateway().await;
    let (_other, second) = node_and_gateway().await;
    let relay = Relay::start(first.tls).await;
    let mut client = h3::Client::connect(relay.address).await;
    assert_eq!(client.get("/x/1").await.status, 200);
    relay.target.send_replace(second.tls);
    assert!(client.send("GET", "/x/1", &[], "").await.is_err());
    assert_eq!(
        client.connection.close_reason(),
        Some(quinn::ConnectionError::Reset)
    );
    let mut again = h3::Client::connect(relay.address).await;
    assert_eq!(again.get("/x/1").await.status, 200);
}
