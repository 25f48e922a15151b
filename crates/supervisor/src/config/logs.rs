//! The keys about logs: how much of what children say is kept, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of each process's output is kept: at most `files_max` × `file_bytes_max` bytes on the
/// disk, and `bytes_per_second_max` of a flood.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// A file that would grow beyond it is renamed to `NAME.log.1`. Too low keeps hardly any past;
    /// too high, times `files_max` and processes, fills the disk.
    #[serde(with = "chassis::config::size", default = "default_file_bytes_max")]
    #[schemars(schema_with = "chassis::config::size::schema")]
    pub file_bytes_max: u64,
    /// A file older than it is renamed likewise. Too low scatters a story over many files; too high
    /// keeps old lines longer than some laws allow.
    #[serde(with = "chassis::config::duration", default = "default_file_age_max")]
    #[schemars(schema_with = "chassis::config::duration::schema")]
    pub file_age_max: Duration,
    /// Files of one process, the present one among them; older ones are removed. 1 keeps no past.
    #[serde(default = "default_files_max")]
    pub files_max: u32,
    /// What one process may write in a lasting flood; a burst of ten seconds' worth is kept whole. A
    /// line in the log says how many lines were dropped. Too low drops what explains a failure; too
    /// high lets a flood turn the files over before anybody reads them.
    #[serde(
        with = "chassis::config::size",
        default = "default_bytes_per_second_max"
    )]
    #[schemars(schema_with = "chassis::config::size::schema")]
    pub bytes_per_second_max: u64,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            file_bytes_max: default_file_bytes_max(),
            file_age_max: default_file_age_max(),
            files_max: default_files_max(),
            bytes_per_second_max: default_bytes_per_second_max(),
        }
    }
}

impl Logs {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The keys that make no sense, each with the reason.
    pub(crate) fn faults(&self) -> Vec<(&'static str, &'static str)> {
        [
            (self.file_bytes_max == 0, "file_bytes_max", "it is 0 bytes"),
            (self.file_age_max.is_zero(), "file_age_max", "it is no time"),
            (self.files_max == 0, "files_max", "it is 0"),
            (
                self.bytes_per_second_max == 0,
                "bytes_per_second_max",
                "it is 0 bytes: nothing would be kept",
            ),
        ]
        .into_iter()
        .filter(|(is_wrong, ..)| *is_wrong)
        .map(|(_, key, why)| (key, why))
        .collect()
    }
}

/// A log file that a process opens and writes by itself, rotated by the limits of `logs`.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogFile {
    /// Absolute; it need not exist yet.
    pub path: PathBuf,
    /// The signal on which the process opens the file anew, such as SIGHUP: the file is renamed, the
    /// signal sent, no line lost. Not set: it is copied and cut, and lines written meanwhile are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reopen_signal: Option<String>,
}

fn default_file_bytes_max() -> u64 {
    64 << 20
}

fn default_file_age_max() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

fn default_files_max() -> u32 {
    4
}

fn default_bytes_per_second_max() -> u64 {
    1 << 20
}
