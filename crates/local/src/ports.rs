//! Ports: free ones for the children, and who holds one that is taken.
//!
//! Children's ports lie below the kernel's range for outgoing connections
//! (`ip_local_port_range`). A port inside that range could be taken by somebody's outgoing
//! connection while its node restarts, and a client that dials a dead port of that range can even
//! reach itself (TCP simultaneous open, RFC 9293 section 3.5).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::error::Error;

/// The first and last port given to children.
const RANGE: std::ops::Range<u16> = 20_000..30_000;

/// The process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub pid: u32,
    pub command: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// Whether a listener can be opened at the address now.
pub(crate) fn is_free(address: SocketAddr) -> bool {
    chassis::sockets::listen(address, false).is_ok()
}

/// Loopback ports for children, each free now and different from the others. The search starts at a
/// place that depends on the folder, so that installations side by side rarely meet and an
/// installation that starts again mostly finds its old ports.
pub(crate) fn choose(folder: &Path, count: usize, taken: &[u16]) -> Result<Vec<u16>, Error> {
    let span = usize::from(RANGE.end - RANGE.start);
    let start = fnv(folder.as_os_str().as_encoded_bytes()) as usize % span;
    let ports: Vec<u16> = (0..span)
        .filter_map(|step| u16::try_from((start + step) % span).ok())
        .map(|offset| RANGE.start + offset)
        .filter(|port| !taken.contains(port))
        .filter(|port| is_free(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))))
        .take(count)
        .collect();
    if ports.len() < count {
        Err(Error::NoFreePorts {
            range: RANGE,
            count,
        })
    } else {
        Ok(ports)
    }
}

/// FNV-1a, 32 bits: spreads folders over the range; no secret hangs on it.
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// Who listens on a TCP port; `None` when nobody does or the kernel does not tell us (processes of
/// other users, when we are not root).
pub(crate) fn holder(port: u16) -> Option<Holder> {
    let inodes = listening_inodes(port);
    if inodes.is_empty() {
        return None;
    }
    std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let holds = std::fs::read_dir(entry.path().join("fd"))
                .ok()?
                .flatten()
                .any(|fd| {
                    std::fs::read_link(fd.path()).is_ok_and(|target| {
                        let target = target.to_string_lossy();
                        let inode = target
                            .strip_prefix("socket:[")
                            .and_then(|t| t.strip_suffix(']'));
                        inode.is_some_and(|inode| inodes.contains(inode))
                    })
                });
            holds.then(|| Holder {
                pid,
                command: command_name(pid),
            })
        })
}

/// The processes that are PostgreSQL servers, with the port that each listens on, where it can be
/// told (from its `postmaster.pid`; PostgreSQL documentation, "Database File Layout").
pub(crate) fn running_postgres() -> Vec<Holder> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| command_name(*pid) == "postgres" && parent_name(*pid) != "postgres")
        .map(|pid| Holder {
            pid,
            command: command_line(pid),
        })
        .collect()
}

fn listening_inodes(port: u16) -> BTreeSet<String> {
    const LISTEN: &str = "0A";
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let suffix = format!(":{port:04X}");
    tables
        .iter()
        .flatten()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let local = columns.nth(1)?;
            let state = columns.nth(1)?;
            let inode = columns.nth(5)?;
            (local.ends_with(&suffix) && state == LISTEN).then(|| inode.to_owned())
        })
        .collect()
}

fn command_name(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .trim_end_matches('\0')
        .replace('\0', " ")
}

fn parent_name(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    parent.map(command_name).unwrap_or_default()
}

/// Why a port cannot be listened on.
#[derive(Debug)]
pub(crate) struct Obstacle {
    pub(crate) address: SocketAddr,
    pub(crate) error: std::io::Error,
}

/// The first address on which a listener cannot be opened now.
pub(crate) fn obstacle(addresses: &[IpAddr], port: u16) -> Option<Obstacle> {
    addresses.iter().find_map(|address| {
        let address = SocketAddr::new(*address, port);
        let error = chassis::sockets::listen(address, false).err()?;
        Some(Obstacle { address, error })
    })
}

/// The first address on which no UDP socket can be opened now.
pub(crate) fn udp_obstacle(addresses: &[IpAddr], port: u16) -> Option<Obstacle> {
    addresses.iter().find_map(|address| {
        let address = SocketAddr::new(*address, port);
        let error = chassis::sockets::datagrams(address).err()?;
        Some(Obstacle { address, error })
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn chosen_ports_are_free_distinct_and_below_the_range_of_outgoing_connections() {
        let ports = choose(Path::new("/tmp/x"), 5, &[]).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 5);
        assert!(ports.iter().all(|port| *port < 32_768));
        let others = choose(Path::new("/tmp/x"), 5, &ports).unwrap();
        assert!(others.iter().all(|port| !ports.contains(port)));
    }

    #[test]
    fn a_busy_port_names_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = [IpAddr::from([127, 0, 0, 1])];
        assert_eq!(obstacle(&addresses, port).unwrap().address.port(), port);
        assert_eq!(holder(port).unwrap().pid, std::process::id());
        drop(listener);
        assert!(obstacle(&addresses, port).is_none());
    }
}
