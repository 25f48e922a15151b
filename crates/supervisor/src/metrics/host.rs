//! This machine as metrics: what `chassis::machine` reads, and its networks and clock (proc(5),
//! adjtimex(2)). What cannot be read is absent.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use chassis::machine::{self, MODES};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::whole;

/// Figures of one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    cpu_seconds: Vec<(&'static str, f64)>,
    memory_bytes: Vec<(&'static str, u64)>,
    disks: Vec<Disk>,
    network_bytes: Vec<(&'static str, u64)>,
    /// None: nothing synchronises the clock.
    clock_offset_seconds: Option<f64>,
}

#[derive(Clone, Debug)]
struct Disk {
    path: String,
    size: u64,
    available: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModeLabels {
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DiskLabels {
    path: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

impl Host {
    /// `paths`: folders whose disks are shown, one folder for each disk.
    pub(super) fn now(paths: &[PathBuf]) -> Self {
        let networks = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
        Self {
            cpu_seconds: cpu_seconds(),
            memory_bytes: memory_bytes(),
            disks: disks(paths),
            network_bytes: network(&networks),
            clock_offset_seconds: clock_offset(),
        }
    }

    pub(super) fn example() -> Self {
        Self {
            cpu_seconds: vec![("user", 1.0)],
            memory_bytes: vec![("total", 1)],
            disks: vec![Disk {
                path: "/".to_owned(),
                size: 1,
                available: 1,
            }],
            network_bytes: vec![("receive", 1)],
            clock_offset_seconds: Some(0.0),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let cpu = Family::<ModeLabels, Counter<f64, AtomicU64>>::default();
        for (mode, seconds) in &self.cpu_seconds {
            cpu.get_or_create(&ModeLabels { mode }).inc_by(*seconds);
        }
        registry.register(
            "bingo_host_cpu_seconds",
            "Time of all processors of this machine, by what they did",
            cpu,
        );
        let memory = Family::<KindLabels, Gauge>::default();
        for (kind, bytes) in &self.memory_bytes {
            memory
                .get_or_create(&KindLabels { kind })
                .set(whole(*bytes));
        }
        registry.register(
            "bingo_host_memory_bytes",
            "Memory of this machine: total, and available without swapping",
            memory,
        );
        self.register_disks(registry);
        let network = Family::<DirectionLabels, Counter>::default();
        for (direction, bytes) in &self.network_bytes {
            let labels = DirectionLabels { direction };
            network.get_or_create(&labels).inc_by(*bytes);
        }
        registry.register(
            "bingo_host_network_bytes",
            "Bytes over all network interfaces but loopback",
            network,
        );
        if let Some(seconds) = self.clock_offset_seconds {
            let offset = Gauge::<f64, AtomicU64>::default();
            offset.set(seconds);
            registry.register(
                "bingo_host_clock_offset_seconds",
                "How far the clock is from its source; absent while nothing synchronises it",
                offset,
            );
        }
    }

    fn register_disks(&self, registry: &mut Registry) {
        let all = Family::<DiskLabels, Gauge>::default();
        for disk in &self.disks {
            for (kind, bytes) in [("size", disk.size), ("available", disk.available)] {
                let path = disk.path.clone();
                let labels = DiskLabels { path, kind };
                all.get_or_create(&labels).set(whole(bytes));
            }
        }
        registry.register(
            "bingo_host_disk_bytes",
            "The disk that a folder of the installation is on: its size, and what is available",
            all,
        );
    }
}

fn cpu_seconds() -> Vec<(&'static str, f64)> {
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let ticks = machine::processor_ticks().into_iter().flatten();
    let seconds = ticks.map(|ticks| ticks as f64 / per_second);
    MODES.into_iter().zip(seconds).collect()
}

fn memory_bytes() -> Vec<(&'static str, u64)> {
    let kinds =
        machine::memory().map(|memory| [("total", memory.total), ("available", memory.available)]);
    kinds.into_iter().flatten().collect()
}

/// Receive is the first column after the name, transmit the ninth.
fn network(text: &str) -> Vec<(&'static str, u64)> {
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    let others = interfaces.filter(|(name, _)| name.trim() != "lo");
    let (mut received, mut sent) = (0_u64, 0_u64);
    for (_, columns) in others {
        let mut columns = columns.split_ascii_whitespace();
        let mut column = |at| columns.nth(at).and_then(|text| text.parse::<u64>().ok());
        received = received.saturating_add(column(0).unwrap_or(0));
        sent = sent.saturating_add(column(7).unwrap_or(0));
    }
    vec![("receive", received), ("transmit", sent)]
}

fn disks(paths: &[PathBuf]) -> Vec<Disk> {
    let mut seen = Vec::new();
    let mut disks = Vec::new();
    for path in paths {
        let Ok(device) = std::fs::metadata(path).map(|folder| folder.dev()) else {
            continue;
        };
        let Some(found) = machine::disk(path) else {
            continue;
        };
        if !seen.contains(&device) {
            seen.push(device);
            disks.push(Disk {
                path: path.display().to_string(),
                size: found.size,
                available: found.available,
            });
        }
    }
    disks
}

/// None where the kernel says that nothing synchronises the clock.
fn clock_offset() -> Option<f64> {
    // SAFETY: all zeros is a valid timex, and `modes` 0 only reads; the pointer lives for the call.
    #[allow(unsafe_code)]
    let (state, clock) = unsafe {
        let mut clock: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut clock), clock)
    };
    if state < 0 || state == libc::TIME_ERROR || clock.status & libc::STA_UNSYNC != 0 {
        return None;
    }
    let per_second = match clock.status & libc::STA_NANO {
        0 => 1e6,
        _ => 1e9,
    };
    Some(clock.offset as f64 / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_of_networks_is_read() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n\
                    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n\
                    eth0:10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n  wlan0: 1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        assert_eq!(network(text), [("receive", 11), ("transmit", 22)]);
    }

    #[test]
    fn two_folders_on_one_disk_are_shown_once() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [
            folder.path().to_owned(),
            folder.path().join("none"),
            folder.path().to_owned(),
        ];
        let disks = disks(&paths);
        assert_eq!(disks.len(), 1);
        assert!(disks[0].size >= disks[0].available);
    }
}
