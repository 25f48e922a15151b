//! The short form of every drill that needs no machine of its own: each fault once, for two seconds at
//! most, under all calls and both writes. What is asserted is what clients see, that nothing fails and
//! that every acknowledged write is there once; times are for `make drill`, on a quiet machine.

mod e2e {
    #[allow(dead_code)] // each test binary uses its part
    pub(crate) mod installation;
}

use std::process::Stdio;
use std::time::Duration;

use acceptance::signals::wait_until;
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
    let mut command = installation.command_as_given(&["drill", "node-stall"]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let patience = Duration::from_secs(30);
    let changed = async || std::fs::read_to_string(&file).unwrap() != before;
    wait_until("the drill changed the file", patience, changed)
        .await
        .unwrap();
    let process = acceptance::signals::process(child.id()).unwrap();
    acceptance::signals::kill(&process, acceptance::signals::Signal::Interrupt).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    installation.down();
}
