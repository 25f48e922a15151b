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
    /// Print what Prometheus shall scrape, as a file of its service discovery (file_sd)
    #[arg(long, conflicts_with = "json")]
    targets: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let layout = arguments.place.layout()?;
    let installation = local::status::read(&layout);
    if arguments.targets {
        if installation.processes.is_empty() {
            // An empty list would be taken for the truth, and all alarms would be off.
            return Err(Failure::new(
                Exit::NotRunning,
                format!("tell what is to be scraped in {}", layout.root().display()),
                "nothing is known of its processes",
                "bingo status --dir PATH says how it is",
            ));
        }
        output::json(&local::targets::of(&installation.processes))?;
    } else if arguments.json {
        output::json(&installation)?;
    } else if !layout.is_ours() {
        output::line(&format!("no installation in {}", layout.root().display()))?;
    } else {
        output::text(&local::status::table(&installation))?;
    }
    Ok(installation.state.exit())
}
