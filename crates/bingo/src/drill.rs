//! `bingo drill`: breaks something in a running installation while load runs, and judges what clients
//! saw. Exit codes: 0 all green, 1 something red, 3 void (this machine was too slow to measure).

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use acceptance::drill::{self, Effort, Installation, Outcome, Scenario};
use acceptance::load::{Ids, Progress};
use chassis::failure::chain;
use chassis::{Exit, Failure, Shutdown};

use indicatif::{ProgressBar, ProgressDrawTarget};
use local::Layout;
use local::status::Record;

use crate::up::Place;
use crate::{load, output, runtime};

/// A short drill breaks things for at most this long.
const SHORT_FAULT: Duration = Duration::from_secs(2);
const SHORT_REQUESTS: u64 = 720;
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
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
    let all = Scenario::all().map_err(|error| failed("NAME", &error))?;
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
    let (outcomes, failure) = runtime::run(async {
        let shutdown = shutdown()?;
        tokio::select! {
            ran = run_all(arguments, &chosen, &installation, ids, &shutdown) => Ok(ran),
            // Dropping the drill puts right what it broke.
            () = shutdown.requested_at_once() => Err(Failure::new(
                Exit::Interrupted,
                "run the drills",
                "interrupted twice; what was broken is put right again, but sessions that were stored \
                    and what was convicted may stay",
                "bingo status",
            )),
        }
    })?;
    if arguments.json {
        output::json(&outcomes)?;
    }
    if let Some(failure) = failure {
        return Err(failure);
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
    shutdown: &Shutdown,
) -> (Vec<Outcome>, Option<Failure>) {
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
        let outcome = drill::run(scenario, installation, &effort, shutdown.requested(), seen).await;
        bar.finish_and_clear();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return (outcomes, Some(failed(&scenario.name, &error))),
        };
        if !arguments.json
            && let Err(failure) = output::text(&text(&outcome))
        {
            return (outcomes, Some(failure));
        }
        outcomes.push(outcome);
    }
    (outcomes, None)
}

/// The switch that SIGTERM, Ctrl-C and, but under nohup, the end of the terminal turn.
fn shutdown() -> Result<Shutdown, Failure> {
    let shutdown = runtime::shutdown_on_signals()?;
    if runtime::ignores_hangup() {
        return Ok(shutdown);
    }
    let mut hangup = runtime::on_hangup()?;
    let switch = shutdown.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // A shell passes it on and the kernel sends it too: that is once.
            if !switch.is_requested() {
                switch.request();
            }
        }
    });
    Ok(shutdown)
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
    if !(arguments.rps > 0.0 && arguments.rps <= 1e6) {
        return Err(wrong("the rate must be above 0 and at most 1000000"));
    }
    if arguments.requests == 0 {
        return Err(wrong("the number of requests must be above 0"));
    }
    if arguments.requests as f64 / arguments.rps > DURATION_MAX.as_secs_f64() {
        return Err(wrong(
            "so many requests at this rate take more than 30 days",
        ));
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
        _ if outcome.error.is_some() => "ERROR",
        (Some(_), _, _) => "LEFT OUT",
        (_, _, false) => "RED",
        (_, Some(_), true) => "VOID",
        (_, None, true) => "green",
    };
    let _ = writeln!(text, "{verdict:<9}{}: {}", outcome.name, outcome.about);
    let why = outcome.left_out.iter().chain(&outcome.void);
    for why in why.chain(&outcome.error) {
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

fn failed(name: &str, error: &acceptance::error::Error) -> Failure {
    let exit = match error {
        acceptance::error::Error::Interrupted => Exit::Interrupted,
        _ => Exit::Failed,
    };
    Failure::new(
        exit,
        format!("drill {name}"),
        chain(error),
        "bingo status says how the installation is; bingo up starts it",
    )
}
