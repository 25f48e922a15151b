//! The service's configuration file with flags and environment laid over it, and
//! `bingo print_current_config`.

use std::path::PathBuf;

use chassis::{Exit, Failure};

use crate::output;

/// Flags of every subcommand that reads the service's configuration.
#[derive(clap::Args)]
pub(crate) struct ConfigurationFile {
    /// Configuration file
    #[arg(
        long,
        env = "BINGO_CONFIG",
        default_value = "/opt/bingo/config.yaml",
        value_name = "PATH"
    )]
    config: PathBuf,
}

impl ConfigurationFile {
    /// The file's path, for messages.
    pub(crate) fn path(&self) -> &PathBuf {
        &self.config
    }

    /// Reads the file. A missing one is an error that names the command that writes it.
    pub(crate) fn read(&self) -> Result<node::Config, Failure> {
        let path = self.config.display();
        let help = format!(
            "write one with `bingo print_default_config > {path}`, or name another with --config"
        );
        chassis::config::read(&self.config, &help)
    }
}

pub(crate) fn print_current(arguments: &ConfigurationFile) -> Result<Exit, Failure> {
    output::text(&node::masked_yaml(&arguments.read()?)?)
}

/// Neither serving nor filling needs root, and a fault in either would have all of its rights.
pub(crate) fn refuse_root(attempted: &str, allowed: bool) -> Result<(), Failure> {
    if allowed || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::configuration(
        attempted,
        "Didn't your mom teach you not to run anything incomprehensible from root?",
        "run as another user (`runuser -u nobody -- bingo …`), or give --allow-root",
    ))
}
