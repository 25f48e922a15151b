//! Whole runs against a server that misbehaves on purpose: what the report must not hide.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;
use crate::stand_in::{Answer, Asked, StandIn};

fn plan(server: &StandIn, mix: &str) -> Plan {
    let mut plan = Plan::new(Base::parse(&server.base()).expect("a base"));
    plan.mix = mix.parse().expect("a mix");
    plan.rps = 200.0;
    plan.duration = Duration::from_millis(500);
    plan.timeout = Duration::from_secs(5);
    plan
}

async fn sent(plan: &Plan) -> Report {
    let report = run(plan, |_| {}).await.expect("a report");
    println!("{report}");
    report
}

/// Right answers to every call.
fn right(asked: &Asked) -> Answer {
    let id = asked.path.rsplit('/').next().unwrap_or_default();
    let number = |key: &str| {
        let body: serde_json::Value = serde_json::from_str(&asked.body).expect("JSON");
        body[key].to_string()
    };
    match (asked.method.as_str(), asked.path.as_str()) {
        (_, "/ping") => Answer::ok("pong"),
        (_, "/") => Answer::ok("Hi. Accept my congratulations. You"),
        (_, "/db_dummy" | "/long_dummy") => Answer::ok(r#"{"host":"a","time":"now"}"#),
        ("GET", "/api/movie" | "/api/customer" | "/api/session") => Answer::ok(r#"[{"id":1}]"#),
        (_, "/operation") => Answer::ok(format!("{{\"operation\":{}}}", number("operation"))),
        ("POST", _) => Answer::ok(format!(
            "{{\"id\":77,\"customer\":{{\"id\":{}}},\"movie\":{{\"id\":{}}}}}",
            number("customer_id"),
            number("movie_id")
        ))
        .status("201 Created")
        .header("location", "/api/session/77"),
        ("DELETE", "/api/session/77") => Answer::ok("").status("204 No Content"),
        _ => Answer::ok(format!("{{\"id\":{id}}}")),
    }
}

#[tokio::test]
async fn every_call_is_right_against_a_right_server() {
    let server = StandIn::start(right);
    let report = sent(&plan(&server, &Call::ALL.map(Call::name).join(","))).await;
    assert_eq!((report.done, report.failed), (100, 0), "{report}");
    assert!(report.calls.len() > 8, "{report}");
    assert_eq!(report.connections.broke_after_sending, 0);
    assert!((20.0..=201.0).contains(&report.rps_achieved), "{report}");
}

#[tokio::test]
async fn a_stall_of_a_second_is_seen_by_everybody_who_would_have_waited() {
    let begun = Instant::now();
    let stalled = (Duration::from_millis(500), Duration::from_millis(1500));
    let server = StandIn::start(move |asked| {
        let now = begun.elapsed();
        let wait = stalled.1.saturating_sub(now);
        right(asked).after(if now < stalled.0 {
            Duration::ZERO
        } else {
            wait
        })
    });
    let mut plan = plan(&server, "ping");
    plan.duration = Duration::from_secs(3);
    plan.connections_max = 4;
    let report = sent(&plan).await;
    assert_eq!((report.done, report.failed), (600, 0), "{report}");
    // Only four requests met the stall; a closed loop would have reported four slow answers of 400.
    // Of 600 that were due, a third was due within the second.
    assert!(report.latency.p50_ms < 200.0, "{report}");
    assert!(report.latency.p90_ms > 500.0, "{report}");
    assert!(report.latency.p99_ms > 900.0, "{report}");
    assert!(report.connections.waited_for_one > 100, "{report}");
}

#[tokio::test]
async fn wrong_statuses_are_failures_with_examples_that_name_the_node() {
    let server = StandIn::start(|_| Answer::ok("I feel bad.").status("500 Internal Server Error"));
    let report = sent(&plan(&server, "movie")).await;
    assert_eq!((report.done, report.failed), (100, 100), "{report}");
    assert_eq!(report.latency, Latency::default());
    let class = &report.failures[0];
    assert_eq!((class.class.as_str(), class.count), ("status 500", 100));
    assert_eq!(class.examples.len(), 5);
    assert_eq!(class.examples[0].node.as_deref(), Some("stand-in"));
    assert!(class.examples[0].detail.contains("I feel bad."));
}

#[tokio::test]
async fn a_right_status_with_another_movie_in_it_is_a_failure() {
    let server = StandIn::start(|_| Answer::ok(r#"{"id":0}"#));
    let report = sent(&plan(&server, "movie")).await;
    assert_eq!(report.failed, 100);
    assert_eq!(report.failures[0].class, "wrong body");
}

#[tokio::test]
async fn a_request_that_was_sent_is_never_sent_again() {
    let server = StandIn::start(|_| Answer::ok("").reset());
    let report = sent(&plan(&server, "ping")).await;
    assert_eq!((report.done, report.failed), (100, 100), "{report}");
    assert_eq!(report.failures[0].class, "broken");
    assert_eq!(report.connections.broke_after_sending, 100, "{report}");
    assert_eq!(
        report.connections.opened, 100,
        "one connection for each request"
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure() {
    let server = StandIn::start(|asked| right(asked).cut_short());
    let report = sent(&plan(&server, "list_movie")).await;
    assert_eq!(report.failed, 100);
    assert_eq!(report.failures[0].class, "broken");
    assert!(
        report.failures[0].examples[0]
            .detail
            .contains("of the body"),
        "{report}"
    );
}

#[tokio::test]
async fn a_kept_alive_connection_found_closed_before_sending_is_no_failure() {
    let server = StandIn::start(|asked| right(asked).close_unsaid());
    let mut plan = plan(&server, "ping");
    // Slow enough for each close to arrive before the next request.
    (plan.rps, plan.duration) = (20.0, Duration::from_secs(1));
    let report = sent(&plan).await;
    assert_eq!((report.done, report.failed), (20, 0), "{report}");
    assert_eq!(report.connections.opened, 20);
}

#[tokio::test]
async fn a_late_answer_is_a_timeout_that_says_what_it_waited_for() {
    let server = StandIn::start(|asked| right(asked).after(Duration::from_secs(2)));
    let mut plan = plan(&server, "ping");
    (plan.rps, plan.timeout) = (20.0, Duration::from_millis(100));
    let report = sent(&plan).await;
    assert_eq!((report.done, report.failed), (10, 10), "{report}");
    assert_eq!(report.failures[0].class, "timeout");
    let example = &report.failures[0].examples[0];
    assert!(example.detail.contains("head of the answer"), "{report}");
    assert!((100.0..500.0).contains(&example.after_ms), "{report}");
}

#[tokio::test]
async fn nobody_listening_is_a_report_of_connect_failures() {
    let gone = StandIn::start(right);
    let plan = plan(&gone, "ping");
    drop(gone);
    let report = sent(&plan).await;
    assert_eq!((report.done, report.failed), (100, 100), "{report}");
    assert_eq!(report.failures[0].class, "connect");
}

#[tokio::test]
async fn the_same_seed_asks_for_the_same_ids() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let server = StandIn::start(move |asked| {
            seen.lock().expect("paths").push(asked.path.clone());
            right(asked)
        });
        sent(&plan(&server, "movie,customer,session")).await;
        let mut paths = std::mem::take(&mut *asked.lock().expect("paths"));
        // Requests on several connections may arrive in another order than they left in.
        paths.sort();
        runs.push(paths);
    }
    assert_eq!(runs[0].len(), 100);
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn impossible_plans_are_refused_with_a_reason() {
    let server = StandIn::start(right);
    for (rps, connections_max) in [(0.0, 1), (f64::NAN, 1), (-1.0, 1), (1e9, 1), (1.0, 0)] {
        let mut plan = plan(&server, "ping");
        (plan.rps, plan.connections_max) = (rps, connections_max);
        assert!(
            matches!(run(&plan, |_| {}).await, Err(Error::Plan(_))),
            "{rps} {connections_max}"
        );
    }
}

#[tokio::test]
async fn the_report_reads_as_a_table_and_as_json() {
    let server = StandIn::start(right);
    let report = sent(&plan(&server, "ping,movie=3")).await;
    let table = report.to_string();
    for word in [
        "call",
        "p99.9 ms",
        "ping",
        "movie",
        "all",
        "generator's own lag",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["done"], 100);
    assert_eq!(json["calls"].as_array().map(Vec::len), Some(2));
}
