//! What a new configuration changes in a running one: pure, so that it can be told before anything is
//! done. Processes may come and go; one that stays must stay as it is, because replacing it without
//! a gap needs its successor beside it, which is not built yet.

use std::collections::BTreeSet;

use chassis::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{Config, Process};

/// The names of those that a new configuration adds and takes away, in the order of their files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

/// What `new` changes; exit 64 with a message for each difference that cannot be carried out.
pub(crate) fn between(now: &Config, new: &Config) -> Result<Change, Failure> {
    let mut refused: Vec<Failure> = Vec::new();
    let mut refuse = |subject: &str, keys: &[String]| {
        if !keys.is_empty() {
            let why = format!("other than the running ones: {}", keys.join(", "));
            let help = "put them back, or stop everything and start with the new file";
            refused.push(Failure::configuration(subject, why, help));
        }
    };
    refuse(
        "the supervisor's own keys",
        &different_keys(&own(now), &own(new)),
    );
    for process in &new.processes {
        if let Some(running) = find(now, &process.name) {
            let keys = different_keys(&fields(running), &fields(process));
            refuse(&format!("processes: {}", process.name), &keys);
        }
    }
    match Failure::all(refused) {
        Some(failure) => Err(failure),
        None => Ok(Change {
            added: missing(new, now),
            removed: missing(now, new),
        }),
    }
}

fn find<'a>(config: &'a Config, name: &str) -> Option<&'a Process> {
    let mut processes = config.processes.iter();
    processes.find(|process| process.name == name)
}

/// The names that stand in `here` and not in `there`.
fn missing(here: &Config, there: &Config) -> Vec<String> {
    let names = here.processes.iter().map(|process| &process.name);
    names
        .filter(|name| find(there, name).is_none())
        .cloned()
        .collect()
}

/// Everything but the processes.
fn own(config: &Config) -> Map<String, Value> {
    fields(&Config {
        processes: Vec::new(),
        ..config.clone()
    })
}

fn fields(written: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(written) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Keys only: values may hold secrets.
fn different_keys(one: &Map<String, Value>, other: &Map<String, Value>) -> Vec<String> {
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    keys.into_iter()
        .filter(|key| one.get(*key) != other.get(*key))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        chassis::config::parse("example", text).unwrap()
    }

    #[test]
    fn processes_come_and_go_in_the_order_of_their_files() {
        let now = config("processes: [{name: a, command: [x]}, {name: b, command: [x]}]");
        let new = config(
            "processes: [{name: d, command: [x]}, {name: b, command: [x]}, {name: c, command: [x]}]",
        );
        let change = between(&now, &new).unwrap();
        assert_eq!(change.added, ["d", "c"]);
        assert_eq!(change.removed, ["a"]);
        assert_eq!(between(&now, &now).unwrap(), Change::default());
    }

    #[test]
    fn every_difference_of_one_that_stays_is_named_without_its_value() {
        let now = config("processes: [{name: a, command: [x]}, {name: b, command: [x]}]");
        let new = config(
            "state_file: /tmp/s\nprocesses: [{name: a, command: [y], environment: {KEY: secret}}, \
             {name: b, command: [x], stop: {timeout: 1s}}]",
        );
        let failure = between(&now, &new).unwrap_err().to_string();
        for expected in [
            "the supervisor's own keys: other than the running ones: state_file",
            "processes: a: other than the running ones: command, environment",
            "processes: b: other than the running ones: stop",
        ] {
            assert!(failure.contains(expected), "{expected}\n{failure}");
        }
        assert!(!failure.contains("secret"), "{failure}");
    }
}
