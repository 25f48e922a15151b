//! Running the binary: to its end, or as a node that serves on a free port. Nothing of this process's
//! own `BINGO_…` environment is passed on.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use acceptance::signals::{self, Signal, wait_until};

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A folder of a test, removed at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let base =
            std::env::var_os("BINGO_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = base.join(format!("bingo-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Runs a copy of the binary, in this folder, as the user `nobody`. Only root can.
    pub(crate) fn bingo_as_nobody(&self, arguments: &[&str]) -> Finished {
        const NOBODY: u32 = 65_534;
        let binary = self.path("bingo");
        std::fs::copy(env!("CARGO_BIN_EXE_bingo"), &binary).unwrap();
        let mut command = Command::new(binary);
        command.args(arguments).uid(NOBODY).gid(NOBODY).env_clear();
        Finished::of(&mut command)
    }

    /// Writes a file and returns its path as text.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

pub(crate) fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bingo"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BINGO_") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) fn bingo(arguments: &[&str]) -> Finished {
    bingo_with(arguments, &[])
}

pub(crate) fn bingo_with(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    Finished::of(&mut command(arguments, environment))
}

/// A node that serves; dropped, it is killed.
pub(crate) struct Node {
    child: Child,
    /// What it printed until it served.
    pub(crate) greeting: String,
    pub(crate) url: String,
    stderr: Option<JoinHandle<String>>,
}

impl Node {
    /// `run_server` on a free port; returns when it has printed where it listens.
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut all = vec!["run_server", "--allow-root", "--listen", "127.0.0.1:0"];
        all.extend(arguments);
        let mut child = command(&all, environment).spawn().unwrap();
        let mut errors = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = String::new();
        let address = loop {
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap() == 0 {
                panic!("it ended: {}", stderr.join().unwrap());
            }
            greeting.push_str(&line);
            if let Some(rest) = line.strip_prefix("listening on ") {
                break rest.split(',').next().unwrap().to_owned();
            }
        };
        Self {
            child,
            greeting,
            url: format!("http://{address}"),
            stderr: Some(stderr),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signals::kill(&signals::process(self.child.id()).unwrap(), signal).unwrap();
    }

    /// Its arguments as every user of the machine sees them.
    pub(crate) fn arguments(&self) -> String {
        arguments_of(self.child.id())
    }

    /// SIGTERM, and its exit code and stderr.
    pub(crate) fn end(mut self) -> (i32, String) {
        self.signal(Signal::Terminate);
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let stderr = self.stderr.take().map(|thread| thread.join().unwrap());
        (code, stderr.unwrap_or_default())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn arguments_of(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

pub(crate) async fn wait_for_text(path: &Path, text: &str) {
    let what = format!("{text} stands in {}", path.display());
    wait_until(&what, SOON, async || {
        std::fs::read_to_string(path).is_ok_and(|found| found.contains(text))
    })
    .await
    .unwrap();
}
