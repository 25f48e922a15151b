//! Watching the system calls of a program, as a debugger does (ptrace(2)): which files it could not
//! open, and which addresses it tried to reach. The thread that starts it must be the one that watches.
//! Each call of a program costs it two stops, so it is slower than by itself. Unsafe calls, since no
//! crate at hand knows PTRACE_GET_SYSCALL_INFO, which alone is the same on all processors.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// While it stands still, it is looked after this often.
const LOOK: Duration = Duration::from_micros(100);
/// Longer paths do not exist (PATH_MAX).
const PATH_BYTES_MAX: usize = 4096;
/// `sockaddr_in6`; longer ones are of other families.
const ADDRESS_BYTES_MAX: usize = 28;
/// More is not remembered of one run.
const EVENTS_MAX: usize = 10_000;

/// Requests (linux/ptrace.h); libc has the last one for one of its C libraries alone.
const TRACEME: u32 = 0;
const SYSCALL: u32 = 24;
const SETOPTIONS: u32 = 0x4200;
const GET_SYSCALL_INFO: u32 = 0x420e;
/// What a stop is about.
const OP_ENTRY: u8 = 1;
const OP_EXIT: u8 = 2;

/// `struct ptrace_syscall_info`. At the begin of a call `words` are its number and its arguments, at
/// its end the first is its value.
#[repr(C)]
#[derive(Default)]
struct CallInfo {
    op: u8,
    _unused: [u8; 3],
    _architecture: u32,
    _instruction: u64,
    _stack: u64,
    words: [u64; 8],
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A file could not be opened.
    Denied {
        path: String,
        writes: bool,
        error: i32,
    },
    /// A connection was asked for; 0 where it was made at once.
    Connected {
        address: SocketAddr,
        waited: Duration,
        error: i32,
    },
}

/// Starts the command and tells `started` its pid; watches until it ends, or until `deadline`, when it
/// is killed with all that it started.
pub(super) fn run(
    mut command: Command,
    deadline: Instant,
    started: impl FnOnce(u32),
) -> io::Result<(Vec<Event>, Option<ExitStatus>)> {
    let traced = || match request(TRACEME, 0, 0, 0) {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: between fork and exec it makes one system call and touches no memory of others.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(traced);
    }
    let child = command.process_group(0).spawn()?;
    let pid = child.id().cast_signed();
    started(child.id());
    let mut tracer = Tracer {
        pid,
        known: HashSet::from([pid]),
        open: HashMap::new(),
        events: Vec::new(),
        ended: None,
        is_set: false,
    };
    while Instant::now() < deadline && tracer.ended.is_none() {
        if !tracer.look() {
            std::thread::sleep(LOOK);
        }
    }
    crate::processes::kill_tree(child.id());
    crate::processes::kill_group(child.id());
    Ok((tracer.events, tracer.ended))
}

struct Tracer {
    pid: i32,
    /// Threads that have begun.
    known: HashSet<i32>,
    /// Calls that have begun: number, arguments, when.
    open: HashMap<i32, (u64, [u64; 6], Instant)>,
    events: Vec<Event>,
    ended: Option<ExitStatus>,
    is_set: bool,
}

impl Tracer {
    /// Handles one stop; false where there was none.
    fn look(&mut self) -> bool {
        let mut status = 0;
        // SAFETY: writes the status, which lives longer than the call.
        #[allow(unsafe_code)]
        let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) };
        if thread <= 0 {
            return false;
        }
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            self.open.remove(&thread);
            if thread == self.pid {
                self.ended = Some(ExitStatus::from_raw(status));
            }
            return true;
        }
        let signal = self.stopped(thread, status);
        request(SYSCALL, thread, 0, signal);
        true
    }

    /// The signal that it is to get.
    fn stopped(&mut self, thread: i32, status: i32) -> libc::c_long {
        const OF_A_CALL: i32 = libc::SIGTRAP | 0x80;
        if !self.is_set {
            // The stop at its exec.
            self.is_set = true;
            let options = libc::PTRACE_O_TRACESYSGOOD
                | libc::PTRACE_O_TRACECLONE
                | libc::PTRACE_O_TRACEFORK
                | libc::PTRACE_O_TRACEVFORK
                | libc::PTRACE_O_TRACEEXEC
                | libc::PTRACE_O_EXITKILL;
            request(SETOPTIONS, thread, 0, options.into());
            return 0;
        }
        let is_new = self.known.insert(thread);
        match libc::WSTOPSIG(status) {
            OF_A_CALL => self.call(thread),
            _ if status >> 16 != 0 => {}
            libc::SIGSTOP if is_new => {}
            signal => return signal.into(),
        }
        0
    }

    fn call(&mut self, thread: i32) {
        let mut info = CallInfo::default();
        let at = (&raw mut info).expose_provenance() as libc::c_long;
        let bytes = size_of::<CallInfo>() as libc::c_long;
        if request(GET_SYSCALL_INFO, thread, bytes, at) <= 0 {
            return;
        }
        let [number, arguments @ .., _] = info.words;
        match info.op {
            OP_ENTRY => {
                self.open
                    .insert(thread, (number, arguments, Instant::now()));
            }
            OP_EXIT => {
                let value = number.cast_signed();
                if let Some((number, arguments, since)) = self.open.remove(&thread)
                    && self.events.len() < EVENTS_MAX
                {
                    let error = i32::try_from(-value.min(0)).unwrap_or(0);
                    let event = event(thread, number, arguments, since.elapsed(), error);
                    self.events.extend(event);
                }
            }
            _ => {}
        }
    }
}

fn event(
    thread: i32,
    number: u64,
    arguments: [u64; 6],
    waited: Duration,
    error: i32,
) -> Option<Event> {
    let number = libc::c_long::try_from(number).ok()?;
    let [_, second, third, ..] = arguments;
    if number == libc::SYS_openat && error != 0 {
        let bytes = memory(thread, second, PATH_BYTES_MAX);
        let path = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        return Some(Event::Denied {
            path: String::from_utf8_lossy(path).into_owned(),
            writes: third & u64::from((libc::O_WRONLY | libc::O_RDWR).cast_unsigned()) != 0,
            error,
        });
    }
    if number == libc::SYS_connect {
        let length = usize::try_from(third).ok()?.min(ADDRESS_BYTES_MAX);
        return Some(Event::Connected {
            address: address(&memory(thread, second, length))?,
            waited,
            error,
        });
    }
    None
}

/// As much of its memory as can be read there.
fn memory(thread: i32, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = std::fs::File::open(format!("/proc/{thread}/mem"))
        .and_then(|memory| memory.read_at(&mut bytes, at));
    bytes.truncate(read.unwrap_or(0));
    bytes
}

/// Of the internet families (ip(7), ipv6(7)).
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip = match i32::from(family) {
        libc::AF_INET => {
            let four: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            IpAddr::from(Ipv4Addr::from(four))
        }
        libc::AF_INET6 => {
            let sixteen: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            IpAddr::from(Ipv6Addr::from(sixteen))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn request(what: u32, thread: i32, at: libc::c_long, data: libc::c_long) -> libc::c_long {
    // SAFETY: the one request that writes memory of ours is given the address and size of a value that
    // lives longer than the call.
    #[allow(unsafe_code)]
    unsafe {
        libc::ptrace(what as _, thread, at, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_lie_in_memory() {
        let mut bytes = u16::try_from(libc::AF_INET).unwrap().to_ne_bytes().to_vec();
        bytes.extend([0, 80, 8, 8, 4, 4, 0, 0]);
        assert_eq!(address(&bytes), Some("8.8.4.4:80".parse().unwrap()));
        assert_eq!(address(&bytes[..5]), None);
        assert_eq!(address(&[1, 0, b'/', b'x']), None, "a Unix socket");
    }
}
