//! An event of the gateway as the file of events has it: one word, whom it befell, and why, in a
//! sentence for people. Of a request's target the query stays out: it may hold anything.

use serde_json::Value;

/// Kind, subject and reason.
pub(super) fn of(kind: &'static str, data: &Value) -> (&'static str, String, String) {
    let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
    let node = text("node").to_owned();
    let change = || format!("{} to {}", text("from"), text("to"));
    match kind {
        "node_ejected" => ("ejected", node, text("reason").to_owned()),
        "node_changed" if is_back(text("from"), text("to")) => ("back", node, change()),
        "node_changed" => ("changed", node, change()),
        "node_set" => ("set", node, change()),
        "node_added" => ("added", node, String::new()),
        "node_removed" => ("removed", node, String::new()),
        "request_suspected" => ("suspect", text("fingerprint").to_owned(), charge(data)),
        "request_convicted" => ("convicted", text("fingerprint").to_owned(), charge(data)),
        "conviction_lifted" => (
            "lifted",
            text("fingerprint").to_owned(),
            "by an operator".to_owned(),
        ),
        "configuration_reloaded" => ("reloaded", String::new(), text("cause").to_owned()),
        "configuration_refused" => ("refused", String::new(), faults(data)),
        other => (other, node, String::new()),
    }
}

fn is_back(from: &str, to: &str) -> bool {
    matches!(from, "ejected" | "outlier") && matches!(to, "healthy" | "unknown")
}

/// What a suspect is charged with.
fn charge(data: &Value) -> String {
    let text = |key: &str| {
        let value = data.get("charge").and_then(|charge| charge.get(key));
        value.and_then(Value::as_str).unwrap_or_default()
    };
    let target = text("target");
    let path = target.split('?').next().unwrap_or_default();
    format!(
        "{} of {}: {} {path}",
        text("loss"),
        text("node"),
        text("method")
    )
}

/// The first one, and how many there are.
fn faults(data: &Value) -> String {
    let Some(faults) = data.get("faults").and_then(Value::as_array) else {
        return String::new();
    };
    let of_first = |key: &str| {
        let value = faults.first().and_then(|fault| fault.get(key));
        value.and_then(Value::as_str).unwrap_or_default()
    };
    let more = match faults.len() {
        0 | 1 => String::new(),
        all => format!(" (and {} more)", all - 1),
    };
    format!("{}: {}{more}", of_first("key"), of_first("reason"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_told_in_a_word_with_its_subject_and_its_reason() {
        let fault = |key: &str| json!({"key": key, "reason": "it is empty"});
        for (kind, data, expected) in [
            (
                "node_ejected",
                json!({"node": "node-1", "from": "healthy", "reason": "refused"}),
                ("ejected", "node-1", "refused"),
            ),
            (
                "node_changed",
                json!({"node": "node-1", "from": "ejected", "to": "healthy"}),
                ("back", "node-1", "ejected to healthy"),
            ),
            (
                "node_changed",
                json!({"node": "node-1", "from": "unknown", "to": "healthy"}),
                ("changed", "node-1", "unknown to healthy"),
            ),
            (
                "request_convicted",
                json!({"fingerprint": "ab12", "charge": {"method": "GET", "target": "/x?token=canary",
                       "node": "node-2", "loss": "crash"}}),
                ("convicted", "ab12", "crash of node-2: GET /x"),
            ),
            (
                "configuration_refused",
                json!({"cause": "file", "faults": [fault("listen"), fault("nodes")]}),
                ("refused", "", "listen: it is empty (and 1 more)"),
            ),
        ] {
            let (word, subject, reason) = of(kind, &data);
            assert_eq!((word, subject.as_str(), reason.as_str()), expected);
        }
    }
}
