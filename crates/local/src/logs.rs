//! `bingo logs NAME`: the log of one process, over its rotated files. Lines are shown as they were
//! written; only `--since` needs to know when that was, and finds the time in our own JSON lines and
//! at the beginning of a line of any program that writes it there (PostgreSQL does).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use chassis::Failure;
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use serde_json::json;

use crate::layout::Layout;

/// How often a followed file is looked at.
const FOLLOW_POLL: Duration = Duration::from_millis(100);
/// What is read at once from the end of a file.
const BLOCK_BYTES: u64 = 64 * 1024;
/// No log has more rotated files (the key `logs: files_max` is far below).
const FILES_MAX: u32 = 1000;

/// Shown where neither a number nor a time says how much.
const LINES: usize = 100;

/// What to show.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The last so many lines; None: all.
    pub lines: Option<usize>,
    /// Written since then.
    pub since: Option<Timestamp>,
    /// Go on with what is being written, for ever.
    pub follow: bool,
    /// Each line as a JSON object.
    pub json: bool,
}

impl Selection {
    /// As flags choose it: without `lines` and `since` the last 100.
    pub fn chosen(
        lines: Option<usize>,
        since: Option<Timestamp>,
        follow: bool,
        json: bool,
    ) -> Self {
        let default = since.is_none().then_some(LINES);
        Self {
            lines: lines.or(default),
            since,
            follow,
            json,
        }
    }
}

/// Writes the log of `name` to `out`. Exit 1 where there is none, with the names of those there are.
pub fn show(
    layout: &Layout,
    name: &str,
    selection: &Selection,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let path = layout.logs().join(format!("{name}.log"));
    let attempted = format!("read the log {}", path.display());
    if name.contains('/') || !path.exists() {
        let names = names(layout).join(", ");
        let help = format!("there are logs of: {names}");
        return Err(Failure::run_time(attempted, "there is none", help));
    }
    let shown = Log {
        name,
        path,
        selection,
    };
    match shown.write(out) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let help = "run as root or as the user who started the installation";
            Err(Failure::run_time(attempted, error, help))
        }
        _ => Ok(()),
    }
}

fn names(layout: &Layout) -> Vec<String> {
    let entries = std::fs::read_dir(layout.logs()).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".log").map(str::to_owned))
        .collect();
    names.sort();
    names
}

struct Log<'a> {
    name: &'a str,
    path: PathBuf,
    selection: &'a Selection,
}

impl Log<'_> {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut files = self.files()?;
        // Opened before anything is read: what is written meanwhile belongs to the following.
        let mut present = File::open(&self.path)?;
        let end = present.metadata()?.len();
        match (self.selection.lines, self.selection.since) {
            (Some(count), None) => {
                for line in last_lines(&mut present, end, &files, count)? {
                    self.line(&line, out)?;
                }
            }
            (count, since) => {
                files.reverse();
                let mut chosen = VecDeque::new();
                for file in files {
                    let file = File::open(file)?;
                    self.choose(&file, u64::MAX, since, count, &mut chosen, out)?;
                }
                self.choose(&present, end, since, count, &mut chosen, out)?;
                for line in chosen {
                    self.line(&line, out)?;
                }
            }
        }
        out.flush()?;
        if self.selection.follow {
            self.follow(present, end, out)?;
        }
        Ok(())
    }

    /// The rotated files, the newest first.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let old = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        Ok((1..FILES_MAX)
            .map(old)
            .take_while(|path| path.exists())
            .collect())
    }

    /// Lines of one file since `since`: into `chosen`, which keeps the last `count`, or at once out.
    fn choose(
        &self,
        file: &File,
        end: u64,
        since: Option<Timestamp>,
        count: Option<usize>,
        chosen: &mut VecDeque<Vec<u8>>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let modified = file.metadata()?.modified().ok();
        let modified = modified.and_then(|time| Timestamp::try_from(time).ok());
        if since.zip(modified).is_some_and(|(since, end)| end < since) {
            return Ok(());
        }
        let mut reader = BufReader::new(file.take(end));
        let mut is_recent = true;
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            // A line without a time goes with the one before it.
            if let (Some(since), Some(at)) = (since, time_of(&line)) {
                is_recent = at >= since;
            }
            match count {
                _ if !is_recent => {}
                None => self.line(&line, out)?,
                Some(count) => {
                    chosen.push_back(line.clone());
                    if chosen.len() > count {
                        chosen.pop_front();
                    }
                }
            }
            line.clear();
        }
        Ok(())
    }

    fn line(&self, line: &[u8], out: &mut dyn Write) -> io::Result<()> {
        if !self.selection.json {
            return out.write_all(line);
        }
        let text = String::from_utf8_lossy(line);
        let time = time_of(line).map(|time| time.to_string());
        let object =
            json!({ "process": self.name, "time": time, "line": text.trim_end_matches('\n') });
        writeln!(out, "{object}")
    }

    /// Goes on from byte `at`; through a rotation too.
    fn follow(&self, mut file: File, mut at: u64, out: &mut dyn Write) -> io::Result<()> {
        let mut rest = Vec::new();
        loop {
            // Looked at before reading: what was written before the file was moved is read first.
            let successor = self.successor(&file)?;
            if file.metadata()?.len() < at {
                at = 0;
            }
            file.seek(SeekFrom::Start(at))?;
            let mut reader = BufReader::new(&file);
            loop {
                let read = reader.read_until(b'\n', &mut rest)?;
                at += read as u64;
                if read == 0 {
                    break;
                }
                if rest.ends_with(b"\n") {
                    self.line(&rest, out)?;
                    rest.clear();
                }
            }
            out.flush()?;
            match successor {
                Some(next) => (file, at) = (next, 0),
                None => std::thread::sleep(FOLLOW_POLL),
            }
        }
    }

    /// The file at the path, where it is another one by now.
    fn successor(&self, file: &File) -> io::Result<Option<File>> {
        let Ok(next) = File::open(&self.path) else {
            return Ok(None);
        };
        let inode = |file: &File| file.metadata().map(|data| (data.dev(), data.ino()));
        Ok((inode(&next)? != inode(file)?).then_some(next))
    }
}

/// The last `count` lines of the first `end` bytes of a file and, as far as they do not suffice, of
/// older ones; the oldest first.
fn last_lines(
    present: &mut File,
    end: u64,
    older: &[PathBuf],
    count: usize,
) -> io::Result<VecDeque<Vec<u8>>> {
    let mut lines = VecDeque::new();
    take_from_end(present, end, count, &mut lines)?;
    for path in older {
        if lines.len() >= count {
            break;
        }
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        take_from_end(&mut file, end, count, &mut lines)?;
    }
    Ok(lines)
}

/// Puts lines before those that are there already, until there are `count`.
fn take_from_end(
    file: &mut File,
    end: u64,
    count: usize,
    lines: &mut VecDeque<Vec<u8>>,
) -> io::Result<()> {
    let wanted = count.saturating_sub(lines.len());
    let mut start = end;
    let mut text = Vec::new();
    let ends = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    while start > 0 && ends(&text) <= wanted {
        let from = start.saturating_sub(BLOCK_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut block = Vec::new();
        file.take(start - from).read_to_end(&mut block)?;
        block.append(&mut text);
        text = block;
        start = from;
    }
    let found: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    for line in found.into_iter().rev().take(wanted) {
        lines.push_front(line.to_vec());
    }
    Ok(())
}

/// When a line was written: `"time"` of a JSON line, or a time at its beginning.
fn time_of(line: &[u8]) -> Option<Timestamp> {
    let line = std::str::from_utf8(line).ok()?.trim();
    if line.starts_with('{') {
        let object: serde_json::Value = serde_json::from_str(line).ok()?;
        return object.get("time")?.as_str()?.parse().ok();
    }
    let mut words = line.split(' ').map(|word| word.trim_matches(['[', ']']));
    let first = words.next()?;
    if let Ok(time) = first.parse() {
        return Some(time);
    }
    // `2026-11-21 13:26:15.123 UTC`; a zone that is a mere abbreviation is taken for this machine's.
    let (clock, zone) = (words.next()?, words.next());
    let time: civil::DateTime = format!("{first}T{clock}").parse().ok()?;
    let zone = match zone {
        Some("UTC" | "GMT" | "Z") => TimeZone::UTC,
        _ => TimeZone::system(),
    };
    time.to_zoned(zone).ok().map(|zoned| zoned.timestamp())
}

/// `10m`: so long ago; `2026-11-21T13:00:00Z`: then; without a zone, this machine's.
pub fn parse_since(text: &str) -> Result<Timestamp, String> {
    if let Ok(duration) = chassis::config::parse_duration(text) {
        let ago = Timestamp::now().checked_sub(duration);
        return ago.map_err(|error| error.to_string());
    }
    time_of(text.as_bytes())
        .or_else(|| {
            let time: civil::DateTime = text.parse().ok()?;
            let zoned = time.to_zoned(TimeZone::system()).ok()?;
            Some(zoned.timestamp())
        })
        .ok_or_else(|| {
            format!("`{text}` is no time; write how long ago, like 10m, or 2026-11-21T13:00:00Z")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder {
        layout: Layout,
        /// Removed with it.
        _on_disk: tempfile::TempDir,
    }

    fn folder() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        std::fs::create_dir(layout.logs()).unwrap();
        Folder {
            layout,
            _on_disk: folder,
        }
    }

    impl Folder {
        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.layout.logs().join(name), text).unwrap();
        }

        fn show(&self, selection: &Selection) -> String {
            let mut out = Vec::new();
            show(&self.layout, "node-1", selection, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        }
    }

    #[test]
    fn the_last_lines_reach_back_into_rotated_files() {
        let folder = folder();
        folder.write("node-1.log.2", "one\ntwo\n");
        folder.write("node-1.log.1", "three\nfour\n");
        folder.write("node-1.log", "five\nsi");
        let last = |count| {
            folder.show(&Selection {
                lines: Some(count),
                ..Selection::default()
            })
        };
        assert_eq!(last(0), "");
        assert_eq!(last(1), "si");
        assert_eq!(last(3), "four\nfive\nsi");
        assert_eq!(last(99), "one\ntwo\nthree\nfour\nfive\nsi");
        assert_eq!(folder.show(&Selection::default()), last(99));
    }

    #[test]
    fn a_long_file_is_read_from_its_end() {
        let folder = folder();
        let text: String = (0..100_000)
            .map(|number| format!("line {number}\n"))
            .collect();
        folder.write("node-1.log", &text);
        let shown = folder.show(&Selection {
            lines: Some(30_000),
            ..Selection::default()
        });
        assert!(shown.starts_with("line 70000\n") && shown.ends_with("line 99999\n"));
    }

    #[test]
    fn lines_since_a_time_are_found_in_json_and_in_plain_text() {
        let folder = folder();
        folder.write(
            "node-1.log",
            "{\"time\":\"2026-01-01T10:00:00Z\",\"message\":\"old\"}\n\tof the old\n\
             2026-01-01 11:00:00.123 UTC [1] LOG:  new\n\tof the new\n\
             {\"time\":\"2026-01-01T12:00:00Z\",\"message\":\"newer\"}\n",
        );
        let shown = folder.show(&Selection {
            since: Some("2026-01-01T10:30:00Z".parse().unwrap()),
            ..Selection::default()
        });
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3, "{shown}");
        assert!(lines[0].contains("LOG:  new"));
        let last = folder.show(&Selection {
            since: Some("2026-01-01T10:30:00Z".parse().unwrap()),
            lines: Some(1),
            json: true,
            ..Selection::default()
        });
        let object: serde_json::Value = serde_json::from_str(&last).unwrap();
        assert_eq!(object["time"], "2026-01-01T12:00:00Z");
        assert_eq!(object["process"], "node-1");
    }

    #[test]
    fn a_log_that_is_not_there_names_those_that_are() {
        let folder = folder();
        folder.write("node-1.log", "");
        folder.write("gateway-1.log", "");
        for name in ["node-9", "../logs/node-1"] {
            let failure = show(&folder.layout, name, &Selection::default(), &mut Vec::new());
            let text = failure.unwrap_err().to_string();
            assert!(text.contains("gateway-1, node-1"), "{text}");
        }
    }

    #[test]
    fn since_is_a_duration_or_a_time() {
        assert!(parse_since("10m").unwrap() < Timestamp::now());
        let time = parse_since("2026-11-21T13:00:00Z").unwrap();
        assert_eq!(time.to_string(), "2026-11-21T13:00:00Z");
        assert_eq!(parse_since("2026-11-21 13:00:00 UTC").unwrap(), time);
        parse_since("2026-11-21T13:00").unwrap();
        assert!(parse_since("yesterday").unwrap_err().contains("like 10m"));
    }
}
