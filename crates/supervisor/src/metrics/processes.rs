//! What the kernel says of one process, for a scrape.

use crate::processes::{is_alive, rss_bytes, share_bytes, tree};

/// Absent where it is gone, or not for us to know.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    pub(super) memory_bytes: Option<u64>,
    /// Since 1970.
    pub(super) started_seconds: Option<f64>,
    pub(super) open_files: Option<u64>,
}

impl Measured {
    /// Of the process with this pid and start time.
    pub(super) fn now((pid, start_time): (u32, u64)) -> Self {
        if !is_alive(pid, start_time) {
            return Self::default();
        }
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        // What we started are processes with figures of their own.
        let all = match pid == std::process::id() {
            true => vec![pid],
            false => tree(pid),
        };
        Self {
            memory_bytes: memory_bytes(&all),
            started_seconds: booted_seconds().map(|booted| booted + start_time as f64 / ticks),
            open_files: open_files(&all),
        }
    }

    pub(super) fn example() -> Self {
        Self {
            memory_bytes: Some(1),
            started_seconds: Some(1.0),
            open_files: Some(1),
        }
    }
}

/// A server and its children share most of what they have (PostgreSQL's buffers): what they share counts
/// once, where we may know. Of a process without children it is all its own.
fn memory_bytes(all: &[u32]) -> Option<u64> {
    if let [only] = all {
        return rss_bytes(*only);
    }
    let bytes = |pid: &u32| share_bytes(*pid).or_else(|| rss_bytes(*pid));
    let (first, below) = all.split_first()?;
    let below: u64 = below.iter().filter_map(bytes).sum();
    Some(bytes(first)?.saturating_add(below))
}

/// Of all that we may look at; None where not even the first is.
fn open_files(all: &[u32]) -> Option<u64> {
    let count = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        Some(files.count() as u64)
    };
    let (first, below) = all.split_first()?;
    Some(count(first)? + below.iter().filter_map(count).sum::<u64>())
}

/// When the kernel started (proc(5), /proc/stat, `btime`).
fn booted_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("btime "));
    value?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::processes::{kill_tree, start_time};

    #[test]
    fn what_a_process_and_its_children_share_counts_once_and_their_files_together() {
        // Memory that is filled before the children are made is theirs too.
        let script = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); exec 3<&0
            for i in 1 2 3; do (read line <&3) & done; echo ready; wait; echo ${#x}";
        let mut parent = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = std::io::BufReader::new(parent.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let pid = parent.id();
        let all = tree(pid);
        let each: Vec<u64> = all.iter().filter_map(|pid| rss_bytes(*pid)).collect();
        let readable = all.iter().all(|pid| share_bytes(*pid).is_some());
        let measured = Measured::now((pid, start_time(pid).unwrap()));
        kill_tree(pid);
        parent.wait().unwrap();
        assert_eq!(all.len(), 4, "{all:?}");
        let (memory, most) = (measured.memory_bytes.unwrap(), each.iter().max().unwrap());
        if readable {
            assert!(memory < 2 * most, "{memory} of {each:?}");
        }
        assert!(memory > most / 2, "{memory} of {each:?}");
        assert!(measured.open_files.unwrap() >= 4 * 3);
    }
}
