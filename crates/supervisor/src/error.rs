//! How talking to a running supervisor can fail.

use std::io;
use std::path::PathBuf;

/// A request over the control socket got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens there: the supervisor is not running (or never was).
    #[error("no supervisor answers on {}", path.display())]
    NotRunning { path: PathBuf, source: io::Error },
    /// It listens, and the exchange failed or took longer than the limit.
    #[error("the supervisor on {} gave no whole answer", path.display())]
    NoAnswer { path: PathBuf, source: io::Error },
    /// It answered something that is not ours.
    #[error("the supervisor on {} answered what cannot be read", path.display())]
    Garbled {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// It refused, and says why.
    #[error("the supervisor refused: {why}")]
    Refused { why: String },
}
