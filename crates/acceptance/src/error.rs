//! What can keep a judgement from being made at all. A request that fails under load is not such an
//! error: it is a finding, and stands in the report.

use std::path::PathBuf;
use std::time::Duration;

/// Why a tool of this crate could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the URL `{url}`: {reason}; write it as http://HOST:PORT")]
    Url { url: String, reason: String },
    #[error("read the mix `{mix}`: {reason}")]
    Mix { mix: String, reason: String },
    #[error("read the plan: {0}")]
    Plan(String),
    #[error("resolve `{authority}`")]
    Resolve {
        authority: String,
        source: std::io::Error,
    },
    #[error("start the thread that keeps the schedule")]
    Pacer(#[source] std::io::Error),
    #[error("connect to `{authority}`")]
    Connect {
        authority: String,
        source: std::io::Error,
    },
    #[error("exchange with `{authority}` ({stage})")]
    Exchange {
        authority: String,
        stage: &'static str,
        source: hyper::Error,
    },
    #[error("build a request for `{url}`")]
    Request {
        url: String,
        source: hyper::http::Error,
    },
    #[error("wait for `{authority}` ({stage}): nothing within {limit:?}")]
    Timeout {
        authority: String,
        stage: &'static str,
        limit: Duration,
    },
    #[error("read the body from `{authority}`: longer than {limit_bytes} bytes")]
    BodyTooLarge {
        authority: String,
        limit_bytes: usize,
    },
    #[error("send {signal} to process {pid}: {reason}")]
    Signal {
        signal: &'static str,
        pid: u32,
        reason: String,
    },
    #[error("read a drill: {0}")]
    Scenario(String),
    #[error("{attempted} ({folder}): {why}")]
    Installation {
        folder: PathBuf,
        attempted: String,
        why: String,
    },
    #[error("interrupted; what was broken is put right again")]
    Interrupted,
    #[error("set the machine's clock: {0}")]
    Clock(String),
    #[error("wait until {what}: not so within {limit:?}")]
    NeverTrue { what: String, limit: Duration },
}

/// An error and everything under it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
