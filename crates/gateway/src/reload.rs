//! A new configuration without a restart: when the file's content changes, on SIGHUP, and when the
//! admin API asks. It is taken whole or not at all; a refused one leaves the old one in place and
//! every fault of it told. The file is read again each second instead of watched through the kernel:
//! that also works through symbolic links, over networks and in containers, and costs microseconds.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chassis::config::Fault;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

use crate::fixed::Fixed;
use crate::valid::Valid;
use crate::worker::Shared;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A changed file must stay the same for this long: whoever writes it may be in the middle of it.
const SETTLE: Duration = Duration::from_millis(100);
/// A longer file is none of ours.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Looks in a row that could not read the file before that is told: who replaces a file may remove
/// it first.
const UNREADABLE_LOOKS: u32 = 3;

/// Who asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    File,
    Signal,
    Api,
}

impl Cause {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Signal => "signal",
            Self::Api => "api",
        }
    }
}

/// Reloads the configuration, one reload at a time.
#[derive(Debug)]
pub(crate) struct Reloader {
    shared: Arc<Shared>,
    file: Option<PathBuf>,
    /// What cannot change in a running process.
    fixed: Fixed,
    /// The file's content that was last taken or refused.
    seen: Mutex<Vec<u8>>,
}

impl Reloader {
    /// `config` is the one that `shared` began with.
    pub(crate) fn new(shared: Arc<Shared>, config: &Valid) -> Self {
        let (file, text) = match &config.source {
            Some(source) => (Some(source.path.clone()), source.text.clone().into_bytes()),
            None => (None, Vec::new()),
        };
        Self {
            shared,
            file,
            fixed: Fixed::of(config),
            seen: Mutex::new(text),
        }
    }

    /// Reloads when the file changes and on SIGHUP, for ever. Without a file there is nothing to look
    /// at, and SIGHUP is refused.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::error!(%error, "SIGHUP cannot be listened to"))
            .ok();
        let mut unreadable = 0;
        loop {
            let cause = tokio::select! {
                () = tokio::time::sleep(LOOK) => Cause::File,
                () = next(&mut hangup) => Cause::Signal,
            };
            let due = match cause {
                Cause::File => self.is_changed(&mut unreadable).await,
                Cause::Signal | Cause::Api => true,
            };
            if due {
                // Told already.
                let _ = self.reload(cause).await;
            }
        }
    }

    /// Reads the file and puts it in the place of the configuration in use; on any fault the old one
    /// stays and all faults are returned. The result is also logged, counted and made an event.
    pub(crate) async fn reload(&self, cause: Cause) -> Result<(), Vec<Fault>> {
        let mut seen = self.seen.lock().await;
        let result = self.read(&mut seen).await;
        let by = cause.name();
        match &result {
            Ok(config) => {
                self.shared.replace(config);
                self.shared.metrics.reloaded("done");
                let nodes = config.nodes.len();
                tracing::info!(cause = by, nodes, "configuration reloaded");
                let data = json!({"cause": by, "nodes": nodes});
                self.shared.events.push("configuration_reloaded", data);
            }
            Err(faults) => {
                self.shared.metrics.reloaded("refused");
                for fault in faults {
                    let (place, reason, remedy) = (fault.place(), &fault.reason, &fault.remedy);
                    tracing::error!(
                        cause = by,
                        place,
                        reason,
                        remedy,
                        "configuration refused, the old one stays"
                    );
                }
                let data = json!({"cause": by, "faults": faults});
                self.shared.events.push("configuration_refused", data);
            }
        }
        result.map(|_| ())
    }

    async fn read(&self, seen: &mut Vec<u8>) -> Result<Valid, Vec<Fault>> {
        let whole = |reason: String, remedy: &str| vec![Fault::new("", "", reason, remedy)];
        let Some(path) = &self.file else {
            let reason = "this gateway was started without a file".to_owned();
            return Err(whole(reason, "start it with --config FILE"));
        };
        let bytes = content(path).await.map_err(|error| {
            let reason = format!("{} cannot be read: {error}", path.display());
            whole(reason, "put the file back and let the gateway read it")
        })?;
        seen.clone_from(&bytes);
        let text = String::from_utf8(bytes)
            .map_err(|error| whole(format!("it is no text: {error}"), "write it in UTF-8"))?;
        // Not on this thread, which probes nodes meanwhile.
        let parsed = tokio::task::spawn_blocking(move || Valid::parse(&text)).await;
        let config = parsed.map_err(|error| {
            whole(
                format!("it could not be checked: {error}"),
                "report this fault",
            )
        })??;
        let faults = self.fixed.differences(&Fixed::of(&config));
        match faults.is_empty() {
            true => Ok(config),
            false => Err(faults),
        }
    }

    /// Whether the file holds something else than what was last taken or refused.
    async fn is_changed(&self, unreadable: &mut u32) -> bool {
        let Some(path) = &self.file else {
            return false;
        };
        let bytes = match content(path).await {
            Ok(bytes) => bytes,
            Err(error) => {
                *unreadable = unreadable.saturating_add(1);
                if *unreadable == UNREADABLE_LOOKS {
                    let file = path.display();
                    tracing::error!(%file, %error, "the configuration cannot be read; the gateway keeps the one it has");
                }
                return false;
            }
        };
        *unreadable = 0;
        if bytes == *self.seen.lock().await {
            return false;
        }
        tokio::time::sleep(SETTLE).await;
        content(path).await.is_ok_and(|again| again == bytes)
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

async fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .await?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it is longer than {}",
            chassis::config::format_size(FILE_BYTES_MAX)
        )));
    }
    Ok(bytes)
}
