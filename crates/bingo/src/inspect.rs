//! `bingo inspect -- CMD`: what a black box wants and cannot get, in a few seconds. For programs
//! without a word about what they lack; nothing of it is kept.

use std::time::Duration;

use chassis::config::parse_duration;
use chassis::{Exit, Failure};
use private_postgres::Account;

use crate::output;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long it is watched; then it is killed with all that it started
    #[arg(long, default_value = "15s", value_name = "DURATION", value_parser = parse_duration)]
    time: Duration,
    /// Account as which it runs; needs root [default: ours]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let user = arguments.user.as_deref().map(|name| {
        let account = Account::by_name(name).map_err(|error| {
            let attempted = format!("run it as {name}");
            Failure::configuration(attempted, error, "name another with --user")
        })?;
        Ok::<_, Failure>((account.uid, account.gid))
    });
    let findings = supervisor::inspect(&arguments.command, arguments.time, user.transpose()?)?;
    if arguments.json {
        output::json(&findings)?;
    } else {
        output::text(&findings.to_string())?;
    }
    Ok(Exit::Done)
}
