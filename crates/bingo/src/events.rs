//! `bingo events`: what happened in an installation, from all its processes, in the order of time.

use chassis::{Exit, Failure};
use local::events;
use local::logs::{Selection, parse_since};

use crate::up::Place;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Go on with what happens, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only what happened since: how long ago, like 8h, or a time like 2026-11-21T13:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<jiff::Timestamp>,
    /// The last so many events [default: 100; with --since all]
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Print each event as it was told, a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let layout = arguments.place.layout()?;
    let selection = Selection::chosen(
        arguments.lines,
        arguments.since,
        arguments.follow,
        arguments.json,
    );
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    events::show(&layout, &selection, &mut out)?;
    Ok(Exit::Done)
}
