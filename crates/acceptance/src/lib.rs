//! Stands where the client stands and judges the whole from outside: an open-loop load generator, a
//! small HTTP client, a judge of HTTP/2 and the signals that end-to-end tests and drills use. It
//! depends on none of our crates, so it cannot share their mistakes. Left out: the verdict over the
//! whole contract and the drills (one scenario file per fault), which come later and build on these.

pub mod error;
pub mod http;
pub mod http2;
pub mod load;
pub mod signals;

#[cfg(test)]
mod stand_in;
