//! `supervisor.yaml` as it can be run: names resolved, users looked up, addresses and URLs parsed.
//! Every fault is collected before any is reported. Users are looked up in /etc/passwd alone: the
//! service accounts of a machine stand there, and a lookup over the network has no place in a start.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis::Failure;
use rustix::process::Signal;

use crate::config::{self, Config, Liveness, Protocol, Restart, is_name_character};
use crate::confine::Confinement;
use crate::isolation::{self, Isolation};
use crate::order;
use crate::own_logs::{self, OwnLog};
use crate::policy::memory::Limits;
use crate::policy::{Kind, Rules};
use crate::privileges;
use crate::processes::signal_of_name;

mod replacement;

/// A Unix socket's path may have 108 bytes with its end (unix(7)); some are left for others.
const SOCKET_PATH_BYTES_MAX: usize = 100;
/// Names become file names and log fields.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) processes: Vec<Process>,
}

#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) command: Vec<String>,
    /// None: ours.
    pub(crate) user: Option<User>,
    /// None: it keeps what its user may.
    pub(crate) confinement: Option<Confinement>,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) environment: BTreeMap<OsString, OsString>,
    pub(crate) working_folder: Option<PathBuf>,
    pub(crate) log_files: Vec<OwnLog>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) probe: Option<Probe>,
    pub(crate) stop_signal: Signal,
    pub(crate) stop_signal_name: String,
    pub(crate) rules: Rules,
    /// The names of those it waits for.
    pub(crate) after: Vec<String>,
    pub(crate) listen: Option<String>,
    pub(crate) metrics: Option<String>,
    pub(crate) memory: Option<Limits>,
    pub(crate) max_age: Option<Duration>,
    /// Its successor is up before it ends.
    pub(crate) start_first: bool,
    /// As it is written.
    pub(crate) written: Box<config::Process>,
    /// What is written holds `{port}`.
    needs_port: bool,
}

/// A socket as it is handed down; what is opened for it depends on `address` and `protocol` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
}

#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) target: Target,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Http {
        address: SocketAddr,
        authority: String,
        path: String,
        /// Good only with this in its body.
        body: Option<String>,
    },
    Tcp(SocketAddr),
    Command(Vec<String>),
}

/// Collects faults; each check goes on after the last one failed.
pub(crate) struct Faults(Vec<Failure>);

impl Faults {
    pub(crate) fn add(&mut self, key: &str, why: impl std::fmt::Display, help: &str) {
        self.0.push(Failure::configuration(key, why, help));
    }
}

impl Plan {
    /// Checks a whole configuration; a message for every fault, exit 64.
    pub(crate) fn new(config: &Config) -> Result<Self, Failure> {
        let mut faults = Faults(Vec::new());
        if config.processes.is_empty() {
            faults.add("processes", "there are none", "name at least one process");
        }
        if let Some(path) = &config.control_socket
            && path.as_os_str().len() > SOCKET_PATH_BYTES_MAX
        {
            let why = format!(
                "`{}` is longer than {SOCKET_PATH_BYTES_MAX} bytes",
                path.display()
            );
            faults.add("control_socket", why, "use a folder with a shorter path");
        }
        if let Some(address) = config.metrics_listen.filter(|at| !at.ip().is_loopback()) {
            let why = format!("{address} is not on loopback, and whoever asks is answered");
            faults.add("metrics_listen", why, "write 127.0.0.1 and a port");
        }
        for (key, why) in config.logs.faults() {
            faults.add(&format!("logs: {key}"), why, "leave it out, or write more");
        }
        check_after(config, &mut faults);
        let processes = config
            .processes
            .iter()
            .filter_map(|process| check_written(process, &mut faults))
            .collect::<Vec<_>>();
        refuse_shared_udp(&processes, &mut faults);
        match Failure::all(faults.0) {
            Some(failure) => Err(failure),
            None => Ok(Self { processes }),
        }
    }
}

fn check_after(config: &Config, faults: &mut Faults) {
    let names: Vec<&str> = config.processes.iter().map(|p| p.name.as_str()).collect();
    for (at, name) in names.iter().enumerate() {
        if names.iter().position(|other| other == name) != Some(at) {
            let why = "another process has this name";
            faults.add(
                &format!("processes: {name}: name"),
                why,
                "give each one its own",
            );
        }
    }
    let mut after = Vec::new();
    for process in &config.processes {
        let key = format!("processes: {}: after", process.name);
        let mut needs = Vec::new();
        for need in &process.after {
            match names.iter().position(|name| name == need) {
                Some(at) => needs.push(at),
                None => faults.add(&key, format!("there is no process `{need}`"), "correct it"),
            }
        }
        after.push(needs);
    }
    if let Some(name) = order::circle(&after).and_then(|at| names.get(at)) {
        let key = format!("processes: {name}: after");
        faults.add(
            &key,
            "it waits for itself, in a circle",
            "remove one of them",
        );
    }
}

/// For each process the positions of those it waits for.
pub(crate) fn positions(processes: &[&Process]) -> Vec<Vec<usize>> {
    let position = |name: &String| processes.iter().position(|other| other.name == *name);
    let needs = processes.iter().map(|process| process.after.iter());
    needs
        .map(|names| names.filter_map(position).collect())
        .collect()
}

/// With `{port}` it is checked as if it had one, and keeps what was written.
fn check_written(process: &config::Process, faults: &mut Faults) -> Option<Process> {
    const SOME_PORT: u16 = 1;
    let memory = replacement::check(process, kind_of(process), faults);
    let at_port = replacement::at_port(process, SOME_PORT);
    let mut plan = check(at_port.as_ref().unwrap_or(process), faults)?;
    plan.memory = memory;
    if at_port.is_some() {
        plan.written = Box::new(process.clone());
        plan.needs_port = true;
        plan.listen = None;
        plan.metrics = None;
    }
    Some(plan)
}

fn kind_of(process: &config::Process) -> Kind {
    match process.role.as_str() {
        "job" => Kind::Job,
        "postgres" => Kind::Postgres,
        _ => Kind::Service,
    }
}

fn check(process: &config::Process, faults: &mut Faults) -> Option<Process> {
    let before = faults.0.len();
    let key = |key: &str| format!("processes: {}: {key}", process.name);
    let name = &process.name;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_name_character) {
        let why = format!("`{name}` is no name");
        faults.add(
            &key("name"),
            why,
            "use 1 to 64 letters, digits, `-`, `_`, `.`",
        );
    }
    check_command(process, &key("command"), faults);
    check_environment(process, &key("environment"), faults);
    replacement::refuse_own_variables(&process.environment, &key("environment"), faults);
    let kind = kind_of(process);
    if kind == Kind::Job && process.restart == Restart::Always {
        let help = "write `restart: on-failure` or `never`";
        faults.add(&key("restart"), "a job is done when it exits 0", help);
    }
    if kind == Kind::Job && process.probes.liveness.is_some() {
        let why = "a job is judged by its exit code";
        faults.add(&key("probes.liveness"), why, "remove the probe");
    }
    let user = resolve_user(process, &key("user"), faults);
    let sockets = resolve_sockets(process, &key("sockets"), faults);
    let liveness = process.probes.liveness.as_ref();
    let confinement = privileges::resolve(process, user.as_ref(), &key("privileges"), faults);
    let isolation = isolation::resolve(process, &key("isolation"), faults);
    let log_files = own_logs::resolve(process, &key("log_files"), faults);
    let probe = liveness.and_then(|l| resolve_probe(l, &key("probes.liveness"), faults));
    let (stop_signal_name, stop_signal) = resolve_signal(process, kind, &key("stop"), faults);
    if faults.0.len() > before {
        return None;
    }
    Some(Process {
        name: name.clone(),
        role: process.role.clone(),
        command: process.command.clone(),
        environment: environment(process, user.as_ref()),
        confinement,
        isolation,
        user,
        working_folder: process.working_folder.clone(),
        log_files,
        sockets,
        rules: Rules {
            kind,
            restart: process.restart,
            probed: probe.is_some(),
            notified: replacement::tells(process),
            startup_timeout: process.probes.startup.timeout,
            fall: liveness.map_or(1, |liveness| liveness.fall),
            stop_timeout: process.stop.timeout,
        },
        probe,
        stop_signal,
        stop_signal_name,
        after: process.after.clone(),
        listen: process.listen.clone(),
        metrics: process.metrics.clone(),
        memory: None,
        max_age: process.max_age,
        start_first: process.start_first,
        written: Box::new(process.clone()),
        needs_port: false,
    })
}

fn check_command(process: &config::Process, key: &str, faults: &mut Faults) {
    if process.command.first().is_none_or(String::is_empty) {
        let help = "name the program and its arguments";
        faults.add(key, "it is empty", help);
    }
    if process.command.iter().any(|part| part.contains('\0')) {
        faults.add(key, "a part holds a zero byte", "remove it");
    }
}

fn check_environment(process: &config::Process, key: &str, faults: &mut Faults) {
    for (name, value) in &process.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let why = format!("`{name}` is no variable");
            faults.add(key, why, "use a name without `=`");
        }
    }
}

fn resolve_signal(
    process: &config::Process,
    kind: Kind,
    key: &str,
    faults: &mut Faults,
) -> (String, Signal) {
    let default = if kind == Kind::Postgres {
        "SIGINT"
    } else {
        "SIGTERM"
    };
    let name = process.stop.signal.as_deref().unwrap_or(default);
    let signal = signal_of_name(name).unwrap_or_else(|| {
        faults.add(
            key,
            format!("`{name}` is no signal"),
            "write it like SIGTERM",
        );
        Signal::TERM
    });
    (name.to_owned(), signal)
}

fn resolve_user(process: &config::Process, key: &str, faults: &mut Faults) -> Option<User> {
    let name = process.user.as_ref()?;
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let Some(user) = find_user(&passwd, name) else {
        let why = format!("there is no user `{name}` in /etc/passwd");
        faults.add(key, why, "name one that exists, like `nobody`");
        return None;
    };
    let own = rustix::process::geteuid().as_raw();
    if own == user.uid {
        return None;
    }
    if own != 0 {
        let why = format!("only root can start a process as `{name}`");
        faults.add(key, why, "remove the user, or start as root");
    }
    Some(user)
}

/// passwd(5): name, password, uid, gid, comment, home, shell.
fn find_user(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        Some(User {
            uid: fields.nth(1)?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
            home: PathBuf::from(fields.nth(1)?),
        })
    })
}

fn resolve_sockets(process: &config::Process, key: &str, faults: &mut Faults) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for socket in &process.sockets {
        // LISTEN_FDNAMES joins names by colons (sd_listen_fds(3)).
        if socket.name.is_empty() || !socket.name.chars().all(is_name_character) {
            let why = format!("`{}` is no name of a socket", socket.name);
            faults.add(key, why, "use letters, digits, `-`, `_`, `.`");
        }
        match socket.address.parse() {
            Ok(address) => sockets.push(Socket {
                name: socket.name.clone(),
                address,
                protocol: socket.protocol,
            }),
            Err(_) => {
                let why = format!("`{}` is no address", socket.address);
                faults.add(key, why, "write it like 127.0.0.1:8080 or [::1]:8080");
            }
        }
    }
    sockets
}

/// Two readers of one UDP socket split the packets of a connection among them.
fn refuse_shared_udp(processes: &[Process], faults: &mut Faults) {
    let mut owners: Vec<(SocketAddr, &str)> = Vec::new();
    for process in processes {
        let sockets = process.sockets.iter();
        for socket in sockets.filter(|socket| socket.protocol == Protocol::Udp) {
            let address = socket.address;
            let Some((_, owner)) = owners.iter().find(|(known, _)| *known == address) else {
                owners.push((address, &process.name));
                continue;
            };
            let key = format!("processes: {}: sockets", process.name);
            let why = format!("the UDP socket {address} is given to `{owner}` already");
            faults.add(&key, why, "give it to one process alone");
        }
    }
}

fn resolve_probe(liveness: &Liveness, key: &str, faults: &mut Faults) -> Option<Probe> {
    if liveness.fall == 0 {
        faults.add(key, "fall is 0", "write at least 1");
    }
    if liveness.body.is_some() && liveness.http.is_none() {
        let why = "only an answer over HTTP has a body";
        faults.add(key, why, "remove `body`, or probe by http");
    }
    if liveness.interval.is_zero() || liveness.timeout.is_zero() {
        let why = "interval or timeout is zero";
        faults.add(key, why, "write one like 250ms");
    }
    let target = match (&liveness.http, &liveness.tcp, &liveness.command) {
        (Some(url), None, None) => parse_url(url).map(|target| with_body(target, liveness)),
        (None, Some(address), None) => resolve_address(address).map(Target::Tcp),
        (None, None, Some(command)) if command.first().is_some_and(|c| !c.is_empty()) => {
            Ok(Target::Command(command.clone()))
        }
        (None, None, Some(_)) => Err("the command is empty".to_owned()),
        _ => Err("there must be exactly one of http, tcp and command".to_owned()),
    };
    match target {
        Ok(target) => Some(Probe {
            target,
            interval: liveness.interval,
            timeout: liveness.timeout,
        }),
        Err(why) => {
            faults.add(
                key,
                why,
                "write one like `http: http://127.0.0.1:8080/ping`",
            );
            None
        }
    }
}

fn with_body(mut target: Target, liveness: &Liveness) -> Target {
    if let Target::Http { body, .. } = &mut target {
        body.clone_from(&liveness.body);
    }
    target
}

fn parse_url(url: &str) -> Result<Target, String> {
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(format!("`{url}` does not begin with http://"));
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    if !path.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("`{url}` holds a character that no URL may hold"));
    }
    let with_port = if authority
        .rsplit(':')
        .next()
        .is_some_and(|p| p.parse::<u16>().is_ok())
    {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    Ok(Target::Http {
        address: resolve_address(&with_port)?,
        authority: authority.to_owned(),
        path: path.to_owned(),
        body: None,
    })
}

fn resolve_address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| format!("`{text}` is no address: {error}"))?;
    found
        .next()
        .ok_or_else(|| format!("`{text}` has no address"))
}

/// A clean environment: only what a program needs to find others, itself and its language.
fn environment(process: &config::Process, user: Option<&User>) -> BTreeMap<OsString, OsString> {
    let own = |name: &str, default: &str| std::env::var_os(name).unwrap_or_else(|| default.into());
    let home = user.map_or_else(|| own("HOME", "/"), |user| user.home.clone().into());
    let mut environment = BTreeMap::from([
        ("PATH".into(), own("PATH", "/usr/local/bin:/usr/bin:/bin")),
        ("HOME".into(), home),
        ("LANG".into(), own("LANG", "C.UTF-8")),
    ]);
    for (name, value) in &process.environment {
        environment.insert(name.into(), value.into());
    }
    environment
}

/// `<log_folder>/<name>.log`.
pub(crate) fn log_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_reported_in_one_run() {
        let text = "
processes:
- {name: a, command: [], after: [nobody-knows]}
- {name: a, command: [x], user: no-such-user, stop: {signal: TERM}}
- {name: 'b c', command: [x], sockets: [{name: 'x:y', address: here}]}
- {name: d, command: [x], after: [e], probes: {liveness: {fall: 0}}}
- {name: e, command: [x], after: [d], role: job}
- {name: f, command: [x], probes: {liveness: {http: 'https://x/'}}}
";
        let config: Config = chassis::config::parse("example", text).unwrap();
        let failure = config.validate().unwrap_err();
        assert_eq!(failure.exit, chassis::Exit::Configuration);
        let text = failure.to_string();
        for expected in [
            "a: command: it is empty",
            "there is no process `nobody-knows`",
            "a: name: another process has this name",
            "there is no user `no-such-user`",
            "`TERM` is no signal",
            "`b c` is no name",
            "`x:y` is no name of a socket",
            "`here` is no address",
            "fall is 0",
            "exactly one of http, tcp and command",
            "in a circle",
            "a job is done when it exits 0",
            "does not begin with http://",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn a_udp_socket_is_for_one_process_and_a_tcp_listener_for_many() {
        let text = |protocol: &str| {
            let socket = format!("{{name: web, address: '[::1]:443', protocol: {protocol}}}");
            format!(
                "processes:\n- {{name: a, command: [x], sockets: [{socket}]}}\n\
                 - {{name: b, command: [x], sockets: [{socket}]}}\n"
            )
        };
        let check = |protocol: &str| {
            let config: Config = chassis::config::parse("example", &text(protocol)).unwrap();
            config.validate()
        };
        check("tcp").unwrap();
        let failure = check("udp").unwrap_err().to_string();
        let expected = "b: sockets: the UDP socket [::1]:443 is given to `a` already";
        assert!(failure.contains(expected), "{failure}");
    }

    #[test]
    fn urls_give_address_host_and_path() {
        let expected = Target::Http {
            address: "127.0.0.1:8080".parse().unwrap(),
            authority: "127.0.0.1:8080".to_owned(),
            path: "/ping".to_owned(),
            body: None,
        };
        assert_eq!(parse_url("http://127.0.0.1:8080/ping"), Ok(expected));
        assert!(matches!(
            parse_url("http://[::1]:81"),
            Ok(Target::Http { address, path, .. })
                if address == "[::1]:81".parse().unwrap() && path == "/"
        ));
        assert!(matches!(
            parse_url("http://127.0.0.1/"),
            Ok(Target::Http { address, .. }) if address.port() == 80
        ));
        assert!(parse_url("http://127.0.0.1:1/a b").is_err());
    }

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:n:/none:/bin/no\n";
        let user = find_user(passwd, "nobody").unwrap();
        assert_eq!((user.uid, user.gid), (65534, 65533));
        assert_eq!(user.home, Path::new("/none"));
        assert_eq!(find_user(passwd, "nobod"), None);
    }
}
