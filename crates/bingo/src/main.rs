//! The `bingo` command. Each subcommand has a small file of its own, which turns flags into a call
//! of one crate; nothing is decided here.

mod command_line;
mod completion;
mod configuration;
mod diagnose;
mod doctor;
mod down;
mod drill;
mod events;
mod gateway;
mod inspect;
mod load;
mod log_file;
mod logs;
mod output;
mod postgres_url;
mod prepare_db;
mod reference;
mod restart;
mod run_server;
mod runtime;
mod start;
mod status;
mod stop;
mod supervise;
mod top;
mod up;
mod usage;

use std::process::ExitCode;

fn main() -> ExitCode {
    let exit = usage::parse().and_then(command_line::dispatch);
    let exit = exit.unwrap_or_else(|failure| {
        eprintln!("{failure}");
        failure.exit
    });
    ExitCode::from(exit as u8)
}
