//! The supervisor's own log. Whoever starts it opens `supervisor.log` as its stderr; at its start, so
//! that nothing is lost before. From then on a line would wait for the disk, and with it the whole
//! supervisor: so it hands the file to a scribe, like any child's, and writes to a pipe. At the end it
//! takes its own stderr back, because the last word about a failure must be in the file when it exits.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};

use crate::capture::{self, Capture};
use crate::plan::log_path;
use crate::scribe::Settings;
use crate::spawn::Spawner;
use crate::status::SUPERVISOR;
use crate::takeover::{Descriptors, Number};

/// Our stdout and stderr as they were.
pub(crate) struct OwnOutput {
    stdout: OwnedFd,
    stderr: OwnedFd,
    capture: Capture,
}

/// The same for the program that this process becomes: it writes to the pipe already.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    stdout: Number,
    stderr: Number,
    capture: capture::Kept,
}

impl OwnOutput {
    /// None where our stderr is something else than `supervisor.log` in the folder of logs (a
    /// terminal, systemd's journal), or where no scribe can be started.
    pub(crate) fn hand_over(spawner: &Spawner) -> Option<Self> {
        let path = log_path(spawner.log_folder.as_ref()?, SUPERVISOR);
        let named = std::fs::metadata(&path).ok()?;
        let open = rustix::fs::fstat(io::stderr()).ok()?;
        if (open.st_dev, open.st_ino) != (named.dev(), named.ino()) {
            return None;
        }
        let settings = Settings {
            path,
            limits: spawner.logs.clone(),
        };
        Self::to_scribe(spawner, settings)
            .inspect_err(|error| tracing::error!(%error, "our own log has no scribe"))
            .ok()
    }

    fn to_scribe(spawner: &Spawner, settings: Settings) -> io::Result<Self> {
        let own = Self {
            stdout: copy(io::stdout().as_fd())?,
            stderr: copy(io::stderr().as_fd())?,
            capture: {
                let (capture, pipe) = Capture::start(&spawner.family, &spawner.launcher, settings)?;
                rustix::stdio::dup2_stdout(&pipe)?;
                rustix::stdio::dup2_stderr(&pipe)?;
                capture
            },
        };
        Ok(own)
    }

    /// Goes on with what the program before had handed over.
    pub(crate) fn go_on(spawner: &Spawner, kept: Kept) -> Option<Self> {
        let settings = Settings {
            path: log_path(spawner.log_folder.as_ref()?, SUPERVISOR),
            limits: spawner.logs.clone(),
        };
        let go_on = || -> io::Result<Self> {
            Ok(Self {
                stdout: kept.stdout.take()?,
                stderr: kept.stderr.take()?,
                capture: Capture::go_on(
                    &spawner.family,
                    &spawner.launcher,
                    settings,
                    kept.capture,
                )?,
            })
        };
        go_on()
            .inspect_err(|error| tracing::error!(%error, "our own log has no scribe"))
            .ok()
    }

    /// What the next program needs to go on with it.
    pub(crate) fn keep(&self, descriptors: &mut Descriptors) -> Kept {
        Kept {
            stdout: descriptors.keep(&self.stdout),
            stderr: descriptors.keep(&self.stderr),
            capture: self.capture.keep(descriptors),
        }
    }

    /// Writes to where it was again; the scribe ends.
    pub(crate) fn take_back(self) {
        let _ = rustix::stdio::dup2_stdout(&self.stdout);
        let _ = rustix::stdio::dup2_stderr(&self.stderr);
    }
}

fn copy(descriptor: std::os::fd::BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, 3)?)
}
