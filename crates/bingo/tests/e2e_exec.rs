//! The vendor's binary under our roof, played by a stand-in that has all its traps
//! (`examples/vendor`): it comes up in two copies although its paths and its port are fixed, survives
//! what it does to itself, and leaves nothing behind.

mod e2e {
    #[allow(dead_code)] // each test binary uses its part
    pub(crate) mod installation;
}

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use acceptance::http::{self, Method, Request};
use acceptance::load::{self, Plan};
use acceptance::signals::{Signal, wait_until};
use e2e::installation::{Installation, Rows};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// Where the stand-in can be reached by the children's account; cargo builds it beside the tests.
fn stand_in(installation: &Installation) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_bingo")).with_file_name("examples/vendor");
    let place = installation.binary().with_file_name("vendor");
    let copied = std::fs::copy(&built, &place);
    copied.unwrap_or_else(|error| {
        let why = "cargo build --profile ci -p bingo --example vendor";
        panic!("{}: {error}; {why}", built.display())
    });
    place
}

fn command(installation: &Installation, flags: &str) -> String {
    format!("{} run_server {flags}", stand_in(installation).display())
}

fn nodes(installation: &Installation) -> Vec<Value> {
    let status = installation.status();
    let mut nodes = status["processes"].as_array().cloned().unwrap_or_default();
    nodes.retain(|process| process["role"] == "node");
    nodes
}

fn node(installation: &Installation, name: &str) -> Value {
    let mut all = nodes(installation).into_iter();
    all.find(|node| node["name"] == name).unwrap_or_default()
}

/// An operation that only this copy gets.
async fn operate(node: &Value, number: i64) {
    let url = format!("http://{}/operation", node["listen"].as_str().unwrap());
    let request = Request::new(Method::POST, &url)
        .header("content-type", "application/json")
        .body(format!("{{\"operation\":{number}}}"));
    let _ = request.send().await;
}

/// What of this machine a test must leave as it was: network interfaces, and mounts.
fn interfaces_and_mounts() -> (BTreeSet<String>, usize) {
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten();
    let names = interfaces
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    (names.collect(), mounts.lines().count())
}

fn may_isolate() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: it takes root, or users that may make namespaces");
    }
    is_root
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_serve_side_by_side_and_leave_nothing() {
    if !may_isolate() {
        return;
    }
    let before = interfaces_and_mounts();
    let had_config = Path::new("/opt/bingo/config.yaml").exists();
    let mut installation = Installation::new("exec", Rows::tiny());
    let exec = command(&installation, "--patience 20");
    let begun = std::time::Instant::now();
    installation.up(&["--detach", "--exec", &exec]).await;
    println!("ready after {:?}", begun.elapsed());
    let all = nodes(&installation);
    let listens: BTreeSet<&str> = all
        .iter()
        .filter_map(|node| node["listen"].as_str())
        .collect();
    assert_eq!(listens.len(), 2, "{all:#?}");
    for name in ["node-1", "node-2"] {
        let log = installation.folder().join(format!("logs/{name}.log"));
        let log = std::fs::read_to_string(log).unwrap();
        assert!(
            log.contains("google_dns_is_not_http"),
            "its start was slow: {log}"
        );
        let own = format!("logs/exec/{name}/main.log");
        let own = installation.folder().join(own);
        assert!(
            std::fs::read_to_string(&own).unwrap().contains("GET /ping"),
            "{own:?}"
        );
    }
    let mut served_by = BTreeSet::new();
    wait_until("both copies answer", SOON, async || {
        let answer = http::get(&installation.url("/db_dummy")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        served_by.insert(answer.header("bingo-node").to_owned());
        served_by.len() == 2
    })
    .await
    .unwrap();
    let again = installation.run(&["up", "--detach", "--exec", &exec]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(
        nodes(&installation)[0]["pid"],
        all[0]["pid"],
        "nothing was to be done"
    );
    installation.down();
    installation.assert_nothing_runs();
    assert_eq!(interfaces_and_mounts(), before);
    assert_eq!(Path::new("/opt/bingo/config.yaml").exists(), had_config);
}

#[test]
fn without_the_right_to_namespaces_one_copy_can_run_and_it_is_said() {
    if !may_isolate() {
        return;
    }
    let installation = Installation::new("single", Rows::tiny());
    let exec = command(&installation, "");
    let doctor = |nodes: &str| {
        let output = Command::new("setpriv")
            .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"])
            .arg(installation.binary())
            .args(["doctor", "--exec", &exec, "--nodes", nodes, "--dir"])
            .arg(installation.folder())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let two = doctor("2");
    let found = two
        .lines()
        .find(|line| line.contains("namespaces"))
        .unwrap();
    assert!(found.starts_with("FAILED"), "{found}");
    assert!(found.contains("one copy can run"), "{found}");
    assert!(two.contains("or give --nodes 1 for the one copy"), "{two}");
    let one = doctor("1");
    let found = one
        .lines()
        .find(|line| line.contains("namespaces"))
        .unwrap();
    assert!(found.starts_with("warning"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_recover_from_what_they_do_to_themselves() {
    if !may_isolate() {
        return;
    }
    let mut installation = Installation::new("traps", Rows::tiny());
    let exec = command(&installation, "--leak 200");
    installation.up(&["--detach", "--exec", &exec]).await;
    let cases = [
        ("node-1", 0x4_0000_0000, "exit 2"),
        ("node-2", 0x5_0000_0000, "probe 500: I feel bad"),
        ("node-1", 0x3_0000_0000, "memory soft: "),
    ];
    for (name, number, reason) in cases {
        let restarts = node(&installation, name)["restarts"].as_u64().unwrap();
        operate(&node(&installation, name), number).await;
        let took = installation.wait_restarted(name, restarts + 1).await;
        let shown = node(&installation, name);
        let last = shown["last_restart_reason"].as_str().unwrap();
        assert!(last.starts_with(reason), "{last}");
        println!("{last}: back after {took:?}");
        let answer = http::get(&installation.url("/api/movie/1")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // The other way round: what stands before a copy is lost.
    installation.kill("node-2", Signal::Kill);
    installation.wait_restarted("node-2", 2).await;
    installation.down();
    installation.assert_nothing_runs();
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_replaced_before_the_end_of_their_life_and_no_get_fails() {
    if !may_isolate() {
        return;
    }
    let mut installation = Installation::new("life", Rows::tiny());
    let exec = command(&installation, "--lifetime 12 --end exit");
    let up = ["--detach", "--exec", &exec, "--max-age", "7s"];
    installation.up(&up).await;
    let plan = Plan {
        duration: Duration::from_secs(16),
        rps: 60.0,
        mix: "movie=50,customer=50".parse().unwrap(),
        ids: Rows::tiny().ids(),
        ..Plan::new(http::Base::parse(&installation.url("")).unwrap())
    };
    let report = load::run(&plan, |_| ()).await.unwrap();
    println!("{report}");
    let all = nodes(&installation);
    for node in &all {
        let reason = node["last_restart_reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with("age: "), "{all:#?}");
        assert!(node["restarts"].as_u64().unwrap() >= 2, "{all:#?}");
    }
    assert_eq!(report.failed, 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_with_more_to_do_than_it_may_is_not_taken_for_sick() {
    if !may_isolate() {
        return;
    }
    let mut installation = Installation::new("busy", Rows::tiny());
    let exec = command(&installation, "--rps 20");
    let up = ["--detach", "--exec", &exec, "--nodes", "1"];
    installation.up(&up).await;
    let plan = Plan {
        duration: Duration::from_secs(12),
        rps: 60.0,
        mix: "movie=100".parse().unwrap(),
        ids: Rows::tiny().ids(),
        timeout: Duration::from_secs(5),
        ..Plan::new(http::Base::parse(&installation.url("")).unwrap())
    };
    let report = load::run(&plan, |_| ()).await.unwrap();
    println!("{report}");
    assert!(report.failed > 0, "it had too little to do: {report}");
    let copy = node(&installation, "node-1");
    assert_eq!(copy["restarts"], 0, "{copy:#?}");
    assert_eq!(copy["state"], "healthy", "{copy:#?}");
}
