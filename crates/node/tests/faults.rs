//! The vendor's faults in a node. Those that end the process are tested with the command itself.

mod fixture;

use std::time::{Duration, Instant};

use fixture::{Node, connect, request, whole};
use http::{Method, StatusCode};
use node::{Config, FaultSettings};

const TOO_MANY: &str = "Too many requests";

fn with(faults: FaultSettings) -> Node {
    Node::start(Config {
        faults,
        drain_delay: Duration::ZERO,
        ..Config::default()
    })
}

#[tokio::test]
async fn a_sequential_load_meets_the_limit_of_requests() {
    let node = with(FaultSettings {
        rps_limit: Some(100),
        ..FaultSettings::default()
    });
    let mut connection = connect(node.address).await.unwrap();
    let (start, mut answered) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(3) {
        // All routes count.
        for path in ["/", "/ping", "/nowhere"] {
            whole(
                connection
                    .send_request(request(Method::GET, path))
                    .await
                    .unwrap(),
            )
            .await;
            answered += 1;
        }
    }
    let rate = f64::from(answered) / start.elapsed().as_secs_f64();
    assert!((98.0..=102.0).contains(&rate), "{rate}");
}

#[tokio::test]
async fn the_limit_of_requests_spares_probes() {
    let node = with(FaultSettings {
        rps_limit: Some(1),
        ..FaultSettings::default()
    });
    let probe = |agent: &'static str| {
        let mut probe = request(Method::GET, "/ping");
        let agent = http::HeaderValue::from_static(agent);
        probe.headers_mut().insert(http::header::USER_AGENT, agent);
        node.send(probe)
    };
    let probes = futures_util::future::join_all((0..50).map(|_| probe(chassis::PROBE_AGENT))).await;
    assert!(probes.iter().all(|answer| answer.body == "pong"));
    let others = futures_util::future::join_all((0..13).map(|_| probe("bingo-probes"))).await;
    let refused = others.iter().filter(|answer| answer.body == TOO_MANY);
    assert_eq!(refused.count(), 2);
}

#[tokio::test]
async fn a_request_that_waited_ten_seconds_for_its_turn_is_told_that_there_are_too_many() {
    let node = with(FaultSettings {
        rps_limit: Some(1),
        ..FaultSettings::default()
    });
    let start = Instant::now();
    let all = (0..13).map(|_| node.get("/"));
    let answers = futures_util::future::join_all(all).await;
    let refused: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS)
        .collect();
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0].body, TOO_MANY);
    assert!((10..12).contains(&start.elapsed().as_secs()));
}

#[tokio::test]
async fn a_node_that_was_made_to_feel_bad_says_so_everywhere_and_still_ends_in_order() {
    let node = with(FaultSettings {
        operation: true,
        ..FaultSettings::default()
    });
    let fine = node.post("/operation", "{\"operation\":5}").await;
    assert_eq!(fine.status, StatusCode::OK);
    for value in ["21474836480", "1"] {
        let answer = node
            .post("/operation", &format!("{{\"operation\":{value}}}"))
            .await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.body, "I feel bad.");
        assert_eq!(answer.header("content-type"), "text/plain");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    let probe = node.get("/ping").await;
    assert_eq!(probe.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(probe.body, "I feel bad");
    assert_eq!(node.get("/nowhere").await.body, "I feel bad.");
    let mut admin = connect(node.admin).await.unwrap();
    let metrics = admin
        .send_request(request(Method::GET, "/metrics"))
        .await
        .unwrap();
    let metrics = whole(metrics).await.body;
    assert!(
        metrics.contains("bingo_fault_enabled{fault=\"operation\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("bingo_fault_enabled{fault=\"lifetime\"} 0"),
        "{metrics}"
    );
    node.shutdown.request();
    tokio::time::timeout(fixture::PATIENCE, node.running)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn without_the_fault_every_operation_is_answered() {
    let node = with(FaultSettings::default());
    for bits in [3_u64, 4, 5] {
        let body = format!("{{\"operation\":{}}}", bits << 32);
        assert_eq!(node.post("/operation", &body).await.status, StatusCode::OK);
    }
    assert_eq!(node.get("/ping").await.body, "pong");
}

#[tokio::test]
async fn a_node_that_starts_slowly_tells_its_faults_from_the_start_and_ends_when_told() {
    let mut faults = FaultSettings::default();
    faults.enable(&"vendor".parse().unwrap());
    let node = with(faults);
    let mut admin = connect(node.admin).await.unwrap();
    let mut ask = async |path| {
        let sent = admin.send_request(request(Method::GET, path));
        whole(sent.await.unwrap()).await
    };
    let metrics = ask("/metrics").await.body;
    for fault in ["rps_limit", "slow_start", "lifetime", "operation"] {
        let line = format!("bingo_fault_enabled{{fault=\"{fault}\"}} 1");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    let health = ask("/health").await;
    assert_eq!(
        (health.status.as_u16(), health.body.as_str()),
        (500, "I feel bad")
    );
    assert_eq!(health.header("bingo-state"), "");
    node.shutdown.request();
    node.running.await.unwrap().unwrap();
}
