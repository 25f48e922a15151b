//! The quarantine as gateways share it: one file beside `admin.state_file`, read again and again, which
//! needs no addresses, no protocol and no order of start, and outlives a restart. Changed under a lock
//! and by rename. A lock that a frozen gateway holds is passed over after a moment: a change that is
//! lost is worth less than one that never comes.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::suspects::{CONVICTIONS_MAX, Charge, Conviction, SUSPECTS_MAX};

/// A longer file is none of ours.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// So long a change waits for the lock.
const LOCK_WAIT: Duration = Duration::from_millis(100);
/// A suspicion of another gateway counts for so long after it was written.
const SUSPECTED_MS: i64 = 10_000;
/// A gateway that still has suspects says so again after this time.
const AGAIN: Duration = Duration::from_secs(3);

/// Something that the file does not say yet.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Convicted(Fingerprint, Conviction),
    Lifted(Fingerprint),
}

/// What the file says to one gateway.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) convicted: BTreeMap<Fingerprint, Conviction>,
    /// By others.
    pub(super) suspected: BTreeMap<Fingerprint, Instant>,
    /// Own suspects that were lifted at another gateway.
    pub(super) lifted: Vec<Fingerprint>,
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Book {
    convicted: BTreeMap<Fingerprint, Convicted>,
    /// By gateway.
    suspected: BTreeMap<String, Suspected>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Convicted {
    until_ms: i64,
    charge: Charge,
}

#[derive(Debug, Serialize, Deserialize)]
struct Suspected {
    until_ms: i64,
    fingerprints: Vec<Fingerprint>,
}

/// One gateway's hand in the book.
#[derive(Debug)]
pub(super) struct Writer {
    name: String,
    /// The file as it was read last: when it was changed, its inode, its length.
    seen: Option<(i64, i64, u64, u64)>,
    /// The own suspects that it names.
    own: Vec<Fingerprint>,
    wrote: Instant,
}

impl Default for Writer {
    fn default() -> Self {
        let now = jiff::Timestamp::now().as_nanosecond();
        Self {
            name: format!("{}-{now:x}", std::process::id()),
            seen: None,
            own: Vec::new(),
            wrote: Instant::now(),
        }
    }
}

impl Writer {
    /// Writes what is new and reads what is new; `None` where nothing is.
    pub(super) fn exchange(
        &mut self,
        path: &Path,
        own: &[Fingerprint],
        told: &[Told],
    ) -> io::Result<Option<Page>> {
        let again = !own.is_empty() && self.wrote.elapsed() >= AGAIN;
        let mut lifted = Vec::new();
        let book = if told.is_empty() && own == self.own && !again {
            let now = stamp(path)?;
            if now == self.seen {
                return Ok(None);
            }
            self.seen = now;
            let book = read(path)?;
            lifted = self.lifted(&book);
            self.own.retain(|who| !lifted.contains(who));
            book
        } else {
            let mut left = own.to_vec();
            let book = change(path, |book| {
                lifted = self.lifted(book);
                left.retain(|who| !lifted.contains(who));
                self.write(book, &left, told);
            })?;
            self.own = left;
            self.wrote = Instant::now();
            self.seen = stamp(path)?;
            book
        };
        Ok(Some(Page {
            lifted,
            ..self.page(book)
        }))
    }

    /// Those that this gateway wrote and another one has struck out.
    fn lifted(&self, book: &Book) -> Vec<Fingerprint> {
        let Some(entry) = book.suspected.get(&self.name) else {
            // It has expired, or the file is new.
            return Vec::new();
        };
        let struck = self.own.iter();
        struck
            .filter(|who| !entry.fingerprints.contains(who))
            .copied()
            .collect()
    }

    fn write(&self, book: &mut Book, own: &[Fingerprint], told: &[Told]) {
        let (now, now_ms) = (Instant::now(), now_ms());
        book.convicted.retain(|_, one| one.until_ms > now_ms);
        // A clock that went back would make them last.
        let lasting = now_ms..=now_ms + SUSPECTED_MS;
        book.suspected
            .retain(|_, one| lasting.contains(&one.until_ms));
        for told in told {
            match told {
                Told::Convicted(who, one) => {
                    let left = one.until.saturating_duration_since(now).as_millis();
                    let until_ms = now_ms.saturating_add(i64::try_from(left).unwrap_or(i64::MAX));
                    let charge = one.charge.clone();
                    book.convicted.insert(*who, Convicted { until_ms, charge });
                }
                Told::Lifted(who) => {
                    book.convicted.remove(who);
                    for entry in book.suspected.values_mut() {
                        entry.fingerprints.retain(|one| one != who);
                    }
                }
            }
        }
        while book.convicted.len() > CONVICTIONS_MAX {
            book.convicted.pop_first();
        }
        book.suspected.remove(&self.name);
        if !own.is_empty() {
            let suspected = Suspected {
                until_ms: now_ms + SUSPECTED_MS,
                fingerprints: own.iter().take(SUSPECTS_MAX).copied().collect(),
            };
            book.suspected.insert(self.name.clone(), suspected);
        }
    }

    fn page(&self, book: Book) -> Page {
        let (now, now_ms) = (Instant::now(), now_ms());
        let until = |until_ms: i64| {
            let left = u64::try_from(until_ms.saturating_sub(now_ms)).ok()?;
            now.checked_add(Duration::from_millis(left))
        };
        let convicted = book.convicted.into_iter().filter_map(|(who, one)| {
            let charge = one.charge;
            until(one.until_ms).map(|until| (who, Conviction { until, charge }))
        });
        let others = book
            .suspected
            .iter()
            .filter(|(name, _)| **name != self.name);
        let suspected = others.filter_map(|(_, one)| {
            let until_ms = one.until_ms.min(now_ms + SUSPECTED_MS);
            Some((until(until_ms)?, one))
        });
        let each = suspected.flat_map(|(until, one)| {
            let all = one.fingerprints.iter();
            all.map(move |who| (*who, until))
        });
        Page {
            convicted: convicted.collect(),
            suspected: each.collect(),
            lifted: Vec::new(),
        }
    }
}

/// The lock of whoever tries somebody; `None` while another process has it. Ends with the file.
pub(super) fn take_trials(book: &Path) -> io::Result<Option<File>> {
    let file = open_lock(&book.with_extension("trial"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Book)) -> io::Result<Book> {
    let lock = open_lock(&path.with_extension("lock"))?;
    let begin = Instant::now();
    while matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) && begin.elapsed() < LOCK_WAIT {
        std::thread::sleep(Duration::from_millis(1));
    }
    // One that cannot be read is written anew: it would be refused for ever otherwise.
    let mut book = read(path).unwrap_or_default();
    change(&mut book);
    let text = serde_json::to_vec(&book).map_err(io::Error::other)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&text)?;
    file.persist(path)?;
    Ok(book)
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(path)
}

fn read(path: &Path) -> io::Result<Book> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Book::default()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

fn stamp(path: &Path) -> io::Result<Option<(i64, i64, u64, u64)>> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(Some((
            found.mtime(),
            found.mtime_nsec(),
            found.ino(),
            found.len(),
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspicion_that_another_gateway_lifts_comes_back_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("quarantine.json");
        let [one, two] = ["a1", "b2"].map(|text| Fingerprint::parse(&text.repeat(16)).unwrap());
        let (mut owner, mut other) = (Writer::default(), Writer::default());
        other.name = "another".to_owned();
        let page = owner.exchange(&path, &[one, two], &[]).unwrap().unwrap();
        assert!(page.lifted.is_empty());
        let page = other.exchange(&path, &[], &[]).unwrap().unwrap();
        assert_eq!(page.suspected.len(), 2);
        other.exchange(&path, &[], &[Told::Lifted(one)]).unwrap();
        let page = owner.exchange(&path, &[one, two], &[]).unwrap().unwrap();
        assert_eq!(page.lifted, [one]);
        assert!(owner.exchange(&path, &[two], &[]).unwrap().is_none());
    }
}
