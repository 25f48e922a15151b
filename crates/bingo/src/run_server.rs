//! `bingo run_server`: serves the API in the foreground.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use chassis::sockets::InheritedListener;
use chassis::traces::Traces;
use chassis::{Exit, Failure};
use node::Config;

use crate::configuration::Purpose;
use crate::runtime::{self, LogArguments};
use crate::{configuration, log_file, output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    configuration: configuration::ConfigurationFile,
    #[command(flatten)]
    serving: configuration::Serving,
    /// Serve as root, which needs no root
    #[arg(long)]
    allow_root: bool,
    #[command(flatten)]
    logs: LogArguments,
    /// Collector to send traces to, by OTLP over HTTP, like http://127.0.0.1:4318; needs a binary built
    /// with the feature otel [default: none]
    #[arg(long, env = "BINGO_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
}

impl Arguments {
    pub(crate) fn read(&self) -> Result<Config, Failure> {
        let serving = Some(&self.serving);
        self.configuration.read(serving, Purpose::Run)
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let inherited = chassis::sockets::inherited()?.listeners;
    configuration::refuse_root("serve as root", arguments.allow_root)?;
    let config = arguments.read()?;
    let (log_file, warning) = log_file::of_email(&config.student_email);
    let endpoint = arguments.otlp_endpoint.as_deref();
    let traces = endpoint.map(|endpoint| Traces::start(endpoint, "bingo-node"));
    let traces = traces.transpose()?;
    let logs = arguments.logs.start(log_file, traces.clone())?;
    for fault in config.warnings() {
        tracing::warn!("{}: {}; {}", fault.place(), fault.reason, fault.remedy);
    }
    for message in warning.iter().flat_map(|failure| &failure.messages) {
        tracing::warn!("{}: {}; {}", message.attempted, message.why, message.help);
    }
    if config.student_email == node::DEFAULT_EMAIL {
        tracing::warn!("You are using the default student_email");
    }
    runtime::raise_open_files();
    let result = runtime::run(async move {
        let log_file = logs.file.clone();
        logs.reopen_on_hangup()?;
        let shutdown = runtime::shutdown_on_signals()?;
        let fast = config.faults.slow_start.is_none();
        let admin = config.admin_listen;
        let admin = admin.map(|address| open(address, "--admin-listen"));
        let address = config.listen.unwrap_or_else(|| default_address(&config));
        let sockets = node::Sockets {
            admin: admin.transpose()?,
            api: move || {
                let api = api(address, inherited)?;
                let configuration = &arguments.configuration;
                greet(configuration, &api.listener, log_file.as_ref(), fast)?;
                Ok(api)
            },
        };
        node::run(config, sockets, shutdown).await?;
        Ok(Exit::Done)
    });
    if let Some(traces) = &traces {
        traces.finish();
    }
    result
}

/// The listener for clients: handed down, or opened here.
fn api(address: SocketAddr, inherited: Vec<InheritedListener>) -> Result<node::Api, Failure> {
    let handed_down = inherited.into_iter().next();
    Ok(node::Api {
        inherited: handed_down.is_some(),
        listener: match handed_down {
            Some(inherited) => inherited.listener,
            None => open(address, "--listen")?,
        },
    })
}

fn default_address(config: &Config) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, node::port_of(&config.student_email)).into()
}

fn open(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    chassis::sockets::listen(address, true).map_err(|error| {
        let remedy = chassis::sockets::remedy(&error, flag);
        Failure::configuration(format!("listen on {address}"), error, remedy)
    })
}

/// The vendor's texts, then one line of ours. The listener is open: connections are accepted.
fn greet(
    configuration: &configuration::ConfigurationFile,
    listener: &TcpListener,
    log_file: Option<&PathBuf>,
    fast: bool,
) -> Result<(), Failure> {
    let address = listener
        .local_addr()
        .map_or("?".to_owned(), |address| address.to_string());
    let logs = log_file.map_or("stderr".to_owned(), |path| {
        format!("stderr, {}", path.display())
    });
    output::text(&node::startup_text(fast))?;
    output::line(&format!(
        "listening on {address}, process {}, configuration {}, log to {logs}",
        std::process::id(),
        configuration.path().display(),
    ))?;
    Ok(())
}
