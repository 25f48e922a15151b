//! `bingo load`: requests at a fixed rate, and what became of them. Exit codes: 0 when none failed,
//! 1 when some did, 3 when the generator itself was too slow for the figures to mean anything.

use std::time::Duration;

use acceptance::http::Base;
use acceptance::load::{self, Ids, Mix, Plan};
use chassis::config::parse_duration;
use chassis::{Exit, Failure};
use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::{output, runtime};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to send them, like http://localhost:8080
    url: String,
    /// Requests a second
    #[arg(long, default_value_t = 120.0, value_name = "N")]
    rps: f64,
    /// For how long
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    duration: Duration,
    /// Calls and their weights, like movie=30,customer=30,session=30,operation=10
    #[arg(long, value_name = "MIX")]
    mix: Option<String>,
    /// Seed of the calls and ids that are drawn
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Customers in the database
    #[arg(long, default_value_t = 500_000, value_name = "N")]
    customers: u32,
    /// Movies in the database
    #[arg(long, default_value_t = 29_019, value_name = "N")]
    movies: u32,
    /// Sessions in the database
    #[arg(long, default_value_t = 5_000_000, value_name = "N")]
    sessions: u64,
    /// A request that takes longer has failed
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = parse_duration)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// An open load asks on although nobody answers, each request on a connection of its own; fewer than
/// the ephemeral ports towards one address (28 232 by default).
const CONNECTIONS_MAX: usize = 20_000;
/// Open files that are no connections.
const OTHER_FILES: usize = 64;

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let plan = plan(arguments)?;
    let bar = if arguments.json {
        ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
    } else {
        ProgressBar::new(0)
    };
    let report = runtime::run(async {
        let seen = |progress: load::Progress| {
            bar.set_length(progress.planned);
            bar.set_position(progress.done);
            bar.set_message(format!("{} failed", progress.failed));
        };
        load::run(&plan, seen)
            .await
            .map_err(|error| wrong(arguments, &error))
    })?;
    bar.finish_and_clear();
    if arguments.json {
        output::json(&report)?;
    } else {
        output::text(&report.to_string())?;
    }
    Ok(match (&report.void, report.failed) {
        (Some(_), _) => Exit::NotRunning,
        (None, 0) => Exit::Done,
        (None, _) => Exit::Failed,
    })
}

fn plan(arguments: &Arguments) -> Result<Plan, Failure> {
    let base = Base::parse(&arguments.url).map_err(|error| wrong(arguments, &error))?;
    let mix = arguments.mix.as_deref().map(str::parse::<Mix>).transpose();
    let mix = mix.map_err(|error| wrong(arguments, &error))?;
    let ids = Ids {
        customers: arguments.customers,
        movies: arguments.movies,
        sessions: arguments.sessions,
    };
    Ok(Plan {
        rps: arguments.rps,
        duration: arguments.duration,
        mix: mix.unwrap_or_default(),
        seed: arguments.seed,
        ids,
        timeout: arguments.timeout,
        connections_max: connections_max(OTHER_FILES),
        ..Plan::new(base)
    })
}

/// How many connections a load may open, where so many other files are to be opened beside it.
pub(crate) fn connections_max(other_files: usize) -> usize {
    runtime::raise_open_files()
        .saturating_sub(other_files)
        .clamp(1, CONNECTIONS_MAX)
}

fn wrong(arguments: &Arguments, error: &acceptance::error::Error) -> Failure {
    let attempted = format!("send load to {}", arguments.url);
    Failure::new(Exit::Usage, attempted, error, "see bingo load --help")
}
