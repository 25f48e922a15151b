//! Frames on a terminal in memory, judged by a few of their lines.

use jiff::Zoned;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::*;
use crate::top::plain;

const AT: &str = "2026-11-21T12:00:10.000Z";

fn now() -> Zoned {
    "2026-11-21T12:00:11+00:00[UTC]".parse().unwrap()
}

fn endpoint(method: &str, route: &str, requests: u32, errors: u32) -> Value {
    json!({"method": method, "route": route, "requests": requests, "errors": errors, "refused": 1,
        "p50": 0.0012, "p90": 0.0034, "p99": 0.0456})
}

fn process(name: &str, state: &str) -> Value {
    json!({"name": name, "role": "r", "state": state, "pid": 7, "since": AT, "restarts": 0,
        "rss_bytes": 9 << 20, "reason": null, "last_restart_reason": null})
}

/// An installation in which all is well.
fn well() -> Value {
    let routes = ["/api/customer", "/api/movie", "/api/session"];
    let mut now: Vec<Value> = routes
        .iter()
        .flat_map(|route| ["GET", "POST"].map(|method| endpoint(method, route, 300, 0)))
        .collect();
    now.extend(routes.map(|route| endpoint("DELETE", &format!("{route}/{{id}}"), 10, 0)));
    let names = ["supervisor", "postgres", "node-1", "node-2", "gateway-1"];
    let part = json!({"percent_max": 1.0, "percent": 0.1, "left_percent": 90.0});
    json!({
        "at": AT, "by": "gateway-1", "seconds": 10, "now": now, "problems": [],
        "total": {"requests": 1830, "refused": 9, "errors": 0, "p50": 0.0012, "p90": 0.0034, "p99": 0.0456},
        "gateways": (["gateway-1", "gateway-2"].map(|name| json!({"name": name, "state": "answers",
            "since": AT, "active_requests": 2, "connections": 3}))),
        "nodes": (["node-1", "node-2"].map(|name| json!({"name": name, "state": "healthy",
            "since": AT, "reason": null, "in_flight": 1, "others_say": {}}))),
        "processes": {"supervised": true, "list": names.map(|name| process(name, "healthy"))},
        "databases": [{"host": "127.0.0.1:5432", "role": "primary", "since": AT, "others_say": {},
            "lag_seconds": null, "round_trip_seconds": 0.0002, "busy_connections": 1, "waiting": 0}],
        "hosts": [{"name": "vm", "processors": 2, "busy_percent": 12.5, "memory_bytes": 8_u64 << 30,
            "memory_available_bytes": 4_u64 << 30, "disk_bytes": 100, "disk_available_bytes": 40}],
        "cache": {"hits": 9, "misses": 1, "bytes": 2048, "entries": 1}, "held": 0, "sheds": 0,
        "budgets": {"retry": {"used_per_second": 0.0, "per_second_max": 30.0},
            "hedge": {"used_per_second": 1.0, "per_second_max": 10.0}},
        "quarantine": {"convicted": [], "suspected": []},
        "objectives": [{"method": "GET", "route": "/api/movie",
            "day": {"requests": 9, "errors": part, "slow": null}}],
        "events": [{"at": AT, "source": "supervisor", "kind": "started", "subject": "node-1",
            "reason": "first"}],
    })
}

/// The same with a node that was killed.
fn ill() -> Value {
    let mut picture = well();
    let reason = "connection refused";
    picture["problems"] = json!([
        {"weight": "bad", "what": "node-1 is ejected", "since": AT,
         "why": "connection refused; last restart: signal SIGKILL"},
        {"weight": "warning", "what": "one request is in quarantine", "since": "",
         "why": "nodes were lost with it twice; clients get 422"}]);
    picture["nodes"][0]["state"] = json!("ejected");
    picture["nodes"][0]["reason"] = json!(reason);
    picture["nodes"][0]["others_say"] = json!({"gateway-2": "healthy"});
    picture["quarantine"]["convicted"] = json!([{"method": "POST", "target": "/api/session",
        "node": "node-1", "reason": "crash", "until": "2026-11-21T12:10:00Z"}]);
    picture
}

fn seen(picture: Value) -> Seen {
    let history = json!({"at": [1, 2], "endpoints": [
        {"method": "GET", "route": "/api/movie", "requests": [1, 9]}],
        "nodes": [{"name": "node-1", "requests": [20, 30], "failed": [0, 5]}]});
    let mut seen = Seen::default();
    let told = local::Told { picture, history };
    seen.take(Ok(told), AT.parse().unwrap());
    seen
}

/// The lines of a terminal of this size, and how far they can be scrolled.
fn drawn(seen: &Seen, look: &Look, (columns, rows): (u16, u16)) -> (Vec<String>, usize) {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let mut scroll_max = 0;
    let drawing = terminal.draw(|frame| scroll_max = draw(frame, seen, &now(), look));
    drawing.unwrap();
    let text = plain::text(terminal.backend().buffer(), false);
    (text.lines().map(str::to_owned).collect(), scroll_max)
}

fn with_keys() -> Look {
    Look {
        foot: vec!["q quit".to_owned()],
        ..Look::default()
    }
}

fn whole(scroll: usize) -> Look {
    Look {
        is_whole: true,
        scroll,
        ..with_keys()
    }
}

#[track_caller]
fn assert_has(lines: &[String], words: &[&str]) {
    let has = |line: &&String| words.iter().all(|word| line.contains(word));
    assert!(
        lines.iter().any(|line| has(&line)),
        "no line has all of {words:?}:\n{}",
        lines.join("\n")
    );
}

#[test]
fn in_eighty_columns_and_24_lines_all_is_well_and_each_part_has_its_word() {
    let (lines, _) = drawn(&seen(well()), &with_keys(), (80, 24));
    assert_eq!(
        lines[0],
        "bingo  ✔ All is well  as of 12:00:10, told by gateway-1"
    );
    assert_eq!(
        lines[1],
        "Traffic  183 requests/s  0 errors/s (0 %)  p50 1.2 ms  p90 3.4 ms  p99 46 ms"
    );
    assert_has(&lines, &["Endpoint", "req/s", "err/s", "p99", "Budget"]);
    assert_has(&lines, &["GET /api/movie", "30.0", "90 %"]);
    assert_has(&lines, &["node-1", "healthy", "12:00:10"]);
    assert_has(&lines, &["Gateways  2 answers"]);
    assert_has(&lines, &["Processes  5 healthy, 0 restarts"]);
    assert_has(&lines, &["Machine", "12 % of 2", "50 % of 8.0 GiB"]);
    assert_has(&lines, &["DELETE /api/session/{id}", "1.00"]);
    assert_has(&lines, &["127.0.0.1:5432", "primary"]);
    assert_has(
        &lines,
        &[
            "Reserves",
            "retry budget 0 % used",
            "hedge budget 10 % used",
        ],
    );
    assert_has(&lines, &["12:00:10", "started", "node-1"]);
    assert_eq!(lines[23], "q quit");
}

#[test]
fn a_dead_node_is_the_first_thing_with_its_reason_and_since_when() {
    let (lines, _) = drawn(&seen(ill()), &with_keys(), (80, 24));
    assert!(lines[0].starts_with("bingo  ✖ 1 problem  "), "{}", lines[0]);
    assert!(
        lines[1].starts_with("✖ Problem  node-1 is ejected  connection refused; last restart:"),
        "{}",
        lines[1]
    );
    assert_eq!(lines[2], "  since 12:00:10");
    assert!(lines[3].starts_with("▲ Warning  one request is in quarantine  "));
    assert_has(&lines, &["node-1", "ejected", "connection refused"]);
    let (lines, _) = drawn(&seen(ill()), &with_keys(), (120, 60));
    assert_has(
        &lines,
        &[
            "node-1",
            "ejected",
            "25.0",
            "10 %",
            "gateway-2 says healthy",
        ],
    );
    assert_has(
        &lines,
        &["POST /api/session", "convicted", "12:10:00", "crash"],
    );
}

#[test]
fn when_no_gateway_answers_the_old_figures_stay_with_their_time() {
    let mut seen = seen(well());
    let why = vec!["it is stopped: bingo up starts it".to_owned()];
    seen.take(Err(why), now().timestamp());
    let (lines, _) = drawn(&seen, &with_keys(), (80, 24));
    assert!(
        lines[0].starts_with("bingo  ? Connection lost"),
        "{}",
        lines[0]
    );
    assert!(lines[1].starts_with("No gateway answers. These figures are of 12:00:10; what"));
    assert_eq!(lines[3], "  it is stopped: bingo up starts it");
    assert_has(&lines, &["Traffic", "183 requests/s"]);
    let (lines, _) = drawn(&Seen::default(), &with_keys(), (80, 24));
    assert_eq!(lines[0], "bingo  Looking…");
}

#[test]
fn all_lines_can_be_scrolled_through_to_the_last_event() {
    let seen = seen(well());
    let (lines, last) = drawn(&seen, &whole(0), (80, 24));
    assert!(last > 0);
    assert_eq!(lines[23], format!("q quit   ↓ {last} more lines"));
    assert_has(&lines, &["DELETE /api/session/{id}"]);
    let (lines, same) = drawn(&seen, &whole(usize::MAX), (80, 24));
    assert_eq!(same, last);
    assert_has(
        &lines,
        &["12:00:10", "started", "node-1", "supervisor", "first"],
    );
    assert!(lines[0].starts_with("bingo  "), "the head stays");
    assert_eq!(lines[23], "q quit");
    let (lines, last) = drawn(&seen, &whole(0), (80, 100));
    assert_eq!(last, 0);
    assert_has(&lines, &["gateway-2", "answers"]);
}

#[test]
fn a_terminal_of_any_size_gets_a_frame() {
    for picture in [well(), ill(), json!({})] {
        let seen = seen(picture);
        for (columns, rows) in [
            (40, 24),
            (20, 10),
            (7, 3),
            (1, 1),
            (300, 100),
            (80, 0),
            (0, 9),
        ] {
            for look in [with_keys(), whole(3)] {
                let (lines, _) = drawn(&seen, &look, (columns, rows));
                assert_eq!(lines.len(), if columns == 0 { 0 } else { rows.into() });
            }
        }
    }
    let (lines, _) = drawn(&seen(ill()), &with_keys(), (40, 24));
    assert_has(&lines, &["node-1", "ejected"]);
}

#[test]
fn names_of_others_move_no_cursor_and_break_no_column() {
    let mut picture = ill();
    picture["nodes"][0]["name"] = json!("no\u{1b}[2Jde\u{7}\n\u{202e}1");
    picture["problems"][0]["why"] = json!("日本語".repeat(100));
    picture["events"][0]["reason"] = json!("\u{1b}]0;title\u{7}\u{9b}31m");
    for size in [(80, 24), (40, 24), (120, 60)] {
        let seen = seen(picture.clone());
        let (lines, _) = drawn(&seen, &whole(0), size);
        assert!(!lines.concat().contains(char::is_control));
        let wide = lines
            .iter()
            .find(|line| super::super::ink::width_of(line) > size.0.into());
        assert_eq!(wide, None);
        assert_has(&lines, &["no [2Jde   1", "ejected"]);
    }
}

#[test]
fn a_summary_is_as_high_as_it_has_lines_and_no_higher_than_it_may() {
    let buffer = page(&seen(well()), &now(), &with_keys(), (80, 12));
    let text = plain::text(&buffer, false);
    assert_eq!(text.lines().count(), 12);
    assert_eq!(text.lines().last(), Some("q quit"));
    let buffer = page(&Seen::default(), &now(), &with_keys(), (80, 12));
    assert_eq!(plain::text(&buffer, false), "bingo  Looking…\nq quit\n");
}
