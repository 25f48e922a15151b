//! The file of events: appended to by many processes, kept small by one of them.
//!
//! It is rotated by copy and cut, since those who write may be confined to the file itself. A lock
//! (flock(2): shared to append, exclusive to cut) keeps lines from being lost between the two; nobody
//! waits for it for longer than a moment, so one who holds it for ever costs at most such a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

/// Bytes after which the file is rotated; those who write stop at twice that, should nobody rotate it.
pub const BYTES_MAX: u64 = 8 << 20;
/// Rotated files that are kept: PATH.1 is the newest.
const OLD_MAX: u32 = 2;
/// How often, and how many times, a lock is tried.
const LOCK_PAUSE: Duration = Duration::from_millis(5);
const LOCK_TRIES: u32 = 40;

/// Appends to one file.
#[derive(Debug)]
pub(super) struct Appender {
    path: PathBuf,
    open: Option<File>,
    /// The last write was cut short: the next line begins on a new one.
    torn: bool,
    bytes_max: u64,
}

impl Appender {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            open: None,
            torn: false,
            bytes_max: BYTES_MAX,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// One write; may block on the disk.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        // Opened first: how it ends is known then.
        self.file()?;
        let (torn, bytes_max) = (self.torn, self.bytes_max);
        let file = self.file()?;
        if file.metadata()?.len() >= 2 * bytes_max {
            let why = "it is full: nobody rotates it";
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        lock(file, FlockOperation::NonBlockingLockShared);
        let whole: Vec<u8> = match torn {
            true => [b"\n", line].concat(),
            false => line.to_vec(),
        };
        let written = file.write(&whole);
        let _ = rustix::fs::flock(&*file, FlockOperation::Unlock);
        match written {
            Ok(bytes) if bytes == whole.len() => {
                self.torn = false;
                Ok(())
            }
            Ok(bytes) => {
                self.torn |= bytes > 0;
                Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    "the disk is full",
                ))
            }
            Err(error) => Err(error),
        }
    }

    /// Rotates it when it is large enough.
    pub(super) fn keep_small(&mut self) -> io::Result<()> {
        let (path, bytes_max) = (self.path.clone(), self.bytes_max);
        let file = self.file()?;
        if file.metadata()?.len() < bytes_max {
            return Ok(());
        }
        let is_locked = lock(file, FlockOperation::NonBlockingLockExclusive);
        let rotated = rotate(&path, file);
        if is_locked {
            let _ = rustix::fs::flock(&*file, FlockOperation::Unlock);
        }
        rotated
    }

    /// The file under the path, opened anew where it is another one by now.
    fn file(&mut self) -> io::Result<&mut File> {
        let is_same = |file: &File| -> io::Result<bool> {
            let (open, named) = (file.metadata()?, std::fs::metadata(&self.path)?);
            Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
        };
        let kept = self.open.take();
        let kept = kept.filter(|file| is_same(file).unwrap_or(false));
        let file = match kept {
            Some(file) => file,
            None => {
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&self.path)?;
                self.torn = ends_torn(&self.path);
                file
            }
        };
        Ok(self.open.insert(file))
    }
}

/// Whether the last line has no end: another writer was cut short. Not to be known is no.
fn ends_torn(path: &Path) -> bool {
    let last = || -> io::Result<u8> {
        let mut file = File::open(path)?;
        file.seek(io::SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        Ok(last[0])
    };
    last().is_ok_and(|last| last != b'\n')
}

/// Whether the lock was got; those who hold it do so for a moment only.
fn lock(file: &File, how: FlockOperation) -> bool {
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(file, how) {
            Ok(()) => return true,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                std::thread::sleep(LOCK_PAUSE);
            }
            // A file system without locks.
            Err(_) => return false,
        }
    }
    false
}

/// Where the disk has no room for a copy, the old ones go, and the oldest news with them: the file must
/// not stay full.
fn rotate(path: &Path, file: &File) -> io::Result<()> {
    let names = old(path);
    for pair in names.windows(2).rev() {
        if let [newer, older] = pair {
            match std::fs::rename(newer, older) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    let Some(newest) = names.first() else {
        return Ok(());
    };
    let copied = copy(path, newest);
    if copied.is_err() {
        let _ = std::fs::remove_file(newest);
    }
    file.set_len(0)?;
    copied
}

/// The copy may be read by whoever may read the original, whatever the umask.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    from.rewind()?;
    let mut to = File::create(to)?;
    to.set_permissions(from.metadata()?.permissions())?;
    io::copy(&mut from, &mut to)?;
    to.flush()
}

/// The rotated files of a path, the newest first.
pub(super) fn old(path: &Path) -> Vec<PathBuf> {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    (1..=OLD_MAX).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appender(path: &Path) -> Appender {
        Appender {
            bytes_max: 100,
            ..Appender::new(path.to_owned())
        }
    }

    #[test]
    fn the_file_is_cut_in_place_and_two_old_ones_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let (mut keeper, mut other) = (appender(&path), appender(&path));
        other.append(b"first\n").unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        for number in 0..4 {
            other.append(&[b'0' + number; 99]).unwrap();
            other.append(b"\n").unwrap();
            keeper.keep_small().unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        let names = old(&path);
        assert_eq!(names.len(), 2);
        let first = |path: &PathBuf| std::fs::read(path).unwrap()[0];
        assert_eq!((first(&names[0]), first(&names[1])), (b'3', b'2'));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_file_that_nobody_rotates_stops_at_twice_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut appender = appender(&path);
        let lines = std::iter::repeat_n([b'x'; 60], 10);
        let written = lines.filter(|line| appender.append(line).is_ok()).count();
        assert_eq!(written, 4);
    }

    #[test]
    fn one_who_holds_the_lock_for_ever_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut appender = appender(&path);
        appender.append(&[b'x'; 120]).unwrap();
        let holder = File::open(&path).unwrap();
        rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
        appender.append(b"y\n").unwrap();
        appender.keep_small().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        assert_eq!(std::fs::metadata(&old(&path)[0]).unwrap().len(), 122);
    }

    #[test]
    fn a_line_that_another_writer_left_half_done_swallows_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        std::fs::write(&path, "whole\nhal").unwrap();
        let mut appender = appender(&path);
        appender.append(b"next\n").unwrap();
        appender.append(b"last\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "whole\nhal\nnext\nlast\n");
    }

    #[test]
    fn a_file_that_was_taken_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut appender = appender(&path);
        appender.append(b"one\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        appender.append(b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
    }
}
