//! Runs one of PostgreSQL's programs to its end: as the right account, with a clean environment, in a
//! folder that the account may read, and with its last words in the error when it fails.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Account, Error};

/// Lines of a failed program's output that go into the error.
const LAST_WORDS: usize = 3;

/// A command that runs as `account` in `folder` with nothing of our environment but a fixed PATH.
pub(crate) fn command(program: &Path, account: &Account, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir(folder);
    if account.must_switch() {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Runs it to its end with `input` on its stdin. The input is not part of any error.
pub(crate) fn run(mut command: Command, account: &Account, input: &str) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |why: String| Error::Program {
        program: program.clone(),
        account: account.name.clone(),
        why,
    };
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    // A few hundred bytes fit the pipe, so this cannot wait for a child that does not read.
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ended before reading says why by its exit and output.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = match output.stderr.is_empty() {
        true => output.stdout,
        false => output.stderr,
    };
    Err(failed(format!("{}: {}", output.status, last_words(&said))))
}

fn last_words(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let start = lines.len().saturating_sub(LAST_WORDS);
    lines.get(start..).unwrap_or_default().join(" | ")
}
