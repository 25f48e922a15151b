//! `bingo diagnose`: packs what is needed to understand an installation that is ill into one archive.

use std::path::PathBuf;

use chassis::{Exit, Failure};
use local::diagnose::{self, Part};

use crate::output;
use crate::up::Place;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Folder in which the archive is made
    #[arg(long, default_value = ".", value_name = "PATH")]
    output: PathBuf,
    /// Print the archive's path and what it lacks as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let layout = arguments.place.layout()?;
    let config = layout.node_config(1);
    let database = Part::new("database.txt", move || database(&config));
    let packed = diagnose::pack(&layout, &arguments.output, vec![database])?;
    if arguments.json {
        return output::json(&packed);
    }
    for line in &packed.missing {
        eprintln!("left out: {line}");
    }
    let path = packed.archive.display();
    output::line(&format!(
        "{path}: {} files; its own passwords and tokens are masked",
        packed.files
    ))
}

/// The database as the nodes reach it, with the plans of the lists.
fn database(config: &std::path::Path) -> Result<String, String> {
    let text = std::fs::read_to_string(config).map_err(|error| error.to_string())?;
    let config: node::Config = chassis::config::parse("the configuration of node-1", &text)
        .map_err(|failure| failure.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let described = runtime.block_on(storage::describe(&config.postgres_cluster));
    described.map_err(|error| chassis::failure::chain(&error))
}
