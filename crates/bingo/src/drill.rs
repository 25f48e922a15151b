//! `bingo drill`: breaks something in a running installation while load runs, and judges what clients
//! saw. Exit codes: 0 all green, 1 something red, 3 void (this machine was too slow to measure).

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use acceptance::drill::{self, Effort, Installation, Outcome, Scenario};
use acceptance::load::{Ids, Progress};
use chassis::failure::chain;
use chassis::{Exit, Failure};

use indicatif::{ProgressBar, ProgressDrawTarget};
use local::Layout;
use local::status::Record;

use crate::up::Place;
use crate::{load, output, runtime};

/// A short drill breaks things for at most this long.
const SHORT_FAULT: Duration = Duration::from_secs(2);
const SHORT_REQUESTS: u64 = 720;
/// Open files that are no connections of the load: the fault proxy's, and those of commands.
const OTHER_FILES: usize = 256;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Names of drills, as --list shows them
    names: Vec<String>,
    #[command(flatten)]
    place: Place,
    /// All drills, one after the other, but those that change the whole machine
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Show the drills and run none
    #[arg(long, conflicts_with_all = ["names", "all"])]
    list: bool,
    /// Break things once and briefly: shows that a drill works, not that the fault is never seen
    #[arg(long, conflicts_with = "requests")]
    short: bool,
    /// Requests a second
    #[arg(long, default_value_t = 120.0, value_name = "N")]
    rps: f64,
    /// Requests of each drill
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    requests: u64,
    /// Customers in the database; not given: as many as the installation was filled with
    #[arg(long, value_name = "N")]
    customers: Option<u32>,
    /// Movies in the database; not given: as many as the installation was filled with
    #[arg(long, value_name = "N")]
    movies: Option<u32>,
    /// Sessions in the database; not given: as many as the installation was filled with
    #[arg(long, value_name = "N")]
    sessions: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let all = Scenario::all().map_err(|error| failed(arguments, &error))?;
    if arguments.list && arguments.json {
        let shown = |one: &Scenario| serde_json::json!({ "name": one.name, "about": one.about });
        return output::json(&all.iter().map(shown).collect::<Vec<_>>());
    }
    if arguments.list {
        let mut text = String::new();
        for one in &all {
            let _ = writeln!(text, "{:<18} {}", one.name, one.about);
        }
        output::text(&text)?;
        return Ok(Exit::Done);
    }
    let chosen = choose(arguments, all)?;
    let layout = arguments.place.layout()?;
    let installation = Installation {
        program: program()?,
        folder: layout.root().to_owned(),
    };
    let ids = ids(arguments, &layout);
    let outcomes = runtime::run(async {
        tokio::select! {
            outcomes = run_all(arguments, &chosen, &installation, ids) => outcomes,
            // Dropping the drill puts right what it broke.
            _ = tokio::signal::ctrl_c() => Err(Failure::new(
                Exit::Interrupted,
                "run the drills",
                "interrupted; what was broken is put right again",
                "bingo status",
            )),
        }
    })?;
    if arguments.json {
        output::json(&outcomes)?;
    }
    // Nothing was seen of a drill that was left out: by itself that is no green.
    let is_void = outcomes.iter().all(|outcome| outcome.left_out.is_some())
        || outcomes.iter().any(|outcome| outcome.void.is_some());
    Ok(match outcomes.iter().all(Outcome::is_green) {
        false => Exit::Failed,
        true if is_void => Exit::NotRunning,
        true => Exit::Done,
    })
}

async fn run_all(
    arguments: &Arguments,
    chosen: &[Scenario],
    installation: &Installation,
    ids: Ids,
) -> Result<Vec<Outcome>, Failure> {
    let effort = effort(arguments, ids);
    let mut outcomes = Vec::new();
    for scenario in chosen {
        let bar = ProgressBar::new(effort.requests);
        if arguments.json {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_prefix(scenario.name.clone());
        let seen = |progress: Progress| {
            bar.set_position(progress.done);
            bar.set_message(format!("{} failed", progress.failed));
        };
        let outcome = drill::run(scenario, installation, &effort, seen).await;
        bar.finish_and_clear();
        let outcome = outcome.map_err(|error| failed(arguments, &error))?;
        if !arguments.json {
            output::text(&text(&outcome))?;
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn ids(arguments: &Arguments, layout: &Layout) -> Ids {
    let (given, full) = (
        Record::read(layout).map(|record| record.options),
        Ids::default(),
    );
    let filled = given.map_or(full, |options| Ids {
        customers: options.customers,
        movies: options.movies,
        sessions: u64::from(options.sessions),
    });
    Ids {
        customers: arguments.customers.unwrap_or(filled.customers),
        movies: arguments.movies.unwrap_or(filled.movies),
        sessions: arguments.sessions.unwrap_or(filled.sessions),
    }
}

fn effort(arguments: &Arguments, ids: Ids) -> Effort {
    Effort {
        rps: arguments.rps,
        requests: if arguments.short {
            SHORT_REQUESTS
        } else {
            arguments.requests
        },
        once_for: arguments.short.then_some(SHORT_FAULT),
        ids,
        connections_max: load::connections_max(OTHER_FILES),
    }
}

fn choose(arguments: &Arguments, all: Vec<Scenario>) -> Result<Vec<Scenario>, Failure> {
    let wrong = |why: &str| {
        Failure::new(
            Exit::Usage,
            "choose the drills",
            why,
            "see bingo drill --list",
        )
    };
    if arguments.names.is_empty() && !arguments.all {
        return Err(wrong("none is named"));
    }
    let is_known = |name: &&String| all.iter().any(|one| one.name == **name);
    if let Some(name) = arguments.names.iter().find(|name| !is_known(name)) {
        return Err(wrong(&format!("there is no drill `{name}`")));
    }
    if !(arguments.rps > 0.0 && arguments.rps <= 1e6) || arguments.requests == 0 {
        return Err(wrong("the rate and the number of requests must be above 0"));
    }
    let wanted = |one: &Scenario| match arguments.all {
        true => !one.by_name_only,
        false => arguments.names.contains(&one.name),
    };
    Ok(all.into_iter().filter(wanted).collect())
}

/// One drill in a few lines.
fn text(outcome: &Outcome) -> String {
    let mut text = String::new();
    let verdict = match (&outcome.left_out, &outcome.void, outcome.is_green()) {
        (Some(_), _, _) => "LEFT OUT",
        (_, _, false) => "RED",
        (_, Some(_), true) => "VOID",
        (_, None, true) => "green",
    };
    let _ = writeln!(text, "{verdict:<9}{}: {}", outcome.name, outcome.about);
    for why in outcome.left_out.iter().chain(&outcome.void) {
        let _ = writeln!(text, "         {why}");
    }
    for finding in &outcome.findings {
        let mark = if finding.is_green { "ok " } else { "RED" };
        let _ = writeln!(text, "     {mark} {}: {}", finding.bound, finding.seen);
    }
    let failures = outcome.load.iter().flat_map(|load| &load.failures);
    for failure in failures {
        for example in &failure.examples {
            let (at, after) = (example.at_seconds, example.after_ms);
            let node = example.node.as_deref().unwrap_or("-");
            let _ = writeln!(
                text,
                "         {} at {at:.3} s after {after:.0} ms, {}, node {node}: {}",
                failure.class,
                example.call,
                example.detail.trim_end()
            );
        }
    }
    text
}

fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| {
        Failure::new(
            Exit::Failed,
            "find this program",
            error,
            "start it by its whole path",
        )
    })
}

fn failed(arguments: &Arguments, error: &acceptance::error::Error) -> Failure {
    let attempted = if arguments.names.is_empty() {
        "run the drills".to_owned()
    } else {
        format!("drill {}", arguments.names.join(", "))
    };
    Failure::new(
        Exit::Failed,
        attempted,
        chain(error),
        "bingo status says how the installation is; bingo up starts it",
    )
}
