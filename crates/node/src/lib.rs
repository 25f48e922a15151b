//! gateway -> [node] -> storage: the HTTP API.
//!
//! `run` is the one entry. `router` says who answers what, `envelope` what is around every answer,
//! `routes` has one file per resource, and `error` alone turns a storage error into a status.

mod app;
mod config;
mod envelope;
mod error;
mod identity;
mod json;
mod listing;
mod node_metrics;
mod observed;
mod router;
mod routes;
mod run;
mod server;
mod texts;

pub use config::{Config, Limits, masked_yaml};
pub use identity::{DEFAULT_EMAIL, log_folder_of, port_of};
pub use run::{Sockets, run};
pub use texts::startup_text;
