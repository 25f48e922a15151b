//! What the logs of a node hold, and what they never hold. A test binary of its own: the log of a
//! process is one.

mod fixture;

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixture::{Node, config, database, json, psql, request, until};
use http::Method;
use node::Config;
use private_postgres::{Binaries, TestServer};

/// Lines that were logged by the whole process.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The first line with this text, once there is one.
    async fn find(&self, part: &str) -> String {
        let find = async || {
            let text = self.text();
            let line = text.lines().find(|line| line.contains(part));
            line.map(str::to_owned)
        };
        until(find, Option::is_some).await.unwrap()
    }
}

/// Requests whose paths, queries, headers, bodies and answers hold canaries.
async fn ask_with_canaries(node: &Node) {
    for path in [
        "/api/customer/1",
        "/api/customer",
        "/api/customer?limit=1&cursor=1",
        "/api/customer?limit=canary",
        "/api/customer?cursor=canary",
        "/api/customer/canary",
        "/canary",
        "/api/session?limit=5",
        "/config",
    ] {
        node.get(path).await;
    }
    for body in [
        r#"{"start_time":"2021-12-09T16:12:52Z","customer_id":1,"movie_id":1}"#,
        r#"{"start_time":"canary","customer_id":1,"movie_id":1}"#,
        r#"{"canary":"#,
    ] {
        node.send(json("/api/session", body, &[("idempotency-key", "canary")]))
            .await;
    }
}

/// A point read that waits for a lock for more than a second.
async fn ask_slowly(server: &TestServer, node: &Node) {
    let url = server.url();
    let lock = std::thread::spawn(move || {
        let sql = "BEGIN; LOCK TABLE movies IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1.5)";
        let psql = Binaries::find(None).unwrap().program("psql");
        let done = Command::new(psql).args(["-Xqc", sql]).arg(url).output();
        assert!(done.unwrap().status.success());
    });
    let held = "SELECT count(*) FROM pg_locks \
        WHERE granted AND mode = 'AccessExclusiveLock' AND relation = 'movies'::regclass";
    until(async || psql(server, held), |count| count.trim() == "1").await;
    let mut slow = request(Method::GET, "/api/movie/1");
    slow.headers_mut()
        .insert("x-request-id", "slow-query".parse().unwrap());
    assert_eq!(node.send(slow).await.status, 200);
    lock.join().unwrap();
}

#[tokio::test]
async fn customers_stay_out_of_the_log_and_requests_are_found_by_their_id() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let server = database().await;
    psql(
        &server,
        "UPDATE customers SET name = 'Canary', surname = 'Canary', email = 'canary@example.com' \
         WHERE id = 1",
    );
    let node = Node::start(Config {
        long_dummy_duration: Duration::from_millis(1100),
        ..config(&server)
    });
    ask_with_canaries(&node).await;
    // A failing statement, whose words PostgreSQL repeats.
    psql(&server, "ALTER TABLE customers RENAME surname TO canary");
    node.get("/api/customer?limit=2").await;

    let mut slow = request(Method::GET, "/long_dummy");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    for (name, value) in [
        ("x-request-id", "slow-one"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
    ] {
        slow.headers_mut().insert(name, value.parse().unwrap());
    }
    node.send(slow).await;
    let line = lines.find("GET request was slow").await;
    for part in [
        " INFO ",
        "slow-one",
        "route=\"/long_dummy\"",
        "status=200",
        "duration=1.",
        trace,
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    ask_slowly(&server, &node).await;
    let line = lines.find("slow query").await;
    for part in [
        " INFO ",
        "slow-query",
        "route=\"/api/movie/{id}\"",
        "cause=\"read a movie\"",
        "duration=1.",
        "waited=",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let text = lines.text();
    let failed = text
        .lines()
        .find(|line| line.contains("GET request failed"))
        .unwrap();
    assert!(
        failed.contains("SQLSTATE 42703") && failed.contains(" INFO "),
        "{failed}"
    );
    assert!(!text.to_lowercase().contains("canary"), "{text}");
    assert!(!text.contains(server.password()));
}
