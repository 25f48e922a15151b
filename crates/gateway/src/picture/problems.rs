//! What is wrong, in words and by weight: the first thing on the page. `bad` is what clients may feel
//! or soon will, `warning` what costs reserve. Each says what, why and since when. Pure.

use serde::Serialize;
use serde_json::Value;

/// Fewer requests than this in five minutes say nothing of a promise.
const REQUESTS_MIN: u64 = 20;
/// Fewer errors than this are within what any promise allows.
const ERRORS_PERCENT_MIN: f64 = 1.0;
/// Of memory and disk; below it the machine is in need.
const FREE_PERCENT_MIN: f64 = 5.0;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    weight: Weight,
    what: String,
    why: String,
    /// RFC 3339; empty: not known.
    since: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Weight {
    Bad,
    Warning,
}

/// All that is wrong in a picture, the worst first.
pub(super) fn find(picture: &Value) -> Vec<Problem> {
    let mut found = Vec::new();
    errors(picture, &mut found);
    nodes(picture, &mut found);
    processes(picture, &mut found);
    gateways(picture, &mut found);
    databases(picture, &mut found);
    objectives(picture, &mut found);
    hosts(picture, &mut found);
    requests(picture, &mut found);
    found.sort_by_key(|problem| problem.weight);
    found
}

fn list<'a>(picture: &'a Value, key: &str) -> std::slice::Iter<'a, Value> {
    let list = picture.get(key).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default().iter()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, pointer: &str) -> Option<f64> {
    value.pointer(pointer).and_then(Value::as_f64)
}

fn add(found: &mut Vec<Problem>, weight: Weight, what: String, why: &str, since: &str) {
    let (why, since) = (why.to_owned(), since.to_owned());
    found.push(Problem {
        weight,
        what,
        why,
        since,
    });
}

fn errors(picture: &Value, found: &mut Vec<Problem>) {
    let count = |key: &str| number(picture, key).unwrap_or_default();
    let (errors, all) = (count("/total/errors"), count("/total/requests"));
    if errors > 0.0 {
        let seconds = count("/seconds");
        let what = format!("{errors:.0} of {all:.0} requests failed in the last {seconds:.0} s");
        let worst =
            list(picture, "now").max_by_key(|one| one.get("errors").and_then(Value::as_u64));
        let why = worst.map(|one| {
            let errors = number(one, "/errors").unwrap_or_default();
            format!(
                "most on {} {}: {errors:.0}",
                text(one, "method"),
                text(one, "route")
            )
        });
        let weight = match errors / all * 100.0 >= ERRORS_PERCENT_MIN {
            true => Weight::Bad,
            false => Weight::Warning,
        };
        add(found, weight, what, &why.unwrap_or_default(), "");
    }
}

fn is_usable(node: &Value) -> bool {
    matches!(text(node, "state"), "healthy" | "unknown")
}

fn nodes(picture: &Value, found: &mut Vec<Problem>) {
    let usable = |node: &&Value| is_usable(node);
    let (all, in_rotation) = (
        list(picture, "nodes").len(),
        list(picture, "nodes").filter(usable).count(),
    );
    if all > 0 && in_rotation == 0 {
        let why = "requests wait, and fail at their deadline";
        add(
            found,
            Weight::Bad,
            "no node is in rotation".to_owned(),
            why,
            "",
        );
    }
    for node in list(picture, "nodes").filter(|node| !usable(node)) {
        let (name, state) = (text(node, "name"), text(node, "state"));
        let weight = match state {
            "ejected" => Weight::Bad,
            _ => Weight::Warning,
        };
        let why = [text(node, "reason").to_owned()]
            .into_iter()
            .chain(process(picture, name).map(|process| of_process(process, state)));
        let why: Vec<String> = why.filter(|why| !why.is_empty()).collect();
        let why = why.join("; ");
        let what = format!("{name} is {state}");
        add(found, weight, what, &why, text(node, "since"));
    }
    for node in list(picture, "nodes") {
        let others = node.get("others_say").and_then(Value::as_object);
        for (gateway, state) in others.into_iter().flatten() {
            let state = state.as_str().unwrap_or_default();
            let what = format!("{gateway} sees {} {state}", text(node, "name"));
            let why = format!("the others see it {}", text(node, "state"));
            add(found, Weight::Warning, what, &why, "");
        }
    }
}

/// What the supervisor has to say of a node that is out of rotation.
fn of_process(process: &Value, node_state: &str) -> String {
    let (state, reason) = (text(process, "state"), text(process, "reason"));
    if state != "healthy" {
        return match reason {
            "" => format!("its process is {state}"),
            _ => format!("its process is {state}: {reason}"),
        };
    }
    match text(process, "last_restart_reason") {
        why if !why.is_empty() && node_state == "ejected" => format!("last restart: {why}"),
        _ => String::new(),
    }
}

fn process<'a>(picture: &'a Value, name: &str) -> Option<&'a Value> {
    let processes = picture.get("processes")?;
    list(processes, "list").find(|process| text(process, "name") == name)
}

fn processes(picture: &Value, found: &mut Vec<Problem>) {
    let Some(processes) = picture.get("processes") else {
        return;
    };
    if let Some(why) = processes.get("unknown").and_then(Value::as_str) {
        let what = "nothing is known of processes and databases".to_owned();
        add(found, Weight::Warning, what, why, "");
    }
    if processes.get("supervised").and_then(Value::as_bool) == Some(false) {
        let what = "the supervisor is gone".to_owned();
        let why = "what ends now is not started again: `bingo up` brings it back";
        add(found, Weight::Bad, what, why, "");
    }
    // A node that is out of rotation has its process's word beside it.
    let is_told = |name: &str| {
        let mut nodes = list(picture, "nodes");
        nodes.any(|node| text(node, "name") == name && !is_usable(node))
    };
    for process in list(processes, "list") {
        let (name, state) = (text(process, "name"), text(process, "state"));
        if matches!(state, "healthy" | "done" | "") || is_told(name) {
            continue;
        }
        let weight = match state {
            "unhealthy" | "failed" | "stopped" => Weight::Bad,
            _ => Weight::Warning,
        };
        let why = ["reason", "last_restart_reason", "last_exit"]
            .into_iter()
            .map(|key| text(process, key))
            .find(|why| !why.is_empty());
        let what = format!("process {name} is {state}");
        add(
            found,
            weight,
            what,
            why.unwrap_or_default(),
            text(process, "since"),
        );
    }
}

fn gateways(picture: &Value, found: &mut Vec<Problem>) {
    for gateway in list(picture, "gateways").filter(|one| text(one, "state") == "silent") {
        let what = format!("{} does not answer", text(gateway, "name"));
        let why = format!(
            "{}; what it serves is not in the figures",
            text(gateway, "reason")
        );
        add(found, Weight::Bad, what, &why, text(gateway, "since"));
    }
}

fn databases(picture: &Value, found: &mut Vec<Problem>) {
    let hosts = || list(picture, "databases");
    if hosts().len() > 0 && !hosts().any(|host| text(host, "role") == "primary") {
        let why = "no node reaches a server that takes writes";
        add(
            found,
            Weight::Bad,
            "there is no primary".to_owned(),
            why,
            "",
        );
    }
    for host in hosts().filter(|host| text(host, "role") == "away") {
        let what = format!("database {} is away", text(host, "host"));
        add(
            found,
            Weight::Bad,
            what,
            "the nodes cannot reach it",
            text(host, "since"),
        );
    }
    for host in hosts() {
        let others = host.get("others_say").and_then(Value::as_object);
        for (node, role) in others.into_iter().flatten() {
            let role = role.as_str().unwrap_or_default();
            let what = format!("{node} sees database {} {role}", text(host, "host"));
            let why = format!("the others see it {}", text(host, "role"));
            add(found, Weight::Warning, what, &why, "");
        }
    }
}

/// Broken promises: the worst of each kind in words, the others counted, so that they do not bury
/// their cause.
fn objectives(picture: &Value, found: &mut Vec<Problem>) {
    let enough = |promise: &&Value| {
        let requests = number(promise, "/minutes/requests").unwrap_or_default();
        requests >= REQUESTS_MIN as f64
    };
    for (part, word) in [("errors", "failed"), ("slow", "too slow")] {
        let broken = list(picture, "objectives").filter(enough);
        let broken = broken.filter_map(|promise| {
            let of = |key: &str| number(promise, &format!("/minutes/{part}/{key}"));
            let (percent, percent_max) = of("percent").zip(of("percent_max"))?;
            (percent > percent_max).then_some((promise, percent, percent_max))
        });
        let broken: Vec<_> = broken.collect();
        let worst = broken.iter().max_by(|one, other| one.1.total_cmp(&other.1));
        let Some((promise, percent, percent_max)) = worst else {
            continue;
        };
        let (method, route) = (text(promise, "method"), text(promise, "route"));
        let what = format!("{method} {route}: {percent:.1} % {word} in five minutes");
        let why = match broken.len() - 1 {
            0 => format!("{percent_max} % are allowed"),
            1 => format!("{percent_max} % are allowed; one other endpoint is over its own"),
            more => format!("{percent_max} % are allowed; {more} other endpoints are over theirs"),
        };
        add(found, Weight::Bad, what, &why, "");
    }
}

fn hosts(picture: &Value, found: &mut Vec<Problem>) {
    for host in list(picture, "hosts") {
        for (part, word) in [("memory", "memory"), ("disk", "disk")] {
            let of = |key: &str| number(host, &format!("/{part}{key}"));
            let Some((all, free)) = of("_bytes").zip(of("_available_bytes")) else {
                continue;
            };
            let percent = free / all * 100.0;
            if percent < FREE_PERCENT_MIN {
                let what = format!(
                    "{} has {percent:.0} % of its {word} left",
                    text(host, "name")
                );
                add(found, Weight::Bad, what, "", "");
            }
        }
    }
}

fn requests(picture: &Value, found: &mut Vec<Problem>) {
    let count = |pointer: &str| number(picture, pointer).unwrap_or_default();
    let convicted = picture.pointer("/quarantine/convicted");
    let convicted = convicted.and_then(Value::as_array).map_or(0, Vec::len);
    if convicted > 0 {
        let what = match convicted {
            1 => "one request is in quarantine".to_owned(),
            _ => format!("{convicted} requests are in quarantine"),
        };
        let why = "nodes were lost with it twice; clients get 422";
        add(found, Weight::Warning, what, why, "");
    }
    let sheds = count("/sheds");
    if sheds > 0.0 {
        let what = format!("{sheds:.0} requests were shed");
        add(
            found,
            Weight::Bad,
            what,
            "more come than the nodes can serve",
            "",
        );
    }
    let held = count("/held");
    if held > 0.0 {
        let what = format!("{held:.0} requests wait for a node");
        add(found, Weight::Warning, what, "no node takes them", "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn whats(picture: &Value) -> Vec<(Weight, String)> {
        let found = find(picture).into_iter();
        found.map(|one| (one.weight, one.what)).collect()
    }

    #[test]
    fn nothing_is_wrong_with_an_empty_picture_or_a_healthy_one() {
        assert_eq!(find(&json!({})), []);
        let healthy = json!({"nodes": [{"name": "node-1", "state": "healthy"}],
            "gateways": [{"name": "gateway-1", "state": "answers"}],
            "databases": [{"host": "h", "role": "primary"}],
            "processes": {"supervised": true, "list": [{"name": "prepare_db", "state": "done"}]},
            "total": {"requests": 10, "errors": 0}, "sheds": 0, "held": 0});
        assert_eq!(find(&healthy), []);
    }

    #[test]
    fn a_node_that_was_killed_is_told_with_the_supervisors_reason() {
        let picture = json!({"nodes": [
            {"name": "node-1", "state": "ejected", "reason": "broken", "since": "10:00"},
            {"name": "node-2", "state": "healthy"}],
            "processes": {"supervised": true, "list": [
                {"name": "node-1", "state": "healthy", "last_restart_reason": "signal SIGKILL"}]}});
        let found = find(&picture);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "node-1 is ejected");
        assert_eq!(found[0].why, "broken; last restart: signal SIGKILL");
        assert_eq!(found[0].since, "10:00");
    }

    #[test]
    fn a_node_whose_process_is_stopped_is_one_problem_and_not_two() {
        let picture = json!({"nodes": [
            {"name": "node-1", "state": "ejected", "reason": "refused"},
            {"name": "node-2", "state": "healthy"}],
            "processes": {"supervised": true, "list": [{"name": "node-1", "state": "stopped",
                "reason": "stopped by operator"}]}});
        let found = find(&picture);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            found[0].why,
            "refused; its process is stopped: stopped by operator"
        );
    }

    #[test]
    fn the_worst_comes_first() {
        let picture = json!({"nodes": [{"name": "n", "state": "draining"}],
            "total": {"requests": 100, "errors": 7}, "seconds": 10,
            "now": [{"method": "GET", "route": "/a", "errors": 7}]});
        let bad = Weight::Bad;
        assert_eq!(
            whats(&picture),
            [
                (bad, "7 of 100 requests failed in the last 10 s".to_owned()),
                (bad, "no node is in rotation".to_owned()),
                (Weight::Warning, "n is draining".to_owned()),
            ]
        );
    }

    #[test]
    fn a_promise_is_broken_by_what_failed_and_by_what_was_slow_but_not_by_one_request_in_ten() {
        let promise = |requests: u32| {
            json!({"objectives": [{"method": "GET", "route": "/a", "minutes": {"requests": requests,
                "errors": {"percent": 10.0, "percent_max": 1.0},
                "slow": {"percent": 11.0, "percent_max": 10.0}}}]})
        };
        assert_eq!(whats(&promise(10)), []);
        assert_eq!(whats(&promise(100)).len(), 2);
    }

    #[test]
    fn of_many_broken_promises_the_worst_is_told_and_the_others_are_counted() {
        let promise = |route: &str, percent: f64| {
            json!({"method": "GET", "route": route, "minutes": {"requests": 100,
                "errors": {"percent": percent, "percent_max": 1.0}}})
        };
        let all = [
            promise("/a", 2.0),
            promise("/b", 9.0),
            promise("/c", 0.5),
            promise("/d", 3.0),
        ];
        let found = find(&json!({"objectives": all}));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].what, "GET /b: 9.0 % failed in five minutes");
        assert_eq!(
            found[0].why,
            "1 % are allowed; 2 other endpoints are over theirs"
        );
    }

    #[test]
    fn without_a_primary_and_with_a_silent_gateway_both_are_said() {
        let picture = json!({"databases": [{"host": "h", "role": "away", "since": "1"}],
            "gateways": [{"name": "gateway-2", "state": "silent", "reason": "refused"}]});
        let whats: Vec<String> = whats(&picture).into_iter().map(|(_, what)| what).collect();
        let told = [
            "gateway-2 does not answer",
            "there is no primary",
            "database h is away",
        ];
        assert_eq!(whats, told);
    }
}
