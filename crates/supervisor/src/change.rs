//! What a new configuration changes in a running one: pure, so that it can be told before anything is
//! done. Processes may come and go, and one that stays may change: it is replaced when it is its turn,
//! successor first where it can be. What others depend on stays as it is: roles, the order, and all of
//! a database.

use std::collections::BTreeSet;

use chassis::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{Config, Process};

/// The names of those that a new configuration adds, takes away and replaces, in the order of their
/// files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    #[serde(default)]
    pub changed: Vec<String>,
}

/// Keys of a process that cannot change while it stays.
const FIXED: [&str; 2] = ["role", "after"];

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
    let mut changed = Vec::new();
    for process in &new.processes {
        if let Some(running) = find(now, &process.name) {
            let mut keys = different_keys(&fields(running), &fields(process));
            if !keys.is_empty() {
                changed.push(process.name.clone());
            }
            if running.role != "postgres" {
                keys.retain(|key| FIXED.contains(&key.as_str()));
            }
            refuse(&format!("processes: {}", process.name), &keys);
        }
    }
    match Failure::all(refused) {
        Some(failure) => Err(failure),
        None => Ok(Change {
            added: missing(new, now),
            removed: missing(now, new),
            changed,
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
    fn one_that_stays_may_change() {
        let now = config("processes: [{name: a, command: [x]}, {name: b, command: [x]}]");
        let new = config(
            "processes: [{name: b, command: [y], environment: {KEY: secret}}, \
             {name: a, command: [x]}]",
        );
        let change = between(&now, &new).unwrap();
        assert_eq!(change.changed, ["b"]);
        assert!(change.added.is_empty() && change.removed.is_empty());
    }

    #[test]
    fn every_difference_that_others_depend_on_is_named_without_its_value() {
        let now = config(
            "processes: [{name: a, command: [x]}, {name: b, command: [x]}, \
             {name: c, role: postgres, command: [x]}]",
        );
        let new = config(
            "state_file: /tmp/s\nprocesses: [{name: a, command: [y], after: [b], role: node}, \
             {name: b, command: [x]}, \
             {name: c, role: postgres, command: [x], environment: {KEY: secret}}]",
        );
        let failure = between(&now, &new).unwrap_err().to_string();
        for expected in [
            "the supervisor's own keys: other than the running ones: state_file",
            "processes: a: other than the running ones: after, role",
            "processes: c: other than the running ones: environment",
        ] {
            assert!(failure.contains(expected), "{expected}\n{failure}");
        }
        assert!(!failure.contains("secret"), "{failure}");
    }
}
