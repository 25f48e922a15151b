//! Sockets that the supervisor opens: they outlive the processes that they are handed down to, and
//! need no right of those.

mod installation;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use installation::{Installation, child, get, process, signal, until};
use rustix::process::Signal;
use supervisor::ProcessState;
use supervisor::config::{Process, Protocol, Socket};

#[test]
fn the_entry_plays_the_part_that_its_arguments_name() {
    installation::play();
}

fn udp(name: &str, address: SocketAddr) -> Socket {
    Socket {
        name: name.to_owned(),
        address: address.to_string(),
        protocol: Protocol::Udp,
    }
}

fn echo(sockets: Vec<Socket>) -> Process {
    let mut echo = process("echo", &[]);
    echo.command = child(&["datagrams"]);
    echo.sockets = sockets;
    echo
}

/// A UDP address that was free a moment ago.
fn free(loopback: SocketAddr) -> SocketAddr {
    UdpSocket::bind(loopback).unwrap().local_addr().unwrap()
}

/// A client that waits for each answer, but not for ever.
fn client_of(server: SocketAddr) -> UdpSocket {
    let any = if server.is_ipv4() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    } else {
        SocketAddr::from((Ipv6Addr::LOCALHOST, 0))
    };
    let client = UdpSocket::bind(any).unwrap();
    client.connect(server).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    client
}

fn answer(client: &UdpSocket) -> String {
    let mut answer = [0; 64];
    let length = client.recv(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// proc(5), /proc/PID/stat: the state follows the name in parentheses, `T` is stopped.
fn threads_stand_still(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

#[test]
fn udp_sockets_of_both_families_are_handed_down_and_keep_datagrams_over_a_restart() {
    let four = free(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, four.port()));
    let mut sockets = vec![udp("four", four)];
    // On one port number: the IPv6 socket takes no IPv4.
    if UdpSocket::bind(six).is_ok() {
        sockets.push(udp("six", six));
    }
    let servers: Vec<(SocketAddr, &str)> = [(four, "four"), (six, "six")]
        .into_iter()
        .take(sockets.len())
        .collect();
    let installation = Installation::start(vec![echo(sockets)]);
    let first = installation.until_state("echo", ProcessState::Healthy);
    assert_eq!(first.listen, Some(four.to_string()));
    let first = first.pid.unwrap();
    let clients: Vec<_> = servers
        .iter()
        .map(|(at, name)| (client_of(*at), name))
        .collect();
    for (client, name) in &clients {
        client.send(b"who?").unwrap();
        assert_eq!(answer(client), format!("{name} {first}"));
    }
    // What a frozen process did not read, its successor finds.
    signal(first, Signal::STOP);
    until("all its threads stand still", || {
        threads_stand_still(first).then_some(())
    });
    for (client, _) in &clients {
        client.send(b"and now?").unwrap();
    }
    signal(first, Signal::KILL);
    let second = installation.until_restarted("echo", 1).pid.unwrap();
    assert_ne!(first, second);
    for (client, name) in &clients {
        assert_eq!(answer(client), format!("{name} {second}"));
    }
}

#[test]
fn a_busy_udp_port_is_named_and_a_tcp_listener_on_its_number_is_none() {
    let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = held.local_addr().unwrap();
    let mut installation = Installation::spawn(vec![echo(vec![udp("quic", address)])]);
    let (code, errors) = installation.ended();
    assert_eq!(code, Some(64));
    let expected = format!("take the UDP port of {address} for echo");
    assert!(errors.contains(&expected), "{errors}");
    drop(held);

    let _other = TcpListener::bind(address);
    let installation = Installation::start(vec![echo(vec![udp("quic", address)])]);
    installation.until_state("echo", ProcessState::Healthy);
}

#[test]
fn a_child_without_rights_serves_a_privileged_port() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root opens ports below 1024 for others");
        return;
    }
    let is_free = |port: &u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
    };
    let port = (600..1024).rev().find(is_free).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut web = process("web", &[]);
    // The launcher's own image, which is this test: `nobody` may not reach its path.
    web.command = child(&["inherited"]);
    web.command[0] = supervisor::launch::OWN_PROGRAM.to_owned();
    web.user = Some("nobody".to_owned());
    web.sockets = vec![Socket {
        name: "http".to_owned(),
        address: address.to_string(),
        ..Socket::default()
    }];
    let mut datagrams = echo(vec![udp("quic", address)]);
    datagrams.command[0] = supervisor::launch::OWN_PROGRAM.to_owned();
    datagrams.user = Some("nobody".to_owned());
    let installation = Installation::start(vec![web, datagrams]);
    let pid = until("it serves", || {
        get(&address.to_string(), "/").ok()?.parse::<u32>().ok()
    });
    let client = client_of(address);
    client.send(b"who?").unwrap();
    let answer = answer(&client);
    let (_, other) = answer.split_once(' ').unwrap();
    for (pid, name) in [(pid, "web"), (other.parse().unwrap(), "echo")] {
        assert_eq!(installation.process(name).pid, Some(pid));
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let uid = status
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .unwrap();
        assert!(uid.contains("65534"), "{uid}");
        assert!(!uid.split_whitespace().any(|id| id == "0"), "{uid}");
    }
}
