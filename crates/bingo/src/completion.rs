//! `bingo completion SHELL`: a completion script on stdout.

use chassis::{Exit, Failure};
use clap::CommandFactory;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Shell that the script is for
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    let mut command = crate::command_line::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "bingo", &mut script);
    crate::output::text(&String::from_utf8_lossy(&script))
}
