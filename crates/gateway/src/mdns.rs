//! Announces `bingo.local` to the local network (multicast DNS, RFC 6762), so that a phone finds the
//! installation without any name server. Of several gateways that share a folder the one that holds a
//! lock in it announces: the kernel frees the lock when that process ends, however it ends, and
//! another takes over. Nobody says goodbye when it ends: the name is still right while a gateway is
//! left, and otherwise forgotten after two minutes (the records' time to live).
//!
//! Left out: a second installation on one network (the name would be renamed, which is told).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mdns_sd::{DaemonEvent, IfKind, ServiceDaemon, ServiceInfo};

use crate::tls::{Folder, MDNS_NAME};

const LOCK_FILE: &str = "mdns.lock";
const LOCK_EVERY: Duration = Duration::from_secs(1);
/// Rare, and only told: the daemon has a thread of its own.
const EVENTS_EVERY: Duration = Duration::from_secs(1);
/// What stands at that name (RFC 6763); browsers of services show it.
const SERVICE: &str = "_https._tcp.local.";
const INSTANCE: &str = "bingo";

/// Waits until no other gateway on the folder announces, then announces for ever. `listens` are the
/// public addresses; the port of the first is told to who browses for services.
pub(crate) async fn announce(folder: PathBuf, listens: Vec<SocketAddr>) {
    if Reach::of(&listens) == Reach::Nowhere {
        tracing::warn!(
            "{MDNS_NAME} is not announced: the gateways listen on loopback addresses only, which no \
             other machine reaches; listen on an address of the network, or on 0.0.0.0 and ::"
        );
        return;
    }
    let folder = Folder::new(folder);
    let _lock = loop {
        match folder.try_lock_file(LOCK_FILE) {
            Ok(Some(lock)) => break lock,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "{MDNS_NAME} is not announced: its lock cannot be taken");
                return;
            }
        }
        tokio::time::sleep(LOCK_EVERY).await;
    };
    match start(MDNS_NAME, INSTANCE, &listens) {
        Ok(daemon) => watch(&daemon).await,
        Err(error) => {
            tracing::warn!(%error, "{MDNS_NAME} cannot be announced; is UDP port 5353 open here?");
        }
    }
}

/// Whom an announcement would serve.
#[derive(Debug, PartialEq, Eq)]
enum Reach {
    /// Loopback addresses mean another machine to everybody else.
    Nowhere,
    /// Every address that the machine has, now or later.
    Everywhere {
        four: bool,
        six: bool,
    },
    Addresses(BTreeSet<IpAddr>),
}

impl Reach {
    fn of(listens: &[SocketAddr]) -> Self {
        let all: BTreeSet<IpAddr> = listens.iter().map(SocketAddr::ip).collect();
        // `::` takes IPv4 as well.
        let six = all.iter().any(|ip| ip.is_unspecified() && ip.is_ipv6());
        let four = six || all.iter().any(IpAddr::is_unspecified);
        if four {
            return Self::Everywhere { four, six };
        }
        let outside: BTreeSet<IpAddr> = all.into_iter().filter(|ip| !ip.is_loopback()).collect();
        match outside.is_empty() {
            true => Self::Nowhere,
            false => Self::Addresses(outside),
        }
    }
}

/// `name` and `instance` are parameters for tests, which must not announce the real one.
fn start(
    name: &str,
    instance: &str,
    listens: &[SocketAddr],
) -> Result<ServiceDaemon, mdns_sd::Error> {
    let host = format!("{name}.");
    let port = listens.first().map_or(0, SocketAddr::port);
    let none: [(&str, &str); 0] = [];
    let (service, kinds) = match Reach::of(listens) {
        Reach::Addresses(addresses) => {
            let list: Vec<IpAddr> = addresses.iter().copied().collect();
            let service = ServiceInfo::new(SERVICE, instance, &host, &list[..], port, &none[..])?;
            (service, list.into_iter().map(IfKind::Addr).collect())
        }
        Reach::Everywhere { six: true, .. } => {
            let service = ServiceInfo::new(SERVICE, instance, &host, "", port, &none[..])?;
            (service.enable_addr_auto(), vec![IfKind::All])
        }
        _ => {
            let service = ServiceInfo::new(SERVICE, instance, &host, "", port, &none[..])?;
            (service.enable_addr_auto(), vec![IfKind::IPv4])
        }
    };
    let daemon = ServiceDaemon::new()?;
    // The last word counts: none, then those that are listened on, never loopback.
    daemon.disable_interface(IfKind::All)?;
    daemon.enable_interface(kinds)?;
    daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
    daemon.register(service)?;
    Ok(daemon)
}

async fn watch(daemon: &ServiceDaemon) {
    let Ok(events) = daemon.monitor() else {
        return;
    };
    tracing::info!("{MDNS_NAME} is announced to the local network");
    loop {
        let Ok(event) = events.try_recv() else {
            tokio::time::sleep(EVENTS_EVERY).await;
            continue;
        };
        match event {
            DaemonEvent::NameChange(change) => tracing::warn!(
                now = change.new_name,
                "another machine of this network has the name {}; rename or end one of the two",
                change.original
            ),
            DaemonEvent::Error(error) => tracing::debug!(%error, "multicast DNS"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::time::Instant;

    use super::*;

    fn reach(list: &[&str]) -> Reach {
        let listens: Vec<SocketAddr> = list.iter().map(|text| text.parse().unwrap()).collect();
        Reach::of(&listens)
    }

    #[test]
    fn loopback_addresses_are_announced_to_nobody_and_others_as_they_are() {
        assert_eq!(reach(&[]), Reach::Nowhere);
        assert_eq!(reach(&["127.0.0.1:1", "[::1]:1"]), Reach::Nowhere);
        let one = BTreeSet::from([IpAddr::from([192, 0, 2, 2])]);
        assert_eq!(
            reach(&["127.0.0.1:1", "192.0.2.2:1"]),
            Reach::Addresses(one)
        );
        let (four, six) = (true, false);
        assert_eq!(reach(&["0.0.0.0:1"]), Reach::Everywhere { four, six });
        let six = true;
        assert_eq!(reach(&["[::]:1"]), Reach::Everywhere { four, six });
    }

    /// The address of this machine's network, if it has one: no packet is sent for that.
    fn own_address() -> Option<Ipv4Addr> {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("224.0.0.251:5353").ok()?;
        match socket.local_addr().ok()?.ip() {
            IpAddr::V4(own) if !own.is_loopback() && !own.is_unspecified() => Some(own),
            _ => None,
        }
    }

    /// A query for the address of a name (RFC 1035 4.1), sent from a port of its own, which is
    /// answered to that port alone (RFC 6762 6.7).
    fn question(name: &str) -> Vec<u8> {
        let mut packet = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend_from_slice(label.as_bytes());
        }
        packet.extend_from_slice(&[0, 0, 1, 0, 1]);
        packet
    }

    #[test]
    fn a_query_over_multicast_is_answered_with_the_address() {
        let Some(own) = own_address() else {
            return; // No network here.
        };
        let name = format!("bingo-test-{}.local", std::process::id());
        let listens = [SocketAddr::from((own, 8443))];
        let daemon = start(&name, &name.replace(".local", ""), &listens).unwrap();
        let socket = UdpSocket::bind((own, 0)).unwrap();
        let step = Duration::from_millis(200);
        socket.set_read_timeout(Some(step)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut answer = [0; 1500];
        loop {
            if socket
                .send_to(&question(&name), "224.0.0.251:5353")
                .is_err()
            {
                break; // No multicast here.
            }
            if let Ok((bytes, _)) = socket.recv_from(&mut answer) {
                let found = answer[..bytes].windows(4).any(|part| part == own.octets());
                assert!(found, "{:?}", &answer[..bytes]);
                break;
            }
            assert!(Instant::now() < deadline, "no answer");
        }
        let _ = daemon.shutdown();
    }
}
