//! The keys about what a process may do beyond computing.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a process may do. With this block, even an empty one, it has no capabilities and can gain
/// none (no setuid program helps it), and system calls that no service needs are refused; so it cannot
/// trace others, mount, load modules, or open raw sockets. Without it only a process with `user` or
/// `sockets` is kept from gaining privileges.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privileges {
    /// Groups beside the one of `user`; needs root. Not set: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Files and folders, absolute, that it may write, as far as its user may; beside them only
    /// /dev/null and its like and /dev/shm. They must exist when it starts. It can then signal no
    /// process but its own children either. Not set: whatever its user may. Needs landlock (Linux
    /// 5.13); where the kernel has none, the status says so. A path that is missing here makes the
    /// process fail with "permission denied" where its mode says that it may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writable: Option<Vec<PathBuf>>,
    /// Files and folders, absolute, that it may read and execute, beside the writable ones; counts
    /// only with `writable`. Not set: everything that its user may. Too few, and it does not even find
    /// its libraries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readable: Option<Vec<PathBuf>>,
    /// `all` lets it make every system call; for a debugger, a container runtime, a database that
    /// needs io_uring.
    #[serde(default, skip_serializing_if = "SystemCalls::is_default")]
    pub system_calls: SystemCalls,
    #[serde(default, skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
}

/// Which system calls are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SystemCalls {
    /// All but those that no service needs.
    #[default]
    Usual,
    All,
}

impl SystemCalls {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Limits of the kernel (setrlimit(2)), soft and hard. Not set: ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Descriptors of one process. Too low, and connections are refused; more than ours needs root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Processes and threads of its user, on the whole machine, those of others of this user counted.
    /// Too low, and none can be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Bytes of one file that it writes. Too low ends a process that writes more (SIGXFSZ).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
}

impl Limits {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
