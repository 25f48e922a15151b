//! client -> [gateway] -> node: listen, route, balance, retry.
//!
//! A request's way: `listener` accepts, `handle` checks and prepares, `router` picks the policy,
//! `cache` answers what it may, `admission` gives each its turn, `ask` brings the rest to a node:
//! `exchange` chooses a node (`balancer`), sends over `pool` and decides on failures (`retry`),
//! `body` streams the answer, `account` settles. Beside it `probe` watches nodes, `ejection` decides
//! who is in rotation, `admin` shows. `balancer`, `allowance`, `ejection`, `outliers`, `retry`,
//! `suspects`, `innocents`, `head`, `pace`, `listener::flood`, `quic::frames`, `quic::section`,
//! `admission::queue`, `cache::policy`, `cache::keeper` are pure. What a reload may change is in
//! `live`; a request keeps one such value from its head to its end. `reload` makes the next one.
//!
//! `tls` holds the certificate of all listeners and keeps it fresh, `mdns` announces its name.
//!
//! What a node was lost with is a suspect: `suspects` decides who is tried, `innocents` who need not be,
//! `trial` sees to it, `quarantine` holds the verdicts and shares them.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

mod access_log;
mod account;
mod addresses;
mod admin;
mod admission;
mod allowance;
mod ask;
mod attempt;
mod balancer;
mod body;
mod cache;
pub mod config;
mod connection_metrics;
mod departed;
mod ejection;
mod events;
mod exchange;
mod faults;
mod fingerprint;
mod fixed;
mod forwarded;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod head;
mod hedge;
mod history;
mod hop_by_hop;
mod innocents;
mod intake;
mod listener;
mod live;
mod lookout;
mod mdns;
mod metrics;
mod nodes;
mod outgoing;
mod outliers;
mod pace;
mod picture;
mod pool;
mod probe;
mod problem;
mod quarantine;
mod quic;
mod reload;
mod request_id;
mod retry;
mod risks;
mod router;
mod run;
#[cfg(test)]
mod simulation;
mod spool;
mod suspects;
mod tls;
mod traffic;
mod trial;
mod upgrade;
mod valid;
mod wants;
mod worker;

pub use config::Config;
pub use listener::{Kind, Listener};
pub use metrics::example as metrics_example;
pub use quic::Listener as QuicListener;
pub use risks::Report;
pub use run::run;
pub use tls::is_server_name;
pub use valid::{Valid, ValidListen};
