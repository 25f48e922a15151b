//! Rows about the folder: who may reach it, its paths, the disk under it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use private_postgres::Account;

use super::{Check, Subject};
use crate::access;
use crate::account;
use crate::layout::Layout;

/// Longest path of a Unix socket that every system takes, in bytes (unix(7) has 108 with its zero).
const SOCKET_PATH_BYTES_MAX: usize = 100;
/// An fsync slower than this makes every write of the service slow.
const SYNC_SLOW: Duration = Duration::from_millis(50);
/// Disk that an installation needs beside its rows: a new cluster, its write-ahead log, logs.
const DISK_BASE: u64 = 512 << 20;
/// Disk per session filled: row, key, list index and its share of write-ahead log, in bytes.
const DISK_PER_SESSION: u64 = 240;
/// The same per customer or movie.
const DISK_PER_NAME: u64 = 500;

pub(super) fn account_and_access(subject: &Subject<'_>) -> Vec<Check> {
    let account = match account::of(subject.options.user.as_deref()) {
        Ok(account) => account,
        Err(failure) => {
            let message = failure.messages.into_iter().next();
            let (why, help) = message.map(|m| (m.why, m.help)).unwrap_or_default();
            return vec![Check::failed("account", why, help)];
        }
    };
    let name = &account.name;
    let mut checks = vec![Check::ok("account", format!("children run as {name}"))];
    let root = subject.layout.root();
    checks.push(match access::first_closed(root, &account) {
        None => writable(subject, &account),
        Some(closed) => closed_to(&account, "folder", root, &closed),
    });
    let exec = subject.options.exec.as_ref();
    let programs = [
        ("binary", std::env::current_exe().ok()),
        (
            "program of --exec",
            exec.map(|exec| exec.program().to_owned()),
        ),
    ];
    for (name, program) in programs {
        let Some(program) = program else { continue };
        checks.push(match access::first_closed(&program, &account) {
            None => Check::ok(name, program.display().to_string()),
            Some(closed) => closed_to(&account, name, &program, &closed),
        });
    }
    checks
}

fn closed_to(account: &Account, name: &'static str, path: &Path, closed: &Path) -> Check {
    let found = format!(
        "{} cannot be reached by {}, as whom the children run: {} is closed to it",
        path.display(),
        account.name,
        closed.display()
    );
    let remedy = format!(
        "chmod o+x {}, or use a place that {} can reach (like /srv or /opt), or choose another \
         account with --user",
        closed.display(),
        account.name
    );
    Check::failed(name, found, remedy)
}

fn writable(subject: &Subject<'_>, account: &Account) -> Check {
    let root = subject.layout.root();
    if let Some(check) = unfit(subject, account) {
        return check;
    }
    let place = existing(root);
    match probe_file(&place) {
        Ok(_) => Check::ok("folder", root.display().to_string()),
        Err(error) => Check::failed(
            "folder",
            format!("{} cannot be written: {error}", place.display()),
            "make it writable for this user, or choose another with --dir",
        ),
    }
}

/// A place that `up` must not touch, or cannot use.
fn unfit(subject: &Subject<'_>, account: &Account) -> Option<Check> {
    let root = subject.layout.root();
    let name = "folder";
    let shown = root.display();
    if root.to_string_lossy().contains(|c: char| c.is_control()) {
        let found = format!("{shown:?} has a control character in its name");
        return Some(Check::failed(name, found, "choose another with --dir"));
    }
    if std::fs::symlink_metadata(root).is_ok() && !root.is_dir() {
        let found = format!("{shown} is no folder");
        return Some(Check::failed(name, found, "name a folder with --dir"));
    }
    if subject.layout.is_foreign() {
        let found = format!("{shown} holds files and is no installation of bingo");
        return Some(Check::failed(
            name,
            found,
            "name a new or empty folder with --dir",
        ));
    }
    let owner = std::fs::metadata(subject.layout.postgres()).ok()?.uid();
    (owner != account.uid).then(|| {
        let owner = Account::name_of(owner);
        let found = format!(
            "the data in {shown} belongs to {owner}, not to {}",
            account.name
        );
        Check::failed(
            name,
            found,
            format!("give --user {owner} as root, or run as {owner}"),
        )
    })
}

pub(super) fn socket_paths(subject: &Subject<'_>) -> Check {
    let sockets = subject.layout.sockets();
    let longest = sockets.iter().max_by_key(|path| path.as_os_str().len());
    let bytes = longest.map_or(0, |path| path.as_os_str().len());
    if bytes <= SOCKET_PATH_BYTES_MAX {
        Check::ok("socket paths", format!("{bytes} bytes at most"))
    } else {
        Check::failed(
            "socket paths",
            format!("{bytes} bytes; {SOCKET_PATH_BYTES_MAX} is the most that every system takes"),
            "choose a folder with a shorter path with --dir",
        )
    }
}

pub(super) fn disk_space(subject: &Subject<'_>) -> Check {
    let place = existing(subject.layout.root());
    let options = subject.options;
    let rows = u64::from(options.sessions) * DISK_PER_SESSION
        + (u64::from(options.customers) + u64::from(options.movies)) * DISK_PER_NAME;
    let needed = if options.postgres_url.is_some() || is_filled(subject.layout) {
        DISK_BASE
    } else {
        // A filling that was broken off goes on where it was.
        DISK_BASE + rows.saturating_sub(bytes_below(&subject.layout.postgres()))
    };
    let Some(disk) = chassis::machine::disk(&place) else {
        return Check::warning("disk space", "could not be read", String::new());
    };
    let free = disk.available;
    let found = format!("{} MiB free, {} MiB needed", free >> 20, needed >> 20);
    if free >= needed {
        Check::ok("disk space", found)
    } else {
        let remedy = format!(
            "free some on the disk of {}, choose another with --dir, or fill fewer rows with \
             --sessions",
            place.display()
        );
        Check::failed("disk space", found, remedy)
    }
}

/// Whether the last `prepare_db` here came to its end.
fn is_filled(layout: &Layout) -> bool {
    let log = std::fs::read_to_string(layout.logs().join("prepare_db.log")).unwrap_or_default();
    let last = log.lines().last().unwrap_or_default();
    serde_json::from_str::<serde_json::Value>(last).is_ok_and(|line| line["phase"] == "done")
}

/// Bytes of all files below a folder; 0 for what cannot be read.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

pub(super) fn disk_sync(subject: &Subject<'_>) -> Check {
    let place = existing(subject.layout.root());
    match probe_file(&place) {
        Ok(took) if took < SYNC_SLOW => {
            Check::ok("disk sync", format!("{:.1} ms", took.as_secs_f64() * 1e3))
        }
        Ok(took) => Check::warning(
            "disk sync",
            format!(
                "{:.0} ms: every write of the service waits for it",
                took.as_secs_f64() * 1e3
            ),
            "use a faster disk with --dir",
        ),
        Err(error) => Check::warning("disk sync", error.to_string(), String::new()),
    }
}

/// Writes, syncs and removes a file in the folder; the time of the sync.
fn probe_file(folder: &Path) -> std::io::Result<Duration> {
    let path = folder.join(format!(".bingo-probe-{}", std::process::id()));
    let result = (|| {
        let mut file = File::create_new(&path)?;
        file.write_all(&[0; 8192])?;
        let start = Instant::now();
        file.sync_all()?;
        Ok(start.elapsed())
    })();
    let _ = std::fs::remove_file(&path);
    result
}

fn existing(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|part| part.is_dir())
        .unwrap_or(Path::new("/"))
        .to_owned()
}
