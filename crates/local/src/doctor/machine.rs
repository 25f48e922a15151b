//! Rows about the machine itself: memory, clock, limits and what its kernel offers.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Check, Subject};
use crate::exec::Exec;

/// Below this the full data set and two of everything do not fit.
const MEMORY_MIN: u64 = 1 << 30;
/// Each connection is a descriptor in a gateway and one in a node.
const OPEN_FILES_MIN: u64 = 4096;

/// Total and available memory of this machine, in bytes; 0 where it cannot be known.
pub(crate) fn memory_bytes() -> (u64, u64) {
    let memory = chassis::machine::memory();
    memory.map_or((0, 0), |memory| (memory.total, memory.available))
}

pub(super) fn memory() -> Check {
    let (total, available) = memory_bytes();
    let found = format!("{} MiB available of {} MiB", available >> 20, total >> 20);
    if available >= MEMORY_MIN {
        Check::ok("memory", found)
    } else {
        Check::warning(
            "memory",
            found,
            "end other programs, or fill fewer rows with --sessions",
        )
    }
}

pub(super) fn clock() -> Check {
    match synchronised() {
        Some(true) => Check::ok("clock", "synchronised"),
        Some(false) => Check::warning(
            "clock",
            "not synchronised: answers carry this machine's time",
            "timedatectl set-ntp true",
        ),
        None => Check::ok("clock", "nothing here says whether it is synchronised"),
    }
}

/// What systemd-timesyncd or timedatectl(1) says; `None` where neither is there.
fn synchronised() -> Option<bool> {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    let output = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

pub(super) fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    let found = format!(
        "{} (can be raised to {})",
        limit.current.map_or("unlimited".into(), |n| n.to_string()),
        limit.maximum.map_or("unlimited".into(), |n| n.to_string())
    );
    if maximum >= OPEN_FILES_MIN {
        Check::ok("open files", found)
    } else {
        Check::warning("open files", found, format!("ulimit -n {OPEN_FILES_MIN}"))
    }
}

pub(super) fn namespaces(subject: &Subject<'_>) -> Check {
    if let Some(exec) = &subject.options.exec {
        return for_exec(exec, subject.options.nodes);
    }
    let count = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if rustix::process::geteuid().is_root() {
        Check::ok("namespaces", "root may make them")
    } else if count.trim().parse::<u64>().unwrap_or(0) > 0 {
        Check::ok("namespaces", "users may make them")
    } else {
        Check::warning(
            "namespaces",
            "users may not make them: no fault drills on the network, one vendor copy at most",
            "sysctl user.max_user_namespaces=10000",
        )
    }
}

/// Whether as many copies can run as are asked for.
fn for_exec(exec: &Exec, nodes: u16) -> Check {
    const REMEDY: &str = "start as root, or allow users to make namespaces: sysctl \
                          user.max_user_namespaces=10000";
    match exec.loss() {
        None => Check::ok("namespaces", "each copy gets its own"),
        Some(loss) if nodes == 1 => Check::warning("namespaces", loss, REMEDY),
        Some(loss) => {
            let remedy = format!("{REMEDY}; or give --nodes 1 for the one copy");
            Check::failed("namespaces", loss, remedy)
        }
    }
}

pub(super) fn cgroups() -> Check {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers");
    let legacy = Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    if unified.exists() {
        Check::ok("cgroups", "version 2")
    } else if legacy.exists() {
        Check::ok("cgroups", "version 1")
    } else {
        Check::warning(
            "cgroups",
            "none: memory is watched by polling",
            "mount a cgroup file system, or accept polling",
        )
    }
}

/// Asked of the kernel itself: the list of its modules stands in a file system that may not be mounted.
pub(super) fn landlock() -> Check {
    match supervisor::lacking_for_privileges() {
        None => Check::ok("landlock", "available"),
        Some(lacking) => Check::ok("landlock", lacking),
    }
}

pub(super) fn ipv6() -> Check {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    match chassis::sockets::listen(address, false) {
        Ok(_) => Check::ok("IPv6", "available"),
        Err(error) => Check::warning(
            "IPv6",
            format!("not available: {error}"),
            "give --bind 127.0.0.1",
        ),
    }
}

pub(super) fn udp() -> Check {
    match UdpSocket::bind(("127.0.0.1", 0)) {
        Ok(_) => Check::ok("UDP", "available"),
        Err(error) => Check::warning("UDP", format!("not available: {error}"), "no HTTP/3 here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_this_machine_is_read() {
        let (total, available) = memory_bytes();
        assert!(total >= available && available > 0);
    }
}
