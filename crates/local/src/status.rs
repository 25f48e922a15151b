//! `bingo status`: the installation as a whole, from the supervisor where it answers, and from its
//! last record where it does not.

use std::path::PathBuf;

use chassis::{Exit, Failure};
use serde::{Deserialize, Serialize};
use supervisor::{ControlError, ProcessState, ProcessStatus, Status};

use crate::generate::Ports;
use crate::layout::Layout;
use crate::options::Options;

/// State of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Starting,
    Ready,
    Degraded,
    Stopped,
}

impl State {
    /// The exit code of `bingo status` (interfaces.md "Settings").
    pub fn exit(self) -> Exit {
        match self {
            State::Ready => Exit::Done,
            State::Starting | State::Degraded => Exit::Failed,
            State::Stopped => Exit::NotRunning,
        }
    }
}

/// Where clients and people find things.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urls {
    pub http: Option<String>,
    pub https: Option<String>,
    pub dashboard: Option<String>,
    /// One per gateway.
    pub metrics: Vec<String>,
}

/// What `bingo status --json` prints (interfaces.md).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Installation {
    pub state: State,
    /// Why it is not ready; empty when it is.
    pub reasons: Vec<String>,
    pub urls: Urls,
    pub ca_certificate: Option<String>,
    pub postgres_url: Option<String>,
    pub processes: Vec<ProcessStatus>,
    /// Work that runs once, such as filling the database.
    pub jobs: Vec<ProcessStatus>,
    /// What this machine cannot do for them.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The record of an installation, `config/installation.yaml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub options: Options,
    pub ports: Ports,
    /// Without any secret.
    pub postgres_url: String,
    /// The log file that nodes write beside their stderr, where its folder is there.
    #[serde(default)]
    pub node_log: Option<PathBuf>,
}

impl Record {
    /// `None` where there is no installation or its record cannot be read.
    pub fn read(layout: &Layout) -> Option<Self> {
        let text = std::fs::read_to_string(layout.installation()).ok()?;
        chassis::config::from_yaml("installation.yaml", &text).ok()
    }

    /// The live page is for this machine alone, whatever the service is bound to.
    fn dashboard(&self) -> Option<String> {
        let port = self.options.admin_port;
        (port != 0).then(|| format!("http://localhost:{port}/dashboard"))
    }

    fn urls(&self) -> Urls {
        let url = |scheme: &str, port| Some(format!("{scheme}://{}:{port}", self.options.host()?));
        let https_port = self.options.https_port;
        let metrics = self.ports.gateway_admins.iter();
        Urls {
            http: url("http", self.options.http_port),
            https: url("https", https_port).filter(|_| https_port != 0),
            dashboard: self.dashboard(),
            metrics: metrics
                .map(|port| format!("http://127.0.0.1:{port}/metrics"))
                .collect(),
        }
    }
}

/// The state of the installation in the folder, now.
pub fn read(layout: &Layout) -> Installation {
    let answer = supervisor::control::Client::new(layout.control_socket()).status();
    let (status, supervised) = match answer {
        Ok(status) => (Some(status), true),
        // Another user may read the record of a supervisor that it may not ask.
        Err(error) if is_forbidden(&error) => {
            let status = last_record(layout);
            let alive = status
                .as_ref()
                .and_then(Status::supervisor)
                .is_some_and(is_alive);
            (status, alive)
        }
        Err(_) => (last_record(layout), false),
    };
    let record = Record::read(layout);
    let mut installation = assemble(status.unwrap_or_default(), supervised, record.as_ref());
    let authority = layout.ca_certificate();
    installation.ca_certificate = authority.exists().then(|| authority.display().to_string());
    installation
}

/// Whether the supervisor is there and this user may not talk to it.
pub(crate) fn is_forbidden(error: &ControlError) -> bool {
    matches!(error, ControlError::NotRunning { source, .. }
        if source.kind() == std::io::ErrorKind::PermissionDenied)
}

/// The failure of a command that must talk to it.
pub(crate) fn forbidden(layout: &Layout) -> Failure {
    Failure::configuration(
        format!("ask the supervisor in {}", layout.root().display()),
        "this user may not",
        "run as root or as the user who started it",
    )
}

/// The supervisor's last record, with the state of each process corrected by what is alive now.
pub fn last_record(layout: &Layout) -> Option<Status> {
    let mut status = Status::read(&layout.state_file())?;
    for process in &mut status.processes {
        let finished = matches!(process.state, ProcessState::Done | ProcessState::Failed);
        if !is_alive(process) && !finished {
            process.state = ProcessState::Stopped;
            process.pid = None;
            process.uptime_seconds = None;
            process.rss_bytes = None;
        }
    }
    Some(status)
}

/// Whether the recorded process is running still: same pid, same start time.
pub(crate) fn is_alive(process: &ProcessStatus) -> bool {
    let identity = process.pid.zip(process.start_time);
    identity.is_some_and(|(pid, start)| supervisor::processes::is_alive(pid, start))
}

/// Name, state and, where there is one, the reason.
pub(crate) fn one_line(process: &ProcessStatus) -> String {
    let mut line = format!("{} is {}", process.name, word(process.state));
    let reason = process
        .reason
        .as_deref()
        .or(process.last_restart_reason.as_deref());
    if let Some(reason) = reason {
        line.push_str(": ");
        line.push_str(reason);
    }
    line
}

fn word(state: ProcessState) -> String {
    format!("{state:?}").to_lowercase()
}

fn assemble(mut status: Status, supervised: bool, record: Option<&Record>) -> Installation {
    let notes = std::mem::take(&mut status.notes);
    let (jobs, processes): (Vec<_>, Vec<_>) = status
        .processes
        .into_iter()
        .partition(|process| process.role == "job");
    let alive = processes.iter().any(|process| process.pid.is_some());
    let (state, reasons) = if supervised {
        judge(&processes, &jobs)
    } else if alive {
        let reason = "the supervisor is gone, its processes go on: `bingo up` starts anew";
        (State::Degraded, vec![reason.to_owned()])
    } else {
        (State::Stopped, Vec::new())
    };
    let urls = record.map(Record::urls).unwrap_or_default();
    let postgres_url = record.map(|record| record.postgres_url.clone());
    Installation {
        state,
        reasons,
        urls,
        ca_certificate: None,
        postgres_url,
        processes,
        jobs,
        notes,
    }
}

/// Ready when everything is healthy; starting while something starts for the first time or a job
/// runs; degraded otherwise.
fn judge(processes: &[ProcessStatus], jobs: &[ProcessStatus]) -> (State, Vec<String>) {
    let unfinished = jobs.iter().filter(|job| job.state != ProcessState::Done);
    let unhealthy = processes
        .iter()
        .filter(|process| process.state != ProcessState::Healthy);
    let late: Vec<&ProcessStatus> = unfinished.chain(unhealthy).collect();
    if late.is_empty() {
        return (State::Ready, Vec::new());
    }
    let first_time = |process: &ProcessStatus| {
        let waits = !process.is_stopped_by_operator()
            && matches!(
                process.state,
                ProcessState::Starting | ProcessState::Stopped
            );
        process.restarts == 0 && waits
    };
    let running_job =
        |process: &ProcessStatus| process.role == "job" && process.state == ProcessState::Healthy;
    let starting = late
        .iter()
        .all(|process| first_time(process) || running_job(process));
    let reasons = late.iter().map(|process| one_line(process)).collect();
    (
        if starting {
            State::Starting
        } else {
            State::Degraded
        },
        reasons,
    )
}

/// The table that `bingo status` prints.
pub fn table(installation: &Installation) -> String {
    let mut text = format!("{:?}\n", installation.state).to_lowercase();
    for reason in &installation.reasons {
        text.push_str(&format!("  {reason}\n"));
    }
    for note in &installation.notes {
        text.push_str(&format!("  note: {note}\n"));
    }
    text.push_str(&format!(
        "{:<12} {:<10} {:<12} {:>8} {:<22} {:>8} {:>9}  {}\n",
        "process", "state", "since", "pid", "listens on", "restarts", "memory", "last restart"
    ));
    for process in installation.processes.iter().chain(&installation.jobs) {
        text.push_str(&row(process));
    }
    for (name, url) in [
        ("service", &installation.urls.http),
        ("", &installation.urls.https),
        ("authority", &installation.ca_certificate),
        ("dashboard", &installation.urls.dashboard),
        ("database", &installation.postgres_url),
    ] {
        if let Some(url) = url {
            text.push_str(&format!("{name:<12} {url}\n"));
        }
    }
    for url in &installation.urls.metrics {
        text.push_str(&format!("{:<12} {url}\n", "metrics"));
    }
    text
}

fn row(process: &ProcessStatus) -> String {
    format!(
        "{:<12} {:<10} {:<12} {:>8} {:<22} {:>8} {:>9}  {}\n",
        process.name,
        word(process.state),
        local_time(&process.since),
        process.pid.map_or("-".to_owned(), |pid| pid.to_string()),
        process.listen.as_deref().unwrap_or("-"),
        process.restarts,
        process
            .rss_bytes
            .map_or("-".to_owned(), |bytes| format!("{} MiB", bytes >> 20)),
        last_column(process),
    )
}

/// In this machine's zone: the time of today, or the day and the minute.
fn local_time(text: &str) -> String {
    let Ok(time) = text.parse::<jiff::Timestamp>() else {
        return "-".to_owned();
    };
    let zoned = time.to_zoned(jiff::tz::TimeZone::system());
    let is_today = zoned.date() == jiff::Zoned::now().date();
    let format = if is_today { "%H:%M:%S" } else { "%b %d %H:%M" };
    zoned.strftime(format).to_string()
}

/// Why it was last restarted, and whether its log is whole.
fn last_column(process: &ProcessStatus) -> String {
    let mut text = process
        .last_restart_reason
        .as_deref()
        .unwrap_or("-")
        .to_owned();
    let dropped = process.log_lines_dropped;
    if dropped > 0 {
        text.push_str(&format!(" ({dropped} lines of its log were dropped)"));
    }
    text
}
