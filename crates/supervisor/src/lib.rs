//! Keeps any process alive; knows neither our API nor SQL. `run` is one task that owns everything
//! and asks `policy`, which is pure, what to do; the tasks beside it only wait (for an exit, a
//! probe's answer, a request on the control socket) and report to it. So no two parts of the
//! supervisor can disagree about a process. It sets no parent-death signal: when the supervisor
//! itself is killed, its children go on serving until the next start ends them.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

pub mod config;
pub mod control;
pub mod launch;
pub mod processes;
pub mod takeover;

mod capture;
mod change;
mod confine;
mod error;
mod family;
mod groups;
mod inspect;
mod isolation;
mod log_files;
mod metrics;
mod notify;
mod order;
mod own_logs;
mod own_output;
mod plan;
mod policy;
mod porter;
mod privileges;
mod probe;
mod run;
mod scribe;
mod slot;
mod sockets;
mod spawn;
mod status;
mod switches;

pub use change::Change;
pub use config::Config;
pub use confine::lacking as lacking_for_privileges;
pub use error::ControlError;
pub use inspect::{Findings, inspect};
pub use launch::cannot_isolate;
pub use metrics::example as metrics_example;
pub use porter::PORTER;
pub use run::{Program, Start, run};
pub use status::{Beside, Memory, ProcessState, ProcessStatus, Status, Stray};
pub use switches::Switches;
