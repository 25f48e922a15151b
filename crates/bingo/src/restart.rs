//! `bingo restart NAME` and `bingo rollout`: processes of a running installation anew, successor first.

use std::path::PathBuf;
use std::time::Duration;

use chassis::config::parse_duration;
use chassis::{Exit, Failure};
use local::restart::Waiting;

use crate::output;
use crate::up::Place;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Name of the process, as `bingo status` shows it
    name: String,
    #[command(flatten)]
    place: Place,
    /// Another program for it, from now on
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// How long the new process may take to be healthy
    #[arg(long, default_value = "90s", value_name = "DURATION", value_parser = parse_duration)]
    timeout: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let layout = arguments.place.layout()?;
    let waiting = Waiting {
        layout: &layout,
        timeout: arguments.timeout,
    };
    match &arguments.binary {
        Some(binary) => {
            let absolute = std::path::absolute(binary).unwrap_or(binary.clone());
            waiting.restart_with(&arguments.name, &absolute)?;
        }
        None => waiting.restart(&arguments.name)?,
    }
    Ok(Exit::Done)
}

#[derive(clap::Args)]
pub(crate) struct RolloutArguments {
    #[command(flatten)]
    place: Place,
    /// The gateways as well, after the nodes
    #[arg(long)]
    gateways: bool,
    /// How long each new process may take to be healthy
    #[arg(long, default_value = "90s", value_name = "DURATION", value_parser = parse_duration)]
    timeout: Duration,
}

pub(crate) fn rollout(arguments: &RolloutArguments) -> Result<Exit, Failure> {
    let layout = arguments.place.layout()?;
    let waiting = Waiting {
        layout: &layout,
        timeout: arguments.timeout,
    };
    let roles: &[&str] = match arguments.gateways {
        true => &["node", "gateway"],
        false => &["node"],
    };
    for role in roles {
        waiting.rollout(role, |name| {
            // A closed pipe must not end a rollout half-way.
            let _ = output::line(&format!("{name} replaced"));
        })?;
    }
    Ok(Exit::Done)
}
