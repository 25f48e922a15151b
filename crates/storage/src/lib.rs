//! node -> [storage] -> PostgreSQL: the only crate that knows SQL.

mod ask;
mod choice;
pub mod config;
pub mod connect;
mod contradiction;
pub mod deadline;
mod diagnosis;
pub mod error;
pub mod fill;
mod hosts;
pub mod migrations;
mod observed;
mod pages;
mod pool;
mod pooler;
mod purge;
mod queries;
mod query_metrics;
mod records;
mod tell;
mod tls;
mod url;
mod watch;
mod writes;

pub use config::{Host, PostgresCluster, SslMode};
pub use diagnosis::describe;
pub use error::Error;
pub use hosts::Looks;
pub use observed::{HostObserved, Observed, PoolObserved, Role};
pub use pages::{PLACE_PATTERN, Page, Place, SESSION_PLACE_PATTERN, SessionPlace, page_statements};
pub use queries::{
    LIST_ROWS_MAX, LIST_SETTINGS, List, Storage, list_statements, register_example_metrics,
};
pub use records::{Customer, Date, Found, Movie, Record, Session, Timestamp};
pub use writes::{Created, Deleted, IdempotencyKey, NewSession};
