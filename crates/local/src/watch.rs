//! Watching an installation from outside: waiting until it is ready, with a bar while the database
//! is filled, and the live summary of a foreground `bingo up`.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::Child;
use std::time::{Duration, Instant};

use chassis::config::format_duration;
use chassis::{Failure, Shutdown};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use supervisor::ProcessState;

use crate::ask;
use crate::layout::Layout;
use crate::status::{self, Installation, Record, State};
use crate::up::Summary;

const POLL: Duration = Duration::from_millis(50);
/// Of a log's end, for the reason of a failure.
const TAIL_BYTES: usize = 2048;

/// Why an installation did not get ready.
pub enum NotReady {
    /// Something failed for good.
    Failed(Failure),
    /// Not in time; it may still get there.
    TimedOut(Failure),
    Interrupted,
}

impl From<NotReady> for Failure {
    fn from(reason: NotReady) -> Self {
        match reason {
            NotReady::Failed(failure) | NotReady::TimedOut(failure) => failure,
            NotReady::Interrupted => Failure::new(
                chassis::Exit::Interrupted,
                "wait until the installation is ready",
                "interrupted",
                "`bingo status` shows how far it is",
            ),
        }
    }
}

/// How to watch.
pub(crate) struct Watch<'a> {
    pub layout: &'a Layout,
    pub timeout: Duration,
    pub json: bool,
}

impl Watch<'_> {
    /// Waits until every process is healthy and the service answers through the gateway; then prints
    /// where everything is. `supervisor` is the child that was started, if this call started one.
    pub(crate) fn until_ready(
        &self,
        shutdown: &Shutdown,
        mut supervisor: Option<&mut Child>,
    ) -> Result<Installation, NotReady> {
        let deadline = Instant::now() + self.timeout;
        let bar = self.bar();
        let mut told = String::new();
        loop {
            let installation = status::read(self.layout);
            if installation.state == State::Ready && self.answers() {
                bar.finish_and_clear();
                self.announce(&installation);
                return Ok(installation);
            }
            if let Some(failure) = self.failure(&installation, supervisor.as_deref_mut()) {
                bar.finish_and_clear();
                return Err(NotReady::Failed(failure));
            }
            if shutdown.is_requested() {
                bar.finish_and_clear();
                return Err(NotReady::Interrupted);
            }
            if Instant::now() >= deadline {
                bar.finish_and_clear();
                return Err(NotReady::TimedOut(self.timed_out(&installation)));
            }
            self.show(&bar, &installation);
            self.tell(&mut told, &installation);
            std::thread::sleep(POLL);
        }
    }

    /// Shows the live summary until Ctrl-C or until the supervisor ends by itself.
    pub(crate) fn live(
        &self,
        shutdown: &Shutdown,
        supervisor: &mut Child,
        summary: Option<Summary>,
    ) {
        let mut goes_on = || !shutdown.is_requested() && matches!(supervisor.try_wait(), Ok(None));
        if let Some(summary) = summary.filter(|_| !self.json) {
            summary(self.layout, &mut goes_on);
        }
        while goes_on() {
            std::thread::sleep(POLL);
        }
    }

    fn bar(&self) -> ProgressBar {
        if self.json {
            return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        }
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{elapsed:>4} {wide_bar} {pos}/{len} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar
    }

    fn show(&self, bar: &ProgressBar, installation: &Installation) {
        let filling = installation
            .jobs
            .iter()
            .any(|job| job.state != ProcessState::Done);
        let progress = filling.then(|| self.fill_progress()).flatten();
        if let Some((phase, done, total)) = progress {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(phase);
        } else {
            bar.set_message(installation.reasons.first().cloned().unwrap_or_default());
        }
        bar.tick();
    }

    /// Where there is no terminal for the bar: each new reason to wait, once.
    fn tell(&self, told: &mut String, installation: &Installation) {
        if self.json || std::io::stderr().is_terminal() {
            return;
        }
        let Some(reason) = installation
            .reasons
            .first()
            .filter(|reason| *reason != told)
        else {
            return;
        };
        eprintln!("waiting: {reason}");
        told.clone_from(reason);
    }

    /// The last line that `prepare_db` wrote about its progress.
    fn fill_progress(&self) -> Option<(String, u64, u64)> {
        let text = tail(&self.layout.logs().join("prepare_db.log"));
        let line: serde_json::Value = text
            .lines()
            .rev()
            .find_map(|line| serde_json::from_str(line).ok())?;
        let number = |key: &str| line.get(key).and_then(serde_json::Value::as_u64);
        let phase = line.get("phase")?.as_str()?.to_owned();
        Some((phase, number("rows_done")?, number("rows_total")?))
    }

    /// What `prepare_db` found and left alone, from its last line.
    fn fill_warnings(&self) -> Vec<String> {
        let text = tail(&self.layout.logs().join("prepare_db.log"));
        let last = text.lines().last().unwrap_or_default();
        let line: serde_json::Value = serde_json::from_str(last).unwrap_or_default();
        let warnings = line.get("warnings").and_then(serde_json::Value::as_array);
        let warnings = warnings.into_iter().flatten();
        warnings
            .filter_map(|warning| warning.as_str().map(str::to_owned))
            .collect()
    }

    /// Whether the service answers through the gateway.
    fn answers(&self) -> bool {
        let Some(record) = Record::read(self.layout) else {
            return false;
        };
        let Some(ip) = record.options.bind.first() else {
            return false;
        };
        let ip = if ip.is_unspecified() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            *ip
        };
        let address = SocketAddr::new(ip, record.options.http_port);
        // Programs that are not ours know no /ready.
        let path = match record.options.exec {
            Some(_) => "/ping",
            None => "/ready",
        };
        ask::get(address, path).is_ok_and(|answer| answer.status == 200)
    }

    fn failure(&self, now: &Installation, supervisor: Option<&mut Child>) -> Option<Failure> {
        let attempted = format!("start the installation in {}", self.layout.root().display());
        let mut all = now.jobs.iter().chain(&now.processes);
        if let Some(failed) = all.find(|process| process.state == ProcessState::Failed) {
            let log = self.layout.logs().join(format!("{}.log", failed.name));
            let why = format!("{}\n{}", status::one_line(failed), last_lines(&tail(&log)));
            let failure = Failure::run_time(attempted, why.trim_end(), read_log(&log));
            let exit = failed.last_exit.as_deref().unwrap_or_default();
            return Some(of_exit(failure, exit.starts_with("exit 64")));
        }
        let Some(supervisor) = supervisor else {
            if let Some(held) = now.processes.iter().find(|p| p.is_stopped_by_operator()) {
                let help = format!("bingo start {}", held.name);
                return Some(Failure::run_time(attempted, status::one_line(held), help));
            }
            let stopped = now.state == State::Stopped;
            return stopped
                .then(|| Failure::run_time(attempted, "it was stopped meanwhile", "try again"));
        };
        let exited = supervisor.try_wait().ok().flatten()?;
        let log = self.layout.logs().join("supervisor.log");
        let why = format!(
            "the supervisor ended ({exited})\n{}",
            last_lines(&tail(&log))
        );
        let failure = Failure::run_time(attempted.clone(), why.trim_end(), read_log(&log));
        Some(of_exit(
            failure,
            exited.code() == Some(chassis::Exit::Configuration as i32),
        ))
    }

    fn timed_out(&self, installation: &Installation) -> Failure {
        let why = match installation.reasons.as_slice() {
            [] => "no node answers through the gateway".to_owned(),
            reasons => reasons.join("; "),
        };
        Failure::run_time(
            format!("get ready within {}", format_duration(self.timeout)),
            why,
            format!(
                "it goes on: see `bingo status --dir {}` and the logs in {}",
                self.layout.root().display(),
                self.layout.logs().display()
            ),
        )
    }

    fn announce(&self, installation: &Installation) {
        if self.json {
            say(&format!(
                "{}\n",
                serde_json::to_string(installation).unwrap_or_default()
            ));
            return;
        }
        for warning in self.fill_warnings() {
            eprintln!("warning: {warning}");
        }
        say(&status::table(installation));
        if let Some(http) = &installation.urls.http {
            say(&format!("\nready; try: curl {http}/api/movie/1\n"));
            if let (Some(https), Some(authority)) =
                (&installation.urls.https, &installation.ca_certificate)
            {
                say(&format!(
                    "        or: curl --cacert {authority} {https}/api/movie/1\n"
                ));
            }
        }
    }
}

/// Writes to stdout; a closed pipe must not end a start that went well.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Exit 64 where a child said that its configuration or environment is wrong.
fn of_exit(failure: Failure, is_configuration: bool) -> Failure {
    if is_configuration {
        let exit = chassis::Exit::Configuration;
        return Failure { exit, ..failure };
    }
    failure
}

fn read_log(path: &std::path::Path) -> String {
    format!("read {}", path.display())
}

fn tail(path: &std::path::Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let start = bytes.len().saturating_sub(TAIL_BYTES);
    String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines
        .into_iter()
        .rev()
        .map(|line| format!("  | {line}\n"))
        .collect()
}
