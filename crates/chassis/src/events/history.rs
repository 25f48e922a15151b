//! Reading events: all files of one, rotated ones too, in the order of time; the last of them; and what
//! comes later.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::Told;
use super::file::{BYTES_MAX, old};

/// Bytes that are read of one file: as much as those who write leave it, and a line each.
const READ_MAX: u64 = 2 * BYTES_MAX + (1 << 20);
/// Bytes that are read of a file whose last events are wanted: some hundreds.
const END_BYTES: u64 = 128 * 1024;

/// All events from `since` on (a text like `Told::at`; empty: all), sorted by time. A file that is not
/// there holds none; lines that are no events are passed over. Blocks.
pub fn read(path: &Path, since: &str) -> io::Result<Vec<Told>> {
    let mut all = Vec::new();
    for file in super::files(path) {
        match File::open(&file) {
            Ok(file) => parse(&bytes(file, 0)?, since, &mut all),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // Of several writers none waits for another; what happened at once stays in the file's order.
    all.sort_by(|one, other| one.at.cmp(&other.at));
    Ok(all)
}

/// The last events, at most so many, sorted by time: those of rotated files too while the newer ones hold
/// too few, as they do after a rotation. Of each file only the end is read, so that it may be done again and
/// again. Fails where not even the newest file can be read. Blocks.
pub fn latest(path: &Path, count: usize) -> io::Result<Vec<Told>> {
    let mut all = Vec::new();
    for file in super::files(path).iter().rev() {
        match File::open(file) {
            Ok(file) => {
                let from = file.metadata()?.len().saturating_sub(END_BYTES);
                // Half a line at its beginning is no event.
                parse(&bytes(file, from)?, "", &mut all);
            }
            Err(error) if file == path && error.kind() != io::ErrorKind::NotFound => {
                return Err(error);
            }
            Err(_) => {}
        }
        if all.len() >= count {
            break;
        }
    }
    all.sort_by(|one, other| one.at.cmp(&other.at));
    all.drain(..all.len().saturating_sub(count));
    Ok(all)
}

/// Reads what is appended from now on.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    offset: u64,
    /// A line whose end is not there yet.
    rest: Vec<u8>,
}

impl History {
    /// From the end of the file on, as it is now.
    pub fn from_now(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            offset: std::fs::metadata(path).map_or(0, |file| file.len()),
            rest: Vec::new(),
        }
    }

    /// What has come since the last call. After a rotation the end of the rotated file comes first.
    pub fn news(&mut self) -> io::Result<Vec<Told>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut new = std::mem::take(&mut self.rest);
        if file.metadata()?.len() < self.offset {
            if let Some(Ok(rotated)) = old(&self.path).first().map(File::open) {
                new.extend(bytes(rotated, self.offset)?);
            }
            self.offset = 0;
        }
        let read = bytes(file, self.offset)?;
        self.offset += read.len() as u64;
        new.extend(read);
        let end = new.iter().rposition(|byte| *byte == b'\n');
        self.rest = new.split_off(end.map_or(0, |at| at + 1));
        let mut all = Vec::new();
        parse(&new, "", &mut all);
        Ok(all)
    }
}

fn bytes(mut file: File, from: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(READ_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(bytes: &[u8], since: &str, all: &mut Vec<Told>) {
    let lines = bytes.split(|byte| *byte == b'\n');
    let told = lines.filter_map(|line| serde_json::from_slice::<Told>(line).ok());
    all.extend(told.filter(|told| told.at.as_str() >= since));
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(at: &str, kind: &str) -> String {
        format!("{{\"at\":\"{at}\",\"source\":\"a\",\"kind\":\"{kind}\"}}\n")
    }

    #[test]
    fn all_files_are_read_as_one_in_the_order_of_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        assert_eq!(read(&path, "").unwrap(), []);
        let old = old(&path);
        std::fs::write(&old[1], line("2026-01-01T00:00:00.000Z", "one")).unwrap();
        let torn = "{\"at\":\"2026-01-0\n".to_owned();
        std::fs::write(&old[0], torn + &line("2026-01-01T00:00:02.000Z", "three")).unwrap();
        let late = line("2026-01-01T00:00:03.000Z", "four");
        std::fs::write(&path, late + &line("2026-01-01T00:00:01.000Z", "two")).unwrap();
        let kinds = |since: &str| -> Vec<String> {
            let all = read(&path, since).unwrap().into_iter();
            all.map(|told| told.kind).collect()
        };
        assert_eq!(kinds(""), ["one", "two", "three", "four"]);
        assert_eq!(kinds("2026-01-01T00:00:02.000Z"), ["three", "four"]);
    }

    #[test]
    fn the_last_events_are_found_across_rotations_and_in_long_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        assert_eq!(latest(&path, 5).unwrap(), []);
        let many = |from: u32| -> String {
            let lines = (from..from + 2000).map(|number| line(&format!("{number:06}"), "many"));
            lines.collect::<String>().repeat(2)
        };
        let old = old(&path);
        std::fs::write(&old[0], many(0)).unwrap();
        let torn = "\"reason\":\"x\"}\n{\"at\":\"2027\"}\nnonsense\n".to_owned();
        let unfinished = "{\"at\":\"2028\",\"sour";
        let text = torn + &line("002001", "new") + &line("002000", "new") + unfinished;
        std::fs::write(&path, text).unwrap();
        let told = |count: usize| -> Vec<String> {
            let all = latest(&path, count).unwrap().into_iter();
            all.map(|told| told.at).collect()
        };
        assert_eq!(told(4), ["001999", "001999", "002000", "002001"]);
        assert_eq!(told(1), ["002001"]);
        assert_eq!(told(200).len(), 200);
        std::fs::write(&path, many(3000)).unwrap();
        let last = told(200);
        assert_eq!((last.len(), last[0].as_str()), (200, "004900"));
    }

    #[test]
    fn what_comes_later_is_read_over_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let append = |text: &str| {
            let file = File::options().create(true).append(true).open(&path);
            file.unwrap().write_all(text.as_bytes()).unwrap();
        };
        append(&line("2026", "before"));
        let mut history = History::from_now(&path);
        let mut kinds = || -> Vec<String> {
            let all = history.news().unwrap().into_iter();
            all.map(|told| told.kind).collect()
        };
        assert_eq!(kinds(), [""; 0]);
        let (half, rest) = ("{\"at\":\"2026\",\"source\":\"a\",", "\"kind\":\"one\"}\n");
        append(half);
        assert_eq!(kinds(), [""; 0]);
        append(rest);
        append(&line("2026", "two"));
        assert_eq!(kinds(), ["one", "two"]);
        append(&line("2026", "three"));
        std::fs::copy(&path, &old(&path)[0]).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        append(&line("2026", "four"));
        assert_eq!(kinds(), ["three", "four"]);
    }
}
