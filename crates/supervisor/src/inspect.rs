//! What a black box does: started for some seconds, with its system calls watched (`trace`) and its
//! sockets and memory looked at from outside. Everything that it starts is killed at the end; what it
//! wrote stays. Left out: what it does after those seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chassis::Failure;
use rustix::io::Errno;
use serde::Serialize;

use crate::processes;

mod strings;
mod trace;

use trace::Event;

/// Between two looks at sockets and memory.
const LOOK: Duration = Duration::from_millis(100);
/// How long an answer to one of our requests may take.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Requests sent to see how many it takes in a second.
const RATE_REQUESTS: u32 = 60;
/// As much of an answer is shown.
const SHOWN_CHARACTERS: usize = 60;
/// A connection that was not made for so long hangs.
const HANGING: Duration = Duration::from_secs(1);
/// Where programs look for their libraries and languages: missing files there mean nothing.
const NOISE: [&str; 8] = [
    "/lib",
    "/usr/lib",
    "/usr/share",
    "/usr/local",
    "/etc/ld.so",
    "/proc",
    "/sys",
    "/dev",
];

/// Everything that was found, for people and as JSON.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// How it ended by itself; `None`: it was still there.
    pub ended: Option<String>,
    /// What it wrote last before it ended by itself.
    pub last_lines: Vec<String>,
    pub files: Vec<Denied>,
    /// Ports on which it listens.
    pub ports: Vec<u16>,
    pub unreachable: Vec<Unreachable>,
    /// Bytes at the first look and at the last, and the seconds between them.
    pub memory: Option<(u64, u64, f64)>,
    /// What was asked, and the answer.
    pub answers: Vec<(String, String)>,
    /// Texts in the program that look like paths, URLs or codes.
    pub texts: Vec<String>,
}

/// A file that could not be opened.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Denied {
    pub path: String,
    /// To be written, a log for example.
    pub writes: bool,
    pub why: String,
    /// What is missing: the folder, or a right.
    pub help: String,
}

/// An address that did not answer, or refused.
#[derive(Debug, PartialEq, Serialize)]
pub struct Unreachable {
    pub address: String,
    pub waited_seconds: f64,
    pub why: String,
}

/// Runs the command for `time` at most; as `user` (uid and gid) where one is given.
pub fn inspect(
    command: &[String],
    time: Duration,
    user: Option<(u32, u32)>,
) -> Result<Findings, Failure> {
    let attempted = format!("inspect {}", command.join(" "));
    let failed = |error: io::Error| {
        let help =
            "check that the program exists, may be run, and that this user may trace (ptrace)";
        Failure::run_time(&attempted, error, help)
    };
    let mut start = prepared(command, user);
    let (mut output, writer) = io::pipe().map_err(failed)?;
    start
        .stdout(writer.try_clone().map_err(failed)?)
        .stderr(writer);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let over = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = output.by_ref().take(1 << 20).read_to_end(&mut text);
        let _ = io::copy(&mut output, &mut io::sink());
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut watcher = None;
    let traced = trace::run(start, begun + time, |pid| {
        let (seen, over) = (Arc::clone(&seen), Arc::clone(&over));
        watcher = Some(std::thread::spawn(move || watch(pid, &seen, &over)));
    });
    over.store(true, Ordering::Relaxed);
    let (events, status) = traced.map_err(failed)?;
    if let Some(watcher) = watcher {
        let _ = watcher.join();
    }
    let said = reader.join().unwrap_or_default();
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let ended =
        status.map(|status| format!("{status} after {:.1} s", begun.elapsed().as_secs_f64()));
    let lines = said.lines().rev().take(3).map(str::to_owned);
    let mut last_lines: Vec<String> = lines.filter(|_| ended.is_some()).collect();
    last_lines.reverse();
    Ok(Findings {
        last_lines,
        ended,
        files: denied(&events),
        ports: seen.ports.iter().copied().collect(),
        unreachable: unreachable(&events, &seen.hanging),
        memory: seen.memory(),
        answers: seen.answers,
        texts: command
            .first()
            .map(|program| strings::telling(Path::new(program)))
            .unwrap_or_default(),
    })
}

fn prepared(command: &[String], user: Option<(u32, u32)>) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut words = command.iter();
    let mut start = Command::new(words.next().map_or("", String::as_str));
    start.args(words).stdin(Stdio::null());
    if let Some((uid, gid)) = user {
        start.uid(uid).gid(gid);
    }
    start
}

/// What is seen from outside.
#[derive(Debug, Default)]
struct Seen {
    /// Ports on which it listens.
    ports: BTreeSet<u16>,
    /// Connections that wait to be made: since when, and until when.
    hanging: BTreeMap<SocketAddr, (Instant, Instant)>,
    looks: Vec<(Instant, u64)>,
    answers: Vec<(String, String)>,
}

impl Seen {
    fn memory(&self) -> Option<(u64, u64, f64)> {
        let (first, last) = (self.looks.first()?, self.looks.last()?);
        Some((first.1, last.1, (last.0 - first.0).as_secs_f64()))
    }
}

fn watch(pid: u32, seen: &Mutex<Seen>, over: &AtomicBool) {
    let mut asked = false;
    while !over.load(Ordering::Relaxed) {
        let sockets = sockets(pid);
        let now = Instant::now();
        let first = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.looks
                .extend(processes::tree_bytes(pid).map(|bytes| (now, bytes)));
            for (state, local, remote) in sockets {
                match state.as_str() {
                    LISTENING => {
                        seen.ports.insert(local.port());
                    }
                    ASKING => seen.hanging.entry(remote).or_insert((now, now)).1 = now,
                    _ => {}
                }
            }
            seen.ports.first().copied()
        };
        if let Some(port) = first.filter(|_| !asked) {
            asked = true;
            let answers = ask_all(port);
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.answers.extend(answers);
        }
        std::thread::sleep(LOOK);
    }
}

/// States of sockets (proc(5), /proc/net/tcp).
const LISTENING: &str = "0A";
const ASKING: &str = "02";

/// State and both ends of each of its sockets, and of those that it started.
fn sockets(pid: u32) -> Vec<(String, SocketAddr, SocketAddr)> {
    let tree = std::iter::once(pid).chain(processes::descendants(pid).into_iter().map(|p| p.0));
    let links = tree.flat_map(|pid| {
        let folder = std::fs::read_dir(format!("/proc/{pid}/fd"));
        folder.into_iter().flatten().flatten()
    });
    let own: Vec<String> = links
        .filter_map(|link| std::fs::read_link(link.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let tables = ["tcp", "tcp6"].map(|name| format!("/proc/{pid}/net/{name}"));
    let texts = tables.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let lines = texts.iter().flat_map(|text| text.lines().skip(1));
    lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let inode = fields.get(9)?;
            own.contains(&format!("socket:[{inode}]")).then_some(())?;
            let end = |at: usize| fields.get(at).and_then(|field| end_of(field));
            Some(((*fields.get(3)?).to_owned(), end(1)?, end(2)?))
        })
        .collect()
}

/// `0100007F:1F90`: the address in words of the machine's order, the port in hexadecimal.
fn end_of(field: &str) -> Option<SocketAddr> {
    let (address, port) = field.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words = (0..address.len() / 8)
        .filter_map(|at| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok());
    let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
    let ip = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        _ => <[u8; 16]>::try_from(bytes).ok()?.into(),
    };
    Some(SocketAddr::new(ip, port))
}

fn ask_all(port: u16) -> Vec<(String, String)> {
    let mut answers: Vec<(String, String)> = ["/", "/ping"]
        .iter()
        .map(|path| {
            let url = format!("GET http://127.0.0.1:{port}{path}");
            let answer = ask(port, path).unwrap_or_else(|error| error.to_string());
            (url, answer)
        })
        .collect();
    let begun = Instant::now();
    let asked = (0..RATE_REQUESTS)
        .take_while(|_| begun.elapsed() < ANSWER_MAX && ask(port, "/ping").is_ok());
    let asked = asked.count();
    let took = begun.elapsed().as_secs_f64();
    let rate = asked as f64 / took.max(f64::EPSILON);
    let text = format!("{asked} answers in {took:.2} s: {rate:.0} a second");
    answers.push((
        format!("{RATE_REQUESTS} of these, one after the other"),
        text,
    ));
    answers
}

/// The status line and the begin of the body.
fn ask(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: String = body.chars().take(SHOWN_CHARACTERS).collect();
    Ok(format!("{status}: {}", body.replace(['\r', '\n'], " ")))
}

/// Each file once, without what every program misses.
fn denied(events: &[Event]) -> Vec<Denied> {
    let mut found: Vec<Denied> = Vec::new();
    for event in events {
        let Event::Denied {
            path,
            writes,
            error,
        } = event
        else {
            continue;
        };
        let is_library = path.ends_with(".so") || path.contains(".so.");
        let is_noise = is_library
            || !path.starts_with('/')
            || NOISE.iter().any(|start| path.starts_with(start));
        if is_noise || found.iter().any(|known| known.path == *path) {
            continue;
        }
        let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
        let missing = folder.ancestors().filter(|folder| !folder.exists()).last();
        let help = match (missing, *error) {
            (Some(folder), _) => format!("there is no folder {}", folder.display()),
            (None, libc::EACCES | libc::EPERM) => rights(path),
            (None, _) => String::new(),
        };
        let why = io::Error::from(Errno::from_raw_os_error(*error)).to_string();
        found.push(Denied {
            path: path.clone(),
            writes: *writes,
            why,
            help,
        });
    }
    found
}

/// Who may do what with the file, or with the folder that it would stand in.
fn rights(path: &str) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let place = Path::new(path).ancestors().find_map(|place| {
        let metadata = std::fs::metadata(place).ok()?;
        Some((PathBuf::from(place), metadata))
    });
    place.map_or(String::new(), |(place, metadata)| {
        let mode = metadata.mode() & 0o7777;
        format!(
            "{} belongs to user {} and has mode {mode:04o}",
            place.display(),
            metadata.uid()
        )
    })
}

fn unreachable(
    events: &[Event],
    hanging: &BTreeMap<SocketAddr, (Instant, Instant)>,
) -> Vec<Unreachable> {
    let mut found: Vec<Unreachable> = Vec::new();
    for event in events {
        let Event::Connected {
            address,
            waited,
            error,
        } = event
        else {
            continue;
        };
        // It goes on by itself; what came of it is seen from outside.
        if matches!(*error, 0 | libc::EINPROGRESS | libc::EALREADY) {
            continue;
        }
        let address = address.to_string();
        if found.iter().all(|known| known.address != address) {
            let why = io::Error::from(Errno::from_raw_os_error(*error)).to_string();
            let waited_seconds = waited.as_secs_f64();
            found.push(Unreachable {
                address,
                waited_seconds,
                why,
            });
        }
    }
    for (address, (since, until)) in hanging {
        let waited = *until - *since;
        let address = address.to_string();
        if waited >= HANGING && found.iter().all(|known| known.address != address) {
            let why = "no answer: it waits".to_owned();
            let waited_seconds = waited.as_secs_f64();
            found.push(Unreachable {
                address,
                waited_seconds,
                why,
            });
        }
    }
    found
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.ended {
            Some(how) => writeln!(f, "ended     by itself: {how}")?,
            None => writeln!(f, "ended     not by itself")?,
        }
        for line in &self.last_lines {
            writeln!(f, "          it wrote: {line}")?;
        }
        for Denied {
            path,
            writes,
            why,
            help,
        } in &self.files
        {
            let what = if *writes { "write" } else { "read" };
            writeln!(f, "file      cannot {what} {path}: {why}")?;
            if !help.is_empty() {
                writeln!(f, "          {help}")?;
            }
        }
        for port in &self.ports {
            writeln!(f, "port      listens on {port}")?;
        }
        for Unreachable {
            address,
            waited_seconds,
            why,
        } in &self.unreachable
        {
            writeln!(
                f,
                "network   cannot reach {address}: {why} ({waited_seconds:.1} s)"
            )?;
        }
        if let Some((first, last, seconds)) = self.memory {
            let (first, last) = (first >> 20, last >> 20);
            writeln!(
                f,
                "memory    {first} MiB at first, {last} MiB after {seconds:.0} s"
            )?;
        }
        for (asked, answer) in &self.answers {
            writeln!(f, "answer    {asked}: {answer}")?;
        }
        for text in &self.texts {
            writeln!(f, "text      {text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_sockets_are_read_as_the_kernel_writes_them() {
        assert_eq!(
            end_of("0100007F:1F90"),
            Some("127.0.0.1:8080".parse().unwrap())
        );
        let six = "00000000000000000000000001000000:0050";
        assert_eq!(end_of(six), Some("[::1]:80".parse().unwrap()));
        assert_eq!(end_of("x"), None);
    }

    #[test]
    fn a_file_is_told_once_with_what_is_missing_for_it_and_noise_is_not() {
        let event = |path: &str| Event::Denied {
            path: path.to_owned(),
            writes: true,
            error: libc::ENOENT,
        };
        let found = denied(&[
            event("/no-such/a/main.log"),
            event("/no-such/a/main.log"),
            event("/usr/lib/x"),
            event("/elsewhere/x.so.6"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].help, "there is no folder /no-such");
    }

    #[test]
    fn an_address_that_only_takes_its_time_is_not_told() {
        let (now, address) = (Instant::now(), "192.0.2.1:80".parse().unwrap());
        let refused = |error| Event::Connected {
            address,
            waited: Duration::ZERO,
            error,
        };
        let none = BTreeMap::new();
        assert!(unreachable(&[refused(libc::EINPROGRESS)], &none).is_empty());
        assert_eq!(
            unreachable(
                &[refused(libc::ENETUNREACH), refused(libc::ENETUNREACH)],
                &none
            )
            .len(),
            1
        );
        let short = BTreeMap::from([(address, (now, now))]);
        assert!(unreachable(&[], &short).is_empty());
        let long = BTreeMap::from([(address, (now, now + HANGING))]);
        assert_eq!(unreachable(&[], &long)[0].why, "no answer: it waits");
    }
}
