//! Memory limits that the kernel keeps (cgroups): each run of a process that has limits gets a group of
//! its own, so that what it takes between two looks of ours costs it alone, and never the machine. Where
//! no group can be made, reading memory and `RLIMIT_DATA` are what there is, and the status says so.
//!
//! Version 2 (Linux, admin-guide/cgroup-v2): below our own group, where it is ours to divide. A group
//! that hands the controller down may hold no processes, so we move into one beside the others first;
//! not where strangers are in it. Version 1 (cgroup-v1/memory): below our own group of that controller.
//! No group is limited in anything else, and `memory.high` stays off: it slows down what it should end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::processes::{descendants, start_time};

/// The name of the group that the supervisor moves into.
const OWN: &str = "supervisor";
const MIB_BITS: u32 = 20;
/// Our groups of version 1 begin so; then comes the supervisor's pid.
const PREFIX: &str = "bingo-";
/// A group may be busy for a moment after its last process.
const LEAVE_TRIES: u32 = 20;
const LEAVE_PAUSE: Duration = Duration::from_millis(10);

/// Where groups are made.
#[derive(Clone, Debug)]
pub(crate) enum Groups {
    Two(PathBuf),
    One(PathBuf),
    Nowhere,
}

/// The group of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Group {
    folder: PathBuf,
    is_two: bool,
    hard: u64,
}

impl Groups {
    /// Looks for a place once, and takes it.
    pub(crate) fn found() -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}"));
        let (Ok(own), Ok(mounts)) = (read("cgroup"), read("mountinfo")) else {
            return Self::Nowhere;
        };
        let two = folder_of(&own, &mounts, "0::", |kind, _| kind == "cgroup2")
            .ok_or_else(|| io::Error::other("not mounted"))
            .and_then(|folder| divide(&folder));
        let two_failed = match two {
            Ok(folder) => return Self::Two(folder),
            Err(error) => error,
        };
        let has_memory = |kind: &str, options: &str| {
            kind == "cgroup" && options.split(',').any(|option| option == "memory")
        };
        let one = folder_of(&own, &mounts, ":memory:", has_memory)
            .ok_or_else(|| io::Error::other("not mounted"))
            .and_then(|folder| below(&folder));
        match one {
            Ok(folder) => Self::One(folder),
            Err(error) => {
                let why = format!("version 2: {two_failed}; version 1: {error}");
                tracing::info!(
                    why,
                    "memory limits are ours alone to keep: there are no groups for us"
                );
                Self::Nowhere
            }
        }
    }

    /// Puts a process, and what it started so far, into a group of its own that may take `hard` bytes.
    /// None where there are no groups, or it cannot be done now.
    pub(crate) fn put(&self, name: &str, run: u64, pid: u32, hard: u64) -> Option<Group> {
        let (base, is_two) = match self {
            Self::Two(base) => (base, true),
            Self::One(base) => (base, false),
            Self::Nowhere => return None,
        };
        let group = Group {
            folder: base.join(format!("{name}-{run}")),
            is_two,
            hard,
        };
        match group.take_in(pid) {
            Ok(()) => Some(group),
            Err(error) => {
                tracing::warn!(name, pid, %error, "it has no memory group; its memory is read");
                let _ = std::fs::remove_dir(&group.folder);
                None
            }
        }
    }

    /// Gives the place back, at the end of all. Blocks for a moment.
    pub(crate) fn leave(&self) {
        if let Self::One(base) = self {
            for _ in 0..LEAVE_TRIES {
                if remove_all(base) {
                    return;
                }
                std::thread::sleep(LEAVE_PAUSE);
            }
        }
    }
}

impl Group {
    fn take_in(&self, pid: u32) -> io::Result<()> {
        match std::fs::create_dir(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let limit = match self.is_two {
            true => "memory.max",
            false => "memory.limit_in_bytes",
        };
        self.write(limit, &self.hard.to_string())?;
        if self.is_two {
            // All of it dies, not some part that the rest then waits for.
            let _ = self.write("memory.oom.group", "1");
            let _ = self.write("memory.swap.max", "0");
        }
        self.write("cgroup.procs", &pid.to_string())?;
        for (below, _) in descendants(pid) {
            // It may have ended meanwhile.
            let _ = self.write("cgroup.procs", &below.to_string());
        }
        Ok(())
    }

    /// Why the kernel ended something in it, if it did.
    pub(crate) fn killed_for(&self) -> Option<String> {
        let file = match self.is_two {
            true => "memory.events",
            false => "memory.oom_control",
        };
        let text = std::fs::read_to_string(self.folder.join(file)).ok()?;
        let kills = text
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "))?;
        let was = kills.trim().parse::<u64>().is_ok_and(|kills| kills > 0);
        let hard = self.hard >> MIB_BITS;
        was.then(|| format!("memory hard: {hard} of {hard} MiB, ended by the kernel"))
    }

    /// Ends all in it at once, where the kernel can do that.
    pub(crate) fn kill(&self) {
        if self.is_two {
            let _ = self.write("cgroup.kill", "1");
        }
    }

    /// Removes it when nothing is in it any more; one that stays busy is left to the end of all.
    pub(crate) async fn remove_soon(&self) {
        for _ in 0..LEAVE_TRIES {
            if remove_all(&self.folder) {
                return;
            }
            tokio::time::sleep(LEAVE_PAUSE).await;
        }
    }

    /// For the status.
    pub(crate) fn watched_by(&self) -> &'static str {
        match self.is_two {
            true => "the kernel (cgroup version 2), and reading 10 times a second",
            false => "the kernel (cgroup version 1), and reading 10 times a second",
        }
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        std::fs::write(self.folder.join(file), text)
    }
}

/// Our own group of a hierarchy. `own` is /proc/self/cgroup, where its line holds `mark`; `mounts` is
/// /proc/self/mountinfo, where `is` knows it by type and options (proc(5)).
fn folder_of(
    own: &str,
    mounts: &str,
    mark: &str,
    is: impl Fn(&str, &str) -> bool,
) -> Option<PathBuf> {
    let line = own.lines().find(|line| match mark {
        "0::" => line.starts_with(mark),
        _ => line.contains(mark) || line.contains(",memory") || line.contains("memory,"),
    })?;
    let path = line.splitn(3, ':').nth(2)?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        if !is(kind, options) {
            return None;
        }
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        // In a namespace of mounts only a part of the hierarchy may be seen.
        let inside = Path::new(path).strip_prefix(root).ok()?;
        Some(Path::new(point).join(inside))
    })
}

/// A version 2 group that hands memory down to groups below it.
fn divide(folder: &Path) -> io::Result<PathBuf> {
    let holds = |folder: &Path, file: &str| {
        let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        text.split_ascii_whitespace().any(|one| one == "memory")
    };
    // Another program of this very process has been here.
    if let Some(above) = folder.parent().filter(|_| folder.ends_with(OWN))
        && holds(above, "cgroup.subtree_control")
    {
        return Ok(above.to_owned());
    }
    if !holds(folder, "cgroup.controllers") {
        return Err(io::Error::other("memory is not handed down to us"));
    }
    let procs = std::fs::read_to_string(folder.join("cgroup.procs"))?;
    let own = std::process::id();
    let below: Vec<u32> = descendants(own).into_iter().map(|(pid, _)| pid).collect();
    let mut pids = Vec::new();
    for pid in procs.lines().filter_map(|line| line.parse::<u32>().ok()) {
        if pid != own && !below.contains(&pid) {
            return Err(io::Error::other("others are in our group"));
        }
        pids.push(pid);
    }
    let beside = folder.join(OWN);
    match std::fs::create_dir(&beside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for pid in pids {
        std::fs::write(beside.join("cgroup.procs"), pid.to_string())?;
    }
    std::fs::write(folder.join("cgroup.subtree_control"), "+memory")?;
    Ok(folder.to_owned())
}

/// A version 1 group of ours below our own. What a supervisor left that was killed is removed.
fn below(folder: &Path) -> io::Result<PathBuf> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok())
            && start_time(pid).is_none()
        {
            remove_all(&entry.path());
        }
    }
    let folder = folder.join(format!("{PREFIX}{}", std::process::id()));
    match std::fs::create_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(folder),
    }
}

/// Whether a group and those in it are gone; those with processes stay.
fn remove_all(group: &Path) -> bool {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
    match std::fs::remove_dir(group) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn our_own_group_is_found_in_either_version() {
        let own = "9:name=systemd:/\n4:memory:/a/b\n1:cpu:/\n0::/user/x\n";
        let mounts = "30 20 0:5 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 20 0:6 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      32 20 0:7 /user /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let memory = |kind: &str, options: &str| kind == "cgroup" && options.contains("memory");
        let one = folder_of(own, mounts, ":memory:", memory);
        assert_eq!(one.unwrap(), Path::new("/sys/fs/cgroup/memory/a/b"));
        let two = folder_of(own, mounts, "0::", |kind, _| kind == "cgroup2");
        assert_eq!(two.unwrap(), Path::new("/sys/fs/cgroup/unified/x"));
        assert!(folder_of("", mounts, "0::", |_, _| true).is_none());
    }

    #[test]
    fn what_outgrows_its_group_is_ended_by_the_kernel_alone() {
        let groups = Groups::found();
        if matches!(groups, Groups::Nowhere) {
            println!("left out: no memory groups here");
            return;
        }
        let mut command = Command::new("sh");
        let command = command.args(["-c", "read go; exec tail /dev/zero"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let group = groups.put("grows", 1, child.id(), 64 << MIB_BITS).unwrap();
        assert_eq!(group.killed_for(), None);
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{groups:?}");
        let why = group.killed_for().unwrap();
        assert_eq!(why, "memory hard: 64 of 64 MiB, ended by the kernel");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !remove_all(&group.folder) {
            assert!(Instant::now() < deadline, "its group goes with it");
            std::thread::sleep(Duration::from_millis(10));
        }
        groups.leave();
        if let Groups::One(base) = groups {
            assert!(!base.exists());
        }
    }
}
