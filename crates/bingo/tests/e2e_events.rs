//! What an installation says of itself afterwards: its events, its supervisor's metrics, and the archive
//! of `bingo diagnose`, while its processes run confined and as another user.

mod e2e {
    #[allow(dead_code)] // each test binary uses its part
    pub(crate) mod installation;
}

use std::time::Duration;

use acceptance::http;
use acceptance::signals::{Signal, wait_until};
use e2e::installation::{Installation, Rows};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

fn events(installation: &Installation) -> Vec<Value> {
    let shown = installation.run(&["events", "--since", "1h", "--json"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let lines = shown.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn holds(events: &[Value], source: &str, kind: &str, subject: &str) -> bool {
    let is = |event: &Value| {
        event["source"] == source
            && event["kind"] == kind
            && event["subject"]
                .as_str()
                .unwrap_or_default()
                .starts_with(subject)
    };
    events.iter().any(is)
}

async fn until_told(installation: &Installation, all: &[(&str, &str, &str)]) {
    let told = wait_until("all is told", SOON, async || {
        let events = events(installation);
        let mut all = all.iter();
        all.all(|(source, kind, subject)| holds(&events, source, kind, subject))
    });
    if told.await.is_err() {
        panic!("{all:?} are not in {:#?}", events(installation));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_tells_what_happened_and_it_outlives_them_all() {
    let mut installation = Installation::new("events", Rows::tiny());
    let status = installation.up(&["--detach"]).await;
    // Frozen, not killed: a node is back before anybody who only probes it knows.
    installation.kill("node-1", Signal::Stop);
    installation.wait_restarted("node-1", 1).await;
    assert_eq!(installation.run(&["stop", "postgres"]).code, 0);
    let away = |node| (node, "database_away", "127.0.0.1:");
    until_told(&installation, &[away("node-1"), away("node-2")]).await;
    assert_eq!(installation.run(&["start", "postgres"]).code, 0);
    let happened = [
        ("supervisor", "started", "supervisor"),
        ("supervisor", "killed", "node-1"),
        ("supervisor", "exited", "node-1"),
        ("supervisor", "healthy", "node-1"),
        ("gateway-1", "ejected", "node-1"),
        ("gateway-2", "back", "node-1"),
        ("node-1", "database_away", "127.0.0.1:"),
        ("node-2", "database_back", "127.0.0.1:"),
    ];
    until_told(&installation, &happened).await;
    let text = installation.run(&["events"]).stdout;
    assert!(text.contains("probe timeout"), "{text}");

    let own = &status["processes"][0];
    assert_eq!(own["name"], "supervisor");
    let scraped = http::get(own["metrics"].as_str().unwrap()).await.unwrap();
    let scraped = scraped.text();
    for line in [
        "bingo_process_restarts_total{name=\"node-1\",reason=\"probe_timeout\"} 1",
        "bingo_process_state{name=\"postgres\",role=\"postgres\",state=\"healthy\"} 1",
        "bingo_process_state{name=\"supervisor\",role=\"supervisor\",state=\"healthy\"} 1",
    ] {
        assert!(scraped.contains(line), "{line}\n{scraped}");
    }

    wait_until("all is well again", SOON, async || {
        installation.status()["state"] == "ready"
    })
    .await
    .unwrap();
    a_diagnosis_is_whole_and_holds_no_secret(&installation);

    installation.down();
    let events = events(&installation);
    assert!(holds(&events, "supervisor", "stopped", "supervisor"));
    let times: Vec<&str> = events
        .iter()
        .filter_map(|told| told["at"].as_str())
        .collect();
    assert!(times.is_sorted() && times.len() == events.len());
    installation.up(&["--detach"]).await;
    until_told(&installation, &happened).await;
}

fn a_diagnosis_is_whole_and_holds_no_secret(installation: &Installation) {
    let folder = installation.folder().parent().unwrap().to_owned();
    let output = folder.display().to_string();
    let packed = installation.run(&["diagnose", "--json", "--output", &output]);
    assert_eq!(packed.code, 0, "{}", packed.stderr);
    let packed: Value = serde_json::from_str(&packed.stdout).unwrap();
    assert_eq!(packed["missing"], serde_json::json!([]));
    let archive = packed["archive"].as_str().unwrap();
    let mut tar = std::process::Command::new("tar");
    let tar = tar.args(["xzOf", archive]).output().unwrap();
    assert!(tar.status.success(), "{tar:?}");
    let text = String::from_utf8_lossy(&tar.stdout);
    for file in ["postgres.password", "postgres.superuser", "admin.token"] {
        let secret = std::fs::read_to_string(installation.folder().join("run").join(file)).unwrap();
        let secret = secret.trim();
        assert!(secret.len() > 6 && !text.contains(secret), "{file}");
    }
    assert!(!text.contains("PRIVATE KEY"));
    for expected in [
        "\"state\": \"ready\"",
        "metrics/supervisor.txt",
        "bingo_attempts_total{",
        "bingo_database_role{",
        "plan of sessions_list",
        "Index",
        "student_email",
        "\"kind\":\"ejected\"",
    ] {
        assert!(text.contains(expected), "{expected} is not in it");
    }
}
