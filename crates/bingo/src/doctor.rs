//! `bingo doctor`: what an installation needs of this machine. Takes the flags of `bingo up`, whose
//! start it foretells. Exit codes: 0 when `up` would start, 64 otherwise.

use chassis::{Exit, Failure};
use local::doctor::{self, State, Subject};

use crate::output;
use crate::up::{Place, Shape};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    shape: Shape,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { place, shape, json } = arguments;
    let layout = place.layout()?;
    let options = shape.options()?;
    let running = local::status::read(&layout).state != local::status::State::Stopped;
    let checks = doctor::examine(&Subject {
        layout: &layout,
        options: &options,
        running,
    });
    if json {
        output::json(&checks)?;
    } else {
        output::text(&doctor::table(&checks))?;
    }
    let failed = checks.iter().any(|check| check.state == State::Failed);
    Ok(if failed {
        Exit::Configuration
    } else {
        Exit::Done
    })
}
