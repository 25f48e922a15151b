//! `bingo status`: an installation's processes and addresses. Exit codes: 0 ready, 1 starting or
//! degraded, 3 not running.

use chassis::{Exit, Failure};

use crate::output;
use crate::up::Place;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let installation = local::status::read(&arguments.place.layout()?);
    if arguments.json {
        output::json(&installation)?;
    } else {
        output::text(&local::status::table(&installation))?;
    }
    Ok(installation.state.exit())
}
