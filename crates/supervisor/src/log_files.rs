//! The log files of children. A child gets the file itself as its stdout and stderr, not a pipe
//! through us: it goes on writing when the supervisor is killed, and a supervisor that is busy
//! delays no child. So a full file is copied away and cut (the child appends, so it goes on at the
//! new end); lines written between the two steps are lost, which is the price.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file beyond this is rotated.
pub(crate) const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Old files kept: `.1` is the newest.
const KEPT: u32 = 3;
/// How much of the end of a file is looked at for a reason.
const TAIL_BYTES: u64 = 8 * 1024;
const LINES_MAX: usize = 20;
const LINE_CHARACTERS_MAX: usize = 300;

/// Opens a log for append, mode 0640, and says how long it is already.
pub(crate) fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::options()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// Moves a file over `bytes_max` away and cuts it. Blocks for the time of a copy.
pub(crate) fn rotate(path: &Path, bytes_max: u64) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(data) if data.len() > bytes_max => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    for number in (1..KEPT).rev() {
        match std::fs::rename(old(path, number), old(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // Bounded, so that a child that writes faster than we copy cannot keep us here.
    let mut source = File::open(path)?.take(bytes_max.saturating_mul(2));
    let mut moved = File::options();
    moved.create(true).write(true).truncate(true).mode(0o640);
    io::copy(&mut source, &mut moved.open(old(path, 1))?)?;
    File::options().write(true).open(path)?.set_len(0)?;
    Ok(true)
}

/// The last lines that were written after the byte `from`: at most 20, the newest last.
pub(crate) fn last_lines(path: &Path, from: u64) -> Vec<String> {
    read_tail(path, from)
        .map(|text| {
            let lines: Vec<String> = text
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(|line| line.chars().take(LINE_CHARACTERS_MAX).collect())
                .collect();
            let skipped = lines.len().saturating_sub(LINES_MAX);
            lines.into_iter().skip(skipped).collect()
        })
        .unwrap_or_default()
}

/// The line that explains an end best: the last one that says `error:` (ours have a line of help
/// below it), `FATAL` (PostgreSQL's) or `panicked` (Rust's), otherwise the last one.
pub(crate) fn telling_line(lines: &[String]) -> Option<String> {
    let says = |words: &[&str]| {
        lines
            .iter()
            .rev()
            .find(|line| words.iter().any(|word| line.contains(word)))
    };
    let line = says(&["error:", "FATAL", "PANIC", "panicked"]).or(lines.last())?;
    Some(line.trim().to_owned())
}

fn read_tail(path: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    // A file shorter than where this run began was rotated meanwhile: all of it is this run's.
    let from = if from > bytes { 0 } else { from };
    let start = from.max(bytes.saturating_sub(TAIL_BYTES));
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    let text = String::from_utf8_lossy(&tail).into_owned();
    if start > from {
        // It most likely begins in the middle of a line.
        return Ok(text
            .split_once('\n')
            .map_or(String::new(), |(_, rest)| rest.to_owned()));
    }
    Ok(text)
}

fn old(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_full_log_is_moved_on_and_its_writer_goes_on_at_the_new_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        let (mut file, _) = open(&path).unwrap();
        for round in 0..6 {
            writeln!(file, "{round}23456789").unwrap();
            assert!(rotate(&path, 9).unwrap());
        }
        assert!(!rotate(&path, 9).unwrap());
        writeln!(file, "end").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "end\n");
        for (number, round) in [(1, 5), (2, 4), (3, 3)] {
            let text = std::fs::read_to_string(old(&path, number)).unwrap();
            assert_eq!(text, format!("{round}23456789\n"));
        }
        assert!(!old(&path, 4).exists());
    }

    #[test]
    fn only_the_lines_of_this_run_explain_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        std::fs::write(&path, "error: of the last run\n").unwrap();
        let (mut file, from) = open(&path).unwrap();
        assert_eq!(last_lines(&path, from), Vec::<String>::new());
        write!(file, "one\nerror: two: why\nhelp: three\n").unwrap();
        let lines = last_lines(&path, from);
        assert_eq!(lines.len(), 3);
        assert_eq!(telling_line(&lines).unwrap(), "error: two: why");
        assert_eq!(telling_line(&lines[..1]).unwrap(), "one");
    }

    #[test]
    fn a_flood_leaves_the_last_twenty_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        let (mut file, from) = open(&path).unwrap();
        for number in 0..5000 {
            writeln!(file, "line {number}").unwrap();
        }
        let lines = last_lines(&path, from);
        assert_eq!(lines.len(), 20);
        assert_eq!(lines[19], "line 4999");
    }
}
