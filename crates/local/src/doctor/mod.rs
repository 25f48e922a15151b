//! `bingo doctor`: what an installation needs of this machine, row by row, each with its state,
//! cause and remedy. `up` runs the same rows first and refuses to start over a failed one, so an
//! operator meets every obstacle at once and before anything was started.

mod machine;
mod place;
mod services;

use serde::Serialize;

pub(crate) use machine::memory_bytes;

use crate::layout::Layout;
use crate::options::Options;

/// How a row came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// Works, with a loss that the row names.
    Warning,
    /// `up` would not start.
    Failed,
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do; empty where there is nothing to do.
    pub remedy: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Ok,
            found: found.into(),
            remedy: String::new(),
        }
    }

    fn warning(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Warning,
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    fn failed(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Failed,
            found: found.into(),
            remedy: remedy.into(),
        }
    }
}

/// What the rows look at.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    pub layout: &'a Layout,
    pub options: &'a Options,
    /// This installation runs: its own ports are busy, and rightly so.
    pub running: bool,
}

/// Every row, in the order in which they are shown. Takes well under a second.
pub fn examine(subject: &Subject<'_>) -> Vec<Check> {
    let mut checks = vec![
        services::postgres_binaries(subject),
        services::other_postgres(subject),
    ];
    checks.extend(place::account_and_access(subject));
    checks.extend(services::ports(subject));
    checks.extend(services::mdns(subject));
    checks.extend([
        place::socket_paths(subject),
        place::disk_space(subject),
        place::disk_sync(subject),
        machine::memory(),
        machine::clock(),
        machine::open_files(),
        machine::namespaces(subject),
        machine::cgroups(),
        machine::landlock(),
        machine::ipv6(),
        machine::udp(),
    ]);
    checks
}

/// The failed rows as one failure with exit 64; `None` when there is none.
pub fn refusal(checks: &[Check]) -> Option<chassis::Failure> {
    let failed = checks.iter().filter(|check| check.state == State::Failed);
    chassis::Failure::all(failed.map(|check| {
        let attempted = format!("check {}", check.name);
        chassis::Failure::configuration(attempted, &check.found, &check.remedy)
    }))
}

/// The table as text: state, name and finding, with the remedy under it.
pub fn table(checks: &[Check]) -> String {
    let width = checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let state = match check.state {
            State::Ok => "ok     ",
            State::Warning => "warning",
            State::Failed => "FAILED ",
        };
        text.push_str(&format!(
            "{state}  {:width$}  {}\n",
            check.name, check.found
        ));
        if !check.remedy.is_empty() {
            text.push_str(&format!("{:9}{:width$}  → {}\n", "", "", check.remedy));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failed_rows_refuse_a_start_and_each_brings_its_remedy() {
        let checks = [
            Check::ok("clock", "fine"),
            Check::warning("udp", "none", "use TCP"),
            Check::failed("disk space", "1 MiB", "free some"),
            Check::failed("port 1", "busy", "choose another"),
        ];
        let failure = refusal(&checks).unwrap();
        assert_eq!(failure.exit, chassis::Exit::Configuration);
        assert_eq!(
            failure.to_string(),
            "error: check disk space: 1 MiB\nhelp: free some\n\
             error: check port 1: busy\nhelp: choose another"
        );
        assert!(refusal(&checks[..2]).is_none());
        assert!(table(&checks).contains("→ free some"));
    }
}
