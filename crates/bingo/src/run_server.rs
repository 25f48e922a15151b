//! `bingo run_server`: serves the API in the foreground.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use chassis::{Exit, Failure};
use node::Config;

use crate::runtime::{self, LogArguments};
use crate::{configuration, output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    configuration: configuration::ConfigurationFile,
    /// Address to serve on [default: all, on the port that student_email gives]
    #[arg(long, env = "BINGO_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Address for /metrics [default: off]
    #[arg(long, env = "BINGO_ADMIN_LISTEN", value_name = "ADDR:PORT")]
    admin_listen: Option<SocketAddr>,
    /// Serve as root, which needs no root
    #[arg(long)]
    allow_root: bool,
    #[command(flatten)]
    logs: LogArguments,
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let inherited = chassis::sockets::inherited()?;
    configuration::refuse_root("serve as root", arguments.allow_root)?;
    let mut config = arguments.configuration.read()?;
    config.listen = arguments.listen.or(config.listen);
    config.admin_listen = arguments.admin_listen.or(config.admin_listen);
    let logs = arguments.logs.start(log_file(&config))?;
    if config.student_email == node::DEFAULT_EMAIL {
        tracing::warn!("You are using the default student_email");
    }
    let was_inherited = !inherited.is_empty();
    let api = match inherited.into_iter().next() {
        Some(inherited) => inherited.listener,
        None => open(
            config.listen.unwrap_or_else(|| default_address(&config)),
            "--listen",
        )?,
    };
    let admin = config
        .admin_listen
        .map(|address| open(address, "--admin-listen"))
        .transpose()?;
    greet(&arguments.configuration, &api, logs.file.as_ref())?;
    let sockets = node::Sockets {
        api,
        admin,
        inherited: was_inherited,
    };
    runtime::run(async move {
        logs.reopen_on_hangup()?;
        let shutdown = runtime::shutdown_on_signals()?;
        node::run(config, sockets, shutdown).await?;
        Ok(Exit::Done)
    })
}

/// The vendor's log file, where its folder is there and writable.
fn log_file(config: &Config) -> Option<PathBuf> {
    let path = node::log_folder_of(&config.student_email).join("main.log");
    std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path)
        .ok()
        .map(|_| path)
}

fn default_address(config: &Config) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, node::port_of(&config.student_email)).into()
}

fn open(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    chassis::sockets::listen(address, true).map_err(|error| {
        Failure::configuration(
            format!("listen on {address}"),
            error,
            format!("end the process that listens there, or choose another with {flag}"),
        )
    })
}

/// The vendor's texts, then one line of ours. The listener is open: connections are accepted.
fn greet(
    configuration: &configuration::ConfigurationFile,
    listener: &TcpListener,
    log_file: Option<&PathBuf>,
) -> Result<(), Failure> {
    let address = listener
        .local_addr()
        .map_or("?".to_owned(), |address| address.to_string());
    let logs = log_file.map_or("stderr".to_owned(), |path| {
        format!("stderr, {}", path.display())
    });
    output::text(&node::startup_text())?;
    output::line(&format!(
        "listening on {address}, process {}, configuration {}, log to {logs}",
        std::process::id(),
        configuration.path().display(),
    ))?;
    Ok(())
}
