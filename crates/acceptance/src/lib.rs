//! Stands where the client stands and judges the whole from outside: an open-loop load generator, a
//! small HTTP client, a judge of HTTP/2, the signals that end-to-end tests use, and the drills (one
//! scenario file per fault). It depends on none of our crates, so it cannot share their mistakes. Left
//! out: the verdict over the whole contract, which comes later and builds on these.

pub mod drill;
pub mod error;
pub mod http;
pub mod http2;
pub mod load;
pub mod signals;

#[cfg(test)]
mod stand_in;
