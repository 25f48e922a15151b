//! What the supervisor knows as metrics: its processes, and the machine that they run on, which no
//! other process of ours looks at. Served on loopback, by tasks beside the supervisor's own: it leaves
//! word of every change (`Board`), so a scrape asks it nothing, and sees the states even while it hangs.
//!
//! The rest is read from the kernel when somebody scrapes. Reading may block, on a dying disk above
//! all: one thread at a time does it, and a scrape that it does not answer in time has no such figures.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chassis::events::Events;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

use crate::status::ProcessState;

mod host;
mod processes;
mod server;

pub(crate) use server::Server;

use host::Host;
use processes::Measured;

/// How long a scrape waits for the kernel's figures.
const READING_MAX: Duration = Duration::from_secs(1);

/// What the supervisor leaves word of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Vec<Entry>>>);

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) state: ProcessState,
    /// Pid and start time, while it runs.
    pub(crate) identity: Option<(u32, u64)>,
    /// Why it was restarted, and how often.
    pub(crate) restarts: Vec<(&'static str, u64)>,
}

impl Board {
    pub(crate) fn write(&self, entries: Vec<Entry>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = entries;
    }

    fn read(&self) -> Vec<Entry> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// All that a scrape needs.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    board: Board,
    events: Events,
    /// Whose disks are shown.
    paths: Arc<[PathBuf]>,
    reading: Arc<Semaphore>,
}

/// What the kernel says.
#[derive(Debug, Default)]
struct Read {
    host: Host,
    measured: Vec<(String, Measured)>,
}

impl Source {
    pub(crate) fn new(board: Board, events: Events, paths: Vec<PathBuf>) -> Self {
        Self {
            board,
            events,
            paths: paths.into(),
            reading: Arc::new(Semaphore::new(1)),
        }
    }

    /// The text of a scrape.
    async fn scrape(&self) -> String {
        let entries = self.board.read();
        let read = self.read(entries.clone());
        let read = tokio::time::timeout(READING_MAX, read).await;
        encode(&entries, &read.unwrap_or_default(), &self.events)
    }

    async fn read(&self, entries: Vec<Entry>) -> Read {
        let Ok(permit) = Arc::clone(&self.reading).acquire_owned().await else {
            return Read::default();
        };
        let paths = Arc::clone(&self.paths);
        let reading = tokio::task::spawn_blocking(move || {
            // Until it is done, however long nobody waits for it any more.
            let _permit = permit;
            let running = entries
                .iter()
                .filter_map(|entry| Some((entry.name.clone(), entry.identity?)));
            Read {
                measured: running
                    .map(|(name, identity)| (name, Measured::now(identity)))
                    .collect(),
                host: Host::now(&paths),
            }
        });
        reading.await.unwrap_or_default()
    }
}

/// A scrape after one of everything had happened, for the reference page.
pub fn example() -> String {
    let entry = Entry {
        name: "node-1".to_owned(),
        role: "node".to_owned(),
        state: ProcessState::Healthy,
        identity: None,
        restarts: vec![("exit", 1)],
    };
    let read = Read {
        measured: vec![(entry.name.clone(), Measured::example())],
        host: Host::example(),
    };
    encode(&[entry], &read, &Events::default())
}

/// The folders whose disks matter, each once.
pub(crate) fn folders<'a>(files: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in files {
        if !folders.iter().any(|known| known == folder) {
            folders.push(folder.to_owned());
        }
    }
    folders
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    name: String,
    role: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RestartLabels {
    name: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabels {
    name: String,
}

type Seconds = Gauge<f64, AtomicU64>;

const STATES: [(ProcessState, &str); 7] = [
    (ProcessState::Starting, "starting"),
    (ProcessState::Healthy, "healthy"),
    (ProcessState::Unhealthy, "unhealthy"),
    (ProcessState::Draining, "draining"),
    (ProcessState::Stopped, "stopped"),
    (ProcessState::Done, "done"),
    (ProcessState::Failed, "failed"),
];

fn encode(entries: &[Entry], read: &Read, events: &Events) -> String {
    let mut registry = Registry::default();
    register_states(&mut registry, entries);
    register_measured(&mut registry, &read.measured);
    read.host.register(&mut registry);
    events.register(&mut registry);
    chassis::metrics::register_build_info(&mut registry);
    chassis::metrics::encode(&registry)
}

fn register_states(registry: &mut Registry, entries: &[Entry]) {
    let states = Family::<StateLabels, Gauge>::default();
    let restarts = Family::<RestartLabels, Counter>::default();
    for entry in entries {
        for (state, word) in STATES {
            let labels = StateLabels {
                name: entry.name.clone(),
                role: entry.role.clone(),
                state: word,
            };
            let is = i64::from(entry.state == state);
            states.get_or_create(&labels).set(is);
        }
        for (reason, times) in entry.restarts.iter().copied() {
            let labels = RestartLabels {
                name: entry.name.clone(),
                reason,
            };
            restarts.get_or_create(&labels).inc_by(times);
        }
    }
    registry.register(
        "bingo_process_state",
        "1 for the state that the process is in, else 0",
        states,
    );
    registry.register(
        "bingo_process_restarts",
        "Restarts of the process by what they were for, since the supervisor was first started",
        restarts,
    );
}

fn register_measured(registry: &mut Registry, measured: &[(String, Measured)]) {
    let memory = Family::<NameLabels, Gauge>::default();
    let started = Family::<NameLabels, Seconds>::default();
    let files = Family::<NameLabels, Gauge>::default();
    for (name, of) in measured {
        let labels = NameLabels { name: name.clone() };
        if let Some(bytes) = of.memory_bytes {
            memory.get_or_create(&labels).set(whole(bytes));
        }
        if let Some(seconds) = of.started_seconds {
            started.get_or_create(&labels).set(seconds);
        }
        if let Some(count) = of.open_files {
            files.get_or_create(&labels).set(whole(count));
        }
    }
    registry.register(
        "bingo_process_memory_bytes",
        "Resident memory of the process; of one with children that of all, what is shared divided among those who share it, where the supervisor may look",
        memory,
    );
    registry.register(
        "bingo_process_start_time_seconds",
        "When the process started, in seconds since 1970",
        started,
    );
    registry.register(
        "bingo_process_open_files",
        "Descriptors that the process and all that it started have open; absent where the supervisor may not look",
        files,
    );
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_each_process_in_one_state_and_this_machine() {
        let own = std::process::id();
        let entry = |name: &str, identity| Entry {
            name: name.to_owned(),
            role: "node".to_owned(),
            state: ProcessState::Unhealthy,
            identity,
            restarts: vec![("exit", 3)],
        };
        let start_time = crate::processes::start_time(own).unwrap();
        let board = Board::default();
        board.write(vec![
            entry("runs", Some((own, start_time))),
            entry("gone", Some((own, start_time + 1))),
        ]);
        let source = Source::new(board, Events::default(), vec!["/".into()]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let text = runtime.block_on(source.scrape());
        let value = |series: &str| -> Option<f64> {
            let line = text.lines().find(|line| line.starts_with(series))?;
            line.rsplit(' ').next()?.parse().ok()
        };
        let state = |state| {
            value(&format!(
                "bingo_process_state{{name=\"runs\",role=\"node\",state=\"{state}\"}}"
            ))
        };
        assert_eq!(
            (state("unhealthy"), state("healthy")),
            (Some(1.0), Some(0.0))
        );
        let restarts = "bingo_process_restarts_total{name=\"runs\",reason=\"exit\"}";
        assert_eq!(value(restarts), Some(3.0), "{text}");
        assert!(value("bingo_process_memory_bytes{name=\"runs\"}").unwrap() > 100_000.0);
        assert!(value("bingo_process_open_files{name=\"runs\"}").unwrap() > 2.0);
        assert_eq!(value("bingo_process_memory_bytes{name=\"gone\"}"), None);
        let now = jiff::Timestamp::now().as_second() as f64;
        let started = value("bingo_process_start_time_seconds{name=\"runs\"}").unwrap();
        assert!((now - 3600.0..=now + 2.0).contains(&started), "{started}");
        assert!(value("bingo_host_memory_bytes{kind=\"total\"}").unwrap() > 1e8);
        assert!(value("bingo_host_disk_bytes{path=\"/\",kind=\"size\"}").unwrap() > 1e6);
        assert!(value("bingo_host_cpu_seconds_total{mode=\"user\"}").unwrap() > 0.0);
    }

    #[test]
    fn a_reading_that_hangs_leaves_the_states() {
        let board = Board::default();
        board.write(vec![Entry {
            name: "a".to_owned(),
            role: "node".to_owned(),
            state: ProcessState::Healthy,
            identity: None,
            restarts: Vec::new(),
        }]);
        let source = Source::new(board, Events::default(), Vec::new());
        let _hangs = source.reading.try_acquire().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let text = runtime.block_on(source.scrape());
        assert!(text.contains("state=\"healthy\"} 1"), "{text}");
        assert!(!text.contains("bingo_host_memory_bytes{"), "{text}");
    }
}
