//! Listeners: handed down by a parent (sd_listen_fds(3): `LISTEN_PID`, `LISTEN_FDS`,
//! `LISTEN_FDNAMES`) or opened here. A handed-down listener survives the death of its process, so
//! no connection is refused meanwhile; one that a process opens itself refuses at once when it dies.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::fd::AsFd;
use socket2::{Domain, Protocol, Socket, Type};

use crate::Failure;

/// The first descriptor handed down (sd_listen_fds(3), `SD_LISTEN_FDS_START`).
const FIRST_DESCRIPTOR: RawFd = 3;
/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A TCP listener that the parent opened; `name` is empty where the parent gave none.
#[derive(Debug)]
pub struct InheritedListener {
    pub name: String,
    pub listener: TcpListener,
}

/// Takes the TCP listeners that the parent handed down; none when it handed down nothing or
/// addressed another process. Call at most once, early in `main`: a second call would make two
/// owners of one descriptor. Fails when a descriptor is closed or no stream listener.
pub fn inherited() -> Result<Vec<InheritedListener>, Failure> {
    let environment = |name: &str| std::env::var(name).unwrap_or_default();
    if environment("LISTEN_PID") != std::process::id().to_string() {
        return Ok(Vec::new());
    }
    let count: RawFd = environment("LISTEN_FDS").parse().unwrap_or(0);
    let names = environment("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let mut listeners = Vec::new();
    for descriptor in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR.saturating_add(count) {
        let name = names.next().unwrap_or_default().to_owned();
        listeners.push(InheritedListener {
            listener: adopt(descriptor, &name)?,
            name,
        });
    }
    Ok(listeners)
}

fn adopt(descriptor: RawFd, name: &str) -> Result<TcpListener, Failure> {
    let attempted = format!("take over the inherited socket {descriptor} ({name})");
    let help = "start this process through a supervisor that sets LISTEN_FDS to open sockets";
    if rustix::io::fcntl_getfd(borrow(descriptor)).is_err() {
        return Err(Failure::configuration(
            attempted,
            "the descriptor is not open",
            help,
        ));
    }
    // SAFETY: the descriptor is open (checked above), the protocol of sd_listen_fds(3) gives it to
    // this process, and `inherited` is called once, so this is its only owner.
    #[allow(unsafe_code)]
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let failed = |error: io::Error| Failure::configuration(attempted.clone(), error, help);
    rustix::io::fcntl_setfd(owned.as_fd(), rustix::io::FdFlags::CLOEXEC)
        .map_err(|error| failed(error.into()))?;
    let listening = rustix::net::sockopt::socket_acceptconn(owned.as_fd())
        .map_err(|error| failed(error.into()))?;
    if !listening {
        return Err(failed(io::Error::other("it is no listening socket")));
    }
    let listener = TcpListener::from(owned);
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn borrow(descriptor: RawFd) -> rustix::fd::BorrowedFd<'static> {
    // SAFETY: used for one fcntl(2), which answers EBADF where the descriptor is closed.
    #[allow(unsafe_code)]
    unsafe {
        rustix::fd::BorrowedFd::borrow_raw(descriptor)
    }
}

/// Opens a listener, non-blocking and closed on exec. `reuse_port` lets a successor listen beside
/// it (socket(7), SO_REUSEPORT). `[::]` is opened dual stack and takes IPv4 as well; where the
/// machine has no IPv6, `[::]` falls back to `0.0.0.0`.
pub fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    match open(address, reuse_port) {
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED
                && error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) =>
        {
            open(SocketAddr::from(([0, 0, 0, 0], address.port())), reuse_port)
        }
        result => result,
    }
}

fn open(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let domain = if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_dual_stack_listener_takes_ipv4_and_ipv6() {
        let listener = listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), false).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            TcpStream::connect(("::1", port)).unwrap();
        }
    }

    #[test]
    fn two_listeners_share_a_port_only_when_both_ask() {
        let first = listen(SocketAddr::from(([127, 0, 0, 1], 0)), true).unwrap();
        let address = first.local_addr().unwrap();
        listen(address, true).unwrap();
        assert_eq!(
            listen(address, false).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }

    #[test]
    fn sockets_addressed_to_another_process_are_left_alone() {
        assert!(inherited().unwrap().is_empty());
    }
}
