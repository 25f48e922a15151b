//! The short form of every drill that needs no machine of its own: each fault once, for two seconds at
//! most, under all calls and both writes. What is asserted is what clients see, that nothing fails and
//! that every acknowledged write is there once; times are for `make drill`, on a quiet machine.

mod e2e {
    #[allow(dead_code)] // each test binary uses its part
    pub(crate) mod installation;
}

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use acceptance::signals::{Signal, wait_until};
use e2e::installation::{Installation, ROWS};
use serde_json::Value;

/// Runs these drills against an installation of their own.
async fn drill(name: &str, drills: &[&str]) {
    let mut installation = Installation::new(name, ROWS);
    installation
        .up(&["--detach", "--faults", "operation"])
        .await;
    let ids = ROWS.ids();
    let rows = [
        ids.customers.to_string(),
        ids.movies.to_string(),
        ids.sessions.to_string(),
    ];
    let mut arguments = vec!["drill", "--short", "--json"];
    for (flag, rows) in ["--customers", "--movies", "--sessions"].iter().zip(&rows) {
        arguments.extend([flag, rows.as_str()]);
    }
    arguments.extend(drills);
    let result = installation.run_as_given(&arguments);
    let outcomes: Vec<Value> =
        serde_json::from_str(&result.stdout).unwrap_or_else(|_| panic!("{}", result.stderr));
    assert_eq!(outcomes.len(), drills.len());
    for outcome in &outcomes {
        assert_eq!(outcome["left_out"], Value::Null, "{outcome:#}");
        assert_eq!(outcome["faults"], 1, "{outcome:#}");
        for finding in outcome["findings"].as_array().unwrap() {
            let bound = finding["bound"].as_str().unwrap();
            let is_time = bound.contains(" ms");
            assert!(is_time || finding["is_green"] == true, "{outcome:#}");
        }
    }
    installation.down();
}

#[tokio::test]
async fn the_loss_of_a_node_is_unseen() {
    let drills = ["node-sigkill", "node-sigstop", "rolling-restart", "upgrade"];
    drill("drill-nodes", &drills).await;
}

#[tokio::test]
async fn a_request_that_breaks_its_node_breaks_no_other_request() {
    let drills = ["node-panic", "node-leak", "node-unhealthy", "many-poisons"];
    drill("drill-poison", &drills).await;
}

#[tokio::test]
async fn a_bad_network_to_a_node_is_unseen() {
    let drills = [
        "node-slow",
        "node-trickle",
        "node-cut-off",
        "node-stall",
        "node-reset",
        "node-half-close",
    ];
    drill("drill-network", &drills).await;
}

#[tokio::test]
async fn the_loss_of_a_gateway_or_the_database_costs_what_it_had_accepted_at_most() {
    let drills = [
        "reload",
        "gateway-sigkill",
        "gateway-sigstop",
        "postgres-sigkill",
        "postgres-sigstop",
    ];
    drill("drill-gateways", &drills).await;
}

#[tokio::test]
async fn a_drill_that_is_interrupted_puts_right_what_it_broke() {
    let mut installation = Installation::new("drill-undo", ROWS);
    installation.up(&["--detach"]).await;
    let file = installation.folder().join("config/gateway.yaml");
    let before = std::fs::read_to_string(&file).unwrap();
    for signal in [Signal::Interrupt, Signal::Terminate, Signal::HangUp] {
        let mut child = spawn(&installation, &["drill", "node-stall"]);
        changes(&file, &before).await;
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    }
    // Killed, it leaves the file as it is; the next drill mends it, and keeps what was changed since.
    let mut child = spawn(&installation, &["drill", "node-stall"]);
    changes(&file, &before).await;
    send(&child, Signal::Kill);
    child.wait().unwrap();
    let changed = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{changed}# by hand\n")).unwrap();
    let mut child = spawn(&installation, &["drill", "--short", "reload"]);
    child.wait().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, format!("{before}# by hand\n"));
    installation.down();
}

fn spawn(installation: &Installation, arguments: &[&str]) -> Child {
    let mut command = installation.command_as_given(arguments);
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.spawn().unwrap()
}

fn send(child: &Child, signal: Signal) {
    let process = acceptance::signals::process(child.id()).unwrap();
    acceptance::signals::kill(&process, signal).unwrap();
}

async fn changes(file: &Path, before: &str) {
    let changed = async || std::fs::read_to_string(file).unwrap() != before;
    wait_until(
        "the drill changes the file",
        Duration::from_secs(30),
        changed,
    )
    .await
    .unwrap();
}
