//! One installation of a test: folder, ports, flags, and what can be asked of it from outside. The
//! binary is copied into the test folder, so that the children's account reaches it wherever the
//! repository lies. Dropped, it ends everything; after a failure its logs stay.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use acceptance::load::Ids;
use acceptance::signals::{self, Process, Signal, wait_until};
use serde_json::Value;

/// Fewer rows than the full data set, enough for lists of many pages.
pub(crate) const ROWS: Rows = Rows {
    customers: 5_000,
    movies: 500,
    sessions: 50_000,
};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
pub(crate) struct Rows {
    customers: u32,
    movies: u32,
    sessions: u64,
}

impl Rows {
    pub(crate) const fn full() -> Self {
        Self {
            customers: 500_000,
            movies: 29_019,
            sessions: 5_000_000,
        }
    }

    pub(crate) const fn tiny() -> Self {
        Self {
            customers: 50,
            movies: 50,
            sessions: 500,
        }
    }

    pub(crate) fn counts(self) -> String {
        format!("{}|{}|{}", self.customers, self.movies, self.sessions)
    }

    pub(crate) fn ids(self) -> Ids {
        Ids {
            customers: self.customers,
            movies: self.movies,
            sessions: self.sessions,
        }
    }
}

/// What a finished command left.
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A file of the installation that others may read.
pub(crate) struct Readable {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

pub(crate) struct Installation {
    home: PathBuf,
    binary: PathBuf,
    rows: Rows,
    http_port: u16,
    https_port: u16,
    admin_port: u16,
    flags: Vec<String>,
    /// Of the commands' environment, beside our own.
    variables: Vec<(String, String)>,
}

impl Installation {
    pub(crate) fn new(name: &str, rows: Rows) -> Self {
        let base =
            std::env::var_os("BINGO_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let home = base.join(format!("bingo-e2e-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        open_to_others(&home);
        let binary = home.join("bingo");
        std::fs::copy(env!("CARGO_BIN_EXE_bingo"), &binary).unwrap();
        let [http_port, https_port, admin_port] = free_ports();
        Self {
            home,
            binary,
            rows,
            http_port,
            https_port,
            admin_port,
            flags: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Puts a variable into the environment of every later command.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Later commands are those of another program: the same one, a byte longer.
    pub(crate) fn take_newer_binary(&mut self) {
        let mut bytes = std::fs::read(&self.binary).unwrap();
        bytes.push(0);
        self.binary = self.home.join(format!("bingo-{}", bytes.len()));
        std::fs::write(&self.binary, &bytes).unwrap();
        open_to_others(&self.binary);
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(crate) fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    pub(crate) fn http_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.http_port))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http_address())
    }

    /// Puts the folder below one that only its owner may pass; returns that one.
    pub(crate) fn close_parent(&self) -> PathBuf {
        std::fs::set_permissions(&self.home, std::fs::Permissions::from_mode(0o700)).unwrap();
        self.home.canonicalize().unwrap()
    }

    /// `bingo up …`, which must succeed; returns the status afterwards.
    pub(crate) async fn up(&mut self, arguments: &[&str]) -> Value {
        self.flags = arguments
            .iter()
            .skip(1)
            .map(|flag| (*flag).to_owned())
            .collect();
        let mut up = vec!["up"];
        up.extend(arguments);
        let result = self.run(&up);
        assert_eq!(result.code, 0, "{}{}", result.stdout, result.stderr);
        self.status()
    }

    pub(crate) fn down(&self) {
        let result = self.run(&["down"]);
        assert_eq!(result.code, 0, "{}", result.stderr);
    }

    /// Runs a subcommand to its end; `up` and `doctor` get this installation's ports and rows.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        finished(&mut self.command(arguments))
    }

    /// Without this installation's ports and rows.
    pub(crate) fn run_as_given(&self, arguments: &[&str]) -> Finished {
        finished(&mut self.command_as_given(arguments))
    }

    /// The same, not yet started.
    pub(crate) fn command_as_given(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--dir").arg(self.folder());
        command
    }

    /// The supervisor alone, as `up` would start it.
    pub(crate) fn spawn_supervisor(&self) -> Child {
        let config = self.folder().join("config/supervisor.yaml");
        let mut command = Command::new(&self.binary);
        command.args(["supervise", "--config"]).arg(config);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).spawn().unwrap()
    }

    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--dir").arg(self.folder());
        command.envs(self.variables.iter().cloned());
        if matches!(arguments, ["up" | "doctor", ..]) {
            let Rows {
                customers,
                movies,
                sessions,
            } = self.rows;
            command.args(["--http-port", &self.http_port.to_string()]);
            command.args(["--https-port", &self.https_port.to_string()]);
            command.args(["--admin-port", &self.admin_port.to_string()]);
            command.args(["--customers", &customers.to_string()]);
            command.args(["--movies", &movies.to_string()]);
            command.args(["--sessions", &sessions.to_string()]);
        }
        command
    }

    pub(crate) fn status(&self) -> Value {
        let result = self.run(&["status", "--json"]);
        serde_json::from_str(&result.stdout).unwrap_or(Value::Null)
    }

    fn entries(&self) -> Vec<Value> {
        self.status()["processes"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// The ids of all processes, sorted.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.entries().iter().filter_map(pid).collect();
        pids.sort_unstable();
        pids
    }

    pub(crate) fn processes_of_role(&self, role: &str) -> Vec<u32> {
        self.entries()
            .iter()
            .filter(|process| process["role"] == role)
            .filter_map(pid)
            .collect()
    }

    /// Everything alive below the supervisor.
    pub(crate) fn children(&self) -> Vec<Process> {
        self.processes_of_role("supervisor")
            .into_iter()
            .flat_map(signals::descendants_of)
            .collect()
    }

    /// Everything alive that names this installation's folder.
    pub(crate) fn processes(&self) -> Vec<Process> {
        signals::processes_under(&self.home)
    }

    pub(crate) fn assert_nothing_runs(&self) {
        let left = self.processes();
        assert!(left.is_empty(), "{left:?}");
    }

    pub(crate) fn kill(&self, name: &str, signal: Signal) {
        let entry = self.entry(name);
        let process = signals::process(pid(&entry).unwrap()).unwrap();
        signals::kill(&process, signal).unwrap();
    }

    fn entry(&self, name: &str) -> Value {
        let entry = self
            .entries()
            .into_iter()
            .find(|process| process["name"] == name);
        entry.unwrap_or_else(|| panic!("no process {name}"))
    }

    /// Waits until the process was restarted that often and is healthy; the time that took.
    pub(crate) async fn wait_restarted(&self, name: &str, restarts: u64) -> Duration {
        let begun = Instant::now();
        wait_until("it is back", PATIENCE, async || {
            let entry = self.entry(name);
            entry["state"] == "healthy" && entry["restarts"] == restarts
        })
        .await
        .unwrap();
        begun.elapsed()
    }

    /// Requests that the gateways have answered so far.
    pub(crate) async fn requests(&self) -> u64 {
        let mut requests = 0;
        for entry in self
            .entries()
            .iter()
            .filter(|entry| entry["role"] == "gateway")
        {
            let url = entry["metrics"].as_str().unwrap_or_default().to_owned();
            let Ok(answer) = acceptance::http::get(&url).await else {
                continue;
            };
            let counts = answer.text();
            let counts = counts
                .lines()
                .filter(|line| line.starts_with("http_server_request_duration_seconds_count"))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            requests += counts.sum::<u64>();
        }
        requests
    }

    /// Runs a query through psql and the URL that `status` shows.
    pub(crate) fn sql(&self, query: &str) -> String {
        let status = self.status();
        let url = status["postgres_url"].as_str().unwrap_or_default();
        let output = Command::new("psql")
            .args([
                url,
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                "--command",
                query,
            ])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn counts(&self) -> String {
        self.sql(
            "SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM movies), \
             (SELECT count(*) FROM sessions)",
        )
    }

    pub(crate) fn keys(&self) -> String {
        self.sql(
            "SELECT format('%s primary, %s foreign', count(*) FILTER (WHERE contype = 'p'), \
             count(*) FILTER (WHERE contype = 'f')) FROM pg_constraint \
             WHERE conrelid IN ('customers'::regclass, 'movies'::regclass, 'sessions'::regclass)",
        )
    }

    /// The files that not only their owner may read: configuration and logs.
    pub(crate) fn readable_files(&self) -> Vec<Readable> {
        let folders = ["config", "logs", "run"].map(|name| self.folder().join(name));
        let files = folders
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flatten();
        files
            .flatten()
            .filter(|file| {
                file.metadata()
                    .is_ok_and(|m| m.permissions().mode() & 0o044 != 0)
            })
            .filter_map(|file| {
                let text = std::fs::read_to_string(file.path()).ok()?;
                Some(Readable {
                    path: file.path(),
                    text,
                })
            })
            .collect()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        open_to_others(&self.home);
        if std::thread::panicking() {
            let _ = self.run(&["down"]);
            eprintln!("logs are in {}", self.folder().join("logs").display());
            return;
        }
        let _ = self.run(&["down", "--purge", "--yes"]);
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn finished(command: &mut Command) -> Finished {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn pid(entry: &Value) -> Option<u32> {
    entry["pid"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok())
}

fn open_to_others(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Ports that were free a moment ago, below the range of outgoing connections; others for each
/// call of one test.
fn free_ports() -> [u16; 3] {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let start = 10_000 + (std::process::id() % 450) as u16 * 20 + call * 6;
    let mut free =
        (start..).filter(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    std::array::from_fn(|_| free.next().unwrap())
}
