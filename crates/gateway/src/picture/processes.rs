//! What the supervisor says of its processes, from its state file: read again and again instead of
//! asked for, since the file is there when the supervisor is not. How old it is shows whether it is:
//! a running one writes it when anything changes, and that is not often, so its pid is looked at too.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A longer file is none of ours.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Members of an entry that the page shows; its pids and log lines stay in the file.
const SHOWN: [&str; 14] = [
    "name",
    "role",
    "pid",
    "state",
    "reason",
    "since",
    "listen",
    "metrics",
    "restarts",
    "last_restart_reason",
    "last_exit",
    "uptime_seconds",
    "rss_bytes",
    "memory",
];

/// The supervisor's file, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Processes {
    processes: Vec<Map<String, Value>>,
}

impl Processes {
    /// Fails with why it cannot be read, for people.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let told = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let file = std::fs::File::open(path).map_err(|error| told(&error))?;
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(|error| told(&error))?;
        serde_json::from_slice(&text).map_err(|error| told(&error))
    }

    /// The name of the process with this pid; a successor has that of its predecessor.
    pub(crate) fn name_of(&self, pid: u32) -> Option<&str> {
        let has = |entry: &Map<String, Value>| entry.get("pid").and_then(Value::as_u64);
        let found = self.processes.iter().find(|entry| {
            let beside = entry.get("beside").and_then(Value::as_array);
            let mut beside = beside.into_iter().flatten().filter_map(Value::as_object);
            has(entry) == Some(pid.into()) || beside.any(|one| has(one) == Some(pid.into()))
        });
        found?.get("name")?.as_str()
    }

    /// The name of the process whose metrics are at this `HOST:PORT`.
    pub(crate) fn name_at(&self, authority: &str) -> Option<&str> {
        let url = format!("http://{authority}/metrics");
        let found = self.processes.iter().find(|entry| {
            let metrics = entry.get("metrics").and_then(Value::as_str);
            metrics == Some(url.as_str())
        });
        found?.get("name")?.as_str()
    }

    /// `HOST:PORT` of the metrics of every process of a role, with its name.
    pub(crate) fn metrics_of(&self, role: &str) -> Vec<(String, String)> {
        let text = |entry: &Map<String, Value>, key: &str| {
            let value = entry.get(key).and_then(Value::as_str);
            value.map(str::to_owned)
        };
        let of_role = self.processes.iter().filter(|entry| {
            let is_there = entry.get("pid").is_some_and(Value::is_number);
            text(entry, "role").as_deref() == Some(role) && is_there
        });
        let found = of_role.filter_map(|entry| {
            let url = text(entry, "metrics")?;
            let authority = url.strip_prefix("http://")?.strip_suffix("/metrics")?;
            Some((text(entry, "name")?, authority.to_owned()))
        });
        found.collect()
    }

    /// The entries as the page shows them.
    pub(crate) fn shown(&self) -> Value {
        let entries = self.processes.iter().map(|entry| {
            let members = SHOWN.iter().filter_map(|name| {
                let value = entry.get(*name)?;
                Some(((*name).to_owned(), value.clone()))
            });
            Value::Object(members.collect())
        });
        let alive = self.processes.iter().any(|entry| {
            let is_supervisor = entry.get("role").and_then(Value::as_str) == Some("supervisor");
            let pid = entry.get("pid").and_then(Value::as_u64);
            is_supervisor && pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
        });
        json!({ "supervised": alive, "list": entries.collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"stopping":false,"processes":[
        {"name":"supervisor","role":"supervisor","pid":1,"state":"healthy"},
        {"name":"node-1","role":"node","pid":7,"state":"healthy","last_lines":["secret"],
         "metrics":"http://127.0.0.1:9/metrics","beside":[{"pid":8,"state":"draining"}]},
        {"name":"node-2","role":"node","pid":null,"metrics":"http://127.0.0.1:10/metrics"}]}"#;

    #[test]
    fn a_process_is_found_by_its_pid_and_by_that_of_its_predecessor() {
        let processes: Processes = serde_json::from_str(TEXT).unwrap();
        assert_eq!(processes.name_of(7), Some("node-1"));
        assert_eq!(processes.name_of(8), Some("node-1"));
        assert_eq!(processes.name_of(9), None);
        assert_eq!(processes.name_at("127.0.0.1:10"), Some("node-2"));
        let nodes = processes.metrics_of("node");
        assert_eq!(nodes, [("node-1".to_owned(), "127.0.0.1:9".to_owned())]);
    }

    #[test]
    fn what_a_process_said_in_its_log_is_not_shown() {
        let processes: Processes = serde_json::from_str(TEXT).unwrap();
        let shown = processes.shown();
        assert!(!shown.to_string().contains("secret"));
        assert_eq!(shown["supervised"], true);
        assert_eq!(shown["list"][1]["state"], "healthy");
    }

    #[test]
    fn a_file_that_is_not_there_is_told_with_its_name() {
        let told = Processes::read(Path::new("/nowhere/state.json")).unwrap_err();
        assert!(told.starts_with("/nowhere/state.json: "), "{told}");
    }
}
