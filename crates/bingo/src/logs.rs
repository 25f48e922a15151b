//! `bingo logs`: what one process wrote to its stdout and stderr.

use chassis::{Exit, Failure};
use local::logs::{self, Selection};

use crate::up::Place;

/// Shown where neither `-n` nor `--since` says how much.
const LINES: usize = 100;

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
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<jiff::Timestamp>,
    /// The last so many lines [default: 100; with --since all]
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Print each line as a JSON object
    #[arg(long)]
    json: bool,
}

fn since(text: &str) -> Result<jiff::Timestamp, String> {
    logs::parse_since(text)
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let layout = arguments.place.layout()?;
    let default = arguments.since.is_none().then_some(LINES);
    let selection = Selection {
        lines: arguments.lines.or(default),
        since: arguments.since,
        follow: arguments.follow,
        json: arguments.json,
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    logs::show(&layout, &arguments.name, &selection, &mut out)?;
    Ok(Exit::Done)
}
