//! initdb, start and stop of a PostgreSQL server of our own.
//!
//! It runs PostgreSQL's programs and reads its files; it speaks no SQL over a socket and depends on
//! none of our crates. Who keeps the server alive is the caller's affair: `Cluster::command` is what to
//! run in the foreground. An existing crate was not taken: see stack.md, "private PostgreSQL".

mod account;
mod binaries;
mod cluster;
mod error;
mod postmaster;
mod program;
mod roles;
mod settings;
mod test_replica;
mod test_server;

pub use account::Account;
pub use binaries::{Binaries, NEWEST, OLDEST};
pub use cluster::{Cluster, Initialised};
pub use error::Error;
pub use roles::Role;
pub use rustix::process::Signal;
pub use settings::{Machine, settings, with_replicas};
pub use test_server::TestServer;
