//! Log files on disk: their old ones, the last lines of one, and the rotation of a file that a child
//! writes by itself. Such a file is renamed where the child opens it anew on a signal, and copied
//! away and cut where it does not: lines written between the two steps are lost, which is the price.
//! (What a child writes to stdout and stderr goes through its scribe, which loses none.)

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::config::Logs;

const LINES_MAX: usize = 20;
const LINE_CHARACTERS_MAX: usize = 300;
/// Old files that a lowered limit leaves behind are looked for up to this number.
const OLD_MAX: u32 = 1000;

/// How a file that is due makes room for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Way {
    Rename,
    CopyAndCut,
}

/// Whether a file is longer or older than the limits allow; false where there is none. Blocks as
/// long as its disk does.
pub(crate) fn is_due(path: &Path, limits: &Logs) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(data) => Ok(data.is_file() && is_over(path, &data, limits)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_over(path: &Path, data: &Metadata, limits: &Logs) -> bool {
    // A child that does not append leaves a hole where a cut file was: what counts is what is there.
    let bytes = data.len().min(data.blocks() * 512);
    // A file that is copied and cut never gets a new birth: its last copy tells how old it is.
    let copied = std::fs::metadata(old(path, 1)).and_then(|data| data.modified());
    let born = data.created().or_else(|_| data.modified());
    let begun = copied.ok().max(born.ok());
    let age = begun.and_then(|begun| SystemTime::now().duration_since(begun).ok());
    bytes > limits.file_bytes_max || bytes > 0 && age >= Some(limits.file_age_max)
}

/// Rotates a file. Must run with the rights of the one whose file it is: whoever may write in a
/// folder can put a link in place of the file.
pub(crate) fn rotate(path: &Path, limits: &Logs, way: Way) -> io::Result<()> {
    let kept = limits.files_max.saturating_sub(1).max(1);
    shift(path, kept)?;
    match way {
        Way::Rename => std::fs::rename(path, old(path, 1))?,
        Way::CopyAndCut => copy_and_cut(path, limits.file_bytes_max)?,
    }
    remove_beyond(path, kept);
    Ok(())
}

fn copy_and_cut(path: &Path, bytes_max: u64) -> io::Result<()> {
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    let source = File::options()
        .read(true)
        .write(true)
        .custom_flags(no_link)
        .open(path)?;
    let mode = source.metadata()?.mode() & 0o7777;
    let mut target = OpenOptions::new();
    target.create(true).write(true).truncate(true);
    let mut target = target.mode(mode).custom_flags(no_link).open(old(path, 1))?;
    // A file that is all hole has no data to find.
    if rustix::fs::seek(&source, rustix::fs::SeekFrom::Data(0)).is_ok() {
        // Bounded, so that a child that writes faster than we copy cannot keep us here.
        io::copy(
            &mut (&source).take(bytes_max.saturating_mul(2)),
            &mut target,
        )?;
    }
    source.set_len(0)
}

/// Moves the old files on by one: `.1` becomes free, the last one is overwritten.
pub(crate) fn shift(path: &Path, kept: u32) -> io::Result<()> {
    for number in (1..kept).rev() {
        match std::fs::rename(old(path, number), old(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes the old files after number `kept`, which a higher limit once allowed.
pub(crate) fn remove_beyond(path: &Path, kept: u32) {
    for number in kept + 1..OLD_MAX {
        if std::fs::remove_file(old(path, number)).is_err() {
            return;
        }
    }
}

/// `node-1.log.2`: the second newest of the old ones.
pub(crate) fn old(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// The last lines of the end of an output: at most 20, the newest last. Of an end that `is_cut` the
/// first line most likely lacks its beginning and is left out.
pub(crate) fn lines_of_tail(text: &str, is_cut: bool) -> Vec<String> {
    let text = match text.split_once('\n') {
        Some((_, rest)) if is_cut => rest,
        _ => text,
    };
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.chars().take(LINE_CHARACTERS_MAX).collect())
        .collect();
    let skipped = lines.len().saturating_sub(LINES_MAX);
    lines.into_iter().skip(skipped).collect()
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    fn limits() -> Logs {
        Logs {
            file_bytes_max: 9,
            files_max: 4,
            ..Logs::default()
        }
    }

    fn append(path: &Path) -> File {
        File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
    }

    #[test]
    fn a_full_log_is_copied_away_and_its_writer_goes_on_at_the_new_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.log");
        let mut file = append(&path);
        for round in 0..6 {
            writeln!(file, "{round}23456789").unwrap();
            assert!(is_due(&path, &limits()).unwrap());
            rotate(&path, &limits(), Way::CopyAndCut).unwrap();
        }
        assert!(!is_due(&path, &limits()).unwrap());
        writeln!(file, "end").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "end\n");
        for (number, round) in [(1, 5), (2, 4), (3, 3)] {
            let text = std::fs::read_to_string(old(&path, number)).unwrap();
            assert_eq!(text, format!("{round}23456789\n"));
        }
        assert!(!old(&path, 4).exists());
    }

    #[test]
    fn a_hole_that_a_writer_leaves_is_neither_counted_nor_copied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.log");
        let mut file = File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(1 << 30)).unwrap();
        writeln!(file, "after a hole").unwrap();
        let limits = Logs {
            file_bytes_max: 1 << 20,
            ..Logs::default()
        };
        assert!(!is_due(&path, &limits).unwrap());
        rotate(&path, &limits, Way::CopyAndCut).unwrap();
        assert!(std::fs::metadata(old(&path, 1)).unwrap().len() < 1 << 20);
    }

    #[test]
    fn an_old_log_is_due_until_it_was_copied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.log");
        writeln!(append(&path), "line").unwrap();
        let limits = |age| Logs {
            file_age_max: age,
            ..Logs::default()
        };
        assert!(is_due(&path, &limits(Duration::ZERO)).unwrap());
        assert!(!is_due(&path, &limits(Duration::from_secs(60))).unwrap());
        rotate(&path, &limits(Duration::ZERO), Way::CopyAndCut).unwrap();
        assert!(!is_due(&path, &limits(Duration::ZERO)).unwrap(), "empty");
    }

    #[test]
    fn a_link_in_place_of_a_log_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let [path, secret] = ["main.log", "secret"].map(|name| folder.path().join(name));
        std::fs::write(&secret, "0123456789").unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert!(!is_due(&path, &limits()).unwrap());
        rotate(&path, &limits(), Way::CopyAndCut).unwrap_err();
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "0123456789");
    }

    #[test]
    fn a_lowered_limit_removes_what_a_higher_one_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.log");
        for number in 1..6 {
            std::fs::write(old(&path, number), "old").unwrap();
        }
        std::fs::write(&path, "0123456789").unwrap();
        let limits = Logs {
            files_max: 2,
            ..limits()
        };
        rotate(&path, &limits, Way::Rename).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_line_that_explains_an_end_is_the_error_not_its_help() {
        let lines = lines_of_tail("one\nerror: two: why\n\nhelp: three\n", false);
        assert_eq!(lines.len(), 3);
        assert_eq!(telling_line(&lines).unwrap(), "error: two: why");
        assert_eq!(telling_line(&lines[..1]).unwrap(), "one");
    }

    #[test]
    fn a_flood_leaves_the_last_twenty_lines() {
        let text: String = (0..5000).map(|number| format!("line {number}\n")).collect();
        let lines = lines_of_tail(&text, true);
        assert_eq!(lines.len(), 20);
        assert_eq!(lines[19], "line 4999");
        assert_eq!(lines_of_tail("alf\nwhole\n", true), ["whole"]);
    }
}
