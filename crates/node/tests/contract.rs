//! The finer points of contract.md section 3: pages, refused heads, clients that leave or dawdle, and
//! that `/openapi.json` tells the truth about the router.

mod fixture;

use std::time::{Duration, Instant};

use fixture::{Node, PATIENCE, config, connect, database, json, psql, request, until};
use http::{Method, StatusCode};
use node::{Config, Limits};
use private_postgres::{Binaries, TestServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The address of the next page, where there is one.
fn next(answer: &fixture::Answer) -> Option<String> {
    let link = answer.header("link");
    let target = link.strip_suffix(">; rel=\"next\"");
    assert!(link.is_empty() || target.is_some(), "{link}");
    target.map(|target| target.strip_prefix('<').unwrap().to_owned())
}

#[tokio::test]
async fn the_links_of_a_list_lead_through_all_of_it() {
    let server = database().await;
    let node = Node::start(config(&server));
    for (path, limit) in [
        ("/api/movie", 50),
        ("/api/customer", 33),
        ("/api/session", 1700),
    ] {
        let whole = node.get(path).await;
        assert_eq!(next(&whole), None);
        let mut address = Some(format!("{path}?limit={limit}"));
        let mut rows = Vec::new();
        while let Some(asked) = address {
            let head = node.send(request(Method::HEAD, &asked)).await;
            let page = node.get(&asked).await;
            assert_eq!(page.status, StatusCode::OK, "{asked}");
            assert_eq!(head.header("link"), page.header("link"));
            rows.extend(page.json().as_array().unwrap().clone());
            address = next(&page);
        }
        assert!(whole.json() == serde_json::json!(rows), "{path}");
    }
    for (cursor, status, slug) in [
        ("x", 400, "malformed-cursor"),
        ("", 400, "malformed-cursor"),
        ("1.2.3", 400, "malformed-cursor"),
        ("2147483647", 404, "unknown-cursor"),
        ("-999999999999999999", 404, "unknown-cursor"),
    ] {
        let answer = node.get(&format!("/api/movie?cursor={cursor}")).await;
        assert_eq!(answer.problem(status), slug, "{cursor}");
    }
}

/// Sends bytes on a new connection and reads all that comes back.
async fn raw(node: &Node, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let all = stream.read_to_end(&mut answer);
    tokio::time::timeout(PATIENCE, all).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn what_the_http_library_refuses_is_a_problem_too() {
    let server = database().await;
    let node = Node::start(config(&server));
    let long = format!(
        "GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n",
        "x".repeat(80_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nhost: t\r\n{}\r\n",
        "x: y\r\n".repeat(200)
    );
    for (bytes, status, slug) in [
        (long.as_str(), "431", "head-too-large"),
        (&many, "431", "head-too-large"),
        ("what is this\r\n\r\n", "400", "bad-request"),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n", "400", "bad-request"),
        (
            "POST /operation HTTP/1.1\r\nhost: t\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "400",
            "bad-request",
        ),
    ] {
        let answer = raw(&node, bytes.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        for header in [
            "content-type: application/problem+json",
            "cache-control: no-store",
            "x-request-id: ",
            "connection: close",
            "date: ",
        ] {
            assert!(head.contains(header), "{header}: {head}");
        }
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{head}"
        );
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["type"], format!("/problems/{slug}"));
    }
}

#[tokio::test]
async fn a_request_has_one_host() {
    let server = database().await;
    let node = Node::start(config(&server));
    for (head, status) in [
        ("GET /ping HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
        (
            "GET /ping HTTP/1.1\r\nhost: a\r\nhost: a\r\nconnection: close\r\n\r\n",
            "400",
        ),
        ("GET /ping HTTP/1.0\r\n\r\n", "200"),
        (
            "GET /ping HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            "200",
        ),
    ] {
        let answer = raw(&node, head.as_bytes()).await;
        let status_line = answer.lines().next().unwrap();
        assert!(status_line.contains(status), "{head}{answer}");
        let is_problem = answer.contains("/problems/bad-request");
        assert_eq!(is_problem, status == "400", "{answer}");
    }
}

#[tokio::test]
async fn the_document_describes_the_router() {
    let server = database().await;
    let node = Node::start(config(&server));
    let document = node.get("/openapi.json").await;
    assert_eq!(document.header("content-type"), "application/json");
    let paths = document.json()["paths"].as_object().unwrap().clone();
    for (path, operations) in &paths {
        let address = path.replace("{id}", "1");
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
        ] {
            let described = if method == "HEAD" { "GET" } else { method };
            let described = operations.get(described.to_lowercase());
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = node.send(request(method.clone(), &address)).await;
            let is_allowed = answer.status != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(is_allowed, described.is_some(), "{method} {path}");
            if let Some(operation) = described {
                let status = answer.status.as_str();
                assert!(
                    operation["responses"].get(status).is_some(),
                    "{method} {path} {status}"
                );
            }
        }
    }
    let page = node.get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    let nonce = policy.split("script-src 'nonce-").nth(1).unwrap();
    let nonce = nonce.split('\'').next().unwrap();
    assert!(page.body.contains(&format!("<script nonce=\"{nonce}\">")));
}

/// A session of psql that holds a lock until it is dropped.
struct Lock(std::process::Child);

impl Lock {
    async fn take(server: &TestServer, table: &str) -> Self {
        let sql =
            format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)");
        let psql_program = Binaries::find(None).unwrap().program("psql");
        let child = std::process::Command::new(psql_program)
            .args(["-XqAt", "-c", &sql, &server.superuser_url()])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let lock = Self(child);
        let held = format!(
            "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' \
             AND relation = '{table}'::regclass"
        );
        until(async || psql(server, &held), |count| count.trim() == "1").await;
        lock
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_query_within_a_second() {
    let server = database().await;
    let node = Node::start(config(&server));
    assert_eq!(node.get("/ready").await.status, StatusCode::OK);
    let waiting = "SELECT count(*) FROM pg_stat_activity \
        WHERE application_name LIKE 'bingo/%' AND wait_event_type = 'Lock'";
    let body = r#"{"start_time":"2021-12-09T16:12:52Z","customer_id":1,"movie_id":1}"#;
    // Connections that are still being made would wait for the lock as well.
    let quiet = "SELECT count(*) >= 6 AND bool_and(state = 'idle' AND \
        state_change < clock_timestamp() - interval '300 ms') FROM pg_stat_activity \
        WHERE application_name LIKE 'bingo/%' AND application_name <> 'bingo/watch'";
    until(async || psql(&server, quiet), |quiet| quiet.trim() == "t").await;
    let _lock = Lock::take(&server, "movies").await;
    for ask in [
        request(Method::GET, "/api/movie/1"),
        request(Method::GET, "/api/session"),
        json("/api/session", body, &[("idempotency-key", "left")]),
    ] {
        let mut connection = connect(node.address).await.unwrap();
        let answer = tokio::spawn(connection.send_request(ask));
        until(async || psql(&server, waiting), |count| count.trim() == "1").await;
        let left = Instant::now();
        answer.abort();
        drop(connection);
        until(async || psql(&server, waiting), |count| count.trim() == "0").await;
        assert!(
            left.elapsed() < Duration::from_secs(1),
            "{:?}",
            left.elapsed()
        );
    }
    let stored = "SELECT count(*) FROM idempotency_keys WHERE key = 'left'";
    assert_eq!(psql(&server, stored).trim(), "0");
}

#[tokio::test]
async fn a_client_below_the_floor_is_broken_off_without_a_final_chunk() {
    let server = database().await;
    psql(
        &server,
        "INSERT INTO sessions (start_time, customer_id, movie_id) \
         SELECT start_time, customer_id, movie_id FROM sessions, generate_series(1, 19)",
    );
    let node = Node::start(Config {
        limits: Limits {
            stall_timeout: Duration::from_millis(300),
            receive_rate_min: 1 << 30,
            ..Limits::default()
        },
        ..config(&server)
    });
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(node.address).await.unwrap();
    stream
        .write_all(b"GET /api/session HTTP/1.1\r\nhost: t\r\n\r\n")
        .await
        .unwrap();
    // It takes a little all the time, so it never stalls; and far less than a gibibyte a second.
    let start = Instant::now();
    let (mut piece, mut last) = (vec![0; 2048], Vec::new());
    let mut pauses = tokio::time::interval(Duration::from_millis(2));
    while let Ok(bytes @ 1..) = stream.read(&mut piece).await {
        last = piece[..bytes].to_vec();
        pauses.tick().await;
        assert!(start.elapsed() < PATIENCE, "it was never broken off");
    }
    assert!(!last.ends_with(b"0\r\n\r\n"));
}
