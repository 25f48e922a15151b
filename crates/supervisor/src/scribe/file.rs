//! The file that a scribe writes: appended to, renamed away when it is too long or too old, opened
//! anew when somebody else moved it. What cannot be written is counted and told in one line once
//! writing works again.
//!
//! Two scribes write one file while a process and its successor run beside each other. Each appends
//! whole lines at once, looks before each write whether the file is still at its path, and rotates it
//! only with the lock on that very file: the one that comes second finds another file there, instead
//! of moving it over the first one's. Nobody waits for the lock: who has it rotates.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::{Dropped, Limits};
use rustix::fs::{FlockOperation, flock};

use crate::log_files::{remove_beyond, shift};

/// How often it is looked whether the file is still the one that its path names.
pub(super) const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    limits: Limits,
    open: Option<Open>,
    /// What could not be written, and why.
    lost: Option<(Dropped, io::Error)>,
    all_lost: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: (u64, u64),
    bytes: u64,
    begun: SystemTime,
    ends_in_mid_line: bool,
    /// The line that is not ended is not ours.
    is_others_line: bool,
}

impl LogFile {
    pub(super) fn new(path: PathBuf, limits: Limits) -> Self {
        Self {
            path,
            limits,
            open: None,
            lost: None,
            all_lost: 0,
        }
    }

    /// Makes the file before there is anything to write, so that whoever looks for it finds it.
    pub(super) fn begin(&mut self) {
        self.open = Open::at(&self.path).ok();
    }

    /// Appends a block of lines; blocks as long as the disk does.
    pub(super) fn write(&mut self, block: &[u8]) {
        if let Err(error) = self.try_write(block) {
            let (lost, why) = self
                .lost
                .get_or_insert_with(|| (Dropped::default(), io::ErrorKind::Other.into()));
            lost.add(block);
            *why = error;
            self.all_lost += Dropped::of(block).lines;
            // It may have been written in part; whether a line is open is seen at the next opening.
            self.open = None;
        }
    }

    /// Lines that could not be written so far.
    pub(super) fn lost_lines(&self) -> u64 {
        self.all_lost
    }

    /// Rotates a file that is too old, and lets go of one that is no longer at its path.
    pub(super) fn look(&mut self) {
        self.follow();
        if self.is_too_old() {
            let _ = self.rotate();
        }
    }

    /// Lets go of a file that is no longer at its path, and sees what another scribe wrote to it.
    fn follow(&mut self) {
        if let Some(open) = &mut self.open {
            if open.is_at(&self.path) {
                open.catch_up();
            } else {
                self.open = None;
            }
        }
    }

    fn is_too_old(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let age = open.begun.elapsed().unwrap_or_default();
            open.bytes > 0 && age >= self.limits.file_age_max
        })
    }

    fn try_write(&mut self, block: &[u8]) -> io::Result<()> {
        self.follow();
        let is_full = self.open.as_ref().is_some_and(|open| {
            open.bytes > 0 && open.bytes + block.len() as u64 > self.limits.file_bytes_max
        });
        if is_full {
            self.rotate()?;
        }
        let note = self.lost.as_ref().map(|(lost, why)| {
            let why = format!("the log file could not be written: {why}");
            lost.note(&why)
        });
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(Open::at(&self.path)?),
        };
        if open.ends_in_mid_line && (note.is_some() || open.is_others_line) {
            open.append(b"\n")?;
        }
        if let Some(note) = note {
            open.append(note.as_bytes())?;
            self.lost = None;
        }
        open.append(block)
    }

    /// `name.log` becomes `name.log.1` and so on; beyond the limit the oldest are removed. Nothing where
    /// another scribe does it just now or has done it.
    fn rotate(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        // Held until `open` is dropped, at the end.
        if flock(&open.file, FlockOperation::NonBlockingLockExclusive).is_err() {
            self.open = Some(open);
            return Ok(());
        }
        if !open.is_at(&self.path) {
            return Ok(());
        }
        let kept = self.limits.files_max.saturating_sub(1);
        shift(&self.path, kept)?;
        if kept == 0 {
            std::fs::remove_file(&self.path)?;
        } else {
            std::fs::rename(&self.path, crate::log_files::old(&self.path, 1))?;
        }
        remove_beyond(&self.path, kept);
        Ok(())
    }
}

impl Open {
    fn at(path: &std::path::Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.create(true).append(true).read(true).mode(0o640);
        // Some files cannot be read: a terminal's other end, a pipe.
        let file = file.open(path)?;
        let data = file.metadata()?;
        let begun = data.created().or_else(|_| data.modified());
        Ok(Self {
            inode: (data.dev(), data.ino()),
            bytes: data.len(),
            begun: begun.unwrap_or_else(|_| SystemTime::now()),
            ends_in_mid_line: ends_in_mid_line(&file, data.len()),
            is_others_line: false,
            file,
        })
    }

    fn is_at(&self, path: &std::path::Path) -> bool {
        let here = std::fs::metadata(path);
        here.is_ok_and(|data| (data.dev(), data.ino()) == self.inode)
    }

    fn catch_up(&mut self) {
        let bytes = self.file.metadata().map_or(self.bytes, |data| data.len());
        if bytes != self.bytes {
            self.bytes = bytes;
            self.ends_in_mid_line = ends_in_mid_line(&self.file, bytes);
            self.is_others_line = true;
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        self.ends_in_mid_line = bytes.last().is_some_and(|last| *last != b'\n');
        self.is_others_line = false;
        Ok(())
    }
}

fn ends_in_mid_line(file: &File, bytes: u64) -> bool {
    use std::os::unix::fs::FileExt as _;
    let mut last = [b'\n'];
    bytes > 0 && file.read_exact_at(&mut last, bytes - 1).is_ok() && last != [b'\n']
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            file_bytes_max: 20,
            files_max: 3,
            ..Limits::default()
        }
    }

    #[test]
    fn a_full_file_is_moved_on_and_the_oldest_is_removed_without_losing_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        let mut file = LogFile::new(path.clone(), limits());
        for number in 0..10 {
            file.write(format!("line {number} is here\n").as_bytes());
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("node.log"), "line 9 is here\n");
        assert_eq!(read("node.log.1"), "line 8 is here\n");
        assert_eq!(read("node.log.2"), "line 7 is here\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        assert_eq!(file.lost_lines(), 0);
    }

    #[test]
    fn one_line_that_is_longer_than_a_file_is_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        let mut file = LogFile::new(path.clone(), limits());
        let long = "x".repeat(100) + "\n";
        file.write(long.as_bytes());
        file.write(b"short\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "short\n");
        let old = std::fs::read_to_string(folder.path().join("node.log.1"));
        assert_eq!(old.unwrap(), long);
    }

    #[test]
    fn a_file_that_is_old_enough_is_moved_on_at_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        let young = Limits {
            file_age_max: Duration::ZERO,
            ..Limits::default()
        };
        let mut file = LogFile::new(path.clone(), young);
        file.write(b"one\n");
        file.look();
        file.write(b"two\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert!(folder.path().join("node.log.1").exists());
    }

    #[test]
    fn a_file_that_somebody_else_moved_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        let mut file = LogFile::new(path.clone(), Limits::default());
        file.write(b"one\n");
        std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        file.look();
        file.write(b"two\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    }

    #[test]
    fn two_that_write_one_file_rotate_it_without_losing_or_tearing_a_line() {
        const LINES: usize = 3000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        let limits = Limits {
            file_bytes_max: 400,
            files_max: 900,
            ..Limits::default()
        };
        std::thread::scope(|scope| {
            for name in ["old", "new"] {
                let mut file = LogFile::new(path.clone(), limits.clone());
                scope.spawn(move || {
                    for number in 0..LINES {
                        file.write(format!("{name} {number}\n").as_bytes());
                    }
                    assert_eq!(file.lost_lines(), 0);
                });
            }
        });
        let mut lines: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
        lines.sort_unstable();
        let numbers = |name| (0..LINES).map(move |number| format!("{name} {number}"));
        let mut expected: Vec<String> = numbers("old").chain(numbers("new")).collect();
        expected.sort_unstable();
        assert!(lines == expected, "{} of {}", lines.len(), expected.len());
    }

    #[test]
    fn a_line_of_one_is_not_glued_to_an_unfinished_one_of_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        let file = || LogFile::new(path.clone(), Limits::default());
        let (mut old, mut new) = (file(), file());
        old.write(b"one\n");
        new.write(b"two\n");
        old.write(b"a prompt: ");
        old.write(b"answered\nthree: ");
        new.write(b"four\n");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "one\ntwo\na prompt: answered\nthree: \nfour\n");
    }

    #[test]
    fn a_full_disk_costs_lines_that_are_counted_when_there_is_room_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut file = LogFile::new(path.clone(), Limits::default());
        file.write(b"one\ntwo\n");
        file.write(b"three\n");
        assert_eq!(file.lost_lines(), 3);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "half a li").unwrap();
        file.write(b"four\n");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!((lines[0], lines[2]), ("half a li", "four"));
        assert!(
            lines[1].starts_with("bingo: 3 lines (14 B) dropped here"),
            "{text}"
        );
        assert!(lines[1].contains("No space left"), "{text}");
    }
}
