//! `bingo restart NAME`, `bingo rollout`, and `bingo up` with another program than the one that runs:
//! processes anew, one at a time, each behind a successor that is up and healthy where it can stand
//! beside the old one. The supervisor does it and decides when; this asks and waits. The supervisor
//! itself becomes the other program, as the same process, before the others: who replaces them then
//! knows what the new program knows.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chassis::{Exit, Failure};
use supervisor::control::Client;
use supervisor::{ControlError, ProcessState, ProcessStatus, Status};

use crate::layout::{Layout, write_file};
use crate::status::{self, Record};
use crate::{access, account, generate};

const POLL: Duration = Duration::from_millis(20);

/// How to wait.
#[derive(Clone, Copy)]
pub struct Waiting<'a> {
    pub layout: &'a Layout,
    /// For each process, from its turn until its successor is healthy.
    pub timeout: Duration,
}

impl Waiting<'_> {
    /// Replaces one process; returns when the new one is healthy and in its place. The old one may
    /// still finish what it has.
    pub fn restart(&self, name: &str) -> Result<(), Failure> {
        let attempted = format!("restart {name}");
        let status = self.status(&attempted)?;
        let Some(before) = status.process(name) else {
            let names = status.processes.iter().map(|process| process.name.as_str());
            let help = format!(
                "the processes are: {}",
                names.collect::<Vec<_>>().join(", ")
            );
            let why = format!("there is no process `{name}`");
            return Err(Failure::new(Exit::Usage, attempted, why, help));
        };
        let asked = self.client().restart(name);
        asked.map_err(|error| self.refused(&attempted, &error))?;
        self.wait(&attempted, before)
    }

    /// Replaces one process by one of another program, and writes that down. Where the new one does not
    /// get healthy the old one stays, and so does what is written.
    pub fn restart_with(&self, name: &str, binary: &Path) -> Result<(), Failure> {
        let attempted = format!("restart {name} with {}", binary.display());
        self.check_program(&attempted, binary)?;
        let path = self.layout.supervisor_config();
        let before = std::fs::read_to_string(&path)
            .map_err(|error| unwritable(&attempted, &path, &error))?;
        let mut config = supervisor::Config::read(&path)?;
        let mut all = config.processes.iter_mut();
        let entry = all.find(|process| process.name == name);
        let program = entry.and_then(|entry| entry.command.first_mut());
        let text = binary.display().to_string();
        let Some(program) = program.filter(|program| **program != text) else {
            return self.restart(name);
        };
        *program = text;
        let status = self.status(&attempted)?;
        generate::write(&path, &chassis::config::to_yaml(&config)?)?;
        let asked = self.client().reload();
        let done = asked
            .map_err(|error| self.refused(&attempted, &error))
            .and_then(|_| match status.process(name) {
                // A job runs when it is due.
                Some(process) if process.pid.is_some() => self.wait(&attempted, process),
                _ => Ok(()),
            });
        if done.is_err() {
            write_file(&path, 0o644, &before)
                .map_err(|error| unwritable(&attempted, &path, &error))?;
        }
        done
    }

    /// Replaces the supervisor and every node and gateway that runs another program than `binary`; tells
    /// `done` of each.
    pub(crate) fn upgrade(&self, binary: &Path, mut done: impl FnMut(&str)) -> Result<(), Failure> {
        self.upgrade_supervisor(binary, &mut done)?;
        let status = self.status("upgrade the processes that run")?;
        // A program that is not ours has its own versions: `bingo restart --binary`.
        let record = Record::read(self.layout);
        let ours: &[&str] = match record.and_then(|record| record.options.exec) {
            Some(_) => &["gateway"],
            None => &["node", "gateway"],
        };
        let others: Vec<&ProcessStatus> = status
            .processes
            .iter()
            .filter(|process| ours.contains(&process.role.as_str()))
            .filter(|process| process.pid.is_some_and(|pid| runs_another(pid, binary)))
            .collect();
        for process in &others {
            self.restart_with(&process.name, binary)?;
            done(&process.name);
        }
        let jobs = status
            .processes
            .iter()
            .filter(|process| process.role == "job");
        for job in jobs.filter(|_| !others.is_empty()) {
            self.change_job(&job.name, binary)?;
        }
        Ok(())
    }

    fn upgrade_supervisor(
        &self,
        binary: &Path,
        done: &mut impl FnMut(&str),
    ) -> Result<(), Failure> {
        let attempted = "upgrade the supervisor";
        let status = self.status(attempted)?;
        let own = status.supervisor();
        let Some((own, pid)) = own.and_then(|own| Some((own, own.pid?))) else {
            return Ok(());
        };
        if !runs_another(pid, binary) {
            return Ok(());
        }
        // The others are to run it next.
        self.check_program(attempted, binary)?;
        let asked = self.client().upgrade(binary);
        asked.map_err(|error| self.refused(attempted, &error))?;
        let deadline = Instant::now() + self.timeout;
        while runs_another(pid, binary) || self.status(attempted).is_err() {
            if Instant::now() >= deadline {
                let why = "it waits for a replacement that is under way";
                let help = format!("bingo status --dir {}", self.layout.root().display());
                return Err(Failure::run_time(attempted, why, help));
            }
            std::thread::sleep(POLL);
        }
        done(&own.name);
        Ok(())
    }

    /// A job that is done runs the new program when it runs again; nothing is waited for.
    fn change_job(&self, name: &str, binary: &Path) -> Result<(), Failure> {
        let path = self.layout.supervisor_config();
        let mut config = supervisor::Config::read(&path)?;
        let mut all = config.processes.iter_mut();
        let entry = all.find(|process| process.name == name);
        if let Some(program) = entry.and_then(|entry| entry.command.first_mut()) {
            *program = binary.display().to_string();
        }
        generate::write(&path, &chassis::config::to_yaml(&config)?)?;
        let asked = self.client().reload();
        asked
            .map(drop)
            .map_err(|error| self.refused("upgrade the processes that run", &error))
    }

    /// Whether the children's account can start it at all.
    fn check_program(&self, attempted: &str, binary: &Path) -> Result<(), Failure> {
        let wrong = |why: String, help: String| Failure::configuration(attempted, why, help);
        if !binary.is_absolute() || !binary.is_file() {
            let why = format!("{} is no file", binary.display());
            return Err(wrong(why, "name a program by its full path".to_owned()));
        }
        let user = Record::read(self.layout).and_then(|record| record.options.user);
        let account = account::of(user.as_deref())?;
        let folder = binary.parent().unwrap_or(binary);
        match access::first_closed(folder, &account) {
            Some(closed) => Err(wrong(
                format!("{} cannot pass {}", account.name, closed.display()),
                format!("chmod o+x {}", closed.display()),
            )),
            None => Ok(()),
        }
    }

    /// Replaces all processes of a role, one after the other; tells `done` of each. Ends at the first
    /// that fails: the others stay as they are.
    pub fn rollout(&self, role: &str, mut done: impl FnMut(&str)) -> Result<(), Failure> {
        let status = self.status("roll all out")?;
        let all = status
            .processes
            .iter()
            .filter(|process| process.role == role);
        for process in all {
            self.restart(&process.name)?;
            done(&process.name);
        }
        Ok(())
    }

    fn wait(&self, attempted: &str, before: &ProcessStatus) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timeout;
        let help = format!(
            "bingo status --dir {}, and its log",
            self.layout.root().display()
        );
        loop {
            let status = self.status(attempted)?;
            let Some(now) = status.process(&before.name) else {
                let why = "it was taken away meanwhile";
                return Err(Failure::run_time(attempted, why, help));
            };
            if now.state == ProcessState::Healthy && now.pid != before.pid {
                return Ok(());
            }
            let reason = now.reason.as_deref().unwrap_or_default();
            let failed = now.pid == before.pid && reason.starts_with("its successor failed");
            if failed || now.state == ProcessState::Failed || Instant::now() >= deadline {
                return Err(Failure::run_time(attempted, status::one_line(now), help));
            }
            std::thread::sleep(POLL);
        }
    }

    fn client(&self) -> Client {
        Client::new(self.layout.control_socket())
    }

    fn status(&self, attempted: &str) -> Result<Status, Failure> {
        let status = self.client().status();
        status.map_err(|error| self.refused(attempted, &error))
    }

    fn refused(&self, attempted: &str, error: &ControlError) -> Failure {
        let dir = self.layout.root().display();
        match error {
            error if status::is_forbidden(error) => status::forbidden(self.layout),
            ControlError::NotRunning { .. } => Failure::new(
                Exit::NotRunning,
                attempted,
                format!("no supervisor runs in {dir}"),
                format!("bingo up --dir {dir}"),
            ),
            ControlError::Refused { why } => {
                Failure::run_time(attempted, why, format!("bingo status --dir {dir}"))
            }
            error => Failure::run_time(attempted, chassis::failure::chain(error), "try again"),
        }
    }
}

fn unwritable(attempted: &str, path: &Path, error: &io::Error) -> Failure {
    let help = "run as the user who started the installation";
    Failure::run_time(attempted, format!("{}: {error}", path.display()), help)
}

/// Whether a process runs another program than `binary`, by content: the same one may lie in two
/// places, and another one may have been put in the place of the one that runs. No where that cannot
/// be told.
fn runs_another(pid: u32, binary: &Path) -> bool {
    let running = PathBuf::from(format!("/proc/{pid}/exe"));
    let identity = |path: &Path| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.dev(), data.ino(), data.len()))
    };
    match (identity(&running), identity(binary)) {
        (Some(one), Some(other)) if one == other => false,
        (Some((.., one)), Some((.., other))) if one != other => true,
        (Some(_), Some(_)) => !is_same_content(&running, binary).unwrap_or(true),
        _ => false,
    }
}

fn is_same_content(one: &Path, other: &Path) -> io::Result<bool> {
    const PIECE: usize = 1 << 20;
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let mut pieces = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    loop {
        pieces.0.clear();
        pieces.1.clear();
        let read = one.by_ref().take(PIECE as u64).read_to_end(&mut pieces.0)?;
        other
            .by_ref()
            .take(PIECE as u64)
            .read_to_end(&mut pieces.1)?;
        if pieces.0 != pieces.1 {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_apart_by_their_content() {
        let own = std::process::id();
        let binary = std::env::current_exe().unwrap();
        assert!(!runs_another(own, &binary));
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy");
        std::fs::copy(&binary, &copy).unwrap();
        assert!(!runs_another(own, &copy));
        let mut bytes = std::fs::read(&copy).unwrap();
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        std::fs::write(&copy, &bytes).unwrap();
        assert!(runs_another(own, &copy));
        std::fs::write(&copy, "short").unwrap();
        assert!(runs_another(own, &copy));
        assert!(!runs_another(own, &folder.path().join("none")));
    }
}
