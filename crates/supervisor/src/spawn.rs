//! Turning a planned process into a running one: user, environment, folder, log, descriptors, a
//! process group of its own. A process that gets sockets or another user goes through `launch`;
//! any other is started directly.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use chassis::Failure;
use command_fds::{CommandFdExt as _, FdMapping};
use tokio::process::{Child, Command};

use crate::family::Family;
use crate::log_files;
use crate::plan::{Plan, Process, log_path};

/// The first descriptor handed down (sd_listen_fds(3)).
const FIRST_DESCRIPTOR: i32 = 3;

pub(crate) struct Spawner {
    pub(crate) family: Arc<Family>,
    /// What stands before the command of a process that goes through `launch`.
    pub(crate) launcher: Vec<OsString>,
    pub(crate) log_folder: Option<PathBuf>,
    /// One listener for each distinct address.
    listeners: Vec<(SocketAddr, TcpListener)>,
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
    /// Opens all sockets of the plan; each busy or forbidden address is named (exit 64).
    pub(crate) fn new(
        plan: &Plan,
        family: Arc<Family>,
        launcher: Vec<OsString>,
        log_folder: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let mut listeners: Vec<(SocketAddr, TcpListener)> = Vec::new();
        let mut failures = Vec::new();
        let addresses = plan.processes.iter().flat_map(|process| {
            process
                .sockets
                .iter()
                .map(move |socket| (process, socket.1))
        });
        for (process, address) in addresses {
            if listeners.iter().any(|(known, _)| *known == address) {
                continue;
            }
            match chassis::sockets::listen(address, false) {
                Ok(listener) => listeners.push((address, listener)),
                Err(error) => failures.push(Failure::configuration(
                    format!("listen on {address} for {}", process.name),
                    error,
                    "choose another port, or end the process that holds this one",
                )),
            }
        }
        match Failure::all(failures) {
            Some(failure) => Err(failure),
            None => Ok(Self {
                family,
                launcher,
                log_folder,
                listeners,
            }),
        }
    }

    /// Where the process's first socket really listens (port 0 became a real one).
    pub(crate) fn listens(&self, process: &Process) -> Option<SocketAddr> {
        let (_, address) = process.sockets.first()?;
        self.listener(*address)?.local_addr().ok()
    }

    /// Closes the sockets here: when their last process has closed them too, connections are
    /// refused and no longer queued.
    pub(crate) fn close_sockets(&mut self) {
        self.listeners.clear();
    }

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
        for (child_fd, (name, address)) in (FIRST_DESCRIPTOR..).zip(&process.sockets) {
            let listener = self
                .listener(*address)
                .ok_or_else(|| io::Error::other(format!("the socket {address} is closed")))?;
            mappings.push(FdMapping {
                parent_fd: listener.try_clone()?.into(),
                child_fd,
            });
            names.push(name.as_str());
        }
        command
            .env("LISTEN_FDS", mappings.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        command
            .fd_mappings(mappings)
            .map_err(io::Error::other)
            .map(drop)
    }

    fn listener(&self, address: SocketAddr) -> Option<&TcpListener> {
        self.listeners
            .iter()
            .find(|(known, _)| *known == address)
            .map(|(_, listener)| listener)
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
