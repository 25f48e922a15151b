//! `bingo start`: starts one process of an installation that was stopped or has failed.

use chassis::{Exit, Failure};

use crate::output;
use crate::up::Place;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Process, as `bingo status` names it
    name: String,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    local::operate::start(&arguments.place.layout()?, &arguments.name)?;
    output::line(&format!("{} is healthy", arguments.name))
}
