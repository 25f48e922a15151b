//! `bingo logs`: what one process wrote to its stdout and stderr.

use chassis::{Exit, Failure};
use local::logs::{self, Selection};

use crate::up::Place;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Process, as `bingo status` names it; `supervisor` for the supervisor's own
    name: String,
    #[command(flatten)]
    place: Place,
    /// Go on with what is being written, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only what was written since: how long ago, like 10m, or a time like 2026-11-21T13:00:00Z
    #[arg(long, value_name = "TIME", value_parser = logs::parse_since)]
    since: Option<jiff::Timestamp>,
    /// The last so many lines [default: 100; with --since all]
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Print each line as a JSON object
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
    logs::show(&layout, &arguments.name, &selection, &mut out)?;
    Ok(Exit::Done)
}
