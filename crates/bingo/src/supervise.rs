//! `bingo supervise`: keeps the processes of a file, or one command, alive. `bingo launch` is the
//! last step of a child before it becomes its command; the supervisor alone calls it.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;

use chassis::{Exit, Failure, Shutdown};
use supervisor::takeover::{self, Takeover};
use supervisor::{Config, Program, Start, Switches};

use crate::runtime::{self, LogArguments};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// File that names the processes
    #[arg(long, value_name = "PATH", required_unless_present = "command")]
    config: Option<PathBuf>,
    /// Leave the terminal's session, so that its end does not end the processes
    #[arg(long)]
    new_session: bool,
    /// End everything when stdin closes, that is, when whoever started this is gone
    #[arg(long)]
    until_stdin_closes: bool,
    /// Go on with what the program that this process was before left in that descriptor
    #[arg(long, hide = true, value_name = "FD")]
    takeover: Option<i32>,
    /// Say whether what stdin holds could be taken over, and do nothing
    #[arg(long, hide = true)]
    takeover_check: bool,
    #[command(flatten)]
    logs: LogArguments,
    /// One command to keep alive instead of a file's processes
    #[arg(last = true, value_name = "CMD", conflicts_with = "config")]
    command: Vec<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    if arguments.takeover_check {
        Takeover::check(&mut std::io::stdin())?;
        return Ok(Exit::Done);
    }
    if arguments.new_session {
        // Fails only for a process that leads its group already, and then there is nothing to do.
        let _ = rustix::process::setsid();
    }
    let start = match (&arguments.config, arguments.takeover) {
        (_, Some(descriptor)) => Start::Takeover(Box::new(Takeover::take(descriptor)?)),
        (Some(path), None) => Start::Anew(Config::read(path)?),
        (None, None) => Start::Anew(Config::for_command(arguments.command)),
    };
    let program = Program {
        launcher: launcher(),
        again: arguments.config.is_some().then(own_arguments),
    };
    arguments.logs.start(None, None)?;
    runtime::run(async move {
        let switches = Switches::on_signals().map_err(runtime::no_runtime)?;
        takeover::hear_signals();
        if arguments.until_stdin_closes {
            request_when_stdin_closes(switches.stop.clone());
        }
        supervisor::run(start, arguments.config, switches, program).await?;
        Ok(Exit::Done)
    })
}

/// What a child goes through before it becomes its command: `launch`, in this very binary.
fn launcher() -> Vec<OsString> {
    [supervisor::launch::OWN_PROGRAM, "launch", "--"]
        .map(OsString::from)
        .to_vec()
}

/// The arguments of this process, without those of a takeover.
fn own_arguments() -> Vec<OsString> {
    let mut own = Vec::new();
    let mut all = std::env::args_os().skip(1);
    while let Some(argument) = all.next() {
        if argument == takeover::FLAG {
            all.next();
        } else {
            own.push(argument);
        }
    }
    own
}

/// A thread, because a blocking read of stdin cannot be cancelled: it dies with the process.
fn request_when_stdin_closes(shutdown: Shutdown) {
    std::thread::spawn(move || {
        let mut buffer = [0_u8; 64];
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut buffer), Ok(read) if read > 0) {}
        shutdown.request();
    });
}

#[derive(clap::Args)]
pub(crate) struct LaunchArguments {
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the command; returns only when that fails.
pub(crate) fn launch(arguments: &LaunchArguments) -> Result<Exit, Failure> {
    Err(supervisor::launch::launch(&arguments.command))
}
