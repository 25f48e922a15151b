//! The admin API: who may change something, nodes that are drained and in maintenance, events.

mod rig;

use std::time::Duration;

use http_body_util::BodyExt;
use rig::file::{OnFile, TOKEN};
use rig::{Client, Reply, Upstream, answer, eventually, ok};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ROUTES: &str = "
probe: {interval: 20ms}
routes:
- {methods: [GET, POST], path: /a, deadline: 5s, retry: never}
- {methods: [GET], path: /short, deadline: 200ms}
";

async fn two_nodes() -> (Upstream, Upstream, OnFile) {
    let one = Upstream::start(|_| ok("one")).await;
    let two = Upstream::start(|_| ok("two")).await;
    let nodes = [("node-1", one.address), ("node-2", two.address)];
    let on_file = OnFile::start(&nodes, ROUTES);
    on_file.gateway.node_is("node-1", "healthy").await;
    on_file.gateway.node_is("node-2", "healthy").await;
    (one, two, on_file)
}

fn json(answer: &rig::Answer) -> serde_json::Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn a_change_needs_the_token_and_a_read_does_not() {
    let (_one, _two, on_file) = two_nodes().await;
    let mut admin = Client::connect(on_file.gateway.admin).await;
    for path in ["/metrics", "/health", "/api/v1/status"] {
        assert_eq!(admin.get(path).await.status, 200, "{path}");
    }
    let wrong = format!("Bearer {TOKEN}x");
    for (method, path) in [
        ("POST", "/api/v1/reload"),
        ("PUT", "/api/v1/nodes/node-1/state"),
        ("PUT", "/api/v1/nodes/nobody/state"),
    ] {
        for (headers, challenge) in [
            (&[][..], "Bearer realm=\"bingo\""),
            (
                &[("authorization", wrong.as_str())][..],
                "Bearer realm=\"bingo\", error=\"invalid_token\"",
            ),
            (
                &[("authorization", "Basic Og==")][..],
                "Bearer realm=\"bingo\"",
            ),
        ] {
            let refused = admin.send(method, path, headers, "{}").await.unwrap();
            assert_eq!(refused.status, 401, "{method} {path}");
            assert_eq!(refused.header("www-authenticate"), challenge);
            assert!(!refused.text().contains(TOKEN));
        }
    }
    assert_eq!(on_file.status().await["nodes"][0]["wanted"], "active");
}

#[tokio::test]
async fn a_new_token_counts_at_once_and_the_old_one_no_more() {
    let (_one, _two, on_file) = two_nodes().await;
    assert_eq!(on_file.reload().await.status, 200);
    std::fs::write(on_file.token_file(), "another").unwrap();
    assert_eq!(on_file.reload().await.status, 401);
    std::fs::write(on_file.token_file(), TOKEN).unwrap();
    assert_eq!(on_file.reload().await.status, 200);
    for broken in [Some("\n"), None] {
        match broken {
            Some(text) => std::fs::write(on_file.token_file(), text).unwrap(),
            None => std::fs::remove_file(on_file.token_file()).unwrap(),
        }
        assert_eq!(on_file.reload().await.status, 403, "{broken:?}");
    }
}

#[tokio::test]
async fn without_a_token_file_no_change_is_taken_and_the_remedy_is_told() {
    let node = Upstream::start(|_| ok("one")).await;
    let gateway = rig::Gateway::start(&[&node], ROUTES);
    let mut admin = Client::connect(gateway.admin).await;
    let refused = admin.post("/api/v1/reload", "").await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("admin.token_file"));
}

#[tokio::test]
async fn a_drained_node_ends_what_it_has_and_gets_nothing_new_until_it_is_active_again() {
    let slow = Reply::After(Duration::from_millis(300), answer("200 OK", "", "slow"));
    let one = Upstream::start(move |_| slow.clone()).await;
    let two = Upstream::start(|_| ok("two")).await;
    let nodes = [("node-1", one.address), ("node-2", two.address)];
    let on_file = OnFile::start(&nodes, ROUTES);
    on_file.gateway.node_is("node-1", "healthy").await;
    let mut clients = tokio::task::JoinSet::new();
    eventually("node-1 has a request", async || {
        let mut client = on_file.gateway.client().await;
        clients.spawn(async move { client.post("/a", "x").await.status });
        (!one.seen().is_empty()).then_some(())
    })
    .await;
    let set = on_file.set("node-1", "{\"state\":\"draining\"}").await;
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(json(&set)["state"], "draining");
    assert!(json(&set).get("warning").is_none());
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    let before = one.seen().len();
    for _ in 0..20 {
        assert_eq!(on_file.gateway.get("/a").await.text(), "two");
    }
    // Nor after a reload.
    on_file.write(&nodes, &format!("# another\n{ROUTES}"));
    assert_eq!(on_file.reload().await.status, 200);
    assert_eq!(on_file.gateway.get("/a").await.text(), "two");
    assert_eq!(one.seen().len(), before);
    on_file.gateway.node_is("node-1", "draining").await;
    let set = on_file.set("node-1", "{\"state\":\"active\"}").await;
    assert_eq!(json(&set)["state"], "healthy");
    on_file.set("node-2", "{\"state\":\"draining\"}").await;
    assert_eq!(on_file.gateway.get("/a").await.text(), "slow");
}

#[tokio::test]
async fn a_node_in_maintenance_is_not_probed_and_stays_so_when_it_is_removed_and_comes_back() {
    let (one, two, on_file) = two_nodes().await;
    let set = on_file.set("node-1", "{\"state\":\"maintenance\"}").await;
    assert_eq!(json(&set)["state"], "maintenance");
    eventually("its probe ends", async || {
        let probes = one.probes();
        tokio::time::sleep(Duration::from_millis(60)).await;
        (one.probes() == probes).then_some(())
    })
    .await;
    on_file.write(&[("node-2", two.address)], ROUTES);
    assert_eq!(on_file.reload().await.status, 200);
    // Under another address, so that it is another node of the same name.
    let moved = Upstream::start(|_| ok("moved")).await;
    let nodes = [("node-1", moved.address), ("node-2", two.address)];
    on_file.write(&nodes, ROUTES);
    assert_eq!(on_file.reload().await.status, 200);
    on_file.gateway.node_is("node-1", "maintenance").await;
    for _ in 0..20 {
        assert_eq!(on_file.gateway.get("/a").await.text(), "two");
    }
    assert!(moved.seen().is_empty() && moved.probes() == 0);
    on_file.set("node-1", "{\"state\":\"active\"}").await;
    on_file.gateway.node_is("node-1", "healthy").await;
}

#[tokio::test]
async fn the_last_node_is_taken_out_only_by_force_and_then_gets_nothing() {
    let (one, two, on_file) = two_nodes().await;
    let out = "{\"state\":\"draining\"}";
    assert_eq!(on_file.set("node-1", out).await.status, 200);
    let refused = on_file.set("node-2", out).await;
    assert_eq!(refused.status, 409);
    assert_eq!(json(&refused)["type"], "/problems/last-node");
    assert_eq!(on_file.gateway.get("/a").await.text(), "two");
    let forced = "{\"state\":\"draining\",\"force\":true}";
    let set = on_file.set("node-2", forced).await;
    assert_eq!(set.status, 200);
    assert!(!json(&set)["warning"].as_str().unwrap().is_empty());
    let before = one.seen().len() + two.seen().len();
    assert_eq!(on_file.gateway.get("/short").await.status, 504);
    assert_eq!(one.seen().len() + two.seen().len(), before);
}

#[tokio::test]
async fn a_change_that_cannot_be_understood_is_a_clear_refusal() {
    let (_one, _two, on_file) = two_nodes().await;
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("{\"state\":\"asleep\"}", 400),
        ("{\"state\":\"active\",\"frce\":true}", 400),
        (&" ".repeat(5_000), 413),
    ] {
        let refused = on_file.set("node-1", body).await;
        assert_eq!(refused.status, status, "{body:.40}");
        assert_eq!(refused.header("content-type"), "application/problem+json");
    }
    let unknown = on_file.set("node-9", "{\"state\":\"active\"}").await;
    assert_eq!(unknown.status, 404);
    let wrong = on_file.change("DELETE", "/api/v1/reload", "").await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.header("allow")),
        (405, "POST")
    );
    let nothing = on_file.change("POST", "/api/v1/nothing", "").await;
    assert_eq!(nothing.status, 404);
}

/// Follows the events until `wanted` is among them; returns all of them.
async fn follow(on_file: &OnFile, last: Option<&str>, wanted: &str) -> String {
    let stream = tokio::net::TcpStream::connect(on_file.gateway.admin)
        .await
        .unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::get("/api/v1/events").header("host", "localhost");
    if let Some(id) = last {
        request = request.header("last-event-id", id);
    }
    let request = request.body(String::new()).unwrap();
    let mut answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while !text.contains(wanted) {
        let frame = tokio::time::timeout(Duration::from_secs(10), answer.frame()).await;
        let frame = frame.expect(wanted).unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    text
}

#[tokio::test]
async fn events_tell_what_happened_to_nodes_and_configuration_from_where_a_client_left_off() {
    let (mut one, two, on_file) = two_nodes().await;
    one.kill();
    on_file.gateway.node_is("node-1", "ejected").await;
    let first = follow(&on_file, None, "event: node_ejected\n").await;
    assert!(first.contains("\"node\":\"node-1\""), "{first}");
    assert!(first.contains("\"time\":\""), "{first}");
    let last = first
        .lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .next_back()
        .unwrap();
    on_file.set("node-1", "{\"state\":\"maintenance\"}").await;
    on_file.write(&[("node-2", two.address)], ROUTES);
    assert_eq!(on_file.reload().await.status, 200);
    on_file.write_text("nodes: []\n");
    assert_eq!(on_file.reload().await.status, 409);
    let rest = follow(&on_file, Some(last), "event: configuration_refused\n").await;
    let mut kinds: Vec<&str> = rest
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    // A file may be taken once more because it changed.
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "node_set",
            "node_removed",
            "configuration_reloaded",
            "configuration_refused"
        ]
    );
}

/// The status and the body of an answer to a request that asks for this name.
async fn asked_as(on_file: &OnFile, host: &str, line: &str) -> (u16, String) {
    let request = format!(
        "{line} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
    );
    let text = rig::raw(on_file.gateway.admin, request).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[tokio::test]
async fn a_page_whose_name_was_pointed_at_us_reads_and_changes_nothing() {
    let (_one, _two, on_file) = two_nodes().await;
    let port = on_file.gateway.admin.port();
    for line in [
        "GET /api/v1/status",
        "GET /api/v1/picture",
        "GET /api/v1/events",
        "GET /api/v1/live",
        "GET /dashboard",
        "GET /metrics",
        "GET /nothing",
        "POST /api/v1/reload",
        "DELETE /api/v1/quarantine/1",
    ] {
        let stranger = format!("rebound.example:{port}");
        let (status, body) = asked_as(&on_file, &stranger, line).await;
        assert_eq!(status, 421, "{line}: {body}");
        let told: serde_json::Value = serde_json::from_str(&body).unwrap();
        let detail = told["detail"].as_str().unwrap();
        assert!(
            detail.contains(&stranger) && detail.contains("admin.hosts"),
            "{detail}"
        );
    }
    for host in ["localhost", "127.0.0.1", "[::1]", "x.localhost", "10.0.0.9"] {
        let host = format!("{host}:{port}");
        for line in ["GET /api/v1/status", "POST /api/v1/reload"] {
            let (status, body) = asked_as(&on_file, &host, line).await;
            assert_eq!(status, 200, "{host} {line}: {body}");
        }
    }
    // A name of the configuration is ours from the reload on.
    let text = std::fs::read_to_string(on_file.file()).unwrap();
    on_file.write_text(&text.replace("admin: {", "admin: {hosts: [Ops.example], "));
    assert_eq!(on_file.reload().await.status, 200);
    let status = asked_as(&on_file, "ops.example", "GET /health").await.0;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn an_answer_tells_its_length_and_the_connection_ends_when_its_client_wants_it() {
    let (_one, _two, on_file) = two_nodes().await;
    for path in ["/metrics", "/health", "/api/v1/status", "/dashboard", "/x"] {
        let mut stream = tokio::net::TcpStream::connect(on_file.gateway.admin)
            .await
            .unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // Its end, and no deadline of the test's, is what ends this.
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let length = format!("\r\ncontent-length: {}\r\n", body.len());
        assert!(head.contains(&length), "{path}: {head}");
    }
}

#[tokio::test]
async fn connections_that_do_nothing_or_never_read_keep_no_probe_out() {
    let (_one, _two, on_file) = two_nodes().await;
    let address = on_file.gateway.admin;
    let mut held = Vec::new();
    for number in 0..200 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        if number % 2 == 0 {
            let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20);
            // It may have lost its seat already.
            let _ = stream.write_all(request.as_bytes()).await;
        }
        held.push(stream);
        if number % 20 == 0 {
            assert_eq!(
                Client::connect(address).await.get("/health").await.status,
                200
            );
        }
    }
    assert_eq!(
        Client::connect(address).await.get("/health").await.status,
        200
    );
    let series = "bingo_limit_hits_total{limit=\"admin_connections_max\"}";
    assert!(on_file.gateway.metric(series).await >= 100.0);
}

#[tokio::test]
async fn streams_of_events_leave_room_for_other_admin_requests() {
    let (_one, _two, on_file) = two_nodes().await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut stream = Client::connect(on_file.gateway.admin).await;
        let task = tokio::spawn(async move { stream.get("/api/v1/events").await.status });
        streams.push(task.abort_handle());
    }
    let refused = eventually("all streams are taken", async || {
        let mut admin = Client::connect(on_file.gateway.admin).await;
        let asked = admin.send("GET", "/api/v1/events", &[], "");
        let asked = tokio::time::timeout(Duration::from_millis(200), asked).await;
        asked.ok().map(Result::unwrap)
    })
    .await;
    assert_eq!(refused.status, 503);
    assert_eq!(on_file.status().await["role"], "gateway");
    let series = "bingo_limit_hits_total{limit=\"admin_event_streams_max\"}";
    assert!(on_file.gateway.metric(series).await >= 1.0);
    for stream in streams {
        stream.abort();
    }
}

#[tokio::test]
async fn gateways_that_share_a_file_agree_on_what_operators_want_and_remember_it() {
    let (_one, _two, on_file) = two_nodes().await;
    let another = on_file.another();
    another.node_is("node-1", "healthy").await;
    let set = on_file.set("node-1", "{\"state\":\"draining\"}").await;
    assert!(json(&set).get("warning").is_none());
    another.node_is("node-1", "draining").await;
    // One that starts now knows it from the first request on.
    let later = on_file.another();
    for _ in 0..20 {
        assert_eq!(later.get("/a").await.text(), "two");
    }
    on_file.set("node-1", "{\"state\":\"active\"}").await;
    for gateway in [&on_file.gateway, &another, &later] {
        gateway.node_is("node-1", "healthy").await;
    }
}

#[tokio::test]
async fn where_a_change_cannot_be_shared_the_answer_says_so_and_it_holds_here() {
    let (_one, _two, on_file) = two_nodes().await;
    let state = on_file.token_file().with_file_name("state.json");
    std::fs::create_dir(state).unwrap();
    let set = on_file.set("node-1", "{\"state\":\"draining\"}").await;
    assert_eq!(set.status, 200);
    let warning = json(&set)["warning"].as_str().unwrap().to_owned();
    assert!(warning.contains("admin.state_file"), "{warning}");
    on_file.gateway.node_is("node-1", "draining").await;
}
