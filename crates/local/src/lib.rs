//! The whole installation on this machine: what to supervise, where. `bingo up`, `down`, `status`
//! and `doctor` are thin: they write files, start the supervisor, ask it, and print what it says.
//! Nothing here knows how a child is kept alive (supervisor) or what the database holds (storage).

mod access;
mod account;
mod ask;
mod authority;
mod database;
pub mod diagnose;
pub mod doctor;
pub mod down;
mod error;
pub mod events;
mod exec;
mod generate;
mod layout;
mod leftovers;
pub mod logs;
pub mod operate;
mod options;
mod picture;
mod ports;
pub mod restart;
mod scale;
mod secrets;
pub mod status;
pub mod targets;
pub mod up;
mod watch;

pub use authority::authority;
pub use exec::Exec;
pub use layout::Layout;
pub use options::{Options, mask_url};
pub use picture::{Gateways, Told, gateway_authority};
