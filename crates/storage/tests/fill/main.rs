//! `prepare_db` against a real server: what it makes, that it may be run again, interrupted, and run
//! by two at once, and what it leaves alone. Small sizes; the full one is `full.rs`, run by hand.

mod adopted;
mod database;
mod full;
mod interrupted;
mod made;
