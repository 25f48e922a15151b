//! node -> [storage] -> PostgreSQL: the only crate that knows SQL.

pub mod config;
pub mod connect;
pub mod error;
pub mod fill;
pub mod migrations;
mod pool;
mod queries;
mod records;
mod writes;

pub use config::{Host, PostgresCluster, SslMode};
pub use error::Error;
pub use queries::{LIST_ROWS_MAX, List, Storage};
pub use records::{Customer, Date, Found, Movie, Record, Session, Timestamp};
pub use writes::{Created, Deleted, IdempotencyKey, NewSession};
