//! The machine that a gateway runs on, as it can see it for itself: processors, memory, disk. From the
//! kernel, which is cheaper than asking another process and works where there is no supervisor.

use std::path::Path;

use chassis::machine::{self, MODES};
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
        let ticks = machine::processor_ticks().map(all_and_idle);
        let memory = machine::memory();
        let disk = machine::disk(folder);
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
            memory_bytes: memory.map(|memory| memory.total),
            memory_available_bytes: memory.map(|memory| memory.available),
            disk_bytes: disk.map(|disk| disk.size),
            disk_available_bytes: disk.map(|disk| disk.available),
        }
    }
}

/// Waiting for the disk is idle.
fn all_and_idle(ticks: [u64; MODES.len()]) -> (u64, u64) {
    let [_, _, _, idle, iowait, ..] = ticks;
    (ticks.iter().sum(), idle + iowait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_disk_is_idle() {
        assert_eq!(all_and_idle([10, 1, 5, 70, 10, 1, 2, 1]), (100, 80));
    }

    #[test]
    fn this_machine_has_memory_a_disk_and_after_two_looks_a_load() {
        let mut looker = Looker::default();
        let first = looker.look(Path::new("/"));
        assert_eq!(first.busy_percent, None);
        assert!(first.memory_bytes > first.memory_available_bytes);
        assert!(first.disk_bytes > first.disk_available_bytes);
        assert!(!first.name.is_empty());
    }
}
