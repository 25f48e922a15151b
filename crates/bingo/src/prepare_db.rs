//! `bingo prepare_db`: creates and fills the database; a progress bar on a terminal, one JSON line a
//! second elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use chassis::{Exit, Failure};
use indicatif::{ProgressBar, ProgressStyle};
use storage::fill::{self, FillOptions, Progress, Report, TableReport};

use crate::configuration::Purpose;
use crate::{configuration, output, runtime};

const LINE_EVERY: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    configuration: configuration::ConfigurationFile,
    /// Customers to fill in
    #[arg(long, default_value_t = 500_000, value_name = "N")]
    customers: u32,
    /// Movies to fill in
    #[arg(long, default_value_t = 29_019, value_name = "N")]
    movies: u32,
    /// Sessions to fill in
    #[arg(long, default_value_t = 5_000_000, value_name = "N")]
    sessions: u32,
    /// The same seed fills in the same rows
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Delete all rows first; asks
    #[arg(long)]
    reset: bool,
    /// Answer every question with yes
    #[arg(long)]
    yes: bool,
    /// Work as root, which needs no root
    #[arg(long)]
    allow_root: bool,
}

impl Arguments {
    pub(crate) fn read(&self) -> Result<node::Config, Failure> {
        self.configuration.read(None, Purpose::Run)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    configuration::refuse_root("fill the database as root", arguments.allow_root)?;
    let config = arguments.read()?;
    for fault in config.postgres_cluster.warnings() {
        let place = fault.place();
        eprintln!("warning: {place}: {}\nhelp: {}", fault.reason, fault.remedy);
    }
    let cluster = config.postgres_cluster;
    let database = &cluster.db_name;
    if arguments.reset && !arguments.yes {
        let question = format!("Delete all customers, movies and sessions in {database}?");
        if !output::confirm(&question) {
            return Err(Failure::new(
                Exit::Usage,
                format!("delete the rows in {database}"),
                "not confirmed",
                "give --yes as well",
            ));
        }
    }
    let options = FillOptions {
        seed: arguments.seed,
        customers: arguments.customers,
        movies: arguments.movies,
        sessions: arguments.sessions,
        reset: arguments.reset,
    };
    let shown = Shown::new();
    let report = runtime::run(async {
        let shutdown = runtime::shutdown_on_signals()?;
        let show = |progress| shown.show(&progress);
        tokio::select! {
            report = fill::prepare(&cluster, &options, &show) => {
                report.map_err(|error| failed(&error))
            }
            () = shutdown.requested() => Err(interrupted()),
        }
    })?;
    shown.finish(&report)
}

fn failed(error: &storage::Error) -> Failure {
    let exit = if error.is_retryable() {
        Exit::Failed
    } else {
        Exit::Configuration
    };
    Failure::new(
        exit,
        "prepare the database",
        chassis::failure::chain(error),
        error.remedy(),
    )
}

fn interrupted() -> Failure {
    let help = "run it again: it resumes";
    Failure::new(
        Exit::Interrupted,
        "prepare the database",
        "interrupted",
        help,
    )
}

/// Progress as people or as scripts see it.
enum Shown {
    Bar(ProgressBar),
    Lines(Mutex<Option<Instant>>),
}

impl Shown {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines(Mutex::new(None));
        }
        let style = ProgressStyle::with_template("{elapsed:>4} {wide_bar} {pos}/{len} {msg}");
        let bar = ProgressBar::new(0);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self::Bar(bar)
    }

    fn show(&self, progress: &Progress) {
        match self {
            Self::Bar(bar) => {
                bar.set_length(progress.rows_total);
                bar.set_position(progress.rows_done);
                bar.set_message(progress.phase.name());
            }
            Self::Lines(last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
                    *last = Some(Instant::now());
                    let _ = output::line(&line(progress));
                }
            }
        }
    }

    fn finish(&self, report: &Report) -> Result<Exit, Failure> {
        match self {
            Self::Bar(bar) => {
                bar.finish_and_clear();
                output::text(&text(report))
            }
            Self::Lines(_) => output::line(&json(report)),
        }
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for table in &report.tables {
        let outcome = format!("{:?}", table.outcome).to_lowercase();
        text.push_str(&format!(
            "{:<10} {:>9} rows  {outcome}\n",
            table.table, table.rows
        ));
    }
    for warning in &report.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str(&format!("done in {:.1} s\n", report.elapsed.as_secs_f64()));
    text
}

fn json(report: &Report) -> String {
    let table = |table: &TableReport| {
        let outcome = format!("{:?}", table.outcome).to_lowercase();
        serde_json::json!({ "table": table.table, "rows": table.rows, "outcome": outcome })
    };
    serde_json::json!({
        "phase": "done",
        "tables": report.tables.iter().map(table).collect::<Vec<_>>(),
        "warnings": report.warnings,
        "seconds": report.elapsed.as_secs_f64(),
    })
    .to_string()
}

fn line(progress: &Progress) -> String {
    serde_json::json!({
        "phase": progress.phase.name(),
        "rows_done": progress.rows_done,
        "rows_total": progress.rows_total,
    })
    .to_string()
}
