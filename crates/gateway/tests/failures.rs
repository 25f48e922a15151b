//! What clients see while nodes die, refuse, break connections, drain and come back.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rig::{Gateway, Reply, Upstream, answer, eventually, ok};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const ROUTES: &str = "
probe: {interval: 20ms}
routes:
- {methods: [GET, POST], path: /safe, deadline: 5s, retry: safe}
- {methods: [GET, POST], path: /never, deadline: 5s, retry: never}
- {methods: [GET, POST], path: /always, deadline: 5s, retry: always}
- {methods: [GET], path: /short, deadline: 300ms, retry: safe}
- {methods: [POST], path: /streamed, deadline: 5s, body_bytes_max: 100MiB}
";

/// Two nodes; each answers its name.
async fn two_nodes() -> (Upstream, Upstream, Gateway) {
    let one = Upstream::start(|_| ok("one")).await;
    let two = Upstream::start(|_| ok("two")).await;
    let gateway = Gateway::start(&[&one, &two], ROUTES);
    gateway.node_is("node-1", "healthy").await;
    gateway.node_is("node-2", "healthy").await;
    (one, two, gateway)
}

#[tokio::test]
async fn a_node_that_dies_with_idle_connections_costs_no_client_an_error() {
    let (mut one, two, gateway) = two_nodes().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(gateway.client().await);
    }
    for round in 0..40 {
        if round == 20 {
            one.kill();
        }
        for client in &mut clients {
            // Each is another one: a write that nobody knows goes to the node that it is drawn to.
            let body = format!("{round}");
            assert_eq!(client.post("/never", &body).await.status, 200);
        }
    }
    assert!(!one.seen().is_empty() && !two.seen().is_empty());
    gateway.node_is("node-1", "ejected").await;
}

#[tokio::test]
async fn a_node_that_refuses_is_unseen_and_ejected_until_probes_bring_it_back() {
    let (mut one, _two, gateway) = two_nodes().await;
    one.kill();
    for _ in 0..20 {
        assert_eq!(gateway.get("/never").await.text(), "two");
    }
    gateway.node_is("node-1", "ejected").await;
    one.revive().await;
    gateway.node_is("node-1", "healthy").await;
    eventually("node-1 answers again", async || {
        (gateway.get("/safe").await.text() == "one").then_some(())
    })
    .await;
}

/// A node that breaks every connection before it answers, and a good one.
async fn breaking_and_good() -> (Upstream, Upstream, Gateway) {
    let bad = Upstream::start(|_| Reply::Reset).await;
    let good = Upstream::start(|_| ok("good")).await;
    let gateway = Gateway::start(&[&bad, &good], ROUTES);
    (bad, good, gateway)
}

/// Sends requests one by one until one has met the bad node; returns its answer.
async fn meet(
    bad: &Upstream,
    gateway: &Gateway,
    method: &str,
    path: &str,
    key: &[(&str, &str)],
) -> rig::Answer {
    eventually("the bad node is asked", async || {
        let before = bad.seen().len();
        let answer = gateway
            .client()
            .await
            .send(method, path, key, "")
            .await
            .unwrap();
        if bad.seen().len() > before {
            return Some(answer);
        }
        assert_eq!(answer.status, 200);
        None
    })
    .await
}

#[tokio::test]
async fn a_connection_broken_before_the_answer_is_unseen_where_the_policy_allows_a_repetition() {
    let (bad, good, gateway) = breaking_and_good().await;
    assert_eq!(
        meet(&bad, &gateway, "GET", "/safe", &[]).await.text(),
        "good"
    );
    assert_eq!(
        meet(&bad, &gateway, "POST", "/always", &[]).await.text(),
        "good"
    );
    let keyed = [("idempotency-key", "k")];
    assert_eq!(
        meet(&bad, &gateway, "POST", "/safe", &keyed).await.text(),
        "good"
    );
    assert!(
        gateway
            .metric("bingo_retries_total{reason=\"no_answer\"}")
            .await
            >= 3.0
    );
    assert!(good.seen().len() >= 3);
}

#[tokio::test]
async fn a_connection_broken_before_the_answer_is_a_502_where_the_policy_forbids_a_repetition() {
    let (bad, _good, gateway) = breaking_and_good().await;
    for (method, path, key) in [
        ("POST", "/safe", &[][..]),
        ("GET", "/never", &[]),
        ("POST", "/never", &[("idempotency-key", "k")]),
    ] {
        let answer = meet(&bad, &gateway, method, path, key).await;
        assert_eq!(answer.status, 502, "{method} {path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(
            answer.header("proxy-status"),
            "bingo; error=connection_terminated"
        );
        assert!(!answer.header("x-request-id").is_empty());
    }
}

#[tokio::test]
async fn a_broken_connection_takes_the_node_out_before_the_next_probe() {
    let (bad, _good, gateway) = breaking_and_good().await;
    meet(&bad, &gateway, "GET", "/safe", &[]).await;
    assert!(
        gateway
            .metric("bingo_ejections_total{node=\"node-1\",reason=\"broken\"}")
            .await
            >= 1.0
    );
}

#[tokio::test]
async fn with_all_nodes_down_requests_are_held_and_served_when_one_is_back() {
    let (mut one, mut two, gateway) = two_nodes().await;
    one.kill();
    two.kill();
    let client = gateway.client().await;
    let held = tokio::spawn(async move {
        let mut client = client;
        client.post("/never", "body").await
    });
    eventually("the request is held", async || {
        (gateway.metric("bingo_holds_total").await >= 1.0).then_some(())
    })
    .await;
    two.revive().await;
    let answer = held.await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "two")
    );
    assert_eq!(two.seen()[0].body, b"body");
}

#[tokio::test]
async fn with_all_nodes_down_for_good_the_answer_is_504_at_the_deadline() {
    let (mut one, mut two, gateway) = two_nodes().await;
    one.kill();
    two.kill();
    let asked = Instant::now();
    let answer = gateway.get("/short").await;
    assert_eq!(answer.status, 504);
    assert_eq!(
        answer.header("proxy-status"),
        "bingo; error=destination_unavailable"
    );
    let took = asked.elapsed();
    assert!(
        took > Duration::from_millis(250) && took < Duration::from_secs(2),
        "{took:?}"
    );
}

#[tokio::test]
async fn more_held_requests_than_the_limit_are_turned_away_at_once() {
    let mut node = Upstream::start(|_| ok("one")).await;
    let (address, rest) = (node.address, format!("limits: {{held_max: 1}}{ROUTES}"));
    node.kill();
    let gateway = Gateway::start_at(&[address], &rest);
    let mut first = gateway.client().await;
    let first = tokio::spawn(async move { first.get("/safe").await });
    eventually("the first is held", async || {
        (gateway.metric("bingo_holds_total").await >= 1.0).then_some(())
    })
    .await;
    let second = gateway.get("/safe").await;
    assert_eq!(
        (second.status.as_u16(), second.header("retry-after")),
        (503, "1")
    );
    first.abort();
}

#[tokio::test]
async fn the_only_node_left_is_used_even_if_its_probes_fail() {
    let node = Upstream::start(|_| ok("still here")).await;
    node.answer_probes(answer("500 Internal Server Error", "", "I feel bad"));
    let gateway = Gateway::start(&[&node], ROUTES);
    gateway.node_is("node-1", "ejected").await;
    assert_eq!(gateway.get("/safe").await.text(), "still here");
    let health = rig::Client::connect(gateway.admin)
        .await
        .get("/health")
        .await;
    assert_eq!(health.status, 503);
}

#[tokio::test]
async fn a_node_that_does_not_answer_costs_a_504_and_is_told_its_time() {
    let gone = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&gone);
    let node = Upstream::start(move |_| Reply::Hang(Arc::clone(&flag))).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let answer = gateway
        .client()
        .await
        .send("GET", "/short", &[("bingo-timeout-ms", "999999")], "")
        .await
        .unwrap();
    assert_eq!(answer.status, 504);
    assert_eq!(
        answer.header("proxy-status"),
        "bingo; error=http_response_timeout"
    );
    let told: u64 = node.seen()[0].headers["bingo-timeout-ms"].parse().unwrap();
    assert!((100..=200).contains(&told), "{told}");
    eventually("the node sees the end", async || {
        gone.load(SeqCst).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_has_too_much_to_do_to_answer_a_probe_is_alive() {
    let (one, _two, gateway) = two_nodes().await;
    one.answer_probes(answer("500 Internal Server Error", "", "I feel bad"));
    gateway.node_is("node-1", "ejected").await;
    one.answer_probes(answer("429 Too Many Requests", "", "Too many requests"));
    gateway.node_is("node-1", "healthy").await;
}

#[tokio::test]
async fn a_draining_node_is_out_of_rotation_without_being_ejected() {
    let (one, _two, gateway) = two_nodes().await;
    one.answer_probes(answer(
        "500 Internal Server Error",
        "bingo-state: draining\r\n",
        "I feel bad",
    ));
    gateway.node_is("node-1", "draining").await;
    let before = one.seen().len();
    for _ in 0..10 {
        assert_eq!(gateway.get("/safe").await.text(), "two");
    }
    assert_eq!(one.seen().len(), before);
    assert_eq!(
        gateway
            .metric("bingo_node_state{node=\"node-1\",state=\"ejected\"}")
            .await,
        0.0
    );
}

#[tokio::test]
async fn a_request_that_a_draining_node_turns_away_goes_to_the_other_whatever_its_policy() {
    let turned = answer("503 Service Unavailable", "bingo-state: draining\r\n", "");
    let one = Upstream::start(move |_| Reply::Raw(turned.clone())).await;
    let two = Upstream::start(|_| ok("two")).await;
    let gateway = Gateway::start(&[&one, &two], ROUTES);
    eventually("node-1 is asked", async || {
        assert_eq!(
            gateway.client().await.post("/never", "x").await.text(),
            "two"
        );
        (!one.seen().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_ordinary_5xx_is_passed_on() {
    let node =
        Upstream::start(|_| Reply::Raw(answer("500 Internal Server Error", "", "I feel bad.")))
            .await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let answer = gateway.get("/always").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (500, "I feel bad.")
    );
    assert_eq!(node.seen().len(), 1);
}

#[tokio::test]
async fn a_body_broken_off_by_the_node_is_an_error_to_the_client_and_never_a_clean_end() {
    for head in [
        "content-length: 100000\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n5\r\nhello\r\n");
        let node = Upstream::start(move |_| Reply::RawThenClose(bytes.clone().into_bytes())).await;
        let gateway = Gateway::start(&[&node], ROUTES);
        let result = gateway.client().await.send("GET", "/safe", &[], "").await;
        assert!(result.is_err(), "{head}");
        // A client of HTTP/1.0 takes the end of the connection for the end of the answer.
        let old = rig::raw(gateway.address, "GET /safe HTTP/1.0\r\n\r\n").await;
        let truncated = |text: &String| text.contains("content-length: 100");
        assert!(old.as_ref().map_or(true, truncated), "{head}: {old:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request_on_the_node() {
    let gone = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&gone);
    let node = Upstream::start(move |_| Reply::Hang(Arc::clone(&flag))).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client
        .write_all(b"GET /safe HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    eventually("the node has the request", async || {
        (!node.seen().is_empty()).then_some(())
    })
    .await;
    drop(client);
    eventually("the node sees the end", async || {
        gone.load(SeqCst).then_some(())
    })
    .await;
    let cancelled = "bingo_attempts_total{node=\"node-1\",outcome=\"cancelled\"}";
    eventually("it is counted", async || {
        (gateway.metric(cancelled).await >= 1.0).then_some(())
    })
    .await;
    assert_eq!(
        gateway
            .metric("bingo_node_state{node=\"node-1\",state=\"ejected\"}")
            .await,
        0.0
    );
}

#[tokio::test]
async fn requests_go_on_while_two_nodes_die_and_return_in_turn() {
    let (mut one, mut two, gateway) = two_nodes().await;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (mut client, stop, served) = (
            gateway.client().await,
            Arc::clone(&stop),
            Arc::clone(&served),
        );
        clients.push(tokio::spawn(async move {
            while !stop.load(SeqCst) {
                let answer = client.get("/safe").await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                served.fetch_add(1, SeqCst);
            }
        }));
    }
    for _ in 0..3 {
        for (node, name) in [(&mut one, "node-1"), (&mut two, "node-2")] {
            let before = served.load(SeqCst);
            node.kill();
            gateway.node_is(name, "ejected").await;
            node.revive().await;
            gateway.node_is(name, "healthy").await;
            eventually("requests go on", async || {
                (served.load(SeqCst) > before + 10).then_some(())
            })
            .await;
        }
    }
    stop.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
}
