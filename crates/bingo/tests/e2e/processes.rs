//! One process of an installation: its log, its stop and start, what it may do.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use acceptance::http;
use acceptance::signals::{Process, Signal, wait_until};

use super::installation::{Installation, Rows};

const SOON: Duration = Duration::from_secs(20);

/// A value of /proc/PID/status; empty where the process is gone.
fn status_value(pid: u32, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_default().trim().to_owned()
}

/// Whether it is a scribe and holds no capability.
pub(crate) fn is_powerless_scribe(process: &Process) -> bool {
    let none = |set: &str| status_value(process.pid, set) == "0".repeat(16);
    process.command_line.contains(" scribe ")
        && ["CapPrm:", "CapEff:", "CapBnd:"].into_iter().all(none)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_is_stopped_and_started_and_its_log_read() {
    let mut installation = Installation::new("processes", Rows::tiny());
    installation.up(&["--detach"]).await;
    let run = |words: &[&str]| installation.run_as_given(words);
    every_process_is_confined(&installation);

    let stopped = run(&["stop", "node-2"]);
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    let shown = run(&["status"]);
    assert_eq!(shown.code, 1, "degraded");
    let expected = "node-2 is stopped: stopped by operator";
    assert!(shown.stdout.contains(expected), "{}", shown.stdout);
    let url = installation.url("/api/movie/1");
    assert_eq!(http::get(&url).await.unwrap().status, 200);
    let refused = run(&["stop", "node-1"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    let unknown = run(&["stop", "node-7"]);
    assert!(
        unknown.stderr.contains("node-1, node-2"),
        "{}",
        unknown.stderr
    );
    let joined = installation.run(&["up", "--detach"]);
    assert_eq!(joined.code, 1);
    assert!(
        joined.stderr.contains("bingo start node-2"),
        "{}",
        joined.stderr
    );
    assert_eq!(run(&["start", "node-2"]).code, 0);
    assert_eq!(run(&["status"]).code, 0);

    let all = run(&["logs", "node-1", "--since", "1h"]);
    assert!(
        all.stdout.contains("Welcome") || all.stdout.contains("listening"),
        "{}",
        all.stdout
    );
    let last = run(&["logs", "node-1", "-n", "1", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&last.stdout).unwrap();
    assert_eq!(object["process"], "node-1");
    assert_eq!(run(&["logs", "nobody"]).code, 1);
    follows(&installation);

    installation.down();
    let late = run(&["start", "node-2"]);
    assert_eq!(late.code, 3, "{}", late.stderr);
}

fn every_process_is_confined(installation: &Installation) {
    for role in ["postgres", "node", "gateway"] {
        for pid in installation.processes_of_role(role) {
            let value = |key: &str| status_value(pid, key);
            assert_eq!(value("CapEff:"), "0".repeat(16), "{role}");
            assert_eq!(value("NoNewPrivs:"), "1", "{role}");
            assert_eq!(value("Seccomp:"), "2", "{role}");
        }
    }
}

/// Lines that are written later are shown, those of the successor too.
fn follows(installation: &Installation) {
    let mut command = installation.command_as_given(&["logs", "node-1", "-f", "-n", "0"]);
    let mut following = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    installation.kill("node-1", Signal::Kill);
    let found = lines.any(|line| line.unwrap().contains("listening on"));
    following.kill().unwrap();
    following.wait().unwrap();
    assert!(found, "the successor's lines are followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_go_on_without_the_supervisor_and_end_with_the_next_up() {
    let mut installation = Installation::new("silent", Rows::tiny());
    installation.up(&["--detach"]).await;
    let scribes = || {
        let all = installation.processes().into_iter();
        // That of the supervisor's own log ends with it.
        let writes = |line: &str| line.contains(" scribe ") && !line.contains("supervisor.log");
        all.filter(|process| writes(&process.command_line))
            .map(|process| process.pid)
            .collect::<Vec<u32>>()
    };
    let before = scribes();
    assert!(before.len() >= 5, "{before:?}");
    installation.kill("supervisor", Signal::Kill);
    wait_until("status sees it", SOON, async || {
        installation.status()["state"] == "degraded"
    })
    .await
    .unwrap();
    let shown = installation.run_as_given(&["status"]);
    let expected = "the supervisor is gone, its processes go on";
    assert!(shown.stdout.contains(expected), "{}", shown.stdout);
    assert_eq!(scribes().len(), before.len());
    installation.run_as_given(&["down"]);
    installation.assert_nothing_runs();
}
