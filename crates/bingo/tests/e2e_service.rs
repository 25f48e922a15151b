//! The service from outside, where it takes whole processes to see it: keyed writes that outlive
//! their node, clients that leave through the gateway, and faults that end a process.

mod e2e {
    #[allow(dead_code)] // each test binary uses its part
    pub(crate) mod installation;
}

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use acceptance::http::{self, Request, Response};
use acceptance::signals::{self, Signal, wait_until};
use e2e::installation::{Installation, Rows};

const SOON: Duration = Duration::from_secs(20);

/// Sends a keyed write; `None` where the connection broke or was refused.
async fn write(method: &str, url: &str, key: &str, body: Option<&str>) -> Option<Response> {
    let mut request = Request::new(method.parse().unwrap(), url).header("idempotency-key", key);
    if let Some(body) = body {
        request = request
            .header("content-type", "application/json")
            .body(body.to_owned());
    }
    request.send().await.ok()
}

/// Where a node itself listens.
fn node_url(installation: &Installation, name: &str, path: &str) -> String {
    let status = installation.status();
    let processes = status["processes"].as_array().unwrap();
    let node = processes
        .iter()
        .find(|process| process["name"] == name)
        .unwrap();
    format!("http://{}{path}", node["listen"].as_str().unwrap())
}

/// Holds a lock on a table for this long, in a session of its own; returns once it is held.
async fn lock(installation: &Installation, table: &str, seconds: u32) -> Child {
    settled(installation).await;
    let status = installation.status();
    let sql =
        format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({seconds})");
    let child = Command::new("psql")
        .args([
            status["postgres_url"].as_str().unwrap(),
            "-XqAt",
            "-c",
            &sql,
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let held = format!(
        "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' \
         AND relation = '{table}'::regclass"
    );
    wait_until("the lock is held", SOON, async || {
        installation.sql(&held) == "1"
    })
    .await
    .unwrap();
    child
}

/// Waits until no node makes connections any more: one that prepares statements would wait for the
/// lock as well, and be taken for a request's.
async fn settled(installation: &Installation) {
    let quiet = "SELECT bool_and(state = 'idle' AND \
         state_change < clock_timestamp() - interval '300 ms') FROM pg_stat_activity \
         WHERE application_name LIKE 'bingo/%' AND application_name <> 'bingo/watch'";
    wait_until("the nodes' connections are made", SOON, async || {
        installation.sql(quiet) == "t"
    })
    .await
    .unwrap();
}

/// How many of the nodes' statements wait for a lock.
fn lock_waiters(installation: &Installation) -> String {
    installation.sql(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE application_name LIKE 'bingo/%' AND wait_event_type = 'Lock'",
    )
}

#[derive(Clone, Copy, PartialEq)]
enum Killed {
    Before,
    During,
    After,
}

/// Sends a keyed write to node-1, kills that node, and repeats the write at node-2.
async fn repeated(
    installation: &Installation,
    killed: Killed,
    (method, path, key): (&str, &str, &str),
    body: Option<&str>,
) -> Response {
    let both_up = async || {
        let status = installation.status();
        let processes = status["processes"].as_array().cloned().unwrap_or_default();
        let nodes = processes.iter().filter(|process| process["role"] == "node");
        nodes.filter(|node| node["state"] == "healthy").count() == 2
    };
    wait_until("both nodes are up", SOON, both_up)
        .await
        .unwrap();
    let first = node_url(installation, "node-1", path);
    let second = node_url(installation, "node-2", path);
    match killed {
        Killed::Before => {
            installation.kill("node-1", Signal::Kill);
            write(method, &first, key, body).await;
        }
        Killed::During => {
            let mut lock = lock(installation, "sessions", 1).await;
            let sent = write(method, &first, key, body);
            let kill = async {
                let waits = async || lock_waiters(installation) == "1";
                wait_until("the write waits", SOON, waits).await.unwrap();
                installation.kill("node-1", Signal::Kill);
            };
            let (answer, ()) = tokio::join!(sent, kill);
            assert!(answer.is_none(), "{answer:?}");
            let answer = write(method, &second, key, body).await.unwrap();
            lock.wait().unwrap();
            return answer;
        }
        Killed::After => {
            let answer = write(method, &first, key, body).await.unwrap();
            installation.kill("node-1", Signal::Kill);
            let again = write(method, &second, key, body).await.unwrap();
            assert_eq!((again.status, again.text()), (answer.status, answer.text()));
            return again;
        }
    }
    write(method, &second, key, body).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_write_has_one_effect_whenever_its_node_dies() {
    let mut installation = Installation::new("keyed", Rows::tiny());
    installation.up(&["--detach"]).await;
    for (number, killed) in [Killed::Before, Killed::During, Killed::After]
        .into_iter()
        .enumerate()
    {
        let time = format!("2021-12-09T16:12:5{number}Z");
        let body = format!("{{\"start_time\":\"{time}\",\"customer_id\":1,\"movie_id\":1}}");
        let key = format!("post-{number}");
        let create = ("POST", "/api/session", key.as_str());
        let answer = repeated(&installation, killed, create, Some(&body)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let stored = format!("SELECT count(*) FROM sessions WHERE start_time = '{time}'");
        assert_eq!(installation.sql(&stored), "1");

        let (path, key) = (
            answer.header("location").to_owned(),
            format!("delete-{number}"),
        );
        let delete = ("DELETE", path.as_str(), key.as_str());
        let answer = repeated(&installation, killed, delete, None).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
        assert_eq!(installation.sql(&stored), "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_the_gateway_cancels_its_query_within_a_second() {
    let mut installation = Installation::new("leaves", Rows::tiny());
    installation.up(&["--detach"]).await;
    let mut lock = lock(&installation, "movies", 30).await;
    let url = installation.url("/api/movie/1");
    let request = Request::new("GET".parse().unwrap(), &url).timeout(Duration::from_millis(700));
    let asked = tokio::spawn(request.send());
    let waits = async || lock_waiters(&installation) == "1";
    wait_until("the query waits", SOON, waits).await.unwrap();
    assert!(asked.await.unwrap().is_err());
    let left = Instant::now();
    let gone = async || lock_waiters(&installation) == "0";
    wait_until("the query is cancelled", SOON, gone)
        .await
        .unwrap();
    println!("cancelled after {:?}", left.elapsed());
    assert!(
        left.elapsed() < Duration::from_secs(1),
        "{:?}",
        left.elapsed()
    );
    lock.kill().unwrap();
    lock.wait().unwrap();
}

/// A request of the load: when it was sent, how long its answer took, and which it was.
struct Asked {
    sent: Instant,
    took: Duration,
    status: u16,
    retry_after: String,
}

/// 120 requests a second, reads and keyed writes, until the end; each one's outcome.
async fn load(installation: &Installation, end: Instant) -> Vec<Asked> {
    let body = r#"{"start_time":"2021-12-09T16:12:52Z","customer_id":1,"movie_id":1}"#;
    let mut all = tokio::task::JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / 120);
    for number in 0_u32.. {
        tick.tick().await;
        let sent = Instant::now();
        if sent >= end {
            break;
        }
        let (method, path) = match number % 4 {
            0 => ("GET", "/api/movie/1"),
            1 => ("GET", "/api/session/7"),
            2 => ("GET", "/db_dummy"),
            _ => ("POST", "/api/session"),
        };
        let mut request = Request::new(method.parse().unwrap(), &installation.url(path))
            .timeout(Duration::from_secs(30));
        if method == "POST" {
            request = request
                .header("content-type", "application/json")
                .body(body.to_owned());
        }
        all.spawn(async move {
            let answer = request.send().await;
            let took = sent.elapsed();
            let answer = answer.unwrap_or_else(|error| panic!("{path} after {took:?}: {error}"));
            Asked {
                sent,
                took,
                status: answer.status.as_u16(),
                retry_after: answer.header("retry-after").to_owned(),
            }
        });
    }
    all.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_is_stopped_for_ten_seconds_under_load_costs_waiting_and_503_alone() {
    let mut server = private_postgres::TestServer::start().unwrap();
    let mut installation = Installation::new("stopped", Rows::tiny());
    installation.set_variable("BINGO_POSTGRES_URL", &server.url());
    installation.up(&["--detach"]).await;
    let pids = installation.pids();
    let begun = Instant::now();
    let asked = async { load(&installation, begun + Duration::from_secs(15)).await };
    let outage = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_secs(1));
        server.stop();
        std::thread::sleep(Duration::from_secs(10));
        server.restart().unwrap();
        (server, Instant::now())
    });
    let (asked, outage) = tokio::join!(asked, outage);
    let (_server, back) = outage.unwrap();

    let (mut waited, mut refused) = (0, 0);
    for one in &asked {
        // 20 s are the deadline of a request.
        assert!(one.took < Duration::from_secs(20), "{:?}", one.took);
        match one.status {
            200 | 201 => waited += u32::from(one.took > Duration::from_secs(1)),
            503 => {
                assert_eq!(one.retry_after, "1");
                assert!(one.sent < back, "refused {:?} after it", one.sent - back);
                refused += 1;
            }
            other => panic!("{other} after {:?}", one.took),
        }
    }
    println!("{} asked, {waited} waited, {refused} refused", asked.len());
    assert!(waited > 100, "{waited} waited, {refused} refused");
    let later = asked.iter().filter(|one| one.sent > back).count();
    assert!(later > 100, "{later}");
    assert_eq!(installation.pids(), pids, "something was restarted");
}

/// `bingo run_server` without a database, with faults. Dropped, it is killed.
struct Server {
    child: Child,
    greeting: String,
    address: String,
    folder: PathBuf,
}

impl Server {
    /// Starts it and reads what it prints, to the line with its address.
    fn start(name: &str, faults: &str, section: &str) -> Self {
        let base =
            std::env::var_os("BINGO_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = base.join(format!("bingo-faults-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("config.yaml");
        let text = format!(
            "student_email: a@b.c\ndrain_delay: 0s\npostgres_cluster:\n  hosts:\n  \
             - address: 127.0.0.1\n    port: 9\n{section}"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bingo"));
        command.args([
            "run_server",
            "--allow-root",
            "--listen",
            "127.0.0.1:0",
            "--config",
        ]);
        command.arg(&config);
        if !faults.is_empty() {
            command.args(["--faults", faults]);
        }
        let stderr = std::fs::File::create(folder.join("stderr")).unwrap();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut greeting = String::new();
        let address = loop {
            let line = lines.next().expect("it ended").unwrap();
            if let Some(rest) = line.strip_prefix("listening on ") {
                break rest.split(',').next().unwrap().to_owned();
            }
            greeting.push_str(&line);
            greeting.push('\n');
        };
        Self {
            child,
            greeting,
            address,
            folder,
        }
    }

    async fn operate(&self, value: u64) -> Option<Response> {
        let url = format!("http://{}/operation", self.address);
        let request = Request::new("POST".parse().unwrap(), &url);
        request
            .body(format!("{{\"operation\":{value}}}"))
            .send()
            .await
            .ok()
    }

    /// The exit code, once it ended.
    async fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        let ended = async || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        };
        wait_until("it ended", SOON, ended).await.unwrap();
        code.unwrap().code()
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.folder.join("stderr")).unwrap()
    }

    fn terminate(&self) {
        let process = signals::process(self.child.id()).unwrap();
        signals::kill(&process, Signal::Terminate).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_with_bits_4_panics_and_with_bits_3_leaks_at_its_rate() {
    let mut panics = Server::start("panics", "operation", "");
    assert!(panics.operate(4 << 32).await.is_none());
    assert_eq!(panics.ended().await, Some(2));
    assert!(
        panics.stderr().contains("faults are on"),
        "{}",
        panics.stderr()
    );
    assert!(panics.stderr().contains("panic: "), "{}", panics.stderr());

    let mut leaks = Server::start("leaks", "operation", "");
    let resident = |server: &Server| signals::resident_bytes(server.child.id()).unwrap();
    let before = resident(&leaks);
    assert_eq!(leaks.operate(3 << 32).await.unwrap().status, 200);
    let begun = Instant::now();
    let grown = async || resident(&leaks) > before + (150 << 20);
    wait_until("it leaks", SOON, grown).await.unwrap();
    let rate = (resident(&leaks) - before) as f64 / begun.elapsed().as_secs_f64() / 1_048_576.0;
    println!("{rate:.1} MiB/s");
    assert!((35.0..65.0).contains(&rate), "{rate}");
    leaks.terminate();
    assert_eq!(leaks.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_started_together_die_together() {
    let section = "faults:\n  lifetime: 1s..1500ms\n  leak_rate: 200MiB\n";
    let mut two = [
        Server::start("one", "", section),
        Server::start("two", "", section),
    ];
    let fate = async |server: &mut Server| {
        let before = signals::resident_bytes(server.child.id()).unwrap_or_default();
        let mut fate = String::new();
        let dead = async || {
            fate = if let Some(status) = server.child.try_wait().unwrap() {
                format!("exit {:?}", status.code())
            } else if let Ok(answer) = http::get(&format!("http://{}/", server.address)).await
                && answer.status == 500
            {
                answer.text()
            } else if signals::resident_bytes(server.child.id()).unwrap_or_default()
                > before + (50 << 20)
            {
                "leak".to_owned()
            } else {
                String::new()
            };
            !fate.is_empty()
        };
        wait_until("it died", SOON, dead).await.unwrap();
        (fate, Instant::now())
    };
    let [one, other] = &mut two;
    let ((first, at), (second, later)) = tokio::join!(fate(one), fate(other));
    println!("{first}");
    assert_eq!(first, second);
    let apart = at.max(later) - at.min(later);
    assert!(apart < Duration::from_millis(700), "{apart:?}");
    if first == "exit Some(2)" {
        assert!(one.stderr().contains("panic: we're all gonna die"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_start_serves_late_and_earns_no_reward() {
    let begun = Instant::now();
    let section = "faults:\n  slow_start: 1s\n";
    let slow = Server::start("slow", "rps_limit,slow_start,operation", section);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(
        slow.greeting.starts_with("My congratulations."),
        "{}",
        slow.greeting
    );
    assert!(!slow.greeting.contains("figure out why"));
    let stderr = slow.stderr();
    let warned = stderr.find("on purpose: rps_limit, slow_start, operation");
    let waited = stderr.find("nothing is served for 1s");
    assert!(warned.is_some() && warned < waited, "{stderr}");
    let ping = http::get(&format!("http://{}/ping", slow.address))
        .await
        .unwrap();
    assert_eq!(ping.text(), "pong");
    let fast = Server::start("fast", "", "");
    assert!(
        fast.greeting
            .starts_with("Congratulations.\nYou were able to figure out why")
    );
    assert!(!fast.stderr().contains("faults"), "{}", fast.stderr());
}
