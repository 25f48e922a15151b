//! A supervisor in a process of its own, as in real life: it takes over every orphan of its process,
//! so it cannot share one with other tests. The test binary starts itself again for it, and so do
//! the launcher and the children that misbehave; which part to play stands after `--`.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chassis::events::Told;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use supervisor::config::{Config, Liveness, Logs, Probes, Process, Stop};
use supervisor::control::Client;
use supervisor::takeover::{self, Takeover};
use supervisor::{ProcessState, ProcessStatus, Program, Start, Status, Switches};

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(20);
/// The test that is started again as somebody else.
const ENTRY: &str = "the_entry_plays_the_part_that_its_arguments_name";

/// A running supervisor; ended with everything below it when dropped.
pub struct Installation {
    pub folder: tempfile::TempDir,
    pub child: Child,
}

impl Installation {
    pub fn start(processes: Vec<Process>) -> Self {
        let installation = Self::spawn(processes);
        until("the supervisor answers", || {
            installation.client().status().ok()
        });
        installation
    }

    /// Does not wait for it: for one that is expected to fail.
    pub fn spawn(processes: Vec<Process>) -> Self {
        Self::prepared(processes, Logs::default(), |_| ())
    }

    /// With limits on logs, and with what `prepare` puts into the folder of logs beforehand.
    pub fn prepared(processes: Vec<Process>, logs: Logs, prepare: impl FnOnce(&Path)) -> Self {
        let base = std::env::var_os("BINGO_TEST_DIR").map_or_else(std::env::temp_dir, Into::into);
        std::fs::create_dir_all(&base).unwrap();
        let folder = tempfile::Builder::new()
            .prefix("sv")
            .tempdir_in(base)
            .unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        prepare(&folder.path().join("logs"));
        write(folder.path(), processes, logs);
        let child = supervise(folder.path());
        Self { folder, child }
    }

    /// Writes another configuration; nothing looks at it yet.
    pub fn write(&self, processes: Vec<Process>) {
        write(self.folder.path(), processes, Logs::default());
    }

    /// The names in the status, in its order, without the supervisor's own.
    pub fn names(&self) -> Vec<String> {
        let processes = self.status().processes.into_iter().skip(1);
        processes.map(|process| process.name).collect()
    }

    /// Starts another supervisor in the same folder.
    pub fn start_again(&mut self) {
        self.child = supervise(self.folder.path());
        until("the new supervisor answers", || self.client().status().ok());
    }

    pub fn client(&self) -> Client {
        Client::new(self.folder.path().join("run/control.sock"))
    }

    pub fn status(&self) -> Status {
        self.client().status().unwrap()
    }

    pub fn process(&self, name: &str) -> ProcessStatus {
        self.status().process(name).unwrap().clone()
    }

    pub fn until_state(&self, name: &str, state: ProcessState) -> ProcessStatus {
        until(&format!("{name} is {state:?}"), || {
            Some(self.process(name)).filter(|process| process.state == state)
        })
    }

    /// The process after `restarts` restarts, healthy.
    pub fn until_restarted(&self, name: &str, restarts: u32) -> ProcessStatus {
        until(&format!("{name} is back"), || {
            Some(self.process(name)).filter(|process| {
                process.state == ProcessState::Healthy && process.restarts >= restarts
            })
        })
    }

    pub fn log(&self, name: &str) -> String {
        let path = self.folder.path().join("logs").join(format!("{name}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// What happened so far.
    pub fn events(&self) -> Vec<Told> {
        let path = self.folder.path().join("logs/events.jsonl");
        chassis::events::read(&path, "").unwrap()
    }

    /// The value of a series of the supervisor's own metrics.
    pub fn series(&self, name: &str) -> Option<f64> {
        let url = self.status().supervisor().unwrap().metrics.clone().unwrap();
        let address = url.strip_prefix("http://").unwrap();
        let text = get(address.strip_suffix("/metrics").unwrap(), "/metrics").unwrap();
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// A file in the folder, for children to write to.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for the supervisor to end; its exit code and what it wrote to stderr.
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let status = until("the supervisor ends", || self.child.try_wait().unwrap());
        let mut errors = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut errors).unwrap();
        }
        (status.code(), errors)
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let _ = self.client().stop(true);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(status) = Status::read(&self.folder.path().join("state.json")) {
            let _ = supervisor::processes::end_leftovers(&status, Duration::from_millis(200));
        }
    }
}

fn write(folder: &Path, processes: Vec<Process>, logs: Logs) {
    let config = Config {
        state_file: Some(folder.join("state.json")),
        control_socket: Some(folder.join("run/control.sock")),
        log_folder: Some(folder.join("logs")),
        logs,
        events_file: Some(folder.join("logs/events.jsonl")),
        metrics_listen: Some(([127, 0, 0, 1], 0).into()),
        processes,
    };
    let text = chassis::config::to_yaml(&config).unwrap();
    std::fs::write(folder.join("supervisor.yaml"), text).unwrap();
}

fn supervise(folder: &Path) -> Child {
    let path = folder.join("supervisor.yaml");
    let words = ["supervise", path.to_str().unwrap()];
    let log = own_log(&path);
    if !log.exists() {
        return part(&words);
    }
    // For reading too: a pipe in place of the file can be opened without anybody who reads.
    let mut options = std::fs::File::options();
    let log = options.read(true).append(true).open(log).unwrap();
    command_of_part(&words).stderr(log).spawn().unwrap()
}

/// Where the supervisor of that configuration would log to.
fn own_log(configuration: &Path) -> PathBuf {
    let folder = configuration.parent().unwrap();
    folder.join("logs/supervisor.log")
}

/// This test binary again, in another part.
pub fn part(words: &[&str]) -> Child {
    let mut command = command_of_part(words);
    command.stderr(Stdio::piped()).spawn().unwrap()
}

fn command_of_part(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", ENTRY, "--nocapture", "--"])
        .args(words)
        .stdout(Stdio::null());
    command
}

/// The command of a child that misbehaves on request: `serve ADDRESS`, `inherited`.
pub fn child(words: &[&str]) -> Vec<String> {
    let own = std::env::current_exe().unwrap();
    let mut command = vec![own.to_str().unwrap().to_owned()];
    command.extend(["--exact", ENTRY, "--nocapture", "--"].map(str::to_owned));
    command.extend(words.iter().map(|word| (*word).to_owned()));
    command
}

pub fn process(name: &str, command: &[&str]) -> Process {
    Process {
        name: name.to_owned(),
        role: "node".to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        stop: Stop {
            signal: None,
            timeout: Duration::from_secs(5),
        },
        ..Process::default()
    }
}

/// A process that answers probes at `address`.
pub fn server(name: &str, address: &str) -> Process {
    let mut server = process(name, &[]);
    server.command = child(&["serve", address]);
    server.probes = probes(address);
    server
}

/// A process that lets a successor serve beside it at `address`, and is replaced that way.
pub fn beside(name: &str, address: &str) -> Process {
    let mut beside = server(name, address);
    beside.command = child(&["beside", address]);
    beside.start_first = true;
    beside.probes.startup.notify = true;
    beside
}

pub fn probes(address: &str) -> Probes {
    Probes {
        liveness: Some(Liveness {
            http: Some(format!("http://{address}/ping")),
            ..Liveness::default()
        }),
        ..Probes::default()
    }
}

/// A loopback address that was free a moment ago.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Sends a GET and returns the answer's body.
pub fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // In one write: the server reads once and closes.
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok(body.to_owned())
}

/// Plays the part that stands after `--`; returns when there is none.
pub fn play() {
    let words: Vec<OsString> = std::env::args_os().collect();
    let Some(at) = words.iter().position(|word| word == "--") else {
        return;
    };
    let words = &words[at + 1..];
    let text: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    match text.as_slice() {
        ["supervise", path] => {
            let path = PathBuf::from(path);
            supervise_here(Config::read(&path).map(Start::Anew), Some(path));
        }
        ["supervise", path, more @ ..] => take_over(path, more),
        ["command", command @ ..] => {
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            supervise_here(Ok(Start::Anew(Config::for_command(command))), None);
        }
        ["launch", ..] => {
            let failure = supervisor::launch::launch(&words[1..]);
            eprintln!("{failure}");
            std::process::exit(failure.exit as i32);
        }
        ["tries"] => tries(),
        ["beside", address] => {
            let address = address.parse().unwrap();
            let listener = chassis::sockets::listen(address, true).unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let _inside = runtime.enter();
            let shutdown = chassis::Shutdown::on_signals().unwrap();
            chassis::notify::ready();
            serve(until_told_to_end(&listener, &shutdown));
        }
        ["once", file, command @ ..] => {
            // The first start goes well, each later one does not.
            let is_first = !Path::new(file).exists();
            std::fs::write(file, "").unwrap();
            assert!(is_first, "error: not a second time");
            let [address] = command else { return };
            let listener = chassis::sockets::listen(address.parse().unwrap(), true).unwrap();
            listener.set_nonblocking(false).unwrap();
            chassis::notify::ready();
            serve(listener.incoming().flatten());
        }
        ["serve", address] => serve(TcpListener::bind(address).unwrap().incoming().flatten()),
        ["inherited"] => {
            let inherited = chassis::sockets::inherited().unwrap();
            let first = inherited.listeners.first();
            let first = &first.expect("a listener is inherited").listener;
            first.set_nonblocking(false).unwrap();
            serve(first.incoming().flatten());
        }
        ["datagrams"] => {
            let inherited = chassis::sockets::inherited().unwrap();
            assert!(inherited.listeners.is_empty());
            let threads = inherited.udp.into_iter().map(|inherited| {
                std::thread::spawn(move || echo(&inherited.name, &inherited.socket))
            });
            let threads: Vec<_> = threads.collect();
            assert!(!threads.is_empty(), "a UDP socket is inherited");
            for thread in threads {
                thread.join().unwrap();
            }
        }
        _ => {}
    }
}

fn take_over(path: &str, flags: &[&str]) {
    match flags {
        [takeover::FLAG, number] => {
            let takeover = Takeover::take(number.parse().unwrap());
            let start = takeover.map(|takeover| Start::Takeover(Box::new(takeover)));
            supervise_here(start, Some(PathBuf::from(path)));
        }
        _ => {
            assert_eq!(flags, [takeover::CHECK_FLAG]);
            if let Err(failure) = Takeover::check(&mut std::io::stdin()) {
                eprintln!("{failure}");
                std::process::exit(failure.exit as i32);
            }
            std::process::exit(0);
        }
    }
}

fn supervise_here(start: Result<Start, chassis::Failure>, file: Option<PathBuf>) {
    // Our stderr is its log then: it logs as `bingo supervise` does.
    if file.as_deref().is_some_and(|file| own_log(file).exists()) {
        let settings = chassis::logs::Settings {
            format: chassis::logs::Format::Json,
            level: "info".to_owned(),
            file: None,
            traces: None,
        };
        chassis::logs::start(&settings).unwrap();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let result = start.and_then(|start| {
        runtime.block_on(async {
            let switches = Switches::on_signals().unwrap();
            let mut launcher = vec![OsString::from(supervisor::launch::OWN_PROGRAM)];
            launcher.extend(["--exact", ENTRY, "--nocapture", "--", "launch"].map(Into::into));
            takeover::hear_signals();
            let again = file.as_deref().map(|file| {
                let words = ["--exact", ENTRY, "--nocapture", "--", "supervise"];
                let words = words.iter().map(OsString::from);
                words.chain([file.as_os_str().to_owned()]).collect()
            });
            let program = Program { launcher, again };
            supervisor::run(start, file, switches, program).await
        })
    });
    if let Err(failure) = result {
        eprintln!("{failure}");
        std::process::exit(failure.exit as i32);
    }
    std::process::exit(0);
}

/// Attempts what a confined process is denied, and what it must not be denied.
fn tries() {
    use rustix::net::{AddressFamily as Family, SocketType as Type, ipproto, socket};
    let raw = |family, protocol| socket(family, Type::RAW, protocol).is_ok();
    tell("raw", raw(Family::INET, Some(ipproto::ICMP)));
    tell("raw six", raw(Family::INET6, Some(ipproto::ICMPV6)));
    tell("packet", socket(Family::PACKET, Type::DGRAM, None).is_ok());
    tell("netlink", raw(Family::NETLINK, None));
    tell("stream", TcpListener::bind("127.0.0.1:0").is_ok());
    tell("datagram", UdpSocket::bind("127.0.0.1:0").is_ok());
    let thread = std::thread::Builder::new().spawn(|| ());
    tell("thread", thread.is_ok_and(|thread| thread.join().is_ok()));
    let spawned = Command::new("true").status();
    tell("process", spawned.is_ok_and(|status| status.success()));
    // SAFETY: there is no process 0 to trace, so nothing happens; no memory is involved.
    #[allow(unsafe_code)]
    let traced = unsafe { libc::ptrace(libc::PTRACE_CONT, 0, 0, 0) };
    let error = std::io::Error::last_os_error();
    tell(
        "trace",
        traced == 0 || error.raw_os_error() == Some(libc::ESRCH),
    );
    // SAFETY: asks for a namespace of names; no memory is involved.
    #[allow(unsafe_code)]
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWUTS) };
    tell("namespace", unshared == 0);
    eprintln!("trial is over");
    loop {
        std::thread::park();
    }
}

fn tell(what: &str, is_allowed: bool) {
    eprintln!(
        "\n{what}: {}",
        if is_allowed { "allowed" } else { "refused" }
    );
}

/// Answers each datagram with the socket's name and our pid.
fn echo(name: &str, socket: &UdpSocket) {
    socket.set_nonblocking(false).unwrap();
    let mut datagram = [0; 64];
    loop {
        let (_, from) = socket.recv_from(&mut datagram).unwrap();
        let answer = format!("{name} {}", std::process::id());
        socket.send_to(answer.as_bytes(), from).unwrap();
    }
}

/// Told to end, it still takes those that wait for it, as whoever has a successor must.
fn until_told_to_end(
    listener: &TcpListener,
    shutdown: &chassis::Shutdown,
) -> impl Iterator<Item = TcpStream> {
    std::iter::from_fn(move || {
        loop {
            let told = shutdown.is_requested();
            let mut ready = [PollFd::new(listener, PollFlags::IN)];
            let look = Timespec {
                tv_sec: 0,
                tv_nsec: 10_000_000,
            };
            // An interrupted look is a look in vain.
            let _ = poll(&mut ready, Some(&look));
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Some(stream);
                }
                Err(_) if told => return None,
                Err(_) => {}
            }
        }
    })
}

/// One connection after the other, as a simple program would: `/ping` answers the pid until `/sick`
/// was asked for; `/hang` never comes back; `/drain` answers as draining from then on; `/leak/N` takes
/// N MiB a second from then on, `/take/N` N MiB at once.
fn serve(connections: impl Iterator<Item = TcpStream>) {
    let (mut status, mut state, mut body) = ("200 OK", "", std::process::id().to_string());
    for mut stream in connections {
        let mut request = [0; 1024];
        let read = stream.read(&mut request).unwrap_or(0);
        let request = String::from_utf8_lossy(&request[..read]).into_owned();
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path {
            "/sick" => (status, body) = ("500 Oh", "I feel bad".to_owned()),
            "/drain" => (status, state) = ("500 Oh", "Bingo-State: draining\r\n"),
            _ if path.starts_with("/leak/") => {
                let rate: usize = path[6..].parse().unwrap();
                std::thread::spawn(move || {
                    loop {
                        std::hint::black_box(vec![1_u8; rate << 20 >> 5].leak());
                        std::thread::sleep(Duration::from_secs(1) / 32);
                    }
                });
            }
            _ if path.starts_with("/take/") => {
                let mebibytes: usize = path[6..].parse().unwrap();
                std::hint::black_box(vec![1_u8; mebibytes << 20].leak());
            }
            "/hang" => loop {
                std::thread::park();
            },
            _ => {}
        }
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\n{state}Content-Length: {length}\r\n\r\n");
        let _ = stream.write_all((head + &body).as_bytes());
    }
}
