//! `bingo down`: ends an installation.

use chassis::{Exit, Failure};
use local::down;

use crate::output;
use crate::up::Place;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Remove the folder with all its data as well; asks first
    #[arg(long)]
    purge: bool,
    /// Answer every question with yes
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let layout = arguments.place.layout()?;
    let root = layout.root().display().to_string();
    if arguments.purge && layout.root().exists() && !arguments.yes {
        let question = format!("Remove {root} with the database in it?");
        if !output::confirm(&question) {
            return Err(Failure::new(
                Exit::Usage,
                format!("remove {root}"),
                "not confirmed",
                "give --yes as well",
            ));
        }
    }
    if !layout.root().exists() {
        eprintln!("no installation in {root}");
        return Ok(Exit::Done);
    }
    down::stop(&layout, &|| false)?;
    if arguments.purge {
        down::purge(&layout)?;
    } else if !layout.is_ours() {
        eprintln!("no installation in {root}");
    }
    Ok(Exit::Done)
}
