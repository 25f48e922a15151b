//! Turning a planned process into a running one: user, environment, folder, log, descriptors, a
//! process group of its own. A process that gets sockets or another user goes through `launch`;
//! any other is started directly.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use command_fds::{CommandFdExt as _, FdMapping};
use tokio::process::{Child, Command};

use crate::family::Family;
use crate::log_files;
use crate::plan::{Process, log_path};
use crate::sockets::Sockets;

/// The first descriptor handed down (sd_listen_fds(3)).
const FIRST_DESCRIPTOR: i32 = 3;

pub(crate) struct Spawner {
    pub(crate) family: Arc<Family>,
    /// What stands before the command of a process that goes through `launch`.
    pub(crate) launcher: Vec<OsString>,
    pub(crate) log_folder: Option<PathBuf>,
    pub(crate) sockets: Sockets,
}

pub(crate) struct Started {
    pub(crate) child: Child,
    pub(crate) pid: u32,
    pub(crate) log: Option<Log>,
}

/// Where a run writes, and from which byte on.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) path: PathBuf,
    pub(crate) from: u64,
}

pub(crate) struct StartError {
    pub(crate) why: String,
    /// Trying again cannot help.
    pub(crate) permanent: bool,
}

impl Spawner {
    pub(crate) fn start(&self, process: &Process) -> Result<Started, StartError> {
        self.try_start(process).map_err(|error| StartError {
            why: format!("start {}: {error}", process.command.join(" ")),
            permanent: matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidInput
            ),
        })
    }

    fn try_start(&self, process: &Process) -> io::Result<Started> {
        let mut command = command(&self.launcher, process, &process.command);
        let log = match &self.log_folder {
            Some(folder) => {
                let path = log_path(folder, &process.name);
                let (file, from) = log_files::open(&path)?;
                let again: File = file.try_clone()?;
                command.stdout(file).stderr(again);
                Some(Log { path, from })
            }
            None => None,
        };
        self.hand_down(process, &mut command)?;
        let (child, pid) = self.family.spawn(&mut command)?;
        Ok(Started { child, pid, log })
    }

    fn hand_down(&self, process: &Process, command: &mut Command) -> io::Result<()> {
        if process.sockets.is_empty() {
            return Ok(());
        }
        let mut mappings = Vec::new();
        let mut names = Vec::new();
        for (child_fd, socket) in (FIRST_DESCRIPTOR..).zip(&process.sockets) {
            mappings.push(FdMapping {
                parent_fd: self.sockets.duplicate(socket)?,
                child_fd,
            });
            names.push(socket.name.as_str());
        }
        command
            .env("LISTEN_FDS", mappings.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        command
            .fd_mappings(mappings)
            .map_err(io::Error::other)
            .map(drop)
    }
}

/// Marks every descriptor above stderr to be closed in children. Ours are already; those that came
/// from whoever started us (a pipe of a shell, say) would be held open by children for ever.
pub(crate) fn close_on_exec() {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open = open.flatten().map(|entry| entry.file_name());
    for number in open.filter_map(|name| name.to_str()?.parse::<RawFd>().ok()) {
        if number > 2 {
            // SAFETY: used for one fcntl(2), which answers EBADF where the descriptor is closed.
            #[allow(unsafe_code)]
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC);
        }
    }
}

/// A command in the surroundings of a process: the process itself, or its probe.
pub(crate) fn command(launcher: &[OsString], process: &Process, words: &[String]) -> Command {
    let launched = process.user.is_some() || !process.sockets.is_empty();
    let mut all = launcher
        .iter()
        .filter(|_| launched)
        .map(OsString::as_os_str)
        .chain(words.iter().map(OsStr::new));
    let mut command = Command::new(all.next().unwrap_or_default());
    command
        .args(all)
        .env_clear()
        .envs(&process.environment)
        .stdin(Stdio::null())
        .process_group(0);
    if let Some(folder) = &process.working_folder {
        command.current_dir(folder);
    }
    if let Some(user) = &process.user {
        // The standard library drops all supplementary groups with the uid when we are root.
        command.gid(user.gid).uid(user.uid);
    }
    command
}
