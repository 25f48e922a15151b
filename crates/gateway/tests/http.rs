//! HTTP on both sides: reuse, headers, framing, limits, streaming, the orderly end.

mod rig;

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use rig::{Gateway, Reply, Upstream, answer, eventually, ok, raw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ROUTES: &str = "
threads: 1
probe: {interval: 20ms}
limits: {head_timeout: 500ms, uri_bytes_max: 100B}
routes:
- {methods: [GET, POST], path: '/x/{any}', deadline: 5s}
- {methods: [POST], path: /slow-body, deadline: 300ms}
- {methods: [POST], path: /small, body_bytes_max: 10B}
- {methods: [POST], path: /big, body_bytes_max: 200KiB}
- {methods: [GET], path: /ping}
";

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn node_and_gateway() -> (Upstream, Gateway) {
    let node = Upstream::start(|seen| ok(&format!("{} {}", seen.method, seen.body.len()))).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    (node, gateway)
}

#[tokio::test]
async fn connections_are_kept_alive_on_both_sides() {
    let (node, gateway) = node_and_gateway().await;
    let mut client = gateway.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/x/1").await.status, 200);
    }
    for _ in 0..50 {
        assert_eq!(gateway.get("/x/1").await.status, 200);
    }
    assert_eq!(node.seen().len(), 100);
    assert!(node.connections_used() <= 2, "{}", node.connections_used());
}

#[tokio::test]
async fn a_node_learns_about_the_client_and_nothing_of_its_connection() {
    let (node, gateway) = node_and_gateway().await;
    let sent = [
        ("connection", "x-secret"),
        ("x-secret", "1"),
        ("te", "trailers"),
        ("proxy-authorization", "x"),
        ("x-forwarded-for", "203.0.113.9"),
        ("accept", "text/plain"),
        ("traceparent", TRACEPARENT),
        ("tracestate", "vendor=a"),
    ];
    gateway
        .client()
        .await
        .send("GET", "/x/1?q=%20", &sent, "")
        .await
        .unwrap();
    let seen = node.seen().remove(0);
    assert_eq!(seen.target, "/x/1?q=%20");
    for gone in ["x-secret", "proxy-authorization"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
    for (name, value) in [
        ("host", "test.localhost"),
        ("connection", "te"),
        ("te", "trailers"),
        ("accept", "text/plain"),
        ("traceparent", TRACEPARENT),
        ("tracestate", "vendor=a"),
        ("x-forwarded-for", "203.0.113.9, 127.0.0.1"),
        (
            "forwarded",
            "for=127.0.0.1;host=\"test.localhost\";proto=http",
        ),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "test.localhost"),
    ] {
        assert_eq!(seen.headers[name], value);
    }
    assert_eq!(seen.headers["x-request-id"].len(), 32);
}

#[tokio::test]
async fn a_client_gets_the_answer_with_its_node_and_without_the_nodes_connection() {
    let reply = answer(
        "201 Created",
        "connection: x-internal\r\nx-internal: 1\r\nkeep-alive: timeout=5\r\nlocation: /x/7\r\n",
        "made",
    );
    let node = Upstream::start(move |_| Reply::Raw(reply.clone())).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let answer = gateway.client().await.post("/x/1", "{}").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (201, "made")
    );
    assert_eq!(answer.header("location"), "/x/7");
    assert_eq!(answer.header("bingo-node"), "node-1");
    assert_eq!(answer.headers.get_all("date").iter().count(), 1);
    assert!(!answer.headers.contains_key("x-internal"));
    assert!(!answer.headers.contains_key("keep-alive"));
}

#[tokio::test]
async fn what_no_route_takes_is_answered_by_the_gateway() {
    let (node, gateway) = node_and_gateway().await;
    let mut client = gateway.client().await;
    let unknown = client.get("/metrics").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.header("content-type"), "application/problem+json");
    assert!(unknown.text().contains("/problems/not-found"));
    let wrong = client
        .send("DELETE", "/x/1", &[("x-request-id", "mine")], "")
        .await
        .unwrap();
    assert_eq!(
        (wrong.status.as_u16(), wrong.header("allow")),
        (405, "GET, POST, HEAD")
    );
    assert_eq!(wrong.header("x-request-id"), "mine");
    assert!(node.seen().is_empty());
    let series = "http_server_request_duration_seconds_count{http_route=\"other\",http_request_method=\"GET\",http_response_status_code=\"404\",network_protocol_version=\"1.1\"}";
    eventually("it is counted", async || {
        (gateway.metric(series).await >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn head_goes_where_get_goes_and_has_no_body() {
    let node = Upstream::start(|seen| match seen.method.as_str() {
        "HEAD" => Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 336\r\n\r\n".to_vec()),
        _ => ok("body"),
    })
    .await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut client = gateway.client().await;
    for _ in 0..3 {
        let head = client.send("HEAD", "/x/1", &[], "").await.unwrap();
        assert_eq!(
            (head.status.as_u16(), head.header("content-length")),
            (200, "336")
        );
        assert!(head.body.is_empty());
        assert_eq!(client.get("/x/1").await.text(), "body");
    }
    let missing = client.send("HEAD", "/nothing", &[], "").await.unwrap();
    assert_eq!((missing.status.as_u16(), missing.body.len()), (404, 0));
    assert_eq!(client.get("/x/1").await.text(), "body");
}

#[tokio::test]
async fn bodies_reach_the_node_whole_collected_or_streamed() {
    let (node, gateway) = node_and_gateway().await;
    let mut client = gateway.client().await;
    let body = "b".repeat(150_000);
    assert_eq!(client.post("/big", &body).await.text(), "POST 150000");
    assert_eq!(client.post("/big", "short").await.text(), "POST 5");
    assert_eq!(client.post("/x/1", "").await.text(), "POST 0");
    let chunked = "POST /x/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert!(
        raw(gateway.address, chunked)
            .await
            .unwrap()
            .ends_with("POST 5")
    );
    let seen = node.seen();
    let last = seen.last().unwrap();
    assert_eq!(
        (
            last.body.as_slice(),
            last.headers["content-length"].as_str()
        ),
        (&b"abcde"[..], "5")
    );
    assert!(!last.headers.contains_key("transfer-encoding"));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413_whether_its_length_is_told_or_not() {
    let (node, gateway) = node_and_gateway().await;
    for (path, length) in [("/small", 11), ("/small", 900_000), ("/big", 300_000)] {
        let answer = gateway.client().await.post(path, &"b".repeat(length)).await;
        assert_eq!(answer.status, 413, "{path} {length}");
    }
    let chunks = "ffff\r\n".to_owned() + &"b".repeat(0xffff) + "\r\n";
    for path in ["/small", "/big"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let request = head + &chunks.repeat(4) + "0\r\n\r\n";
        let answer = raw(gateway.address, &request).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{path}: {answer}");
    }
    assert!(node.seen().is_empty());
    assert!(
        gateway
            .metric("bingo_limit_hits_total{limit=\"body_bytes_max\"}")
            .await
            >= 5.0
    );
}

#[tokio::test]
async fn what_cannot_be_understood_in_one_way_is_refused() {
    let (node, gateway) = node_and_gateway().await;
    let long = format!("GET /x/{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(100));
    let fields = format!(
        "GET /x/1 HTTP/1.1\r\nhost: a\r\n{}\r\n",
        "a: b\r\n".repeat(100)
    );
    let head = format!(
        "GET /x/1 HTTP/1.1\r\nhost: a\r\na: {}\r\n\r\n",
        "b".repeat(40_000)
    );
    for (request, status) in [
        ("GET /x/1 HTTP/1.1\r\n\r\n", 400),
        ("GET /x/1 HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("GET /x/1 HTTP/1.1\r\nhost: a@b\r\n\r\n", 400),
        (
            "POST /x/1 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
            400,
        ),
        (
            "POST /x/1 HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
            400,
        ),
        (
            "POST /x/1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, x\r\n\r\n",
            400,
        ),
        (
            "POST /x/1 HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("GET /x/1 HTTP/1.1\r\nhost: a\r\n folded: b\r\n\r\n", 400),
        ("GET /x/1 HTTP/1.1\r\nhost : a\r\n\r\n", 400),
        (&long, 414),
        (&fields, 431),
        (&head, 431),
    ] {
        let answer = raw(gateway.address, request).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}"))
                || answer.starts_with(&format!("HTTP/1.0 {status}")),
            "{request:.60?}: {answer}"
        );
    }
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn two_framings_at_once_reach_the_node_as_one() {
    let (node, gateway) = node_and_gateway().await;
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    for fields in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        let request =
            format!("POST /x/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n{chunks}");
        raw(gateway.address, &request).await.unwrap();
    }
    for seen in node.seen() {
        assert_eq!(seen.body, b"abc");
        assert_eq!(seen.headers["content-length"], "3");
        assert!(!seen.headers.contains_key("transfer-encoding"));
    }
    assert_eq!(node.seen().len(), 2);
}

#[tokio::test]
async fn an_absolute_target_and_a_client_of_http_1_0_are_served() {
    let (node, gateway) = node_and_gateway().await;
    let absolute =
        "GET http://other.example/x/2?a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    assert!(
        raw(gateway.address, absolute)
            .await
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );
    let old = raw(gateway.address, "GET /x/3 HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    assert!(
        old.starts_with("HTTP/1.0 200") && old.ends_with("GET 0"),
        "{old}"
    );
    let seen = node.seen();
    assert_eq!(
        (seen[0].target.as_str(), seen[0].headers["host"].as_str()),
        ("/x/2?a", "other.example")
    );
    assert_eq!(seen[1].target, "/x/3");
}

#[tokio::test]
async fn a_slow_head_and_a_slow_body_end_in_time() {
    let (_node, gateway) = node_and_gateway().await;
    let asked = Instant::now();
    let head = raw(gateway.address, "GET /x/1 HTTP/1.1\r\nhost")
        .await
        .unwrap();
    assert!(head.starts_with("HTTP/1.1 408"), "{head}");
    let body = raw(
        gateway.address,
        "POST /slow-body HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc",
    )
    .await
    .unwrap();
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn a_large_answer_streams_and_a_slow_reader_holds_the_node_back() {
    const LENGTH: usize = 20 * 1024 * 1024;
    let node = Upstream::start(|_| Reply::Stream(LENGTH)).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let before = resident_bytes();
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream
        .write_all(b"GET /x/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut piece = vec![0; 64 * 1024];
    let (mut total, mut most) = (0, 0);
    loop {
        let length = stream.read(&mut piece).await.unwrap();
        if length == 0 {
            break;
        }
        total += length;
        most = most.max(resident_bytes().saturating_sub(before));
    }
    assert!(total > LENGTH, "{total}");
    assert!(most < LENGTH / 2, "{most} bytes more");
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_told_to_close_when_the_gateway_ends() {
    let node =
        Upstream::start(|_| Reply::After(Duration::from_millis(300), answer("200 OK", "", "late")))
            .await;
    let mut gateway = Gateway::start(&[&node], ROUTES);
    let mut idle = gateway.client().await;
    idle.get("/ping").await;
    let mut client = gateway.client().await;
    let waiting = tokio::spawn(async move { client.get("/x/1").await });
    eventually("the request is in flight", async || {
        (node.seen().len() == 2).then_some(())
    })
    .await;
    let asked = Instant::now();
    gateway.shutdown.request();
    let late = waiting.await.unwrap();
    assert_eq!(
        (late.text().as_str(), late.header("connection")),
        ("late", "close")
    );
    gateway.ended().await.unwrap();
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    assert!(TcpStream::connect(gateway.address).await.is_err());
}

#[tokio::test]
async fn an_idle_connection_is_still_answered_once_when_the_gateway_ends() {
    let (_node, mut gateway) = node_and_gateway().await;
    let mut client = gateway.client().await;
    client.get("/x/1").await;
    gateway.shutdown.request();
    eventually("the listener is closed", async || {
        TcpStream::connect(gateway.address)
            .await
            .is_err()
            .then_some(())
    })
    .await;
    let last = client.get("/x/1").await;
    assert_eq!(
        (last.status.as_u16(), last.header("connection")),
        (200, "close")
    );
    gateway.ended().await.unwrap();
}

#[tokio::test]
async fn the_admin_listener_shows_nodes_and_metrics_and_the_public_one_does_not() {
    let (_node, gateway) = node_and_gateway().await;
    gateway.node_is("node-1", "healthy").await;
    gateway.get("/x/1").await;
    let mut admin = rig::Client::connect(gateway.admin).await;
    let health = admin.get("/health").await;
    assert_eq!(health.status, 200);
    let health: serde_json::Value = serde_json::from_slice(&health.body).unwrap();
    assert_eq!(health["nodes"][0]["state"], "healthy");
    let status: serde_json::Value =
        serde_json::from_slice(&admin.get("/api/v1/status").await.body).unwrap();
    assert_eq!(status["nodes"][0]["name"], "node-1");
    let series = "http_server_request_duration_seconds_count{http_route=\"/x/{any}\",http_request_method=\"GET\",http_response_status_code=\"200\",network_protocol_version=\"1.1\"}";
    eventually("it is counted", async || {
        (gateway.metric(series).await == 1.0).then_some(())
    })
    .await;
    assert_eq!(
        gateway
            .metric("bingo_attempts_total{node=\"node-1\",outcome=\"answered\"}")
            .await,
        1.0
    );
    assert_eq!(gateway.get("/health").await.status, 404);
}

#[tokio::test]
async fn an_answers_first_bytes_do_not_wait_for_its_last() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst".to_vec();
    let node = Upstream::start(move |_| Reply::Raw(head.clone())).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/x/1")
        .header("host", "a")
        .body(String::new())
        .unwrap();
    let mut answer = sender.send_request(request).await.unwrap();
    let first = answer.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "first");
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it_or_the_refusal() {
    let (node, gateway) = node_and_gateway().await;
    let request = |length: usize, body: &str| {
        format!(
            "POST /small HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let answer = raw(gateway.address, &request(3, "abc")).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"),
        "{answer}"
    );
    assert!(!node.seen()[0].headers.contains_key("expect"));
    let answer = raw(gateway.address, &request(900, "")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn over_connections_max_a_client_waits_until_another_leaves() {
    let node = Upstream::start(|_| ok("fine")).await;
    let rest = ROUTES.replace("limits: {", "limits: {connections_max: 1, ");
    let gateway = Gateway::start(&[&node], &rest);
    let mut first = gateway.client().await;
    first.get("/x/1").await;
    let mut second = gateway.client().await;
    let second = tokio::spawn(async move { second.get("/x/1").await });
    let series = "bingo_limit_hits_total{limit=\"connections_max\"}";
    eventually("the limit is hit", async || {
        (gateway.metric(series).await >= 1.0).then_some(())
    })
    .await;
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let node = Upstream::start(|_| Reply::Stream(100 * 1024 * 1024)).await;
    let rest = ROUTES.replace("limits: {", "limits: {client_stall_timeout: 300ms, ");
    let gateway = Gateway::start(&[&node], &rest);
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client
        .write_all(b"GET /x/1 HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let series = "bingo_attempts_total{node=\"node-1\",outcome=\"cancelled\"}";
    eventually("it is given up", async || {
        (gateway.metric(series).await >= 1.0).then_some(())
    })
    .await;
}
