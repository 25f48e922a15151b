//! The command line: every subcommand with its one-line help, and which file runs it.

use chassis::{Exit, Failure};
use clap::{Parser, Subcommand};

use crate::{
    completion, configuration, diagnose, doctor, down, drill, events, gateway, inspect, load, logs,
    output, prepare_db, reference, restart, run_server, start, status, stop, supervise, top, up,
};

/// A highly available home for a flaky service.
#[derive(Parser)]
#[command(name = "bingo", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
#[command(rename_all = "snake_case")]
enum Command {
    /// Run the whole installation on this machine
    Up(up::Arguments),
    /// End an installation
    Down(down::Arguments),
    /// Show an installation's processes and addresses
    Status(status::Arguments),
    /// Watch an installation in this terminal: what is wrong, traffic, nodes, events
    Top(top::Arguments),
    /// Show what one process of an installation wrote
    Logs(logs::Arguments),
    /// Show what happened in an installation
    Events(events::Arguments),
    /// Pack what is needed to understand an installation that is ill into one archive
    Diagnose(diagnose::Arguments),
    /// Stop one process of an installation and keep it stopped
    Stop(stop::Arguments),
    /// Start one process of an installation that was stopped or has failed
    Start(start::Arguments),
    /// Replace one process of an installation, successor first
    Restart(restart::Arguments),
    /// Replace all nodes of an installation, one at a time, successor first
    Rollout(restart::RolloutArguments),
    /// Check what an installation needs of this machine
    Doctor(doctor::Arguments),
    /// Create and fill the database
    PrepareDb(prepare_db::Arguments),
    /// Serve the API in the foreground
    RunServer(run_server::Arguments),
    /// Serve as the gateway in front of nodes
    Gateway(gateway::Arguments),
    /// Keep processes alive
    Supervise(supervise::Arguments),
    /// Watch a program for some seconds and tell what it wants and cannot get
    Inspect(inspect::Arguments),
    #[command(hide = true)]
    Launch(supervise::LaunchArguments),
    /// Send requests at a fixed rate and report latency and failures
    Load(load::Arguments),
    /// Break something while load runs, and judge what clients saw
    Drill(drill::Arguments),
    /// Print the effective configuration, secrets masked
    PrintCurrentConfig(configuration::Arguments),
    /// Print the default configuration
    PrintDefaultConfig,
    /// Print a completion script for a shell
    Completion(completion::Arguments),
    /// Print the version
    Version,
    /// Write the reference pages
    #[command(hide = true)]
    Reference(reference::Arguments),
}

impl Arguments {
    /// What is wrong with the service's configuration, where the command reads it.
    pub(crate) fn configuration_failure(&self) -> Option<Failure> {
        let read = match self.command.as_ref()? {
            Command::RunServer(arguments) => arguments.read(),
            Command::PrepareDb(arguments) => arguments.read(),
            Command::PrintCurrentConfig(arguments) => arguments.read(),
            _ => return None,
        };
        read.err()
    }
}

/// Runs what was asked for and returns the exit code.
pub(crate) fn dispatch(arguments: Arguments) -> Result<Exit, Failure> {
    let Some(command) = arguments.command else {
        return output::line("Hello world");
    };
    match command {
        Command::Up(arguments) => up::run(arguments),
        Command::Down(arguments) => down::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Events(arguments) => events::run(&arguments),
        Command::Diagnose(arguments) => diagnose::run(&arguments),
        Command::Stop(arguments) => stop::run(&arguments),
        Command::Start(arguments) => start::run(&arguments),
        Command::Restart(arguments) => restart::run(&arguments),
        Command::Rollout(arguments) => restart::rollout(&arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::PrepareDb(arguments) => prepare_db::run(&arguments),
        Command::RunServer(arguments) => run_server::run(arguments),
        Command::Gateway(arguments) => gateway::run(arguments),
        Command::Supervise(arguments) => supervise::run(arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Launch(arguments) => supervise::launch(&arguments),
        Command::Drill(arguments) => drill::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::PrintCurrentConfig(arguments) => configuration::print_current(&arguments),
        Command::PrintDefaultConfig => output::text(node::Config::default_yaml()),
        Command::Completion(arguments) => completion::run(&arguments),
        Command::Reference(arguments) => reference::run(&arguments),
        Command::Version => output::line(env!("CARGO_PKG_VERSION")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_vendors_seven_commands_keep_their_names() {
        let command = Arguments::command();
        let names: Vec<&str> = command
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        for vendor in [
            "completion",
            "prepare_db",
            "print_current_config",
            "print_default_config",
            "run_server",
            "version",
        ] {
            assert!(names.contains(&vendor), "{vendor} is missing");
        }
    }
}
