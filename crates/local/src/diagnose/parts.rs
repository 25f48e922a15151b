//! What an archive is made of: one entry for each file, each got by itself.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use supervisor::{ProcessStatus, Status};

use super::Part;
use crate::layout::Layout;
use crate::status::{self, Record};
use crate::{ask, doctor};

/// Of each log so much is read: its end.
const LOG_BYTES_MAX: u64 = 256 * 1024;
/// Of each file of events.
const EVENT_BYTES_MAX: u64 = 1024 * 1024;
/// Files of logs that are packed; an installation has some ten.
const LOGS_MAX: usize = 100;
/// How deep folders of logs are looked into.
const DEPTH_MAX: usize = 3;
/// What is kept of this machine's state.
const MACHINE: [&str; 7] = [
    "/proc/version",
    "/proc/loadavg",
    "/proc/uptime",
    "/proc/meminfo",
    "/proc/pressure/cpu",
    "/proc/pressure/memory",
    "/proc/self/cgroup",
];

/// Everything that can be got without the database.
pub(super) fn of(layout: &Layout) -> Vec<Part> {
    let own = layout.clone();
    let mut parts = vec![
        Part::new("status.json", move || to_json(&status::read(&own))),
        Part::new("machine.txt", || Ok(machine())),
    ];
    let own = layout.clone();
    parts.push(Part::new("doctor.json", move || examined(&own)));
    let own = layout.clone();
    parts.push(Part::new("run.txt", move || listing(&own.run())));
    let path = layout.installation();
    parts.push(Part::new("installation.json", move || installation(&path)));
    let events = chassis::events::files(&layout.events_file());
    for path in events.into_iter().filter(|path| path.exists()) {
        let name = name_of(layout, &path);
        parts.push(Part::new(name, move || end_of(&path, EVENT_BYTES_MAX)));
    }
    for path in configurations(layout) {
        let name = name_of(layout, &path);
        parts.push(Part::new(name, move || end_of(&path, LOG_BYTES_MAX)));
    }
    let mut logs = Vec::new();
    find_logs(&layout.logs(), DEPTH_MAX, &mut logs);
    for path in logs {
        let name = name_of(layout, &path);
        parts.push(Part::new(name, move || end_of(&path, LOG_BYTES_MAX)));
    }
    // As it was written last: a supervisor that hangs is asked in a part of its own.
    let state = Status::read(&layout.state_file()).unwrap_or_default();
    parts.extend(state.processes.iter().flat_map(of_process));
    parts
}

/// What a process says of itself, and the kernel of it.
fn of_process(process: &ProcessStatus) -> Vec<Part> {
    let mut parts = Vec::new();
    let name = &process.name;
    let url = process.metrics.as_deref();
    let address = url.and_then(|url| url.strip_prefix("http://")?.strip_suffix("/metrics"));
    if let Some(address) = address.and_then(|text| text.parse::<SocketAddr>().ok()) {
        let mut get = |file: String, path: &'static str| {
            parts.push(Part::new(file, move || got(address, path)));
        };
        get(format!("metrics/{name}.txt"), "/metrics");
        if process.role == "gateway" {
            get(format!("gateways/{name}-status.json"), "/api/v1/status");
            get(
                format!("gateways/{name}-quarantine.json"),
                "/api/v1/quarantine",
            );
        }
    }
    if let Some(pid) = process.pid {
        let file = format!("processes/{name}.txt");
        parts.push(Part::new(file, move || Ok(of_kernel(pid))));
    }
    parts
}

fn got(address: SocketAddr, path: &str) -> Result<String, String> {
    let answer = ask::get(address, path).map_err(|error| format!("{address}: {error}"))?;
    match answer.status {
        200 => Ok(answer.body),
        status => Err(format!("{address} answers {status}")),
    }
}

fn of_kernel(pid: u32) -> String {
    let files = ["status", "limits", "wchan", "cgroup", "smaps_rollup"];
    let files = files.map(|file| format!("/proc/{pid}/{file}"));
    texts(files.iter().map(String::as_str))
}

fn machine() -> String {
    let mut text = texts(MACHINE.into_iter());
    let system = rustix::system::uname();
    for part in [system.sysname(), system.release(), system.machine()] {
        text.push_str(&part.to_string_lossy());
        text.push(' ');
    }
    text.push('\n');
    text
}

/// Each with its path above it; those that are not there are left out.
fn texts<'a>(paths: impl Iterator<Item = &'a str>) -> String {
    let mut all = String::new();
    for path in paths {
        if let Ok(text) = std::fs::read_to_string(path) {
            all.push_str(&format!("== {path}\n{text}\n"));
        }
    }
    all
}

fn to_json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(value).map_err(|error| error.to_string())
}

fn installation(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let record: Record = chassis::config::from_yaml("installation.yaml", &text)
        .map_err(|failure| failure.to_string())?;
    to_json(&record)
}

fn examined(layout: &Layout) -> Result<String, String> {
    let record = Record::read(layout).ok_or("the installation's record cannot be read")?;
    to_json(&doctor::examine(&doctor::Subject {
        layout,
        options: &record.options,
        running: true,
    }))
}

/// The files of a folder: mode, owner, size, name; what is in them stays there.
fn listing(folder: &Path) -> Result<String, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    let mut lines: Vec<String> = Vec::new();
    for entry in entries.flatten() {
        if let Ok(file) = entry.metadata() {
            lines.push(format!(
                "{:o} {}:{} {:>10} {}\n",
                file.mode(),
                file.uid(),
                file.gid(),
                file.len(),
                entry.file_name().to_string_lossy()
            ));
        }
    }
    lines.sort();
    Ok(lines.concat())
}

fn configurations(layout: &Layout) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(layout.config()).into_iter().flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "yaml"))
        .collect()
}

/// Not the rotated ones; and no links, which may lead anywhere.
fn find_logs(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        let Ok(kind) = kind else { continue };
        if kind.is_dir() && depth > 1 {
            find_logs(&path, depth - 1, found);
        }
        let is_log = path.extension().is_some_and(|kind| kind == "log");
        if kind.is_file() && is_log && found.len() < LOGS_MAX {
            found.push(path);
        }
    }
}

fn end_of(path: &Path, bytes_max: u64) -> Result<String, String> {
    read_end(path, bytes_max).map_err(|error| error.to_string())
}

fn read_end(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    if length > bytes_max {
        // Half a line may begin with half a secret, which nobody would know as one.
        let line = bytes.iter().position(|byte| *byte == b'\n');
        bytes.drain(..line.map_or(bytes.len(), |at| at + 1));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn name_of(layout: &Layout, path: &Path) -> String {
    let name = path.strip_prefix(layout.root()).unwrap_or(path);
    name.display().to_string()
}
