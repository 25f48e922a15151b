//! What can go wrong with an installation besides what the supervisor and PostgreSQL report.

use std::ops::Range;
use std::path::PathBuf;

use chassis::Failure;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("fewer than {count} loopback ports are free between {} and {}", range.start, range.end)]
    NoFreePorts { range: Range<u16>, count: usize },
    #[error("{path}: {source}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let help = match &error {
            Error::NoFreePorts { .. } => "end processes that listen there",
            Error::File { .. } => {
                "make the folder writable for this user, or choose another with --dir"
            }
        };
        Failure::configuration("set up the installation", error, help)
    }
}
