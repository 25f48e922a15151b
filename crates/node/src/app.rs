//! What the handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chassis::Failure;
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
    pub(crate) faults: Arc<Faults>,
    draining: AtomicBool,
}

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
        Ok(Arc::new(Self {
            host: config.host_name(),
            config_yaml: masked_yaml(&config)?,
            config,
            storage,
            metrics: NodeMetrics::new(&faults.each()),
            faults,
            draining: AtomicBool::new(false),
        }))
    }

    /// From now on probes are told to look elsewhere.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
