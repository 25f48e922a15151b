//! Replacing what runs, while it is used: nodes that leak, everything at once, and what is left when
//! the supervisor itself is killed.

mod e2e {
    #[allow(dead_code)] // each test binary uses its part
    pub(crate) mod installation;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use acceptance::http::{self, Method, Request};
use acceptance::load::{self, Plan};
use acceptance::signals::{self, Signal, wait_until};
use e2e::installation::{Installation, ROWS, Rows};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

fn nodes(status: &Value) -> Vec<Value> {
    let processes = status["processes"].as_array().cloned().unwrap_or_default();
    let mut nodes = processes;
    nodes.retain(|process| process["role"] == "node");
    nodes
}

/// Makes a node leak by an operation that only its own address takes.
async fn leak(node: &Value) {
    let url = format!("http://{}/operation", node["listen"].as_str().unwrap());
    let request = Request::new(Method::POST, &url)
        .header("content-type", "application/json")
        .body(format!("{{\"operation\":{}}}", 0x3_0000_0000_i64));
    // One that has just been replaced is made to leak in the next round.
    let _ = request.send().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaking_nodes_are_replaced_again_and_again_and_no_get_fails() {
    let mut installation = Installation::new("leak", ROWS);
    installation
        .up(&["--detach", "--faults", "operation"])
        .await;
    for number in 1..=2 {
        let path = installation
            .folder()
            .join(format!("config/node-{number}.yaml"));
        let mut text = std::fs::read_to_string(&path).unwrap();
        // Three times as fast as the vendor's, to see more in the time of a test.
        text.push_str("faults: {operation: true, leak_rate: 150MiB}\n");
        std::fs::write(&path, text).unwrap();
    }
    let rolled = installation.run(&["rollout"]);
    assert_eq!(rolled.code, 0, "{}", rolled.stderr);
    assert_eq!(rolled.stdout, "node-1 replaced\nnode-2 replaced\n");
    let plan = Plan {
        duration: Duration::from_secs(15),
        mix: "movie=40,customer=40,session=40".parse().unwrap(),
        ids: ROWS.ids(),
        ..Plan::new(http::Base::parse(&installation.url("")).unwrap())
    };
    let load = tokio::spawn(async move { load::run(&plan, |_| ()).await.unwrap() });
    let mut most = 0;
    while !load.is_finished() {
        let all = nodes(&installation.status());
        let down = all.iter().filter(|node| node["state"] != "healthy");
        assert!(down.count() < 2, "both are down: {all:#?}");
        let pids = all.iter().flat_map(|node| {
            let beside = node["beside"].as_array().cloned().unwrap_or_default();
            std::iter::once(node.clone()).chain(beside)
        });
        let taken = pids.filter_map(|process| {
            let pid = u32::try_from(process["pid"].as_u64()?).ok()?;
            signals::resident_bytes(pid)
        });
        most = most.max(taken.sum::<u64>());
        for node in &all {
            leak(node).await;
        }
    }
    let report = load.await.unwrap();
    println!("{report}");
    let all = nodes(&installation.status());
    let restarts: u64 = all
        .iter()
        .filter_map(|node| node["restarts"].as_u64())
        .sum();
    println!(
        "{restarts} replacements; the nodes took {} MiB at most",
        most >> 20
    );
    assert_eq!(report.failed, 0, "{report}");
    // Two of them were the rollout's.
    assert!(restarts >= 6, "{all:#?}");
    for node in &all {
        let reason = node["last_restart_reason"].as_str().unwrap();
        assert!(reason.starts_with("memory soft: "), "{reason}");
    }
    // Two that leak, and one of them drained or started beside them.
    assert!(most < 3 * (512 << 20), "{most} bytes");
}

/// A connection for each request, many at a time; how many requests, and the words of failures.
struct Visitors {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    tasks: tokio::task::JoinSet<Vec<String>>,
}

impl Visitors {
    fn come(urls: &[String]) -> Self {
        let (stop, asked) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let mut tasks = tokio::task::JoinSet::new();
        for url in urls {
            for _ in 0..4 {
                let (url, stop, asked) = (url.clone(), Arc::clone(&stop), Arc::clone(&asked));
                tasks.spawn(async move {
                    let mut failures = Vec::new();
                    // Fifty a second, each of them a new connection.
                    let mut due = tokio::time::interval(Duration::from_millis(20));
                    while !stop.load(Ordering::Relaxed) {
                        due.tick().await;
                        asked.fetch_add(1, Ordering::Relaxed);
                        match http::get(&url).await {
                            Ok(answer) if answer.status == 200 => {}
                            Ok(answer) => failures.push(answer.status.to_string()),
                            Err(error) => failures.push(format!("{error:?}")),
                        }
                    }
                    failures
                });
            }
        }
        Self { stop, asked, tasks }
    }

    async fn leave(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.tasks.join_all().await.concat();
        (self.asked.load(Ordering::Relaxed), failures)
    }
}

fn pids(status: &Value, role: &str) -> Vec<u32> {
    let processes = status["processes"].as_array().unwrap().iter();
    let of_role = processes.filter(|process| process["role"] == role);
    let pids = of_role.filter_map(|process| u32::try_from(process["pid"].as_u64()?).ok());
    pids.collect()
}

/// Whether somebody reads the UDP port: to a version of QUIC that nobody knows a server names its own
/// (RFC 9000 section 6).
fn speaks_quic(port: u16) -> bool {
    let mut packet = vec![0_u8; 1200];
    packet[0] = 0xC0;
    packet[1..5].copy_from_slice(&0x0a1a_2a3a_u32.to_be_bytes());
    packet[5] = 8; // bytes of the destination's id
    packet[14] = 8; // bytes of the source's id
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let patience = Some(Duration::from_millis(500));
    socket.set_read_timeout(patience).unwrap();
    socket.send_to(&packet, ("127.0.0.1", port)).unwrap();
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer);
    length.is_ok_and(|length| length > 5 && answer[1..5] == [0; 4])
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_upgraded_and_rolled_out_and_no_new_connection_fails() {
    let mut installation = Installation::new("upgrade", ROWS);
    let before = installation.up(&["--detach"]).await;
    let https = before["urls"]["https"].as_str().unwrap();
    let https_port: u16 = https.rsplit(':').next().unwrap().parse().unwrap();
    assert!(speaks_quic(https_port));
    let visitors = Visitors::come(&[installation.url("/api/movie/1")]);

    installation.take_newer_binary();
    let binary = installation.binary().to_str().unwrap().to_owned();
    let one = installation.run(&["restart", "gateway-1", "--binary", &binary]);
    assert_eq!(one.code, 0, "{}", one.stderr);
    let runs = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let gateways = pids(&installation.status(), "gateway");
    assert_eq!(runs(gateways[0]), installation.binary());
    assert_ne!(runs(gateways[1]), installation.binary());

    let upgraded = installation.run(&["up", "--detach"]);
    assert_eq!(upgraded.code, 0, "{}", upgraded.stderr);
    for name in ["supervisor", "node-1", "node-2", "gateway-2"] {
        let told = format!("{name} runs {binary} now");
        assert!(upgraded.stderr.contains(&told), "{}", upgraded.stderr);
    }
    let rolled = installation.run(&["rollout", "--gateways"]);
    assert_eq!(rolled.code, 0, "{}", rolled.stderr);
    let told = "gateway-1 replaced\ngateway-2 replaced\n";
    assert!(rolled.stdout.ends_with(told), "{}", rolled.stdout);

    let (asked, failures) = visitors.leave().await;
    println!("{asked} connections, {} failed", failures.len());
    assert!(asked > 200, "{asked}");
    assert!(failures.is_empty(), "{failures:?}");
    let after = installation.status();
    for role in ["node", "gateway"] {
        let (old, new) = (pids(&before, role), pids(&after, role));
        assert!(new.iter().all(|pid| !old.contains(pid)), "{old:?} {new:?}");
        assert!(new.iter().all(|pid| runs(*pid) == installation.binary()));
    }
    for role in ["postgres", "supervisor"] {
        assert_eq!(pids(&before, role), pids(&after, role));
    }
    assert_eq!(runs(pids(&after, "supervisor")[0]), installation.binary());
    wait_until("the new gateway reads the UDP socket", SOON, async || {
        speaks_quic(https_port)
    })
    .await
    .unwrap();
    let again = installation.run(&["up", "--detach"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(pids(&installation.status(), "node"), pids(&after, "node"));
}

#[tokio::test(flavor = "multi_thread")]
async fn five_upgrades_of_everything_lose_no_new_connection_and_no_database() {
    let mut installation = Installation::new("five", ROWS);
    let before = installation.up(&["--detach"]).await;
    let visitors = Visitors::come(&[installation.url("/api/movie/1")]);
    for number in 1..=5 {
        installation.take_newer_binary();
        let begun = Instant::now();
        let upgraded = installation.run(&["up", "--detach"]);
        assert_eq!(upgraded.code, 0, "{}", upgraded.stderr);
        println!("upgrade {number}: {:?}", begun.elapsed());
        let status = installation.status();
        for role in ["supervisor", "node", "gateway"] {
            for pid in pids(&status, role) {
                let runs = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
                assert_eq!(runs, installation.binary(), "{role}");
            }
        }
        let supervisor = &status["processes"].as_array().unwrap()[0];
        assert_eq!(supervisor["restarts"], number, "{supervisor}");
        for role in ["supervisor", "postgres"] {
            assert_eq!(pids(&before, role), pids(&status, role));
        }
    }
    let (asked, failures) = visitors.leave().await;
    println!("{asked} connections, {} failed", failures.len());
    assert!(asked > 500, "{asked}");
    assert!(failures.is_empty(), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_run_replaces_nobody() {
    let mut installation = Installation::new("broken", Rows::tiny());
    installation.up(&["--detach"]).await;
    let before = installation.status();
    let refused = installation.run(&["restart", "node-1", "--binary", "/bin/false"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    let told = "node-1 is healthy: its successor failed: exit 1";
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
    assert_eq!(pids(&installation.status(), "node"), pids(&before, "node"));
    let unknown = installation.run(&["restart", "node-7"]);
    assert_eq!(unknown.code, 2, "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains("the processes are: "),
        "{}",
        unknown.stderr
    );
    // What was written is as it was: nothing is left to be taken over.
    let again = installation.run(&["rollout"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    let nodes = pids(&installation.status(), "node");
    assert!(nodes.iter().all(|pid| !pids(&before, "node").contains(pid)));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigkill_of_the_supervisor_under_writes_the_next_up_loses_no_row() {
    let mut installation = Installation::new("rows", Rows::tiny());
    installation.up(&["--detach"]).await;
    let url = installation.url("/api/session");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writing = tokio::spawn(async move {
        let (mut stored, mut number) = (Vec::new(), 0);
        while !stopped.load(Ordering::Relaxed) {
            number += 1;
            let body = "{\"start_time\":\"2031-01-01T00:00:00Z\",\"customer_id\":1,\"movie_id\":1}";
            let request = Request::new(Method::POST, &url)
                .header("content-type", "application/json")
                .body(body)
                .timeout(Duration::from_secs(5));
            match request.send().await {
                Ok(answer) if answer.status == 201 => {
                    stored.push(answer.header("location").to_owned());
                }
                // Nothing was promised.
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        (stored, number)
    });
    wait_until("the load runs", SOON, async || {
        installation.requests().await > 50
    })
    .await
    .unwrap();
    installation.kill("supervisor", Signal::Kill);
    let begun = Instant::now();
    installation.up(&["--detach"]).await;
    println!("up again after {:?}", begun.elapsed());
    stop.store(true, Ordering::Relaxed);
    let (stored, tried) = writing.await.unwrap();
    println!("{} of {tried} writes acknowledged", stored.len());
    let rows = installation.sql("SELECT id FROM sessions WHERE start_time >= '2031-01-01'");
    let rows: Vec<&str> = rows.lines().collect();
    for location in &stored {
        let id = location.rsplit('/').next().unwrap();
        assert!(rows.contains(&id), "{location} is lost");
    }
    let supervisors = installation.processes().into_iter();
    let supervisors = supervisors.filter(|p| p.command_line.contains("supervise"));
    assert_eq!(supervisors.count(), 1);
    let known = installation.pids().len();
    let below = installation.children();
    let of_ours = below.iter().filter(|p| p.command_line.contains("--config"));
    assert_eq!(of_ours.count() + 2, known, "{below:#?}");
}
