//! What is spoken on the listeners: HTTP/1.1 and HTTP/2, with TLS and without; and how each ends.

mod rig;

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rig::{Gateway, Reply, Upstream, answer, eventually, h2, ok, raw, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ROUTES: &str = "
threads: 1
probe: {interval: 20ms}
limits: {head_timeout: 500ms, tls_handshake_timeout: 500ms, h2_streams_max: 50}
routes:
- {methods: [GET, POST], path: '/x/{any}', deadline: 5s}
- {methods: [POST], path: /big, body_bytes_max: 1MiB}
";

async fn node_and_gateway(rest: &str) -> (Upstream, Gateway) {
    let node = Upstream::start(|seen| ok(&format!("{} {}", seen.method, seen.body.len()))).await;
    let gateway = Gateway::start(&[&node], rest);
    (node, gateway)
}

/// HTTP/1.1 over TLS, one request.
async fn over_tls(gateway: &Gateway, alpn: &[&str], request: &str) -> String {
    let mut stream = tls::connect(gateway.tls, alpn).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn alpn_settles_between_http_2_and_http_1_1_and_both_reach_the_same_nodes() {
    let (node, gateway) = node_and_gateway(ROUTES).await;
    let request = "GET /x/1 HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";
    for alpn in [&["http/1.1"][..], &[]] {
        let answer = over_tls(&gateway, alpn, request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let stream = tls::connect(gateway.tls, &["h2", "http/1.1"])
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = h2::Client::tls(gateway.tls).await;
    assert_eq!(client.get("/x/1").await.text(), "GET 0");
    let posted = client.send("POST", "/x/1", &[], "abc").await.unwrap();
    assert_eq!(posted.text(), "POST 3");
    for seen in node.seen() {
        assert_eq!(seen.headers["x-forwarded-proto"], "https");
        assert!(seen.headers["forwarded"].ends_with("proto=https"));
    }
    assert_eq!(node.seen().len(), 4);
    let series = "http_server_request_duration_seconds_count{http_route=\"/x/{any}\",http_request_method=\"POST\",http_response_status_code=\"200\",network_protocol_version=\"2\"}";
    eventually("HTTP/2 is counted", async || {
        (gateway.metric(series).await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_plain_listener_speaks_http_2_to_a_client_that_knows() {
    let (node, gateway) = node_and_gateway(ROUTES).await;
    let mut client = h2::Client::plain(gateway.address).await;
    assert_eq!(client.get("/x/1").await.text(), "GET 0");
    let seen = node.seen().remove(0);
    assert_eq!(seen.headers["host"], "test.example");
    assert_eq!(seen.headers["x-forwarded-proto"], "http");
    assert_eq!(seen.target, "/x/1");
    assert_eq!(gateway.get("/x/1").await.text(), "GET 0");
}

#[tokio::test]
async fn a_first_head_that_comes_byte_by_byte_is_understood() {
    let (_node, gateway) = node_and_gateway(ROUTES).await;
    for request in [
        "GET /x/1 HTTP/1.1\r\n",
        "\r\nPOST /x/1 HTTP/1.1\r\ncontent-length: 0\r\n",
    ] {
        let request = format!("{request}host: a\r\nconnection: close\r\n\r\n");
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in request.as_bytes() {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn many_streams_of_one_connection_are_answered_at_once() {
    let reply = answer("200 OK", "", "late");
    let node =
        Upstream::start(move |_| Reply::After(Duration::from_millis(300), reply.clone())).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let client = h2::Client::tls(gateway.tls).await;
    let asked = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut sender = client.sender.clone();
        waiting.push(tokio::spawn(async move {
            sender.ready().await.unwrap();
            let request = http::Request::get("https://test.example/x/1");
            let request = request.body(http_body_util::Full::default()).unwrap();
            sender.send_request(request).await.unwrap().status()
        }));
    }
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), 200);
    }
    // One after the other they would take six seconds.
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn answers_over_http_2_have_nothing_of_a_connection() {
    let reply = answer(
        "200 OK",
        "connection: keep-alive, x-a\r\nx-a: 1\r\nkeep-alive: 1\r\n",
        "a",
    );
    let node = Upstream::start(move |_| Reply::Raw(reply.clone())).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut client = h2::Client::plain(gateway.address).await;
    let own = client.get("/nothing").await;
    let large = "b".repeat(100_000);
    let closing = client.send("POST", "/x/1", &[], &large).await.unwrap();
    assert_eq!((own.status.as_u16(), closing.status.as_u16()), (404, 413));
    for answer in [client.get("/x/1").await, own, closing] {
        for name in ["connection", "keep-alive", "x-a", "transfer-encoding"] {
            assert!(!answer.headers.contains_key(name), "{name}");
        }
    }
}

#[tokio::test]
async fn a_client_that_is_silent_before_its_first_request_is_closed_in_time() {
    let (_node, gateway) = node_and_gateway(ROUTES).await;
    let asked = Instant::now();
    // Nothing at all, half a preface, half a TLS handshake, a handshake and no preface.
    for (address, bytes) in [
        (gateway.address, &b""[..]),
        (gateway.address, b"PRI * HTTP/2.0\r\n"),
        (gateway.tls, b""),
        (gateway.tls, b"\x16\x03\x01"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{answer:?}");
    }
    let mut stream = tls::connect(gateway.tls, &["h2"]).await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
    assert!(
        asked.elapsed() < Duration::from_secs(8),
        "{:?}",
        asked.elapsed()
    );
    for limit in ["head_timeout", "tls_handshake_timeout"] {
        let series = format!("bingo_limit_hits_total{{limit=\"{limit}\"}}");
        assert!(gateway.metric(&series).await >= 2.0, "{limit}");
    }
}

#[tokio::test]
async fn what_is_not_tls_is_closed_and_others_are_served() {
    let (_node, gateway) = node_and_gateway(ROUTES).await;
    let answer = raw(gateway.tls, "GET /x/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!answer.unwrap_or_default().starts_with("HTTP"));
    let mut stream = tls::connect(gateway.tls, &["h2"]).await.unwrap();
    let request = b"GET /x/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(
        h2::Client::tls(gateway.tls).await.get("/x/1").await.status,
        200
    );
}

#[tokio::test]
async fn alt_svc_stands_on_answers_over_tls_where_http_3_is_spoken() {
    let listen = "tls: {certificate: not opened, key: here}\n\
        listen: [{address: '127.0.0.1:8443', tls: true, http3: true, advertised_port: 443}]";
    for (rest, expected) in [
        (ROUTES.to_owned(), ""),
        (format!("{listen}{ROUTES}"), "h3=\":443\"; ma=86400"),
        (format!("{listen}\nadvertise_http3: false{ROUTES}"), "clear"),
    ] {
        let reply = answer("200 OK", "alt-svc: h3=\":1\"\r\n", "a");
        let node = Upstream::start(move |_| Reply::Raw(reply.clone())).await;
        let gateway = Gateway::start(&[&node], &rest);
        let mut client = h2::Client::tls(gateway.tls).await;
        for path in ["/x/1", "/nothing"] {
            let answer = client.get(path).await;
            assert_eq!(answer.header("alt-svc"), expected, "{rest} {path}");
        }
        assert_eq!(gateway.get("/x/1").await.header("alt-svc"), "");
    }
}

#[tokio::test]
async fn a_request_of_http_2_in_flight_is_finished_when_the_gateway_ends() {
    let reply = answer("200 OK", "", "late");
    let node =
        Upstream::start(move |_| Reply::After(Duration::from_millis(300), reply.clone())).await;
    let mut gateway = Gateway::start(&[&node], ROUTES);
    let mut client = h2::Client::tls(gateway.tls).await;
    let mut idle = h2::Client::plain(gateway.address).await;
    idle.get("/nothing").await;
    let mut sender = client.sender.clone();
    let waiting = tokio::spawn(async move { client.get("/x/1").await.text() });
    eventually("the request is in flight", async || {
        (node.seen().len() == 1).then_some(())
    })
    .await;
    let asked = Instant::now();
    gateway.shutdown.request();
    assert_eq!(waiting.await.unwrap(), "late");
    gateway.ended().await.unwrap();
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    // GOAWAY was said: hyper's client opens no stream any more.
    assert!(sender.ready().await.is_err());
    idle.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_never_says_its_preface_or_stays_open_does_not_hold_up_the_end() {
    let (_node, mut gateway) = node_and_gateway(&ROUTES.replace(
        "limits: {head_timeout: 500ms,",
        "limits: {head_timeout: 60s, drain_deadline: 2s,",
    ))
    .await;
    let _silent = TcpStream::connect(gateway.address).await.unwrap();
    let mut half = TcpStream::connect(gateway.address).await.unwrap();
    half.write_all(b"PRI * HTTP/2").await.unwrap();
    // It has begun and takes no part in the end: no ping is answered.
    let mut deaf = h2::Raw::connect(gateway.address, &[]).await;
    deaf.send(&h2::get(1, "/x/1")).await;
    while deaf.next().await.unwrap().0 != h2::DATA {}
    let asked = Instant::now();
    gateway.shutdown.request();
    gateway.ended().await.unwrap();
    assert!(
        asked.elapsed() < Duration::from_secs(8),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn a_large_answer_streams_over_http_2_and_a_slow_reader_holds_the_node_back() {
    const LENGTH: usize = 20 * 1024 * 1024;
    let node = Upstream::start(|_| Reply::Stream(LENGTH)).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut client = h2::Client::tls(gateway.tls).await;
    let mut answer = client.begin("GET", "/x/1", &[], "").await.unwrap();
    let mut total = 0;
    while let Some(frame) = answer.frame().await {
        total += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(total, LENGTH);
}

#[tokio::test]
async fn a_large_request_streams_over_http_2() {
    let (node, gateway) = node_and_gateway(ROUTES).await;
    let mut client = h2::Client::tls(gateway.tls).await;
    let body = "b".repeat(900_000);
    let answer = client.send("POST", "/big", &[], &body).await.unwrap();
    assert_eq!(answer.text(), "POST 900000");
    assert_eq!(node.seen()[0].headers["content-length"], "900000");
}

#[tokio::test]
async fn a_client_of_http_1_1_over_tls_keeps_its_connection() {
    let (node, gateway) = node_and_gateway(ROUTES).await;
    let stream = tls::connect(gateway.tls, &["http/1.1"]).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    for _ in 0..10 {
        let request = http::Request::get("/x/1").header("host", "a");
        let request = request.body(String::new()).unwrap();
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            "GET 0"
        );
    }
    assert_eq!(node.seen().len(), 10);
}

#[tokio::test]
async fn trailers_of_a_request_reach_the_node_collected_or_streamed() {
    let (node, gateway) = node_and_gateway(ROUTES).await;
    for path in ["/x/1", "/big"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, host\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\nhost: b\r\n\r\n"
        );
        let answer = raw(gateway.address, request).await.unwrap();
        assert!(answer.ends_with("POST 3"), "{answer}");
        let seen = node.seen().pop().unwrap();
        assert_eq!(seen.trailers, ["x-sum: 7"], "{path}");
        assert_eq!(seen.headers["host"], "a");
    }
}

#[tokio::test]
async fn trailers_of_an_answer_reach_clients_that_take_them() {
    let reply = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\nset-cookie: a\r\n\r\n";
    let node = Upstream::start(move |_| Reply::Raw(reply.to_vec())).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    for _ in 0..2 {
        let mut client = h2::Client::tls(gateway.tls).await;
        let answer = client.begin("GET", "/x/1", &[], "").await.unwrap();
        let whole = answer.into_body().collect().await.unwrap();
        let trailers = whole.trailers().unwrap();
        assert_eq!(
            (trailers.len(), &trailers["x-sum"]),
            (1, &"7".parse().unwrap())
        );
        assert_eq!(whole.to_bytes(), "abc");
    }
    let request =
        |te: &str| format!("GET /x/1 HTTP/1.1\r\nhost: a\r\n{te}connection: close\r\n\r\n");
    let takes = raw(gateway.address, request("te: trailers\r\n"))
        .await
        .unwrap();
    assert!(takes.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{takes}");
    assert!(takes.contains("trailer: x-sum\r\n"), "{takes}");
    assert_eq!(node.seen().last().unwrap().headers["te"], "trailers");
    let not = raw(gateway.address, request("")).await.unwrap();
    assert!(
        not.ends_with("0\r\n\r\n") && !not.contains("x-sum"),
        "{not}"
    );
    assert!(!node.seen().last().unwrap().headers.contains_key("te"));
}
