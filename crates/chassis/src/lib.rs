//! What every process of ours does, whatever its role: configuration, logs, traces, metrics,
//! events, sockets, the machine, shutdown, exit codes, backoff. It knows no role: a word like "node" or "movie" has no place here.

pub mod backoff;
pub mod config;
pub mod events;
pub mod failure;
pub mod logs;
pub mod machine;
pub mod masking;
pub mod metrics;
pub mod notify;
pub mod random;
pub mod seats;
pub mod shutdown;
pub mod sockets;
pub mod traces;

pub use failure::{Exit, Failure};
pub use shutdown::Shutdown;

/// The `User-Agent` of every probe of ours (RFC 9110 section 10.1.5).
pub const PROBE_AGENT: &str = "bingo-probe";
