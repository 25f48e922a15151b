//! Giving up rights, in the process that is about to become a child's command (`launch`): the last
//! thing before exec, and never to be undone. No allocation between fork and exec is at stake here:
//! this is a program of its own that was started by then.
//!
//! What the kernel does not have (landlock, seccomp) is left out without a word, since each start
//! would repeat it: the supervisor looks once (`lacking`) and shows it.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, Scope, path_beneath_rules,
};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use crate::config::Limits;
use crate::plan::User;

mod system_calls;

/// Rights on files that are handled: reading, writing, cutting, moving between folders (Linux 6.2;
/// older kernels handle what they know).
const FILES: ABI = ABI::V3;
/// Signals to processes outside are refused from here on (Linux 6.12).
const SIGNALS: ABI = ABI::V6;
/// What any program may open for writing.
const DEVICES: [&str; 7] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/shm",
];

/// What is given up. The default is to give up nothing but the means to gain privileges.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Confinement {
    /// Whether capabilities go.
    pub(crate) capabilities: bool,
    /// User, group and further groups to become; None: whoever started it has seen to that.
    pub(crate) identity: Option<Identity>,
    pub(crate) files: Option<Files>,
    pub(crate) system_calls: bool,
    pub(crate) limits: Limits,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// What may be written, and what may be read and executed besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Files {
    pub(crate) writable: Vec<PathBuf>,
    pub(crate) readable: Vec<PathBuf>,
}

impl Files {
    /// The one folder may be written, everything read.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self {
            writable: vec![folder.to_owned()],
            readable: vec![PathBuf::from("/")],
        }
    }
}

impl Confinement {
    /// For the supervisor's own work beside a child: it writes in one folder and does nothing else.
    pub(crate) fn of_work_in(folder: &Path) -> Self {
        Self {
            capabilities: true,
            files: Some(Files::in_folder(folder)),
            system_calls: true,
            ..Self::default()
        }
    }

    /// Gives all of it up, for this process and all it becomes and starts. Call it with one thread
    /// only. The error says which step failed; what went before stays given up.
    pub(crate) fn apply(&self) -> Result<(), (&'static str, io::Error)> {
        let step = |name: &'static str| move |error| (name, error);
        // No setuid program gives back what was dropped (prctl(2), PR_SET_NO_NEW_PRIVS).
        rustix::thread::set_no_new_privs(true)
            .map_err(|error| ("forbid new privileges", error.into()))?;
        self.limit().map_err(step("set limits"))?;
        if self.capabilities {
            empty_bounding_set();
        }
        if let Some(identity) = &self.identity {
            identity.become_it().map_err(step("become its user"))?;
        }
        if self.capabilities {
            drop_capabilities().map_err(step("drop capabilities"))?;
        }
        if let Some(files) = &self.files {
            files.restrict().map_err(step("restrict files"))?;
        }
        if self.system_calls {
            system_calls::refuse().map_err(step("refuse system calls"))?;
        }
        Ok(())
    }

    fn limit(&self) -> io::Result<()> {
        let Limits {
            open_files,
            processes,
            file_bytes,
        } = self.limits;
        for (resource, value) in [
            (Resource::Core, Some(0)),
            (Resource::Nofile, open_files),
            (Resource::Nproc, processes),
            (Resource::Fsize, file_bytes),
        ] {
            if let Some(value) = value {
                let limit = Rlimit {
                    current: Some(value),
                    maximum: Some(value),
                };
                rustix::process::setrlimit(resource, limit)?;
            }
        }
        Ok(())
    }
}

impl Identity {
    /// The user with its own group alone.
    pub(crate) fn of(user: &User) -> Self {
        Self {
            uid: user.uid,
            gid: user.gid,
            groups: Vec::new(),
        }
    }

    fn become_it(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

impl Files {
    fn restrict(&self) -> io::Result<()> {
        let all = AccessFs::from_all(FILES);
        let devices = path_beneath_rules(DEVICES, all);
        let writable = path_beneath_rules(&self.writable, all);
        let readable = path_beneath_rules(&self.readable, AccessFs::from_read(FILES));
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)
            .and_then(|rules| rules.scope(Scope::from_all(SIGNALS) & Scope::Signal))
            .and_then(Ruleset::create)
            .and_then(|rules| rules.add_rules(devices))
            .and_then(|rules| rules.add_rules(writable))
            .and_then(|rules| rules.add_rules(readable))
            .and_then(|rules| rules.restrict_self())
            .map(drop)
            .map_err(io::Error::other)
    }
}

/// What this kernel lacks of all that, for people; None where it lacks nothing.
pub fn lacking() -> Option<String> {
    let landlock = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok();
    let seccomp = Path::new("/proc/sys/kernel/seccomp").exists();
    let missing = [
        (
            landlock,
            "landlock: processes may write wherever their users may",
        ),
        (seccomp, "seccomp: processes may make every system call"),
    ];
    let missing = missing.iter().filter(|(is_there, _)| !is_there);
    let missing: Vec<&str> = missing.map(|(_, what)| *what).collect();
    (!missing.is_empty()).then(|| format!("this kernel has no {}", missing.join("; no ")))
}

/// So that root, too, has none after exec (capabilities(7)). Needs a right of root's; without it there
/// is nothing to take away.
fn empty_bounding_set() {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if rustix::thread::remove_capability_from_bounding_set(capability).is_err() {
            return;
        }
    }
}

fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    // An old kernel has no ambient set, and then nothing is in it.
    let _ = rustix::thread::clear_ambient_capability_set();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(())
}
