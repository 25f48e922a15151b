//! The process that writes a child's log: `bingo launch -- scribe PATH`. Its stdin is the pipe that is
//! the child's stdout and stderr. A process of its own, because of three things that must not touch a
//! child: the end of the supervisor (it goes on reading, so that the pipe never breaks), a flood (it
//! keeps so much a second and counts the rest), a disk that is full or hangs (a thread writes, this
//! one reads, and what does not fit between them is dropped and counted).
//!
//! It ends when the last writer is gone. On its stdout it tells the supervisor how many lines were
//! dropped and, at the end, the last lines; nobody needs to listen.

use std::collections::VecDeque;
use std::io::{self, Read, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::config::Logs;
use crate::log_files;
use allowance::Allowance;
use file::LogFile;
use queue::{Queue, Taken};

pub(crate) mod allowance;
mod file;
mod queue;

/// What is read at once.
const READ_BYTES: usize = 64 * 1024;
/// A line beyond this is cut into several.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes that may wait for the disk.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// What is written at once: the limit on a file's length is kept as exactly as this.
const WRITE_BYTES: usize = 64 * 1024;
/// As much of the end is kept in memory, for the last lines.
const TAIL_BYTES: usize = 8 * 1024;
/// An unfinished line is written after this.
const IDLE: Duration = Duration::from_secs(1);
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the last lines wait to be on the disk before they are told, and before all is given up.
const FLUSH_PATIENCE: Duration = Duration::from_millis(50);
const END_PATIENCE: Duration = Duration::from_secs(1);

/// What a scribe is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) limits: Limits,
}

/// See the keys of `logs` in `config`.
pub(crate) type Limits = Logs;

/// What a scribe tells, one JSON object a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Since it began.
    pub(crate) dropped_lines: u64,
    /// Only in its last words.
    pub(crate) last_lines: Option<Vec<String>>,
}

/// Lines that were not kept.
#[derive(Clone, Copy, Debug, Default)]
struct Dropped {
    lines: u64,
    bytes: u64,
}

impl Dropped {
    fn of(block: &[u8]) -> Self {
        let ends = block.iter().filter(|byte| **byte == b'\n').count() as u64;
        let open = u64::from(block.last().is_some_and(|last| *last != b'\n'));
        Self {
            lines: ends + open,
            bytes: block.len() as u64,
        }
    }

    fn add(&mut self, block: &[u8]) {
        let more = Self::of(block);
        self.lines += more.lines;
        self.bytes += more.bytes;
    }

    fn note(self, why: &str) -> String {
        let Self { lines, bytes } = self;
        let noun = if lines == 1 { "line" } else { "lines" };
        format!("bingo: {lines} {noun} ({bytes} B) dropped here: {why}\n")
    }
}

/// Writes stdin to the file until the last writer of the pipe is gone.
pub(crate) fn run(settings: Settings) -> io::Result<()> {
    ignore_signals()?;
    // Nobody may listen any more; that must not hold us up.
    let stdout = io::stdout();
    if let Ok(flags) = rustix::fs::fcntl_getfl(&stdout) {
        let _ = rustix::fs::fcntl_setfl(&stdout, flags | rustix::fs::OFlags::NONBLOCK);
    }
    let (done, finished) = sync_channel(1);
    let queue = Arc::new(Queue::default());
    let lost = Arc::new(AtomicU64::new(0));
    let file = LogFile::new(settings.path, settings.limits.clone());
    let theirs = (Arc::clone(&queue), Arc::clone(&lost));
    std::thread::Builder::new()
        .name("disk".to_owned())
        .spawn(move || {
            write_all(file, &theirs.0, &theirs.1);
            let _ = done.send(());
        })?;
    let mut reader = Reader::new(settings.limits, queue, lost);
    reader.read_all(&mut io::stdin().lock())?;
    let told = reader.finish();
    let _ = finished.recv_timeout(FLUSH_PATIENCE);
    tell(&told);
    let _ = finished.recv_timeout(END_PATIENCE);
    Ok(())
}

/// Who ends a whole group of processes (systemd does) must not end this one before the child that
/// still writes. A handler that does nothing; it needs a runtime, not its threads.
fn ignore_signals() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _context = runtime.enter();
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ] {
        let _handled = signal(kind)?;
    }
    Ok(())
}

fn tell(told: &Told) {
    if let Ok(mut line) = serde_json::to_vec(told) {
        line.push(b'\n');
        let mut out = io::stdout();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

fn write_all(mut file: LogFile, queue: &Queue, lost: &AtomicU64) {
    let mut looked = Instant::now();
    file.begin();
    loop {
        let taken = queue.take(file::LOOK);
        if looked.elapsed() >= file::LOOK {
            looked = Instant::now();
            file.look();
        }
        match taken {
            Taken::Bytes(bytes) => pieces(&bytes).for_each(|piece| file.write(piece)),
            Taken::Nothing => {}
            Taken::End => return,
        }
        lost.store(file.lost_lines(), Ordering::Relaxed);
    }
}

/// Parts of `WRITE_BYTES` at most that end where a line ends, as far as lines are not longer.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let head = bytes.get(..WRITE_BYTES).unwrap_or(bytes);
        let end = head.iter().rposition(|byte| *byte == b'\n');
        let end = end.map_or(head.len(), |end| end + 1);
        let (piece, rest) = bytes.split_at(end);
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

struct Reader {
    limits: Limits,
    allowance: Allowance,
    origin: Instant,
    queue: Arc<Queue>,
    /// Bytes after the last end of a line.
    rest: Vec<u8>,
    tail: VecDeque<u8>,
    flood: Dropped,
    stalled: Dropped,
    dropped_lines: u64,
    /// Lines that the disk refused.
    lost: Arc<AtomicU64>,
    told: (Instant, u64),
}

impl Reader {
    fn new(limits: Limits, queue: Arc<Queue>, lost: Arc<AtomicU64>) -> Self {
        let origin = Instant::now();
        Self {
            allowance: Allowance::new(limits.bytes_per_second_max, Duration::ZERO),
            limits,
            origin,
            queue,
            rest: Vec::new(),
            tail: VecDeque::with_capacity(TAIL_BYTES),
            flood: Dropped::default(),
            stalled: Dropped::default(),
            dropped_lines: 0,
            lost,
            told: (origin, 0),
        }
    }

    fn read_all(&mut self, input: &mut (impl Read + std::os::fd::AsFd)) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        let idle = Timespec {
            tv_sec: IDLE.as_secs().cast_signed(),
            tv_nsec: 0,
        };
        loop {
            let ready = {
                let mut descriptors = [PollFd::new(&*input, PollFlags::IN)];
                poll(&mut descriptors, Some(&idle))
            };
            match ready {
                Ok(0) => self.pass_on_rest(),
                Ok(_) => match input.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(read) => self.take(buffer.get(..read).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                },
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.tell_now_and_then();
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let skipped = bytes.len().saturating_sub(TAIL_BYTES);
        let kept = bytes.get(skipped..).unwrap_or_default();
        let surplus = (self.tail.len() + kept.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        self.tail.extend(kept);
        match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => {
                let (whole, rest) = bytes.split_at(end + 1);
                let mut block = std::mem::take(&mut self.rest);
                block.extend_from_slice(whole);
                self.rest.extend_from_slice(rest);
                self.pass_on(&block);
            }
            None => self.rest.extend_from_slice(bytes),
        }
        if self.rest.len() > LINE_BYTES_MAX {
            self.pass_on_rest();
        }
    }

    fn pass_on_rest(&mut self) {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.pass_on(&rest);
        }
    }

    fn pass_on(&mut self, block: &[u8]) {
        if !self.allowance.take(self.origin.elapsed(), block.len()) {
            self.flood.add(block);
            self.dropped_lines += Dropped::of(block).lines;
            return;
        }
        let before = (self.flood, self.stalled);
        let noted = self.with_notes(block);
        if !self.queue.put(&noted, WAITING_BYTES_MAX) {
            (self.flood, self.stalled) = before;
            self.stalled.add(block);
            self.dropped_lines += Dropped::of(block).lines;
        }
    }

    /// What was dropped before a block stands before it.
    fn with_notes(&mut self, block: &[u8]) -> Vec<u8> {
        let rate = chassis::config::format_size(self.limits.bytes_per_second_max);
        let flood = format!("it wrote more than {rate} a second");
        let causes = [
            (std::mem::take(&mut self.flood), flood.as_str()),
            (
                std::mem::take(&mut self.stalled),
                "the disk did not take them",
            ),
        ];
        let causes = causes.iter().filter(|(dropped, _)| dropped.lines > 0);
        let notes: String = causes.map(|(dropped, why)| dropped.note(why)).collect();
        let mut noted = notes.into_bytes();
        noted.extend_from_slice(block);
        noted
    }

    /// The end of everything: what is left is passed on, and the last words are made.
    fn finish(mut self) -> Told {
        self.pass_on_rest();
        if self.flood.lines > 0 || self.stalled.lines > 0 {
            let notes = self.with_notes(&[]);
            self.queue.put(&notes, WAITING_BYTES_MAX);
        }
        self.queue.close();
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        let is_cut = tail.len() >= TAIL_BYTES;
        let lines = log_files::lines_of_tail(&String::from_utf8_lossy(&tail), is_cut);
        Told {
            dropped_lines: self.all_dropped(),
            last_lines: Some(lines),
        }
    }

    fn all_dropped(&self) -> u64 {
        self.dropped_lines + self.lost.load(Ordering::Relaxed)
    }

    fn tell_now_and_then(&mut self) {
        let (at, before) = self.told;
        let dropped_lines = self.all_dropped();
        if dropped_lines != before && at.elapsed() >= TELL_INTERVAL {
            self.told = (Instant::now(), dropped_lines);
            tell(&Told {
                dropped_lines,
                last_lines: None,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(limits: Limits) -> (Reader, Arc<Queue>) {
        let queue = Arc::new(Queue::default());
        let lost = Arc::new(AtomicU64::new(0));
        (Reader::new(limits, Arc::clone(&queue), lost), queue)
    }

    fn text(queue: &Queue) -> String {
        match queue.take(Duration::ZERO) {
            Taken::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
            _ => String::new(),
        }
    }

    #[test]
    fn lines_are_passed_on_whole_and_a_lasting_rest_by_itself() {
        let (mut reader, waiting) = reader(Limits::default());
        reader.take(b"one\ntw");
        assert_eq!(text(&waiting), "one\n");
        reader.take(b"o\nthr");
        assert_eq!(text(&waiting), "two\n");
        reader.pass_on_rest();
        assert_eq!(text(&waiting), "thr");
        let last = reader.finish().last_lines.unwrap();
        assert_eq!(last, ["one", "two", "thr"]);
    }

    #[test]
    fn a_line_without_end_is_cut_and_takes_no_more_memory() {
        let (mut reader, waiting) = reader(Limits::default());
        for _ in 0..10 {
            reader.take(&[b'x'; READ_BYTES]);
        }
        assert!(reader.rest.len() <= LINE_BYTES_MAX);
        assert!(text(&waiting).len() >= 9 * READ_BYTES);
        assert!(reader.tail.len() <= TAIL_BYTES);
    }

    #[test]
    fn a_flood_is_told_in_one_line_and_its_end_is_remembered() {
        let limits = Limits {
            bytes_per_second_max: 1,
            ..Limits::default()
        };
        let (mut reader, waiting) = reader(limits);
        for number in 0..1000 {
            reader.take(format!("line {number}\n").as_bytes());
        }
        let told = reader.finish();
        let text = text(&waiting);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "line 0");
        let note = lines.last().unwrap();
        assert!(
            note.starts_with("bingo: ") && note.ends_with("it wrote more than 1B a second"),
            "{text}"
        );
        assert_eq!(told.dropped_lines as usize, 1000 - (lines.len() - 1));
        assert_eq!(told.last_lines.unwrap().last().unwrap(), "line 999");
    }

    #[test]
    fn a_disk_that_hangs_costs_lines_and_no_wait() {
        let limits = Limits {
            bytes_per_second_max: 1 << 30,
            ..Limits::default()
        };
        let (mut reader, waiting) = reader(limits);
        let line = "x".repeat(1023) + "\n";
        for _ in 0..WAITING_BYTES_MAX / 1024 + 2 {
            reader.take(line.as_bytes());
        }
        assert_eq!(text(&waiting).len(), WAITING_BYTES_MAX);
        reader.take(b"four\n");
        assert_eq!(
            text(&waiting),
            "bingo: 2 lines (2048 B) dropped here: the disk did not take them\nfour\n"
        );
        assert_eq!(reader.finish().dropped_lines, 2);
    }

    #[test]
    fn what_is_written_at_once_ends_where_a_line_ends() {
        let text = "short\n".repeat(WRITE_BYTES / 6 + 3) + &"x".repeat(2 * WRITE_BYTES);
        let all: Vec<&[u8]> = pieces(text.as_bytes()).collect();
        assert_eq!(all.concat(), text.as_bytes());
        assert!(all.iter().all(|piece| piece.len() <= WRITE_BYTES));
        assert!(all[0].ends_with(b"\n") && all[1].ends_with(b"\n"));
    }
}
