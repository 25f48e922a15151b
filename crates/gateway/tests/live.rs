//! A configuration that changes under load: who asks for it, what it may change, and that no client
//! sees anything of it.

mod rig;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use rig::file::OnFile;
use rig::{Client, Reply, Upstream, answer, eventually, ok};

const ROUTES: &str = "
probe: {interval: 20ms}
routes:
- {methods: [GET, POST], path: /a, deadline: 5s, retry: never}
";

fn at(node: &Upstream) -> SocketAddr {
    node.address
}

async fn two_nodes() -> (Upstream, Upstream, OnFile) {
    let one = Upstream::start(|_| ok("one")).await;
    let two = Upstream::start(|_| ok("two")).await;
    let on_file = OnFile::start(&[("node-1", at(&one)), ("node-2", at(&two))], ROUTES);
    on_file.gateway.node_is("node-1", "healthy").await;
    on_file.gateway.node_is("node-2", "healthy").await;
    (one, two, on_file)
}

/// Clients that repeat nothing: eight that keep one connection each and POST, and one that opens a
/// new connection for each request.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(on_file: &OnFile) -> Self {
        let (stop, served) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = on_file.gateway.client().await;
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            clients.push(tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    // An error would be a connection that was closed or broken.
                    let answer = client.send("POST", "/a", &[], "body").await.unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    assert_eq!(answer.header("connection"), "");
                    served.fetch_add(1, SeqCst);
                }
            }));
        }
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&served));
        let address = on_file.gateway.address;
        clients.push(tokio::spawn(async move {
            while !stopped.load(SeqCst) {
                let answer = Client::connect(address).await.get("/a").await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                counted.fetch_add(1, SeqCst);
            }
        }));
        Self {
            stop,
            served,
            clients,
        }
    }

    /// Waits for more requests to be served.
    async fn goes_on(&self) {
        let before = self.served.load(SeqCst);
        eventually("requests go on", async || {
            (self.served.load(SeqCst) > before + 10).then_some(())
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

async fn reloads(on_file: &OnFile, result: &str) -> f64 {
    let series = format!("bingo_reloads_total{{result=\"{result}\"}}");
    on_file.gateway.metric(&series).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_reloads_by_the_admin_api_close_no_connection_and_fail_no_request() {
    let (one, two, on_file) = two_nodes().await;
    let load = Load::start(&on_file).await;
    for round in 0..20 {
        // Nodes come, go and change places; limits and policies change.
        let (first, second) = (("node-1", at(&one)), ("node-2", at(&two)));
        let rest = format!("limits: {{connections_max: {}}}\n{ROUTES}", 100 + round);
        match round % 3 {
            0 => on_file.write(&[second, first], &rest),
            1 => on_file.write(&[second], &rest),
            _ => on_file.write(&[first, ("again", at(&two))], &rest),
        }
        let answer = on_file.reload().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        load.goes_on().await;
    }
    load.end().await;
    // Where the test is slow, some files were taken before they were asked for.
    assert!(reloads(&on_file, "done").await >= 20.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_taken_without_being_asked_for() {
    let (one, two, on_file) = two_nodes().await;
    let load = Load::start(&on_file).await;
    on_file.write(&[("node-2", at(&two))], ROUTES);
    eventually("the change is seen", async || {
        (reloads(&on_file, "done").await >= 1.0).then_some(())
    })
    .await;
    load.goes_on().await;
    let before = one.seen().len();
    load.goes_on().await;
    assert_eq!(one.seen().len(), before);
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_reloads() {
    let (_one, two, on_file) = two_nodes().await;
    let load = Load::start(&on_file).await;
    for round in 1..=20 {
        on_file.write(&[("node-2", at(&two))], &format!("# {round}\n{ROUTES}"));
        let before = reloads(&on_file, "done").await;
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP)
            .unwrap();
        eventually("it is reloaded", async || {
            (reloads(&on_file, "done").await > before).then_some(())
        })
        .await;
        load.goes_on().await;
    }
    load.end().await;
}

#[tokio::test]
async fn a_broken_file_leaves_the_old_one_in_use_and_all_its_faults_are_told() {
    let (one, two, on_file) = two_nodes().await;
    let nodes = [("node-1", at(&one)), ("node-1", at(&two))];
    let rest = ROUTES
        .replace("20ms", "5")
        .replace("/a,", "a, body_bytes: 1B,");
    on_file.write(&nodes, &format!("threads: 3\n{rest}"));
    let answer = on_file.reload().await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let faults = problem["faults"].as_array().unwrap();
    let keys: Vec<&str> = faults
        .iter()
        .map(|fault| fault["key"].as_str().unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "nodes[1].name",
            "probe.interval",
            "routes[0].body_bytes",
            "routes[0].path"
        ]
    );
    for fault in faults {
        for part in ["reason", "remedy"] {
            assert!(!fault[part].as_str().unwrap().is_empty(), "{fault}");
        }
    }
    assert_eq!(faults[1]["value"], "5");
    assert_eq!(on_file.gateway.get("/a").await.status, 200);
    assert!(reloads(&on_file, "refused").await >= 1.0);
}

#[tokio::test]
async fn what_needs_a_restart_is_a_fault_that_says_so() {
    let (one, _two, on_file) = two_nodes().await;
    on_file.write(&[("node-1", at(&one))], &format!("threads: 3\n{ROUTES}"));
    let text = std::fs::read_to_string(on_file.file()).unwrap();
    on_file.write_text(&text.replace("127.0.0.1:1'", "127.0.0.1:3'"));
    let answer = on_file.reload().await;
    assert_eq!(answer.status, 409);
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    for (number, key) in ["listen", "threads"].into_iter().enumerate() {
        let fault = &problem["faults"][number];
        assert_eq!(fault["key"], key);
        assert_eq!(fault["reason"], "it takes effect with a restart");
    }
    on_file.write(&[("node-1", at(&one))], ROUTES);
    assert_eq!(on_file.reload().await.status, 200);
}

#[tokio::test]
async fn a_node_that_is_added_gets_requests_and_one_that_is_removed_ends_what_it_has() {
    let slow = Reply::After(Duration::from_millis(400), answer("200 OK", "", "slow"));
    let old = Upstream::start(move |_| slow.clone()).await;
    let new = Upstream::start(|_| ok("new")).await;
    let on_file = OnFile::start(&[("old", at(&old))], ROUTES);
    on_file.gateway.node_is("old", "healthy").await;
    let mut client = on_file.gateway.client().await;
    let in_flight = tokio::spawn(async move { client.get("/a").await });
    eventually("it is in flight", async || {
        (old.seen().len() == 1).then_some(())
    })
    .await;
    on_file.write(&[("new", at(&new))], ROUTES);
    assert_eq!(on_file.reload().await.status, 200);
    for _ in 0..5 {
        assert_eq!(on_file.gateway.get("/a").await.text(), "new");
    }
    assert!(!in_flight.is_finished());
    assert_eq!(in_flight.await.unwrap().text(), "slow");
    assert_eq!(old.seen().len(), 1);
    let metrics = Client::connect(on_file.gateway.admin)
        .await
        .get("/metrics")
        .await;
    assert!(!metrics.text().contains("node=\"old\""));
    assert!(metrics.text().contains("node=\"new\""));
    eventually("no connection to it is left", async || {
        (old.open_connections() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_held_finds_a_node_that_was_added_since() {
    let mut gone = Upstream::start(|_| ok("gone")).await;
    let new = Upstream::start(|_| ok("new")).await;
    let on_file = OnFile::start(&[("gone", at(&gone))], ROUTES);
    gone.kill();
    on_file.gateway.node_is("gone", "ejected").await;
    let mut client = on_file.gateway.client().await;
    let held = tokio::spawn(async move { client.get("/a").await });
    eventually("it is held", async || {
        (on_file.gateway.metric("bingo_holds_total").await >= 1.0).then_some(())
    })
    .await;
    on_file.write(&[("new", at(&new))], ROUTES);
    assert_eq!(on_file.reload().await.status, 200);
    assert_eq!(held.await.unwrap().text(), "new");
}

#[tokio::test]
async fn a_node_keeps_its_connections_and_what_is_known_of_it_over_a_reload() {
    let one = Upstream::start(|_| ok("one")).await;
    let rest = format!("threads: 1\n{ROUTES}");
    let on_file = OnFile::start(&[("node-1", at(&one))], &rest);
    on_file.gateway.node_is("node-1", "healthy").await;
    on_file.gateway.get("/a").await;
    // Counted when the body has ended, which may be a moment later.
    let answered = "bingo_attempts_total{node=\"node-1\",outcome=\"answered\"}";
    eventually("it is counted", async || {
        (on_file.gateway.metric(answered).await == 1.0).then_some(())
    })
    .await;
    assert_eq!(on_file.reload().await.status, 200);
    on_file.gateway.get("/a").await;
    assert_eq!(one.connections_used(), 1);
    eventually("the count goes on", async || {
        (on_file.gateway.metric(answered).await == 2.0).then_some(())
    })
    .await;
    assert_eq!(on_file.status().await["nodes"][0]["state"], "healthy");
}

#[tokio::test]
async fn fewer_connections_than_are_open_close_none_and_more_let_in_who_waits() {
    let one = Upstream::start(|_| ok("one")).await;
    let limited =
        |most: usize| format!("limits: {{connections_max: {most}}}\nthreads: 1\n{ROUTES}");
    let on_file = OnFile::start(&[("node-1", at(&one))], &limited(3));
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = on_file.gateway.client().await;
        client.get("/a").await;
        clients.push(client);
    }
    on_file.write(&[("node-1", at(&one))], &limited(1));
    assert_eq!(on_file.reload().await.status, 200);
    for client in &mut clients {
        assert_eq!(client.get("/a").await.status, 200);
    }
    // The permit for the next connection was given out before the reload; this takes it.
    clients.push(on_file.gateway.client().await);
    clients[2].get("/a").await;
    let mut waiting = on_file.gateway.client().await;
    let waiting = tokio::spawn(async move { waiting.get("/a").await.status });
    let series = "bingo_limit_hits_total{limit=\"connections_max\"}";
    eventually("the limit is hit", async || {
        (on_file.gateway.metric(series).await >= 1.0).then_some(())
    })
    .await;
    assert!(!waiting.is_finished());
    on_file.write(&[("node-1", at(&one))], &limited(10));
    assert_eq!(on_file.reload().await.status, 200);
    assert_eq!(waiting.await.unwrap(), 200);
}
