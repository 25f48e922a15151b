//! `bingo gateway`: serves in front of nodes; `--check` only checks a configuration.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use chassis::sockets::{InheritedListener, InheritedUdp};
use chassis::{Exit, Failure};

use crate::output;
use crate::runtime::{self, LogArguments};
use crate::up::Place;

/// Names of inherited sockets: what is served on each. One without a name speaks plain HTTP.
const ADMIN: &str = "admin";
const HTTPS: &str = "https";

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file
    #[arg(
        long,
        env = "BINGO_GATEWAY_CONFIG",
        value_name = "PATH",
        required_unless_present = "check"
    )]
    config: Option<PathBuf>,
    /// Check a configuration file, name every fault, warn of risky values, and end
    #[arg(long, value_name = "PATH")]
    check: Option<PathBuf>,
    /// Write what --check finds as JSON
    #[arg(long, requires = "check")]
    json: bool,
    /// A private address for /metrics and /health, beside the configured one
    #[arg(long, value_name = "ADDR:PORT")]
    admin_listen: Option<SocketAddr>,
    /// What it calls itself in the file of events
    #[arg(long, value_name = "NAME", default_value = "gateway")]
    name: String,
    #[command(flatten)]
    logs: LogArguments,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print the certificate of an installation's own authority (PEM), for import
    Ca(Place),
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    if let Some(Command::Ca(place)) = &arguments.command {
        return output::text(&local::authority(&place.layout()?)?);
    }
    let inherited = chassis::sockets::inherited()?;
    if let Some(path) = &arguments.check {
        return check(path, arguments.json);
    }
    let path = arguments.config.unwrap_or_default();
    let mut config = gateway::Valid::read(&path)?;
    config.name = arguments.name;
    let logs = arguments.logs.start(None, None)?;
    config.open_certificates()?;
    runtime::raise_open_files();
    let quic = quic_listeners(&config, &inherited.listeners, inherited.udp)?;
    let (admin, public): (Vec<_>, Vec<_>) = inherited
        .listeners
        .into_iter()
        .partition(|inherited| inherited.name == ADMIN);
    let mut admin: Vec<TcpListener> = admin.into_iter().map(|one| one.listener).collect();
    let public = public_listeners(&config, public)?;
    if let Some(address) = config.admin.filter(|_| admin.is_empty()) {
        admin.push(open(address, "admin.listen")?);
    }
    if let Some(address) = arguments.admin_listen {
        // A successor takes it over while this process drains.
        let opened = chassis::sockets::listen(address, true);
        admin.push(opened.map_err(|error| refused(address, "", error, "--admin-listen"))?);
    }
    runtime::run(async move {
        logs.reopen_on_hangup()?;
        let shutdown = runtime::shutdown_on_signals()?;
        tokio::task::block_in_place(|| gateway::run(config, public, quic, admin, shutdown))?;
        Ok(Exit::Done)
    })
}

/// Exit 64 where the file has faults; warnings change no exit code.
fn check(path: &Path, json: bool) -> Result<Exit, Failure> {
    let report = gateway::Report::of(path)?;
    let name = path.display().to_string();
    if json {
        output::json(&serde_json::json!({
            "file": name,
            "faults": report.faults,
            "warnings": report.warnings,
        }))?;
        return Ok(match report.faults.is_empty() {
            true => Exit::Done,
            false => Exit::Configuration,
        });
    }
    let failures = report.faults.iter().map(|fault| fault.failure(&name));
    if let Some(failure) = Failure::all(failures) {
        return Err(failure);
    }
    for warning in &report.warnings {
        let (place, reason, remedy) = (warning.place(), &warning.reason, &warning.remedy);
        output::line(&format!(
            "warning: {name} {place}: {reason}\nhelp: {remedy}"
        ))?;
    }
    output::line(&format!("{name}: no faults"))
}

/// The public listeners: those handed down, or else those of the configuration.
fn public_listeners(
    config: &gateway::Valid,
    inherited: Vec<InheritedListener>,
) -> Result<Vec<gateway::Listener>, Failure> {
    let mut sockets = Vec::new();
    for one in inherited {
        sockets.push((one.listener, one.name == HTTPS));
    }
    if sockets.is_empty() {
        for listen in &config.listen {
            sockets.push((open(listen.address, "listen")?, listen.tls));
        }
    }
    let listener = |(socket, tls)| {
        let kind = if tls {
            config.https()?
        } else {
            gateway::Kind::Http
        };
        Ok(gateway::Listener { socket, kind })
    };
    sockets.into_iter().map(listener).collect()
}

/// The UDP sockets of HTTP/3: those handed down, or, where nothing was, those of the configuration.
/// One process reads a socket: a gateway that was given listeners and no UDP socket leaves HTTP/3 to
/// another.
fn quic_listeners(
    config: &gateway::Valid,
    listeners: &[InheritedListener],
    udp: Vec<InheritedUdp>,
) -> Result<Vec<gateway::QuicListener>, Failure> {
    let mut sockets: Vec<UdpSocket> = udp.into_iter().map(|one| one.socket).collect();
    if sockets.is_empty() && listeners.is_empty() {
        for listen in config.listen.iter().filter(|listen| listen.http3) {
            let opened = chassis::sockets::datagrams(listen.address);
            sockets.push(opened.map_err(|error| refused(listen.address, "UDP ", error, "listen"))?);
        }
    }
    let listener = |socket| config.quic(socket);
    sockets.into_iter().map(listener).collect()
}

fn open(address: SocketAddr, key: &str) -> Result<TcpListener, Failure> {
    chassis::sockets::listen(address, false).map_err(|error| refused(address, "", error, key))
}

fn refused(address: SocketAddr, protocol: &str, error: std::io::Error, key: &str) -> Failure {
    let remedy = chassis::sockets::remedy(&error, key);
    Failure::configuration(format!("listen on {protocol}{address}"), error, remedy)
}
