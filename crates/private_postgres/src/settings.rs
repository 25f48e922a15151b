//! PostgreSQL's settings for a machine that the server shares with everything else of ours (two nodes,
//! two gateways, perhaps a second installation). Modest on purpose: what is not taken here stays with
//! the kernel's page cache, which serves PostgreSQL too. One pure function, no file, no probing.
//! Source: PostgreSQL chapter 20, "Server Configuration".

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Kept free for the operator and for the restart of a pool, beside what the service asked for.
const SPARE_CONNECTIONS: u32 = 10;

/// What the settings are computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Of the machine, or of the memory limit that we run under.
    pub memory_bytes: u64,
    pub cores: u32,
}

/// Names and values for `bingo.conf`, in its order; `connections` is how many clients may be connected
/// at once. Durability is never traded: fsync, full_page_writes and synchronous_commit stay on.
pub fn settings(machine: &Machine, connections: u32) -> Vec<(String, String)> {
    let mut all = memory(machine, connections);
    all.extend(write_ahead_log(machine));
    all.extend(parallel(machine));
    all.extend(planner_and_sessions());
    all.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// The same for a server that may have so many replicas: it logs what they need, and keeps it for one
/// that is away for a while. Filling is then slower, since nothing is synced in the place of logging.
pub fn with_replicas(settings: Vec<(String, String)>, replicas: u32) -> Vec<(String, String)> {
    let own = [
        ("wal_level", "replica".to_owned()),
        // Each one, a new one being copied, and a connection that died and is not yet missed.
        ("max_wal_senders", (2 * replicas + 2).to_string()),
        ("max_replication_slots", (2 * replicas + 2).to_string()),
        ("wal_keep_size", bytes(512 * MIB)),
        ("wal_sender_timeout", "10s".to_owned()),
        ("wal_receiver_timeout", "10s".to_owned()),
        ("hot_standby", "on".to_owned()),
        // A replica reports what its queries still read, so that replay breaks none of them off.
        ("hot_standby_feedback", "on".to_owned()),
    ];
    let others = settings
        .into_iter()
        .filter(|(name, _)| own.iter().all(|(ours, _)| ours != name));
    let others: Vec<_> = others.collect();
    let own = own.map(|(name, value)| (name.to_owned(), value));
    others.into_iter().chain(own).collect()
}

type Settings = Vec<(&'static str, String)>;

fn memory(machine: &Machine, connections: u32) -> Settings {
    let memory = machine.memory_bytes;
    let shared = (memory / 16).clamp(128 * MIB, 2 * GIB);
    // One statement may take it several times, but few of the connections sort at once.
    let work = (memory / 16 / u64::from(connections.max(1))).clamp(4 * MIB, 32 * MIB);
    // Index builds of the fill; autovacuum must not take the same, three times.
    let maintenance = (memory / 32).clamp(64 * MIB, GIB);
    vec![
        (
            "max_connections",
            (connections + SPARE_CONNECTIONS).to_string(),
        ),
        ("shared_buffers", bytes(shared)),
        ("effective_cache_size", bytes((memory / 2).max(shared))),
        ("work_mem", bytes(work)),
        ("maintenance_work_mem", bytes(maintenance)),
        ("autovacuum_work_mem", bytes(64 * MIB)),
    ]
}

fn write_ahead_log(machine: &Machine) -> Settings {
    let log = (machine.memory_bytes / 8).clamp(512 * MIB, 2 * GIB);
    vec![
        ("fsync", "on".into()),
        ("full_page_writes", "on".into()),
        ("synchronous_commit", "on".into()),
        // Minimal: what a transaction both creates and loads (the fill) is synced instead of logged,
        // and so is a new index. A server with replicas needs `replica` here and senders.
        ("wal_level", "minimal".into()),
        ("max_wal_senders", "0".into()),
        ("wal_compression", "on".into()),
        ("max_wal_size", bytes(log)),
        ("min_wal_size", bytes(128 * MIB)),
        ("checkpoint_timeout", "15min".into()),
        ("checkpoint_completion_target", "0.9".into()),
    ]
}

fn parallel(machine: &Machine) -> Settings {
    let cores = machine.cores.clamp(1, 16);
    vec![
        ("max_worker_processes", (cores + 4).to_string()),
        ("max_parallel_workers", cores.to_string()),
        (
            "max_parallel_workers_per_gather",
            (cores / 2).clamp(0, 2).to_string(),
        ),
        (
            "max_parallel_maintenance_workers",
            (cores / 2).clamp(1, 4).to_string(),
        ),
    ]
}

fn planner_and_sessions() -> Settings {
    let fixed = [
        // Compiling a plan takes longer than any plan of ours runs.
        ("jit", "off"),
        ("random_page_cost", "1.1"),
        // A client that died inside a transaction must not keep its locks.
        ("idle_in_transaction_session_timeout", "10s"),
        ("tcp_keepalives_idle", "30s"),
        ("client_connection_check_interval", "1s"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("log_line_prefix", "%m [%p] %q%a "),
        ("log_checkpoints", "off"),
        ("cluster_name", "bingo"),
    ];
    fixed.map(|(name, value)| (name, value.to_owned())).to_vec()
}

/// In kB, PostgreSQL's own word for KiB.
fn bytes(bytes: u64) -> String {
    format!("{}kB", bytes / KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(memory_bytes: u64, cores: u32, connections: u32, name: &str) -> String {
        let machine = Machine {
            memory_bytes,
            cores,
        };
        let all = settings(&machine, connections);
        all.iter().find(|(n, _)| n == name).unwrap().1.clone()
    }

    #[test]
    fn shared_buffers_are_a_sixteenth_of_memory_within_bounds() {
        assert_eq!(value(GIB, 1, 100, "shared_buffers"), "131072kB");
        assert_eq!(value(24 * GIB, 2, 100, "shared_buffers"), "1572864kB");
        assert_eq!(value(512 * GIB, 64, 100, "shared_buffers"), "2097152kB");
    }

    #[test]
    fn a_machine_of_one_gib_keeps_most_of_its_memory() {
        let kib = |name| -> u64 {
            value(GIB, 1, 100, name)
                .trim_end_matches("kB")
                .parse()
                .unwrap()
        };
        let busy = kib("shared_buffers") + 8 * kib("work_mem") + kib("maintenance_work_mem");
        assert!(busy < 256 * 1024, "{busy} KiB");
    }

    #[test]
    fn nothing_divides_by_zero_and_no_name_stands_twice() {
        let all = settings(
            &Machine {
                memory_bytes: 0,
                cores: 0,
            },
            0,
        );
        let mut names: Vec<_> = all.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn a_server_with_replicas_logs_what_they_need_and_names_nothing_twice() {
        let machine = Machine {
            memory_bytes: GIB,
            cores: 2,
        };
        let all = with_replicas(settings(&machine, 10), 2);
        let value = |name: &str| {
            let mut found = all.iter().filter(|(n, _)| n == name);
            let value = found.next().map(|(_, value)| value.clone());
            assert!(found.next().is_none(), "{name} stands twice");
            value.unwrap()
        };
        assert_eq!(value("wal_level"), "replica");
        assert_eq!(value("max_wal_senders"), "6");
        assert_eq!(value("fsync"), "on");
    }

    #[test]
    fn durability_is_never_traded() {
        for name in ["fsync", "full_page_writes", "synchronous_commit"] {
            assert_eq!(value(24 * GIB, 2, 100, name), "on");
        }
    }
}
