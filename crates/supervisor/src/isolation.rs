//! The key `isolation` of a process, as it can be carried out, and its namespaces, mounts and network.
//! They are made by one thread of the porter, which alone lives in them, and by nobody else: so the
//! porter can open sockets on either side, nothing has to be undone, and all is gone with the last
//! process inside. Left out: a process and a user namespace of their own for root's children, who
//! are confined by `confine` like any other.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::config::{self, Mount};
use crate::plan::Faults;

/// Entries of a folder that are carried over when something is to stand in it; a larger one is not
/// made for this.
const ENTRIES_MAX: usize = 4096;

/// What is made for one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Isolation {
    pub(crate) mounts: Vec<Mount>,
    pub(crate) serve: Option<Serve>,
    /// Inside, and where that leads outside.
    pub(crate) reach: Vec<(SocketAddr, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Serve {
    pub(crate) listen: SocketAddr,
    pub(crate) at: SocketAddr,
    pub(crate) path: String,
}

/// Checks the key.
pub(crate) fn resolve(
    process: &config::Process,
    key: &str,
    faults: &mut Faults,
) -> Option<Isolation> {
    let written = process.isolation.as_ref()?;
    if !process.sockets.is_empty() {
        let why = "an isolated process gets no sockets";
        faults.add(key, why, "remove `sockets`, or name where it serves");
    }
    for mount in &written.mounts {
        for path in [&mount.source, &mount.target] {
            let is_plain = path.components().all(|part| part.as_os_str() != "..");
            if !path.is_absolute() || !is_plain || path.parent().is_none() {
                let why = format!("`{}` is no absolute path", path.display());
                faults.add(&format!("{key}.mounts"), why, "write it from the root on");
            }
        }
    }
    let mut address = |name: &str, text: &str| {
        let parsed = text.parse::<SocketAddr>();
        if parsed.is_err() {
            let why = format!("`{text}` is no address");
            faults.add(
                &format!("{key}.{name}"),
                why,
                "write it like 127.0.0.1:8080",
            );
        }
        parsed.ok()
    };
    let serve = written.serve.as_ref().and_then(|serve| {
        let listen = address("serve.listen", &serve.listen);
        let at = address("serve.at", &serve.at);
        Some(Serve {
            listen: listen?,
            at: at?,
            path: serve.path.clone(),
        })
    });
    let reach = written.reach.iter();
    let reach = reach.filter_map(|reach| {
        let listen = address("reach.listen", &reach.listen)?;
        Some((listen, reach.at.clone()))
    });
    let reach = reach.collect();
    Some(Isolation {
        mounts: written.mounts.clone(),
        serve,
        reach,
    })
}

/// Becomes root in a user namespace where we are not root already. Only while this process has one
/// thread.
pub(crate) fn become_able() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        return Ok(());
    }
    leave(UnshareFlags::NEWUSER)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    let map = |id: u32| format!("{id} {id} 1");
    std::fs::write("/proc/self/uid_map", map(uid.as_raw()))?;
    std::fs::write("/proc/self/gid_map", map(gid.as_raw()))
}

impl Isolation {
    /// Moves this thread into a network and a tree of mounts of its own. The error says which step
    /// failed.
    pub(crate) fn enter(&self) -> Result<(), (String, io::Error)> {
        let step = |name: &str| {
            let name = name.to_owned();
            move |error: io::Error| (name, error)
        };
        leave(UnshareFlags::NEWNS | UnshareFlags::NEWNET)
            .map_err(step("make namespaces for mounts and network"))?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private)
            .map_err(|error| ("keep its mounts to itself".to_owned(), error.into()))?;
        raise_loopback().map_err(step("bring its loopback up"))?;
        let mut made = Vec::new();
        for Mount { source, target } in &self.mounts {
            let name = format!("put {} at {}", source.display(), target.display());
            put(source, target, &mut made).map_err(|error| (name, error))?;
        }
        Ok(())
    }
}

fn leave(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: only CLONE_FILES could take descriptors from under safe code, and it is never given.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(flags)?;
    }
    Ok(())
}

/// A new network has a loopback that is down (network_namespaces(7)).
fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: `ifreq` is plain data for which zeroes are valid; both calls read and write this one
    // value, which lives longer than they do.
    #[allow(unsafe_code)]
    let done = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = from.cast_signed();
        }
        let fd = socket.as_raw_fd();
        if libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request) < 0 {
            -1
        } else {
            request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
            libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request)
        }
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Puts a file or folder at `target`. `made`: folders that are ours already.
fn put(source: &Path, target: &Path, made: &mut Vec<PathBuf>) -> io::Result<()> {
    let is_folder = std::fs::metadata(source)?.is_dir();
    if std::fs::symlink_metadata(target).is_err() {
        let there = target.ancestors().skip(1).find(|path| path.is_dir());
        let there = there.unwrap_or(Path::new("/")).canonicalize()?;
        if there.parent().is_none() {
            // What is mounted upon the root is not seen: it would be made for everybody.
            let top: PathBuf = target.components().take(2).collect();
            let why = format!("there is no folder {}: make it", top.display());
            return Err(io::Error::other(why));
        }
        if !made.iter().any(|folder| there.starts_with(folder)) {
            carry_over(&there)?;
            made.push(there);
        }
        make(target, is_folder)?;
    }
    mount_bind_recursive(source, target)?;
    Ok(())
}

/// An empty file or folder to mount upon.
fn make(target: &Path, is_folder: bool) -> io::Result<()> {
    if is_folder {
        return std::fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    File::create_new(target).map(drop)
}

/// Replaces a folder by one in memory with the same entries, so that others can be made beside them
/// and the real folder stays as it is.
fn carry_over(folder: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let real = rustix::fs::open(folder, flags, Mode::empty())?;
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        entries.push((entry.file_name(), entry.file_type()?));
        if entries.len() > ENTRIES_MAX {
            let why = format!("{} has more than {ENTRIES_MAX} entries", folder.display());
            return Err(io::Error::other(why));
        }
    }
    // Symbolic links cannot be mounted: they are read before the real folder is covered.
    let links = entries
        .iter()
        .filter(|(_, kind)| kind.is_symlink())
        .map(|(name, _)| Ok((name.clone(), std::fs::read_link(folder.join(name))?)))
        .collect::<io::Result<Vec<_>>>()?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("none", folder, "tmpfs", flags, c"mode=0755,size=1m")?;
    for (name, leads_to) in links {
        std::os::unix::fs::symlink(leads_to, folder.join(name))?;
    }
    let real = PathBuf::from(format!("/proc/self/fd/{}", real.as_raw_fd()));
    for (name, kind) in entries.iter().filter(|(_, kind)| !kind.is_symlink()) {
        let place = folder.join(name);
        make(&place, kind.is_dir())?;
        mount_bind_recursive(real.join(name), &place)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn all_faults_of_the_key_are_reported() {
        let text = "
processes:
- name: a
  command: [x]
  sockets: [{name: web, address: '127.0.0.1:1'}]
  isolation:
    mounts: [{source: b, target: /c}, {source: /d, target: /e/../f}]
    serve: {listen: here, at: '127.0.0.1:2'}
    reach: [{listen: there, at: 'db.example.com:5432'}]
";
        let config: Config = chassis::config::parse("example", text).unwrap();
        let failure = config.validate().unwrap_err().to_string();
        for expected in [
            "a: isolation: an isolated process gets no sockets",
            "a: isolation.mounts: `b` is no absolute path",
            "a: isolation.mounts: `/e/../f` is no absolute path",
            "a: isolation.serve.listen: `here` is no address",
            "a: isolation.reach.listen: `there` is no address",
        ] {
            assert!(failure.contains(expected), "{expected}\n{failure}");
        }
    }
}
