//! gateway -> [node] -> storage: the HTTP API.
//!
//! `run` is the one entry. `router` says who answers what, `envelope` what is around every answer,
//! `routes` has one file per resource, `error` alone turns a storage error into a status, `openapi`
//! describes all of it to clients, and `faults` holds the vendor's faults, on request.

mod app;
mod config;
mod database_events;
mod database_metrics;
mod envelope;
mod error;
mod faults;
mod identity;
mod json;
mod listing;
mod node_metrics;
mod observed;
mod openapi;
mod pace;
mod refusal;
mod router;
mod routes;
mod run;
mod server;
mod texts;

pub use config::{Config, Limits, masked_yaml};
pub use faults::{FaultNames, FaultSettings, Lifetime};
pub use identity::{DEFAULT_EMAIL, log_folder_of, port_of};
pub use node_metrics::example as metrics_example;
pub use openapi::document as openapi_document;
pub use run::{Api, Sockets, run};
pub use texts::startup_text;
