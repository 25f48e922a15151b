//! Reading events: all files of one, rotated ones too, in the order of time; and what comes later.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::Told;
use super::file::{BYTES_MAX, old};

/// Bytes that are read of one file: as much as those who write leave it, and a line each.
const READ_MAX: u64 = 2 * BYTES_MAX + (1 << 20);

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
