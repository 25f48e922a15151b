//! What happened: one JSON line for each thing that a human asks about afterwards (a process killed, a
//! node ejected, a database promoted), in one file that every process of an installation appends to.
//! It outlives them all, and the log, which tells everything, is not needed to find it.
//!
//! Telling never waits and never fails: a thread of its own writes, and what it cannot take (the disk
//! hangs or is full, more comes than is bearable) is counted and told in one line when that is over.
//! Each line is one write(2) with O_APPEND, so lines of several processes do not mix. The file is kept
//! small by one of its writers, who cuts it in place: children may be confined to that very file, so
//! another one cannot take its name (`file`).
//!
//! Left out: what goes with requests. That is for metrics and logs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use crate::masking::masked;

mod file;
mod history;
mod rate;

pub use file::BYTES_MAX;
pub use history::{History, latest, read};

use file::Appender;
use rate::Rate;

/// Bytes of a line, its end included; a reason that is longer is cut.
const LINE_BYTES_MAX: usize = 4096;
/// Bytes of each other text.
const WORD_BYTES_MAX: usize = 256;
/// Events that wait for the disk; more are lost, and counted.
const WAITING_MAX: usize = 256;
/// How often the one that keeps the file small looks at it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// RFC 3339, UTC, milliseconds: texts sort as times do.
    pub at: String,
    /// Who tells: the name of a process.
    pub source: String,
    /// What happened, in one word.
    pub kind: String,
    /// To whom.
    #[serde(default)]
    pub subject: String,
    #[serde(default)]
    pub reason: String,
}

impl Told {
    /// It happens now. Texts that are too long are cut, passwords in the reason masked.
    pub fn new(source: &str, kind: &str, subject: &str, reason: &str) -> Self {
        Self {
            at: now(),
            source: cut(source, WORD_BYTES_MAX).to_owned(),
            kind: cut(kind, WORD_BYTES_MAX).to_owned(),
            subject: cut(subject, WORD_BYTES_MAX).to_owned(),
            reason: masked(cut(reason, LINE_BYTES_MAX)).into_owned(),
        }
    }
}

/// Where a process tells what happened. Clones tell the same file.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// None: nowhere.
    teller: Option<Arc<Teller>>,
    lost: Counter,
}

#[derive(Debug)]
struct Teller {
    source: String,
    waiting: SyncSender<Message>,
}

enum Message {
    Tell(Told),
    /// Answered when all before it is written.
    Flush(SyncSender<()>),
}

impl Events {
    /// Tells a file; `source` is this process's name. The file is made where it can be. It may be
    /// rotated by another process.
    pub fn to_file(path: &Path, source: &str) -> Self {
        Self::start(path, source, false)
    }

    /// The same, and keeps the file small; for one process only.
    pub fn keeping_file(path: &Path, source: &str) -> Self {
        Self::start(path, source, true)
    }

    fn start(path: &Path, source: &str, keeps: bool) -> Self {
        let lost = Counter::default();
        let (waiting, messages) = sync_channel(WAITING_MAX);
        let writer = Writer {
            source: source.to_owned(),
            appender: Appender::new(path.to_owned()),
            keeps,
            rate: Rate::default(),
            origin: Instant::now(),
            lost: lost.clone(),
            told_lost: 0,
            failure: None,
        };
        let thread = std::thread::Builder::new().name("events".to_owned());
        let started = thread.spawn(move || writer.work(&messages));
        if let Err(error) = &started {
            tracing::error!(%error, "events cannot be written: there is no thread for it");
        }
        let source = source.to_owned();
        Self {
            teller: started
                .is_ok()
                .then(|| Arc::new(Teller { source, waiting })),
            lost,
        }
    }

    /// Tells that `kind` happened to `subject`; returns at once. Passwords in the reason are masked.
    pub fn tell(&self, kind: &str, subject: &str, reason: &str) {
        let Some(teller) = &self.teller else {
            return;
        };
        let told = Told::new(&teller.source, kind, subject, reason);
        if teller.waiting.try_send(Message::Tell(told)).is_err() {
            self.lost.inc();
        }
    }

    /// Waits until all that was told is written, at most so long; for the end of a process. Blocks.
    pub fn flush(&self, within: Duration) {
        let Some(teller) = &self.teller else {
            return;
        };
        let (written, done) = sync_channel(1);
        if teller.waiting.try_send(Message::Flush(written)).is_ok() {
            let _ = done.recv_timeout(within);
        }
    }

    /// Events that are not in the file.
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Registers `bingo_events_lost_total`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "bingo_events_lost",
            "Events that are not in the file of events: too many a second, or the disk did not take them",
            self.lost.clone(),
        );
    }
}

/// The thread's own.
struct Writer {
    source: String,
    appender: Appender,
    keeps: bool,
    rate: Rate,
    origin: Instant,
    lost: Counter,
    /// How many of the lost were told.
    told_lost: u64,
    /// Why the last line was not written, told once in the log.
    failure: Option<String>,
}

impl Writer {
    /// Until nobody can tell anything any more.
    fn work(mut self, messages: &Receiver<Message>) {
        loop {
            match messages.recv_timeout(LOOK_INTERVAL) {
                Ok(Message::Tell(told)) => self.take(&told),
                Ok(Message::Flush(written)) => drop(written.try_send(())),
                Err(RecvTimeoutError::Timeout) => self.tell_lost(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.keeps {
                let kept = self.appender.keep_small();
                self.note(kept.err().map(|error| format!("rotate it: {error}")));
            }
        }
    }

    fn take(&mut self, told: &Told) {
        if !self.rate.take(self.origin.elapsed()) {
            self.lost.inc();
            return;
        }
        self.tell_lost();
        self.write(told);
    }

    /// One line for all that are missing.
    fn tell_lost(&mut self) {
        let lost = self.lost.get();
        let missing = lost.saturating_sub(self.told_lost);
        if missing == 0 || !self.rate.take(self.origin.elapsed()) {
            return;
        }
        let told = Told {
            at: now(),
            source: self.source.clone(),
            kind: "lost".to_owned(),
            subject: self.source.clone(),
            reason: format!("{missing} events before this are not here"),
        };
        if self.write(&told) {
            self.told_lost = lost;
        }
    }

    /// Whether it is in the file; counted as lost otherwise.
    fn write(&mut self, told: &Told) -> bool {
        let written = self.appender.append(&line(told));
        if written.is_err() && told.kind != "lost" {
            self.lost.inc();
        }
        let is_written = written.is_ok();
        self.note(written.err().map(|error| format!("write to it: {error}")));
        is_written
    }

    /// Logs a failure once, until there is another or none.
    fn note(&mut self, failure: Option<String>) {
        if let Some(why) = &failure
            && self.failure != failure
        {
            let path = self.appender.path().display();
            tracing::error!(%path, why, "the file of events fails; events are lost meanwhile");
        }
        self.failure = failure;
    }
}

/// As one line, cut to its limit at the end of the reason.
fn line(told: &Told) -> Vec<u8> {
    let mut told = told.clone();
    loop {
        // A struct of texts always becomes JSON.
        let mut line = serde_json::to_vec(&told).unwrap_or_default();
        if line.len() < LINE_BYTES_MAX {
            line.push(b'\n');
            return line;
        }
        // What a character takes in JSON differs; and at last the reason is empty.
        let half = cut(&told.reason, told.reason.len() / 2).to_owned();
        if half.is_empty() {
            told.subject.clear();
        }
        told.reason = half;
    }
}

/// The beginning of a text, in whole characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = text.len().min(bytes_max);
    let whole = (0..=end).rev().find(|at| text.is_char_boundary(*at));
    whole.and_then(|at| text.get(..at)).unwrap_or_default()
}

/// As `at` of an event.
pub fn now() -> String {
    at(jiff::Timestamp::now())
}

/// A time as `at` of an event.
pub fn at(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}

/// The files of a path from the oldest to the one that is written.
pub fn files(path: &Path) -> Vec<PathBuf> {
    file::old(path)
        .into_iter()
        .rev()
        .chain([path.to_owned()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn what_is_told_is_in_the_file_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let events = Events::to_file(&path, "gateway-1");
        events.tell("ejected", "node-1", "refused");
        events.tell("back", "node-1", "");
        events.flush(SOON);
        let all = read(&path, "").unwrap();
        let kinds: Vec<&str> = all.iter().map(|told| told.kind.as_str()).collect();
        assert_eq!(kinds, ["ejected", "back"]);
        assert_eq!(all[0].source, "gateway-1");
        assert_eq!((all[0].at.len(), events.lost()), (24, 0));
        assert!(all[0].at <= all[1].at && all[1].at <= now());
    }

    #[test]
    fn a_line_is_cut_to_its_limit_and_holds_no_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let events = Events::to_file(&path, "supervisor");
        events.tell("exited", "a", &"\u{1}".repeat(5000));
        events.tell("exited", "b", "no connection to postgres://u:canary@h/d");
        events.flush(SOON);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().all(|line| line.len() < LINE_BYTES_MAX));
        assert!(!text.contains("canary") && text.contains("postgres://u:"));
        assert_eq!(read(&path, "").unwrap().len(), 2);
    }

    #[test]
    fn a_flood_is_cut_off_and_its_size_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let events = Events::to_file(&path, "gateway-1");
        for number in 0..2000 {
            events.tell("ejected", &number.to_string(), "");
        }
        let deadline = Instant::now() + SOON;
        let told = || {
            let all = read(&path, "").unwrap_or_default();
            let lost = all.iter().filter(|told| told.kind == "lost");
            let lost = lost.filter_map(|told| told.reason.split(' ').next()?.parse::<u64>().ok());
            let ejected = all.iter().filter(|told| told.kind == "ejected");
            (lost.sum::<u64>(), ejected.count() as u64)
        };
        // All were taken from the queue, and what is missing has its line.
        loop {
            let ((told_lost, ejected), lost) = (told(), events.lost());
            if lost > 0 && told_lost == lost && ejected + lost == 2000 {
                break;
            }
            assert!(Instant::now() < deadline, "{told_lost} {ejected} {lost}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_costs_events_and_nothing_else() {
        let events = Events::to_file(Path::new("/nonexistent/events.jsonl"), "gateway-1");
        events.tell("ejected", "node-1", "");
        events.flush(SOON);
        assert_eq!(events.lost(), 1);
        let off = Events::default();
        off.tell("ejected", "node-1", "");
        off.flush(SOON);
        assert_eq!(off.lost(), 0);
    }
}
