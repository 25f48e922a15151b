//! What the kernel says of one process, for a scrape.

use crate::processes::{is_alive, rss_bytes, tree_bytes};

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
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Self {
            // What we started are processes with figures of their own.
            memory_bytes: match pid == std::process::id() {
                true => rss_bytes(pid),
                false => tree_bytes(pid),
            },
            started_seconds: booted_seconds().map(|booted| booted + start_time as f64 / ticks),
            open_files: files.ok().map(|files| files.count() as u64),
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

/// When the kernel started (proc(5), /proc/stat, `btime`).
fn booted_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("btime "));
    value?.trim().parse().ok()
}
