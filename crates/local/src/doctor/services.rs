//! Rows about what else is on the machine: PostgreSQL's binaries, other servers, busy ports.

use std::io::ErrorKind;
use std::path::Path;

use private_postgres::Binaries;

use super::{Check, Subject};
use crate::ports::{self, Obstacle};

pub(super) fn postgres_binaries(subject: &Subject<'_>) -> Check {
    let name = "PostgreSQL";
    if let Some(url) = &subject.options.postgres_url {
        return Check::ok(name, format!("not needed: {url} is used"));
    }
    match Binaries::find(subject.options.postgres_bin.as_deref().map(Path::new)) {
        Ok(binaries) => Check::ok(
            name,
            format!(
                "version {} in {}",
                binaries.version,
                binaries.folder.display()
            ),
        ),
        Err(error) => Check::failed(name, error.to_string(), error.remedy()),
    }
}

pub(super) fn other_postgres(subject: &Subject<'_>) -> Check {
    let own = subject.layout.postgres();
    let own = own.to_string_lossy();
    let others: Vec<String> = ports::running_postgres()
        .into_iter()
        .filter(|server| !server.command.contains(own.as_ref()))
        .map(|server| server.to_string())
        .collect();
    if others.is_empty() {
        Check::ok("other servers", "no other PostgreSQL runs here")
    } else {
        let found = format!(
            "left alone, ours has a port of its own: {}",
            others.join(", ")
        );
        Check::ok("other servers", found)
    }
}

/// What `--mdns` will do here; no row without it.
pub(super) fn mdns(subject: &Subject<'_>) -> Option<Check> {
    let name = "mDNS";
    if !subject.options.mdns {
        return None;
    }
    Some(if subject.options.is_loopback_only() {
        Check::warning(
            name,
            "bingo.local is not announced: the gateways listen on loopback addresses only, which \
             no other machine reaches",
            "give --bind 0.0.0.0 --bind ::, or an address of the network",
        )
    } else {
        Check::ok(name, "bingo.local is announced to the local network")
    })
}

pub(super) fn ports(subject: &Subject<'_>) -> Vec<Check> {
    let options = subject.options;
    let mut wanted = vec![
        ("port http", "--http-port", options.http_port),
        ("port https", "--https-port", options.https_port),
        ("port admin", "--admin-port", options.admin_port),
    ];
    // 0 turns HTTPS off.
    wanted.retain(|(_, _, port)| *port != 0);
    for (at, (_, flag, port)) in wanted.iter().enumerate() {
        let same = wanted
            .iter()
            .skip(at + 1)
            .find(|(_, _, other)| other == port);
        if let Some((_, other, _)) = same {
            let found = format!("{flag} and {other} are both {port}");
            return vec![Check::failed("ports", found, "choose different ports")];
        }
    }
    let tcp = wanted.into_iter();
    let mut checks: Vec<Check> = tcp
        .map(
            |(name, flag, port)| match ports::obstacle(&options.bind, port) {
                _ if subject.running => {
                    Check::ok(name, format!("{port}, held by this installation"))
                }
                None => Check::ok(name, format!("{port} is free")),
                Some(obstacle) => obstructed(name, flag, &obstacle),
            },
        )
        .collect();
    checks.extend(quic_port(subject));
    checks
}

/// HTTP/3 needs the same port number over UDP.
fn quic_port(subject: &Subject<'_>) -> Option<Check> {
    let (name, port) = ("port quic", subject.options.https_port);
    if port == 0 {
        return None;
    }
    Some(match ports::udp_obstacle(&subject.options.bind, port) {
        _ if subject.running => Check::ok(name, format!("{port}, held by this installation")),
        None => Check::ok(name, format!("{port} is free over UDP")),
        Some(Obstacle { address, error }) => Check::failed(
            name,
            format!("UDP {address}: {error}"),
            "end the process that holds it (`ss -ulpn`), or choose another port with --https-port",
        ),
    })
}

fn obstructed(name: &'static str, flag: &str, obstacle: &Obstacle) -> Check {
    let address = obstacle.address;
    match obstacle.error.kind() {
        ErrorKind::AddrInUse => {
            let holder = ports::holder(address.port());
            let holder = holder.map_or("another user's process".to_owned(), |h| h.to_string());
            let remedy = format!("end that process, or choose another port with {flag}");
            Check::failed(name, format!("{address} is taken by {holder}"), remedy)
        }
        ErrorKind::AddrNotAvailable => Check::failed(
            name,
            format!("{} is no address of this machine", address.ip()),
            "name one of its addresses with --bind (see `ip address`)",
        ),
        ErrorKind::PermissionDenied => Check::failed(
            name,
            format!("this user may not listen on {address}"),
            format!("run as root, or choose a port from 1024 on with {flag}"),
        ),
        _ => Check::failed(
            name,
            format!("{address}: {}", obstacle.error),
            format!("choose another with {flag}"),
        ),
    }
}
