//! Turning a planned process into a running one: user, environment, folder, output, descriptors, a
//! process group of its own. A process that gets sockets, another user or fewer rights goes through `launch`;
//! any other is started directly.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use command_fds::{CommandFdExt as _, FdMapping};
use tokio::process::{Child, Command};

use crate::capture::Capture;
use crate::config::Logs;
use crate::confine::Identity;
use crate::family::Family;
use crate::isolation::Isolation;
use crate::launch::{ORDERS, Orders, Task};
use crate::plan::{Process, log_path};
use crate::porter::{Charge, PORTER};
use crate::scribe;
use crate::sockets::Sockets;

/// The first descriptor handed down (sd_listen_fds(3)).
const FIRST_DESCRIPTOR: i32 = 3;

pub(crate) struct Spawner {
    pub(crate) family: Arc<Family>,
    /// What stands before the command of a process that goes through `launch`.
    pub(crate) launcher: Vec<OsString>,
    pub(crate) log_folder: Option<PathBuf>,
    pub(crate) logs: Logs,
    pub(crate) sockets: Sockets,
}

pub(crate) struct Started {
    pub(crate) child: Child,
    pub(crate) pid: u32,
    /// None where it writes to our own stdout and stderr.
    pub(crate) capture: Option<Capture>,
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
        let mut command = match &process.isolation {
            Some(isolation) => isolated(&self.launcher, process, isolation),
            None => command(&self.launcher, process, &process.command),
        };
        self.hand_down(process, &mut command)?;
        let capture = self.capture(process, &mut command)?;
        let (child, pid) = self.family.spawn(&mut command)?;
        Ok(Started {
            child,
            pid,
            capture,
        })
    }

    fn capture(&self, process: &Process, command: &mut Command) -> io::Result<Option<Capture>> {
        let Some(folder) = &self.log_folder else {
            return Ok(None);
        };
        let settings = scribe::Settings {
            path: log_path(folder, &process.name),
            limits: self.logs.clone(),
        };
        let started = Capture::start(&self.family, &self.launcher, settings);
        // Not for want of a file of the child's: it is tried again.
        let (capture, writer) = started
            .map_err(|error| io::Error::other(format!("a scribe could not start: {error}")))?;
        command.stdout(writer.try_clone()?).stderr(writer);
        Ok(Some(capture))
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
    let confinement = process.confinement.clone();
    if confinement.is_none() && process.user.is_none() && process.sockets.is_empty() {
        return surrounded(process, words.iter().map(OsStr::new));
    }
    let orders = Orders {
        task: Task::Command,
        confinement: confinement.unwrap_or_default(),
    };
    launched(launcher, process, words, &orders)
}

/// A process behind its porter, which makes its namespaces as whoever we are and gives that up then.
fn isolated(launcher: &[OsString], process: &Process, isolation: &Isolation) -> Command {
    let mut confinement = process.confinement.clone().unwrap_or_default();
    if confinement.identity.is_none() {
        confinement.identity = process.user.as_ref().map(Identity::of);
    }
    let text = |word: &OsString| word.to_string_lossy().into_owned();
    let sources = isolation.mounts.iter().map(|mount| &mount.source);
    let mut words = vec![PORTER.to_owned()];
    words.extend(sources.map(|path| path.display().to_string()));
    let charge = Charge {
        isolation: isolation.clone(),
        launcher: launcher.iter().map(text).collect(),
        command: process.command.clone(),
    };
    let orders = Orders {
        task: Task::Porter(Box::new(charge)),
        confinement,
    };
    launched(launcher, process, &words, &orders)
}

/// The same, by way of `launch`.
pub(crate) fn launched(
    launcher: &[OsString],
    process: &Process,
    words: &[String],
    orders: &Orders,
) -> Command {
    let words = words.iter().map(OsStr::new);
    let before = launcher.iter().map(OsString::as_os_str);
    let mut command = surrounded(process, before.chain(words));
    command.env(ORDERS, orders.to_text());
    if let Some(user) = &process.user
        && orders.confinement.identity.is_none()
    {
        // The standard library drops all supplementary groups with the uid when we are root.
        command.gid(user.gid).uid(user.uid);
    }
    command
}

/// As ourselves: whoever gets another user goes through `launched`.
fn surrounded<'a>(process: &Process, mut words: impl Iterator<Item = &'a OsStr>) -> Command {
    let mut command = Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .env_clear()
        .envs(&process.environment)
        .stdin(Stdio::null())
        .process_group(0);
    if let Some(folder) = &process.working_folder {
        command.current_dir(folder);
    }
    command
}
