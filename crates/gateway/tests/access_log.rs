//! The access log of a gateway. A test binary of its own with one test: the log of a process is one.

mod rig;

use std::path::Path;
use std::time::Duration;

use chassis::logs::{Format, Settings};
use rig::{Gateway, Reply, Upstream, answer, eventually, ok};
use serde_json::Value;

const ROUTES: &str = "
access_log: {sample: 0, slow: 200ms}
probe: {interval: 20ms}
routes:
- {methods: [GET], path: /quick, deadline: 5s}
- {methods: [GET], path: /slow, deadline: 5s}
- {methods: [GET], path: /breaks, deadline: 5s, retry: safe}
- {methods: [GET], path: /short, deadline: 300ms}
";

/// The lines of requests so far.
fn lines_of(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let all = text.lines().map(|line| serde_json::from_str(line).unwrap());
    all.filter(|line: &Value| line["message"] == "request")
        .collect()
}

/// The first is slow at times, the second breaks what it is asked for at times.
async fn a_good_node_and_one_that_breaks() -> (Upstream, Upstream, Gateway) {
    let slow = Reply::After(Duration::from_millis(300), answer("200 OK", "", "late"));
    let good = Upstream::start(move |seen| match seen.target.starts_with("/slow") {
        true => slow.clone(),
        false => ok("good"),
    })
    .await;
    let bad = Upstream::start(|seen| match seen.target.starts_with("/breaks") {
        true => Reply::Reset,
        false => ok("bad"),
    })
    .await;
    let gateway = Gateway::start(&[&good, &bad], ROUTES);
    for node in ["node-1", "node-2"] {
        gateway.node_is(node, "healthy").await;
    }
    (good, bad, gateway)
}

#[tokio::test]
async fn failures_and_slow_requests_have_a_line_with_their_attempts_and_phases() {
    let folder = std::env::temp_dir().join(format!("bingo-access-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("log");
    chassis::logs::start(&Settings {
        format: Format::Json,
        level: "info".to_owned(),
        file: Some(path.clone()),
        traces: None,
    })
    .unwrap();
    let lines = || lines_of(&path);
    let line = async |route: &str| {
        eventually("its line is there", async || {
            lines().into_iter().find(|line| line["route"] == route)
        })
        .await
    };

    let (mut good, mut bad, gateway) = a_good_node_and_one_that_breaks().await;
    // Until one meets the node that breaks; the other answers in its place.
    eventually("one was tried twice", async || {
        assert_eq!(gateway.get("/breaks?canary").await.status, 200);
        assert_eq!(gateway.get("/quick").await.status, 200);
        assert_eq!(gateway.get("/nothing").await.status, 404);
        lines().first().cloned()
    })
    .await;
    let retried = line("/breaks").await;
    let attempts = retried["attempts"].as_str().unwrap();
    assert!(attempts.starts_with("node-2 no_answer "), "{attempts}");
    assert!(attempts.contains(", node-1 answered "), "{attempts}");
    assert_eq!(
        (&retried["why"], &retried["status"]),
        (&"failed".into(), &200.into())
    );
    assert_eq!(
        (&retried["node"], &retried["error"]),
        (&"node-1".into(), &Value::Null)
    );
    assert!(retried["request_id"].as_str().unwrap().len() > 10);

    bad.kill();
    gateway.node_is("node-2", "ejected").await;
    assert_eq!(gateway.get("/slow").await.status, 200);
    let late = line("/slow").await;
    assert_eq!(
        (&late["why"], &late["method"]),
        (&"slow".into(), &"GET".into())
    );
    let seconds = |key: &str| late[key].as_f64().unwrap();
    assert!(seconds("first_byte") >= 0.29, "{late}");
    let phases = ["intake", "queue", "first_byte", "body"].map(seconds);
    assert!(
        phases.iter().sum::<f64>() <= seconds("duration") + 1e-3,
        "{late}"
    );

    good.kill();
    gateway.node_is("node-1", "ejected").await;
    assert_eq!(gateway.get("/short").await.status, 504);
    let refused = line("/short").await;
    assert_eq!(refused["error"], "destination_unavailable");

    let all = lines();
    let has = |route: &str| all.iter().any(|line| line["route"] == route);
    assert!(!has("/quick") && !has("other"), "{all:?}");
    assert!(!std::fs::read_to_string(&path).unwrap().contains("canary"));
    std::fs::remove_dir_all(&folder).unwrap();
}
