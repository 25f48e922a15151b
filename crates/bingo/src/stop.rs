//! `bingo stop`: ends one process of an installation and keeps it stopped.

use chassis::{Exit, Failure};

use crate::output;
use crate::up::Place;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Process, as `bingo status` names it
    name: String,
    #[command(flatten)]
    place: Place,
    /// Stop it even if it is the last healthy one of its role
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let name = &arguments.name;
    local::operate::stop(&arguments.place.layout()?, name, arguments.force)?;
    output::line(&format!(
        "{name} is stopped; `bingo start {name}` starts it"
    ))
}
