//! The machine that a gateway runs on, as it can see it for itself: processors, memory, disk. From
//! /proc, which is cheaper than asking another process and works where there is no supervisor.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Figures of a machine; what could not be read is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) processors: usize,
    /// Of all processors together, since the last look.
    pub(crate) busy_percent: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) memory_available_bytes: Option<u64>,
    /// Of the file system that the gateway writes to.
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) disk_available_bytes: Option<u64>,
}

/// Looks at the machine again and again.
#[derive(Debug, Default)]
pub(crate) struct Looker {
    /// Ticks so far: all, and those of them that were idle.
    ticks: Option<(u64, u64)>,
}

impl Looker {
    pub(crate) fn look(&mut self, folder: &Path) -> Host {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let ticks = read("/proc/stat").as_deref().and_then(ticks);
        let memory = read("/proc/meminfo").unwrap_or_default();
        let disk = rustix::fs::statvfs(folder).ok();
        let busy_percent = self.ticks.zip(ticks).and_then(|(before, now)| {
            let all = now.0.saturating_sub(before.0);
            let idle = now.1.saturating_sub(before.1);
            let busy = all.saturating_sub(idle) as f64 / all as f64 * 100.0;
            (all > 0).then_some((busy * 10.0).round() / 10.0)
        });
        self.ticks = ticks;
        Host {
            name: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            busy_percent,
            memory_bytes: kilobytes(&memory, "MemTotal:"),
            memory_available_bytes: kilobytes(&memory, "MemAvailable:"),
            disk_bytes: disk
                .as_ref()
                .map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
            disk_available_bytes: disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        }
    }
}

/// proc(5), /proc/stat: user nice system idle iowait irq softirq steal; guest is in user already.
fn ticks(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let numbers: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map_while(|number| number.parse().ok())
        .collect();
    let idle = numbers.get(3)? + numbers.get(4).unwrap_or(&0);
    Some((numbers.iter().sum(), idle))
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_disk_is_idle_and_guests_are_not_counted_twice() {
        let text = "cpu  10 1 5 70 10 1 2 1 9 0\ncpu0 1 1 1 1\n";
        assert_eq!(ticks(text), Some((100, 80)));
        assert_eq!(ticks("intr 1"), None);
    }

    #[test]
    fn this_machine_has_memory_a_disk_and_after_two_looks_a_load() {
        let mut looker = Looker::default();
        let first = looker.look(Path::new("/"));
        assert_eq!(first.busy_percent, None);
        assert!(first.memory_bytes > first.memory_available_bytes);
        assert!(first.disk_bytes > first.disk_available_bytes);
        assert!(!first.name.is_empty());
        assert_eq!(kilobytes("MemTotal:  3 kB\n", "MemTotal:"), Some(3072));
    }
}
