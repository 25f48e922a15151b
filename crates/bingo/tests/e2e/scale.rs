//! `bingo up --nodes N` over a running installation.

use std::time::Duration;

use acceptance::http;
use acceptance::load::{self, Plan};
use acceptance::signals::{Signal, wait_until};
use serde_json::Value;

use super::installation::{Installation, ROWS, Rows};

const SOON: Duration = Duration::from_secs(20);

/// The nodes of each gateway by name, with the answers that it had from each.
async fn routed(installation: &Installation) -> Vec<Vec<(String, u64)>> {
    let mut gateways = Vec::new();
    for process in installation.status()["processes"].as_array().unwrap() {
        if process["role"] == "gateway" {
            let metrics = process["metrics"].as_str().unwrap();
            let url = metrics.replace("/metrics", "/api/v1/status");
            let status = http::get(&url).await.unwrap().json().unwrap();
            let nodes = status["nodes"].as_array().unwrap().iter();
            let name = |node: &Value| node["name"].as_str().unwrap().to_owned();
            let nodes = nodes.map(|node| (name(node), node["answers"].as_u64().unwrap()));
            gateways.push(nodes.collect());
        }
    }
    gateways
}

async fn names(installation: &Installation) -> Vec<Vec<String>> {
    let gateways = routed(installation).await.into_iter();
    let names = |nodes: Vec<(String, u64)>| nodes.into_iter().map(|(name, _)| name).collect();
    gateways.map(names).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_added_and_taken_away_under_load_and_no_request_fails() {
    let mut installation = Installation::new("scale", ROWS);
    installation.up(&["--detach"]).await;
    let before = installation.pids();
    let plan = Plan {
        duration: Duration::from_secs(20),
        mix: "movie=30,customer=30,session=30,operation=30"
            .parse()
            .unwrap(),
        ids: ROWS.ids(),
        ..Plan::new(http::Base::parse(&installation.url("")).unwrap())
    };
    let load = tokio::spawn(async move { load::run(&plan, |_| ()).await.unwrap() });
    wait_until("the load runs", SOON, async || {
        installation.requests().await > 100
    })
    .await
    .unwrap();

    installation.up(&["--detach", "--nodes", "4"]).await;
    let four = installation.pids();
    assert_eq!(four.len(), before.len() + 2);
    assert!(
        before.iter().all(|pid| four.contains(pid)),
        "{before:?} {four:?}"
    );
    // Which gateway the few connections of this load go to is the kernel's choice.
    wait_until(
        "every gateway knows the new nodes, and they are used",
        SOON,
        async || {
            let gateways = routed(&installation).await;
            let used = |name: &str| {
                let mut nodes = gateways.iter().flatten();
                nodes.any(|(node, answers)| node == name && *answers > 0)
            };
            gateways.len() == 2
                && gateways.iter().all(|nodes| nodes.len() == 4)
                && used("node-3")
                && used("node-4")
        },
    )
    .await
    .unwrap();

    let down = installation.run(&["up", "--detach", "--nodes", "2", "--json"]);
    assert_eq!(down.code, 0, "{}", down.stderr);
    let told: Value = serde_json::from_str(&down.stdout).unwrap();
    assert_eq!(told["state"], "ready");
    assert_eq!(installation.pids(), before, "the old ones were not touched");
    let two = vec!["node-1".to_owned(), "node-2".to_owned()];
    assert_eq!(names(&installation).await, [two.clone(), two]);
    assert!(!installation.folder().join("config/node-3.yaml").exists());
    assert!(!load.is_finished(), "the load was there all the time");
    let report = load.await.unwrap();
    println!("{report}");
    assert_eq!(report.failed, 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_nodes_than_the_database_takes_are_refused_with_the_remedy() {
    let mut installation = Installation::new("room", Rows::tiny());
    installation.up(&["--detach"]).await;
    let before = installation.pids();
    let refused = installation.run(&["up", "--detach", "--nodes", "9"]);
    assert_eq!(refused.code, 64, "{}", refused.stderr);
    for expected in ["4 nodes fit while it runs", "bingo up --nodes 9"] {
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    }
    assert_eq!(installation.pids(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_call_is_finished_or_undone_by_the_next() {
    let mut installation = Installation::new("halfway", Rows::tiny());
    installation.up(&["--detach"]).await;
    let before = installation.pids();
    for (nodes, expected) in [("2", 2), ("3", 3)] {
        let mut killed = installation.spawn(&["up", "--detach", "--nodes", "4"]);
        wait_until("new nodes are being started", SOON, async || {
            installation.processes_of_role("node").len() == 4
        })
        .await
        .unwrap();
        killed.kill().unwrap();
        killed.wait().unwrap();
        installation.up(&["--detach", "--nodes", nodes]).await;
        assert_eq!(installation.processes_of_role("node").len(), expected);
        let routed = names(&installation).await;
        assert!(
            routed.iter().all(|nodes| nodes.len() == expected),
            "{routed:?}"
        );
    }
    let after = installation.pids();
    assert!(
        before.iter().all(|pid| after.contains(pid)),
        "{before:?} {after:?}"
    );
    // What was added is kept alive like the rest.
    installation.kill("node-3", Signal::Kill);
    installation.wait_restarted("node-3", 1).await;
}
