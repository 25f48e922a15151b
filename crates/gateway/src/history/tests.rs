//! What a history of several gateways remembers, and what it never does.

use super::latency::{BUCKETS, Latency, bucket};
use super::*;

fn second(route: &str, requests: u32, errors: u32) -> Second {
    let mut counts = [0; BUCKETS];
    counts[bucket(0.02)] = requests;
    let tally = Tally {
        requests,
        errors,
        latency: Latency::of(counts),
        ..Tally::default()
    };
    Second {
        endpoints: vec![(Endpoint::new("GET", route), tally)],
        nodes: vec![("node-1".to_owned(), Attempts::default())],
        protocols: [0, requests, 0, 0],
        ..Second::default()
    }
}

fn requests(history: &History, from: u64, before: u64) -> u32 {
    history
        .sums(from, before)
        .values()
        .map(|tally| tally.requests)
        .sum()
}

fn json(view: &View) -> serde_json::Value {
    serde_json::to_value(view).unwrap()
}

#[test]
fn two_gateways_that_tell_each_other_have_the_same_history() {
    let (mut one, mut two) = (History::new(), History::new());
    for at in 1000..1030 {
        one.record("run-1", at, &second("/a", 3, 1));
        two.record("run-2", at, &second("/b", 5, 0));
        if at % 7 == 0 {
            one.include("run-2", &two.own_after(one.last_of("run-2")));
            two.include("run-1", &one.own_after(two.last_of("run-1")));
        }
    }
    one.include("run-2", &two.own_after(one.last_of("run-2")));
    two.include("run-1", &one.own_after(two.last_of("run-1")));
    assert_eq!(one.sums(1000, 1030), two.sums(1000, 1030));
    assert_eq!(requests(&one, 1000, 1030), 30 * 8);
    for span in [600, 7200, 86_400] {
        let (one, two) = (
            json(&one.view(span, 0, 1100)),
            json(&two.view(span, 0, 1100)),
        );
        assert_eq!(one["total"], two["total"], "{span}");
        assert_eq!(one["at"], two["at"], "{span}");
    }
}

#[test]
fn what_a_peer_tells_twice_counts_once() {
    let (mut one, mut two) = (History::new(), History::new());
    two.record("run-2", 1000, &second("/b", 5, 0));
    let told = two.own_after(0);
    one.include("run-2", &told);
    one.include("run-2", &told);
    assert_eq!(requests(&one, 1000, 1001), 5);
}

#[test]
fn a_gateway_that_starts_anew_takes_all_over_and_counts_nothing_twice() {
    let (mut one, mut two) = (History::new(), History::new());
    for at in 1000..1100 {
        one.record("run-1", at, &second("/a", 1, 0));
        two.record("run-2", at, &second("/a", 1, 0));
        one.include("run-2", &two.own_after(one.last_of("run-2")));
    }
    let mut anew = History::new();
    anew.adopt(&one.whole());
    anew.include("run-1", &one.own_after(anew.last_of("run-1")));
    assert_eq!(requests(&anew, 1000, 1100), 200);
    // Its own seconds alone are told on: the others are none of its own.
    assert!(anew.own_after(0).slots.is_empty());
    let text = serde_json::to_string(&one.whole()).unwrap();
    assert_eq!(serde_json::from_str::<Whole>(&text).unwrap(), one.whole());
}

#[test]
fn a_day_with_ten_thousand_unknown_names_stays_bounded() {
    let mut history = History::new();
    for at in 0..100_000_u64 {
        let mut odd = second(&format!("/{}", at % 10_000), 1, 0);
        odd.nodes[0].0 = format!("node-{at}");
        history.record(&format!("run-{at}"), at, &odd);
    }
    let whole = history.whole();
    assert_eq!(whole.endpoints.len(), ENDPOINTS_MAX);
    assert_eq!(whole.nodes.len(), NODES_MAX);
    assert_eq!(whole.seen.len(), RUNS_MAX);
    let kept: Vec<usize> = whole.rings.iter().map(Vec::len).collect();
    assert_eq!(kept, [600, 720, 1440]);
    let minutes = &whole.rings[2];
    let entries: usize = minutes.iter().map(|slot| slot.endpoints.len()).sum();
    assert!(entries <= 1440 * 60, "{entries}");
    assert_eq!(requests(&history, 99_990, 100_000), 10);
}

#[test]
fn what_is_not_counted_yet_is_no_part_of_the_view_and_a_gap_is_no_zero() {
    let mut history = History::new();
    for at in [1000, 1001, 1002, 1007, 1008, 1009] {
        history.record("run", at, &second("/a", 2, 1));
    }
    let view = json(&history.view(600, 1000, 1012));
    assert_eq!(view["at"], serde_json::json!([1001, 1002, 1007, 1008]));
    assert_eq!(view["total"]["errors"], serde_json::json!([1, 1, 1, 1]));
    assert_eq!(view["endpoints"][0]["route"], "/a");
    // The ten seconds that are not over are left out.
    let tens = json(&history.view(7200, 0, 1012));
    assert_eq!(tens["at"], serde_json::json!([]));
    let tens = json(&history.view(7200, 0, 1013));
    assert_eq!(tens["at"], serde_json::json!([1000]));
    assert_eq!(tens["total"]["requests"], serde_json::json!([12]));
}

#[test]
fn a_second_without_requests_is_zero_and_has_no_percentiles() {
    let mut history = History::new();
    history.record("run", 1000, &Second::default());
    let view = json(&history.view(600, 0, 1010));
    assert_eq!(view["total"]["requests"], serde_json::json!([0]));
    assert_eq!(view["total"]["p99"], serde_json::json!([null]));
    assert_eq!(view["endpoints"], serde_json::json!([]));
}

#[test]
fn numbers_without_a_name_and_impossible_ones_of_a_peer_do_no_harm() {
    let mut history = History::new();
    let told = r#"{"endpoints":[],"nodes":[],"slots":[{"at":5,"endpoints":[[9,{"requests":1,"refused":0,
        "errors":0,"latency":[[250,4294967295]]}]],"protocols":[0,0,0,4294967295],"nodes":[[3,
        {"requests":1,"failed":1}]],"extras":{"retries":0,"hedges":0,"holds":0,"sheds":0,
        "cache_hits":0,"cache_misses":0}},{"at":18446744073709551615,"endpoints":[],
        "protocols":[0,0,0,1],"nodes":[],"extras":{"retries":0,"hedges":0,"holds":0,"sheds":0,
        "cache_hits":0,"cache_misses":0}}]}"#;
    let told: Told = serde_json::from_str(told).unwrap();
    history.include("bad", &told);
    history.record("run", 1000, &second("/a", 2, 1));
    assert_eq!(requests(&history, 1000, 1001), 2);
    assert!(history.sums(0, 10).is_empty());
    json(&history.view(600, 0, u64::MAX));
}
