//! What the handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use chassis::Failure;
use chassis::events::Events;
use storage::Storage;

use crate::config::{Config, masked_yaml};
use crate::faults::Faults;
use crate::node_metrics::NodeMetrics;

/// One per node; handlers get it as `State<Arc<App>>`.
pub(crate) struct App {
    pub(crate) config: Config,
    /// The `host` of answers.
    pub(crate) host: String,
    /// What `/config` answers.
    pub(crate) config_yaml: String,
    pub(crate) storage: Storage,
    pub(crate) metrics: NodeMetrics,
    pub(crate) events: Events,
    pub(crate) faults: Arc<Faults>,
    phase: AtomicU8,
}

/// Nothing is served yet (the fault `slow_start`).
const STARTING: u8 = 0;
const SERVING: u8 = 1;
const DRAINING: u8 = 2;

impl App {
    /// Must be called inside a tokio runtime; waits for nothing.
    pub(crate) fn new(config: Config) -> Result<Arc<Self>, Failure> {
        let storage = Storage::open(&config.postgres_cluster).map_err(|error| {
            Failure::configuration(
                "use the configuration's postgres_cluster",
                chassis::failure::chain(&error),
                error.remedy(),
            )
        })?;
        let faults = Arc::new(Faults::new(&config.faults));
        let host = config.host_name();
        let events = match &config.events_file {
            Some(path) => Events::to_file(path, &host),
            None => Events::default(),
        };
        let metrics = NodeMetrics::new(&faults.each(), |registry| {
            storage.register_metrics(registry);
            events.register(registry);
        });
        Ok(Arc::new(Self {
            host,
            config_yaml: masked_yaml(&config)?,
            config,
            storage,
            metrics,
            events,
            faults,
            phase: AtomicU8::new(STARTING),
        }))
    }

    /// From now on clients are served.
    pub(crate) fn serve(&self) {
        self.phase.store(SERVING, Ordering::Relaxed);
    }

    /// From now on probes are told to look elsewhere.
    pub(crate) fn drain(&self) {
        self.phase.store(DRAINING, Ordering::Relaxed);
    }

    pub(crate) fn is_starting(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == STARTING
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == DRAINING
    }
}
