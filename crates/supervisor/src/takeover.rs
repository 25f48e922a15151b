//! The supervisor becomes another program by exec(2): the same process, so it stays the parent of its
//! children and every descriptor stays open. What it knows goes along as JSON in a memory file, with
//! the descriptors by number; both sides must speak the same version of it. The other program is asked
//! beforehand, as a child, whether it can read just that and whether it understands its own command
//! line: what fails there costs nothing. Signals that end a supervisor wait from before the exec until
//! the new program hears them.
//!
//! Left out: runs beside others. It is done while no successor starts and no predecessor drains, which
//! both have deadlines, so that half a replacement need not be carried over.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use chassis::Failure;
use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};

use crate::capture;
use crate::config::Config;
use crate::family;
use crate::groups::Group;
use crate::own_output;
use crate::plan::Plan;
use crate::policy::Machine;
use crate::slot::Standing;
use crate::sockets;

/// Changed with every change of the types below, and of those in them, that a default does not mend.
const VERSION: u32 = 1;
/// The flag of `supervise` that names the descriptor of the memory file.
pub const FLAG: &str = "--takeover";
/// The flag that only reads it, from stdin, and judges.
pub const CHECK_FLAG: &str = "--takeover-check";

/// What a supervisor knows, for the program that it becomes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Takeover {
    pub(crate) version: u32,
    pub(crate) config: Config,
    /// How long it runs already: moments count from its start.
    pub(crate) elapsed: Duration,
    pub(crate) since: String,
    pub(crate) upgrades: u32,
    pub(crate) runs: u64,
    pub(crate) control: Option<Number>,
    #[serde(default)]
    pub(crate) metrics: Option<Number>,
    pub(crate) own_output: Option<own_output::Kept>,
    pub(crate) sockets: Vec<sockets::Kept>,
    pub(crate) family: family::Known,
    pub(crate) slots: Vec<KeptSlot>,
}

/// One process; see the fields of `Slot`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeptSlot {
    pub(crate) name: String,
    pub(crate) machine: Machine,
    pub(crate) run: u64,
    pub(crate) live: Option<KeptLive>,
    /// In line with the others: programs of before this type read and write it so.
    #[serde(flatten)]
    pub(crate) standing: Standing,
}

/// A run; see the fields of `Live`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeptLive {
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) age: Duration,
    pub(crate) age_at_end: Option<Duration>,
    pub(crate) capture: Option<capture::Kept>,
    pub(crate) ear: Option<(String, Number)>,
    pub(crate) port: Option<u16>,
    #[serde(default)]
    pub(crate) group: Option<Group>,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Takeover {
    pub(crate) const VERSION: u32 = VERSION;

    /// Takes what the program that this process was before has left in that descriptor. Exit 64 where
    /// it cannot be read.
    pub fn take(descriptor: i32) -> Result<Self, Failure> {
        let file = Number(descriptor).take().map(File::from);
        let mut file = file.map_err(|error| unreadable(&error))?;
        file.rewind().map_err(|error| unreadable(&error))?;
        Self::read(&mut file)
    }

    /// Reads and checks it, and takes nothing over. Exit 64 where that fails.
    pub fn check(input: &mut impl Read) -> Result<(), Failure> {
        Plan::new(&Self::read(input)?.config).map(drop)
    }

    fn read(input: &mut impl Read) -> Result<Self, Failure> {
        let mut text = String::new();
        let read = input.read_to_string(&mut text);
        read.map_err(|error| unreadable(&error))?;
        let versioned: Versioned =
            serde_json::from_str(&text).map_err(|error| unreadable(&error))?;
        if versioned.version != VERSION {
            let version = versioned.version;
            let why = format!("it is of version {version}, and this program reads {VERSION}");
            return Err(unreadable(&why));
        }
        serde_json::from_str(&text).map_err(|error| unreadable(&error))
    }

    /// As a memory file.
    pub(crate) fn write(&self) -> io::Result<File> {
        let memory = rustix::fs::memfd_create("takeover", MemfdFlags::CLOEXEC)?;
        let mut file = File::from(memory);
        serde_json::to_writer(&mut file, self)?;
        file.flush()?;
        file.rewind()?;
        Ok(file)
    }
}

fn unreadable(why: &dyn std::fmt::Display) -> Failure {
    Failure::configuration(
        "take over from the supervisor that runs",
        why,
        "`bingo down` and `bingo up` with this program instead",
    )
}

/// A descriptor by its number, which it keeps through exec(2).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Number(RawFd);

impl Number {
    pub(crate) fn value(&self) -> RawFd {
        self.0
    }

    /// Becomes its owner; to be called once. Fails where it is closed.
    pub(crate) fn take(self) -> io::Result<OwnedFd> {
        // The standard streams belong to others.
        if self.0 <= 2 {
            return Err(io::Error::other("it is a standard stream"));
        }
        rustix::io::fcntl_setfd(borrow(self.0), FdFlags::CLOEXEC)?;
        // SAFETY: it is open (fcntl succeeded), and numbers are written down by the program that this
        // process was before, each one once, for this program to own.
        #[allow(unsafe_code)]
        let owned = unsafe { OwnedFd::from_raw_fd(self.0) };
        Ok(owned)
    }
}

/// The descriptors that stay open: copies, because a task beside us may close its own at any moment, as
/// when a child and its scribe end.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    kept: Vec<OwnedFd>,
    /// Why one could not be copied; then there is no exec.
    failed: Option<io::Error>,
}

impl Descriptors {
    /// The number of the copy.
    pub(crate) fn keep(&mut self, descriptor: &impl AsFd) -> Number {
        match rustix::io::fcntl_dupfd_cloexec(descriptor, 3) {
            Ok(copy) => {
                let number = copy.as_raw_fd();
                self.kept.push(copy);
                Number(number)
            }
            Err(error) => {
                self.failed = Some(error.into());
                Number(-1)
            }
        }
    }

    fn close_on_exec(&self, flags: FdFlags) -> io::Result<()> {
        for copy in &self.kept {
            rustix::io::fcntl_setfd(copy, flags)?;
        }
        Ok(())
    }
}

fn borrow(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: used for one fcntl(2), which answers EBADF where the descriptor is closed.
    #[allow(unsafe_code)]
    unsafe {
        BorrowedFd::borrow_raw(number)
    }
}

/// Becomes `program` with these arguments and descriptors. Returns only where that fails, and then
/// everything is as before.
pub(crate) fn become_program(
    program: &std::path::Path,
    arguments: &[OsString],
    mut descriptors: Descriptors,
) -> io::Error {
    if let Some(error) = descriptors.failed.take() {
        return error;
    }
    let words =
        std::iter::once(program.as_os_str()).chain(arguments.iter().map(OsString::as_os_str));
    let words: Result<Vec<CString>, _> = words.map(|word| CString::new(word.as_bytes())).collect();
    let words = match words {
        Ok(words) => words,
        Err(error) => return io::Error::other(error),
    };
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let Some(path) = pointers.first().copied() else {
        return io::Error::other("there is no program");
    };
    hold_signals(libc::SIG_BLOCK);
    let error = match descriptors.close_on_exec(FdFlags::empty()) {
        Ok(()) => {
            // SAFETY: `path` and the list, which ends in a null pointer, point into `words`, which
            // lives until the call returns, if it does.
            #[allow(unsafe_code)]
            unsafe {
                libc::execv(path, pointers.as_ptr())
            };
            io::Error::last_os_error()
        }
        Err(error) => error,
    };
    let _ = descriptors.close_on_exec(FdFlags::CLOEXEC);
    hold_signals(libc::SIG_UNBLOCK);
    error
}

/// To be called by a program that took over, when it has handlers: what was sent meanwhile comes now.
pub fn hear_signals() {
    hold_signals(libc::SIG_UNBLOCK);
}

/// For the calling thread, which at an exec is the one that goes on (sigprocmask(2)). The standard
/// library empties the mask in every child that it starts.
fn hold_signals(how: libc::c_int) {
    // SAFETY: the set is initialized by sigemptyset(3) before it is read, and no pointer is kept.
    #[allow(unsafe_code)]
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_wrote_is_refused_and_so_is_nonsense() {
        let check = |text: &str| Takeover::check(&mut text.as_bytes());
        let newer = check("{\"version\": 99, \"all\": \"else\"}").unwrap_err();
        assert_eq!(newer.exit, chassis::Exit::Configuration);
        let text = newer.to_string();
        assert!(
            text.contains("version 99, and this program reads"),
            "{text}"
        );
        assert!(check("{\"version\": 1}").is_err());
        assert!(check("").is_err());
    }

    #[test]
    fn a_descriptor_goes_by_its_number_and_a_closed_one_is_refused() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut descriptors = Descriptors::default();
        let number = descriptors.keep(&reader);
        // Closed here, and as if an exec lay between.
        drop(reader);
        std::mem::forget(descriptors);
        writer.write_all(b"x").unwrap();
        let mut taken = File::from(number.take().unwrap());
        let mut text = [0];
        taken.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"x");
        assert!(Number(9999).take().is_err());
        assert!(Number(1).take().is_err());
    }
}
