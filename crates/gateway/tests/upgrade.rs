//! Upgrades of HTTP/1.1: passed to the node, spliced, bounded, ended.

mod rig;

use std::time::{Duration, Instant};

use rig::{Gateway, Reply, Upstream, eventually, ok};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const ROUTES: &str = "
threads: 1
probe: {interval: 20ms}
limits: {connections_max: 2, upgrade_idle_timeout: 400ms}
routes: [{methods: [GET], path: /socket, deadline: 5s}]
";

const WISH: &[u8] = b"GET /socket HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\n";

/// Agrees to a WebSocket and then sends back what it gets; anything else is answered 200.
async fn echo() -> Upstream {
    Upstream::start(|seen| {
        if seen.headers.get("upgrade").map(String::as_str) == Some("websocket") {
            assert_eq!(seen.headers["connection"], "upgrade");
            let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: WebSocket\r\nsec-websocket-accept: k\r\n\r\n";
            Reply::Echo(agreed.as_bytes().to_vec())
        } else {
            ok("plain")
        }
    })
    .await
}

/// Reads the head of an answer.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn upgraded(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(WISH).await.unwrap();
    let head = head(stream).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    assert!(head.contains("sec-websocket-accept: k\r\n"), "{head}");
    for word in [&b"hello"[..], b"again"] {
        stream.write_all(word).await.unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, word);
    }
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_until_the_client_leaves() {
    let node = echo().await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    upgraded(&mut stream).await;
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    let mut stream = rig::tls::connect(gateway.tls, &["http/1.1"]).await.unwrap();
    upgraded(&mut stream).await;
    drop(stream);
    eventually("both have ended", async || {
        let series = "bingo_attempts_total{node=\"node-1\",outcome=\"answered\"}";
        (gateway.metric(series).await == 2.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upgraded_connection_counts_and_is_closed_when_nothing_moves() {
    let node = echo().await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let (mut one, mut two) = (
        TcpStream::connect(gateway.address).await.unwrap(),
        TcpStream::connect(gateway.address).await.unwrap(),
    );
    upgraded(&mut one).await;
    upgraded(&mut two).await;
    let mut third = gateway.client().await;
    let third = tokio::spawn(async move { third.get("/socket").await });
    let series = |limit: &str| format!("bingo_limit_hits_total{{limit=\"{limit}\"}}");
    eventually("no more are accepted", async || {
        (gateway.metric(&series("connections_max")).await >= 1.0).then_some(())
    })
    .await;
    assert!(!third.is_finished());
    assert_eq!(one.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(third.await.unwrap().text(), "plain");
    eventually("it is counted", async || {
        (gateway.metric(&series("upgrade_idle_timeout")).await == 2.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upgraded_connection_ends_with_the_gateway() {
    let node = echo().await;
    let routes = ROUTES.replace("400ms", "1h");
    let mut gateway = Gateway::start(&[&node], &routes);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    upgraded(&mut stream).await;
    let asked = Instant::now();
    gateway.shutdown.request();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    gateway.ended().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_wish_that_the_node_or_the_gateway_does_not_grant_is_an_ordinary_request() {
    let node = echo().await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let wish = String::from_utf8(WISH.to_vec()).unwrap();
    for (from, to) in [
        ("upgrade: websocket", "upgrade: h2c"),
        ("upgrade: websocket", "upgrade: websocket\r\nupgrade: h2c"),
        ("keep-alive, Upgrade", "keep-alive"),
        ("sec-websocket-key: k", "content-length: 0"),
    ] {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let request = wish.replace(from, to);
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"), "{to}");
        assert!(!node.seen().last().unwrap().headers.contains_key("upgrade"));
    }
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_a_broken_answer() {
    for (request, agreed) in [
        (&b"GET /socket HTTP/1.1\r\nhost: a\r\n\r\n"[..], "websocket"),
        (WISH, "other"),
    ] {
        let switch = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {agreed}\r\n\r\n"
        );
        let node = Upstream::start(move |_| Reply::Raw(switch.clone().into_bytes())).await;
        let gateway = Gateway::start(&[&node], ROUTES);
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 502"), "{head}");
    }
}
