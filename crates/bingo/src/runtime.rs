//! What most subcommands begin with: a tokio runtime, logs, the switch that signals turn.

use std::future::Future;
use std::path::PathBuf;

use chassis::logs::{Format, Settings};
use chassis::traces::Traces;
use chassis::{Failure, Shutdown};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Flags about logs, shared by the long-running subcommands.
#[derive(clap::Args)]
pub(crate) struct LogArguments {
    /// File to append the log to, beside stderr
    #[arg(long, env = "BINGO_LOG_FILE", value_name = "PATH")]
    log_file: Option<PathBuf>,
    /// error, warn, info, debug, trace, or directives such as info,gateway=debug
    #[arg(
        long,
        env = "BINGO_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL",
        value_parser = level
    )]
    log_level: String,
    /// How a line is written; default: text on a terminal, json elsewhere
    #[arg(long, env = "BINGO_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

fn level(text: &str) -> Result<String, String> {
    match chassis::logs::level_fault(text) {
        Some((why, help)) => Err(format!("{why}; {help}")),
        None => Ok(text.to_owned()),
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

impl LogArguments {
    /// Starts logging; `file` is used where the flag names none; spans go to `traces`.
    pub(crate) fn start(
        &self,
        file: Option<PathBuf>,
        traces: Option<Traces>,
    ) -> Result<Logs, Failure> {
        let format = match self.log_format {
            Some(LogFormat::Json) => Format::Json,
            Some(LogFormat::Text) => Format::Text,
            None => Format::detect(),
        };
        let file = self.log_file.clone().or(file);
        if let Some(path) = &file {
            crate::log_file::check(path)?;
        }
        let level = self.log_level.clone();
        let reopen = chassis::logs::start(&Settings {
            format,
            level,
            file: file.clone(),
            traces,
        })?;
        Ok(Logs { file, reopen })
    }
}

/// Logging that was started.
pub(crate) struct Logs {
    pub(crate) file: Option<PathBuf>,
    reopen: Option<chassis::logs::Reopen>,
}

impl Logs {
    /// Opens the log file anew on every SIGHUP, for rotation by rename. Without a file the signal
    /// does nothing. Must be called inside a tokio runtime.
    pub(crate) fn reopen_on_hangup(self) -> Result<(), Failure> {
        let mut hangup = on_hangup()?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                match self.reopen.as_ref().map(chassis::logs::Reopen::reopen) {
                    Some(Err(error)) => tracing::error!(%error, "the log file cannot be reopened"),
                    Some(Ok(())) => tracing::info!("the log file was reopened"),
                    None => {}
                }
            }
        });
        Ok(())
    }
}

/// Runs a future on a runtime with one thread per core. When it returns, what is still running on
/// the runtime is given up.
pub(crate) fn run<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(no_runtime)?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// Each SIGHUP; inside a runtime.
pub(crate) fn on_hangup() -> Result<Signal, Failure> {
    signal(SignalKind::hangup()).map_err(no_runtime)
}

/// Whether whoever started this wants it to outlive its terminal, as nohup(1) does (proc(5): `SigIgn`).
pub(crate) fn ignores_hangup() -> bool {
    const HANGUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & HANGUP != 0)
}

/// The switch that SIGTERM and Ctrl-C turn; inside a runtime.
pub(crate) fn shutdown_on_signals() -> Result<Shutdown, Failure> {
    Shutdown::on_signals().map_err(no_runtime)
}

/// Takes as many open files as the system allows (getrlimit(2): the soft limit may be raised up to the
/// hard one), since a shell gives 1024, far below what a server or a generator of load has open.
/// Returns how many that are.
pub(crate) fn raise_open_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit.current
        }
    };
    now.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    })
}

pub(crate) fn no_runtime(error: std::io::Error) -> Failure {
    Failure::run_time(
        "start the runtime",
        error,
        "raise the limits on threads and open files",
    )
}
