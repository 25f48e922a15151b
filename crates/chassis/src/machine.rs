//! The machine as the kernel shows it: processors, memory, disks (proc(5), statvfs(3)). One place for
//! whoever watches it, so that two figures of one thing are the same. What cannot be read is `None`.
//! Each call asks the kernel anew; that of a disk waits for a dying one.

use std::path::Path;

/// What the processors of `processor_ticks` did; time for guests is in `user` and `nice` already.
pub const MODES: [&str; 8] = [
    "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal",
];

/// In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// Without swapping.
    pub available: u64,
}

/// In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    pub size: u64,
    /// To accounts other than root.
    pub available: u64,
}

/// The time of all processors since the start, in clock ticks, by what they did: in the order of `MODES`.
pub fn processor_ticks() -> Option<[u64; MODES.len()]> {
    ticks(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// Its memory now.
pub fn memory() -> Option<Memory> {
    of_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// The disk that a file or folder is on.
pub fn disk(path: &Path) -> Option<Disk> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(Disk {
        size: found.f_blocks.saturating_mul(found.f_frsize),
        available: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

/// Kernels before 2.6.11 have fewer columns; none of ours.
fn ticks(text: &str) -> Option<[u64; MODES.len()]> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let columns = line.split_ascii_whitespace();
    let columns: Vec<u64> = columns
        .map_while(|column| column.parse().ok())
        .take(MODES.len())
        .collect();
    columns.try_into().ok()
}

fn of_meminfo(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes = value
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>()
            .ok()?;
        kibibytes.checked_mul(1024)
    };
    Some(Memory {
        total: bytes("MemTotal:")?,
        available: bytes("MemAvailable:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let text = "cpu  100 200 300 400 500 600 700 800 9 9\ncpu0 1 1 1\nbtime 5\n";
        assert_eq!(ticks(text), Some([100, 200, 300, 400, 500, 600, 700, 800]));
        assert_eq!(ticks("cpu 1 2 3\n"), None);
        assert_eq!(ticks("intr 1\n"), None);
        let text = "MemTotal:       16 kB\nMemFree: 1 kB\nMemAvailable:    8 kB\n";
        let (total, available) = (16 * 1024, 8 * 1024);
        assert_eq!(of_meminfo(text), Some(Memory { total, available }));
        assert_eq!(of_meminfo("MemTotal: 16 kB\n"), None);
    }

    #[test]
    fn this_machine_has_processors_memory_and_a_disk() {
        assert!(processor_ticks().unwrap().iter().sum::<u64>() > 0);
        let memory = memory().unwrap();
        assert!(memory.total > memory.available && memory.available > 0);
        let disk = disk(Path::new("/")).unwrap();
        assert!(disk.size >= disk.available);
        assert_eq!(super::disk(Path::new("/nowhere/at/all")), None);
    }
}
