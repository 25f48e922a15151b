//! Writing a command's own output to stdout. A closed pipe (`bingo status | head -1`) ends the
//! command quietly, as people expect of a command-line tool.

use std::io::{ErrorKind, Write};

use chassis::{Exit, Failure};

/// Writes text as it is.
pub(crate) fn text(text: &str) -> Result<Exit, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::run_time(
            "write to stdout",
            error,
            "free the disk or the pipe behind it",
        )),
        _ => Ok(Exit::Done),
    }
}

/// Writes one line.
pub(crate) fn line(line: &str) -> Result<Exit, Failure> {
    text(&format!("{line}\n"))
}

/// Writes a value as indented JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<Exit, Failure> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::run_time("write JSON", error, String::new()))?;
    line(&json)
}

/// Asks on the terminal; without one the answer is no.
pub(crate) fn confirm(question: &str) -> bool {
    use std::io::IsTerminal;
    if !std::io::stdin().is_terminal() {
        return false;
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && answer.trim().eq_ignore_ascii_case("y")
}
