//! What `/metrics` shows: bounded, whatever strangers ask for, and of every node and connection.

mod rig;

use rig::{Client, Gateway, Upstream, ok};

const ROUTES: &str = "
probe: {interval: 20ms}
routes:
- {methods: [GET], path: \"/a/{id}\", deadline: 5s, retry: safe}
";
const ODD_METHODS: [&str; 4] = ["GET", "POST", "BREW", "PROPFIND"];

async fn series(gateway: &Gateway) -> Vec<String> {
    let text = Client::connect(gateway.admin).await.get("/metrics").await;
    let samples = text.text();
    let samples = samples.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

#[tokio::test]
async fn ten_thousand_unknown_paths_and_odd_methods_make_no_new_series() {
    let node = Upstream::start(|_| ok("x")).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut client = gateway.client().await;
    let mut ask = async |number: usize| {
        let method = ODD_METHODS[number % ODD_METHODS.len()];
        // Every third one is below a route, and another name of it each time.
        let path = match number % 3 {
            0 => format!("/a/{number}"),
            _ => format!("/wp-{number}/admin.php?x={number}"),
        };
        let answer = client.send(method, &path, &[], "").await;
        let goes_on = answer.is_ok_and(|answer| answer.header("connection") != "close");
        if !goes_on {
            client = gateway.client().await;
        }
    };
    for number in 0..ODD_METHODS.len() * 3 {
        ask(number).await;
    }
    let before = series(&gateway).await;
    assert!(
        before
            .iter()
            .any(|one| one.contains("http_route=\"other\"")),
        "{before:?}"
    );
    for number in 100..10_100 {
        ask(number).await;
    }
    let after = series(&gateway).await;
    let new: Vec<_> = after.iter().filter(|one| !before.contains(one)).collect();
    assert!(new.is_empty(), "{new:?}");
    let requests = "http_server_request_duration_seconds_count{http_route=\"other\",\
                    http_request_method=\"other\",http_response_status_code=\"404\",\
                    network_protocol_version=\"1.1\"}";
    assert!(gateway.metric(requests).await > 3_000.0);
}

#[tokio::test]
async fn attempts_and_what_is_in_flight_are_shown_of_each_node() {
    let node = Upstream::start(|_| ok("x")).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    for _ in 0..3 {
        assert_eq!(gateway.get("/a/1").await.status, 200);
    }
    let known = series(&gateway).await;
    let attempts = "bingo_attempt_duration_seconds_count{node=\"node-1\"}";
    assert_eq!(gateway.metric(attempts).await, 3.0);
    let in_flight = "bingo_node_in_flight{node=\"node-1\"}";
    assert!(known.iter().any(|one| one == in_flight), "{known:?}");
    assert_eq!(gateway.metric(in_flight).await, 0.0);
    // A counter that has not counted is there at 0.
    for series in [
        "bingo_ejections_total{node=\"node-1\",reason=\"timeout\"}",
        "bingo_retries_total{reason=\"no_answer\"}",
        "bingo_tls_handshakes_total{transport=\"tcp\",result=\"failed\"}",
        "bingo_spools_total{result=\"lost\"}",
    ] {
        assert!(known.iter().any(|one| one == series), "{series}: {known:?}");
    }
}
