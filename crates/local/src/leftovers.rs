//! Processes of an installation that no record names: a supervisor that is killed right after it
//! started a child had no time to write it down. They are known by their command lines, which name
//! files of this installation and of no other.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use supervisor::launch::SCRIBE;
use supervisor::{PORTER, ProcessState, ProcessStatus};

use crate::layout::Layout;

/// Every living process whose arguments name one of this installation's configuration files, or its
/// data folder as PostgreSQL's; in the order in which `up` starts them, the supervisor and the scribes
/// first (whoever is first is ended last).
pub(crate) fn find(layout: &Layout) -> Vec<ProcessStatus> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<ProcessStatus> = pids.filter_map(|pid| of(layout, pid)).collect();
    let rank = |process: &ProcessStatus| {
        ["supervisor", SCRIBE, "postgres"]
            .iter()
            .position(|role| *role == process.role)
    };
    found.sort_by_key(|process| rank(process).unwrap_or(usize::MAX));
    found
}

fn of(layout: &Layout, pid: u32) -> Option<ProcessStatus> {
    let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<&Path> = command_line
        .split(|byte| *byte == 0)
        .map(|bytes| Path::new(OsStr::from_bytes(bytes)))
        .collect();
    let role = role(layout, &arguments)?;
    let stop_signal = if role == "postgres" {
        "SIGINT"
    } else {
        "SIGTERM"
    };
    Some(ProcessStatus {
        name: format!("{role} (process {pid})"),
        role: role.to_owned(),
        pid: Some(pid),
        start_time: supervisor::processes::start_time(pid),
        state: ProcessState::Unhealthy,
        stop_signal: stop_signal.to_owned(),
        ..ProcessStatus::default()
    })
}

fn role(layout: &Layout, arguments: &[&Path]) -> Option<&'static str> {
    let follows = |flag: &str, value: &Path| {
        let mut pairs = arguments.windows(2);
        pairs.any(
            |pair| matches!(pair, [first, second] if *first == Path::new(flag) && *second == value),
        )
    };
    if follows("--config", &layout.supervisor_config()) {
        return Some("supervisor");
    }
    if follows("-D", &layout.postgres()) {
        return Some("postgres");
    }
    // A scribe outlives its child where a daemon of the child's still writes to it.
    let logs = layout.logs();
    let is_scribe = arguments.windows(2).any(|pair| {
        matches!(pair, [word, file] if *word == Path::new(SCRIBE) && file.parent() == Some(&logs))
    });
    // What a porter puts in other places lies in this folder; with it ends what it stands before.
    let is_porter = arguments.windows(2).any(|pair| {
        matches!(pair, [word, file] if *word == Path::new(PORTER) && file.starts_with(layout.run()))
    });
    if is_porter {
        return Some("process");
    }
    if is_scribe {
        return Some(SCRIBE);
    }
    let config = layout.config();
    let of_ours = arguments.windows(2).any(|pair| {
        matches!(pair, [flag, file] if *flag == Path::new("--config") && file.parent() == Some(&config))
    });
    of_ours.then_some("process")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_known_by_this_folders_files_and_no_others() {
        let layout = Layout::new("/srv/one".into());
        let case = |line: &[&str]| {
            let arguments: Vec<&Path> = line.iter().map(Path::new).collect();
            role(&layout, &arguments)
        };
        assert_eq!(
            case(&[
                "bingo",
                "supervise",
                "--config",
                "/srv/one/config/supervisor.yaml"
            ]),
            Some("supervisor")
        );
        assert_eq!(
            case(&["postgres", "-D", "/srv/one/postgres"]),
            Some("postgres")
        );
        assert_eq!(
            case(&[
                "bingo",
                "run_server",
                "--config",
                "/srv/one/config/node-1.yaml"
            ]),
            Some("process")
        );
        assert_eq!(
            case(&[
                "bingo",
                "run_server",
                "--config",
                "/srv/one/other/config/node-1.yaml"
            ]),
            None
        );
        let scribe = |path| ["/proc/self/exe", "launch", "--", "scribe", path];
        assert_eq!(case(&scribe("/srv/one/logs/node-1.log")), Some("scribe"));
        assert_eq!(case(&scribe("/srv/two/logs/node-1.log")), None);
        let porter = |path| ["/proc/self/exe", "launch", "--", "porter", path];
        let config = "/srv/one/run/exec/node-1.yaml";
        assert_eq!(case(&porter(config)), Some("process"));
        assert_eq!(case(&porter("/srv/two/run/exec/node-1.yaml")), None);
        assert_eq!(case(&["vim", "/srv/one/config/node-1.yaml"]), None);
        assert_eq!(case(&["postgres", "-D", "/srv/one/postgres2"]), None);
    }
}
