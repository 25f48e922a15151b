//! Sockets: handed down by a parent (sd_listen_fds(3): `LISTEN_PID`, `LISTEN_FDS`,
//! `LISTEN_FDNAMES`) or opened here. A handed-down socket survives the death of its process, so no
//! connection is refused and no datagram lost meanwhile; one that a process opens itself refuses at
//! once when it dies. TCP and UDP over IPv4 and IPv6 only: nothing of ours serves anything else.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::fd::AsFd;
use rustix::net::{AddressFamily, SocketType, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Failure;

/// The first descriptor handed down (sd_listen_fds(3), `SD_LISTEN_FDS_START`).
const FIRST_DESCRIPTOR: RawFd = 3;
/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// What the parent opened, in the order in which it was handed down, each kind apart.
#[derive(Debug, Default)]
pub struct Inherited {
    pub listeners: Vec<InheritedListener>,
    pub udp: Vec<InheritedUdp>,
}

/// A TCP listener that the parent opened; `name` is empty where the parent gave none.
#[derive(Debug)]
pub struct InheritedListener {
    pub name: String,
    pub listener: TcpListener,
}

/// A bound UDP socket that the parent opened; `name` is empty where the parent gave none.
#[derive(Debug)]
pub struct InheritedUdp {
    pub name: String,
    pub socket: UdpSocket,
}

/// Takes the sockets that the parent handed down, all non-blocking and closed on exec; none when it
/// handed down nothing or addressed another process. Call at most once, early in `main`: a second
/// call would make two owners of one descriptor. Fails (exit 64) when a descriptor is closed, or is
/// neither a listening TCP socket nor a UDP socket.
pub fn inherited() -> Result<Inherited, Failure> {
    let environment = |name: &str| std::env::var(name).unwrap_or_default();
    if environment("LISTEN_PID") != std::process::id().to_string() {
        return Ok(Inherited::default());
    }
    let count: RawFd = environment("LISTEN_FDS").parse().unwrap_or(0);
    let names = environment("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let mut inherited = Inherited::default();
    for descriptor in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR.saturating_add(count) {
        let name = names.next().unwrap_or_default().to_owned();
        adopt(descriptor, name, &mut inherited)?;
    }
    Ok(inherited)
}

fn adopt(descriptor: RawFd, name: String, inherited: &mut Inherited) -> Result<(), Failure> {
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
    sort(owned, name, inherited).map_err(|error| Failure::configuration(attempted, error, help))
}

/// Asks the kernel what it is (socket(7), SO_DOMAIN and SO_TYPE): its name is only a name.
fn sort(owned: OwnedFd, name: String, inherited: &mut Inherited) -> io::Result<()> {
    rustix::io::fcntl_setfd(owned.as_fd(), rustix::io::FdFlags::CLOEXEC)?;
    let domain = sockopt::socket_domain(owned.as_fd())?;
    if !matches!(domain, AddressFamily::INET | AddressFamily::INET6) {
        return Err(io::Error::other("it is no socket of IPv4 or IPv6"));
    }
    match sockopt::socket_type(owned.as_fd())? {
        SocketType::STREAM if sockopt::socket_acceptconn(owned.as_fd())? => {
            let listener = TcpListener::from(owned);
            listener.set_nonblocking(true)?;
            inherited
                .listeners
                .push(InheritedListener { name, listener });
        }
        SocketType::STREAM => return Err(io::Error::other("it is no listening socket")),
        SocketType::DGRAM => {
            let socket = UdpSocket::from(owned);
            socket.set_nonblocking(true)?;
            inherited.udp.push(InheritedUdp { name, socket });
        }
        _ => return Err(io::Error::other("it is neither a TCP nor a UDP socket")),
    }
    Ok(())
}

fn borrow(descriptor: RawFd) -> rustix::fd::BorrowedFd<'static> {
    // SAFETY: used for one fcntl(2), which answers EBADF where the descriptor is closed.
    #[allow(unsafe_code)]
    unsafe {
        rustix::fd::BorrowedFd::borrow_raw(descriptor)
    }
}

/// Opens a listener, non-blocking and closed on exec. `reuse_port` lets a successor listen beside
/// it (socket(7), SO_REUSEPORT); from then on the successor gets all new connections, and the old one
/// only those that wait in its queue. `[::]` is opened dual stack and takes IPv4 as well; where the
/// machine has no IPv6, `[::]` falls back to `0.0.0.0`.
pub fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = open(address, Type::STREAM, |socket| {
        socket.set_reuse_address(true)?;
        if reuse_port {
            socket.set_reuse_port(true)?;
        }
        Ok(())
    })?;
    socket.listen(BACKLOG)?;
    if reuse_port && let Err(error) = prefer_successor(&socket) {
        // Both get connections then, and those in the queue of the one that closes may break.
        tracing::debug!(%error, "the kernel does not prefer successors");
    }
    Ok(socket.into())
}

/// Of two listeners on one port the kernel is to choose the second (socket(7),
/// SO_ATTACH_REUSEPORT_CBPF): the program is the constant 1, the place of who came last. Alone on its
/// port a listener has place 0, and where the program names nobody the kernel chooses by itself.
fn prefer_successor(socket: &Socket) -> io::Result<()> {
    const RETURN_CONSTANT: u16 = 0x06; // BPF_RET | BPF_K
    let mut program = [libc::sock_filter {
        code: RETURN_CONSTANT,
        jt: 0,
        jf: 0,
        k: 1,
    }];
    let filter = libc::sock_fprog {
        len: 1,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the descriptor is open, and the kernel copies the option, whose length is given, and the
    // one instruction that it points to before the call returns.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What to do where an address could not be opened; `setting` is where another can be chosen.
pub fn remedy(error: &io::Error, setting: &str) -> String {
    match error.kind() {
        // A connection that went out from this port holds it too, for a minute after its end as well
        // (tcp(7), TIME-WAIT), and no process is then to be found.
        io::ErrorKind::AddrInUse => format!(
            "end the process that has it (`ss -anp` shows it; one in TIME-WAIT is free after a minute), \
             or choose another in {setting}"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("write an address of this machine (`ip address`) in {setting}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("start as root, or choose a port from 1024 on in {setting}")
        }
        _ => format!("choose another address in {setting}"),
    }
}

/// Opens a UDP socket, with the addresses of `listen`. Never shared: of two sockets on one port each
/// would get a part of the datagrams (socket(7), SO_REUSEADDR and SO_REUSEPORT), so the second
/// fails with `AddrInUse`.
pub fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    open(address, Type::DGRAM, |_| Ok(())).map(UdpSocket::from)
}

/// A bound socket; `prepare` sets what must be set before it is bound.
fn open(
    address: SocketAddr,
    kind: Type,
    prepare: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    match bind(address, kind, &prepare) {
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED
                && error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) =>
        {
            let any = SocketAddr::from(([0, 0, 0, 0], address.port()));
            bind(any, kind, &prepare)
        }
        result => result,
    }
}

fn bind(
    address: SocketAddr,
    kind: Type,
    prepare: &impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM {
        Protocol::TCP
    } else {
        Protocol::UDP
    };
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, kind.nonblocking(), Some(protocol))?;
    prepare(&socket)?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
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
    fn an_address_that_cannot_be_opened_has_a_remedy_of_its_own() {
        let first = listen(SocketAddr::from(([127, 0, 0, 1], 0)), false).unwrap();
        let taken = listen(first.local_addr().unwrap(), false).unwrap_err();
        assert!(remedy(&taken, "--listen").contains("TIME-WAIT"));
        // An address for documentation (RFC 5737), which no machine has.
        let foreign = listen(SocketAddr::from(([192, 0, 2, 1], 0)), false).unwrap_err();
        assert!(remedy(&foreign, "--listen").contains("`ip address`"));
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(remedy(&denied, "listen").ends_with("a port from 1024 on in listen"));
    }

    #[test]
    fn a_successor_gets_every_new_connection_and_is_alone_when_the_old_one_closes() {
        let old = listen(SocketAddr::from(([127, 0, 0, 1], 0)), true).unwrap();
        let address = old.local_addr().unwrap();
        let new = listen(address, true).unwrap();
        let waiting =
            |listener: &TcpListener| std::iter::from_fn(|| listener.accept().ok()).count();
        let connect = || -> Vec<TcpStream> {
            (0..50)
                .map(|_| TcpStream::connect(address).unwrap())
                .collect()
        };
        let _clients = connect();
        assert_eq!((waiting(&old), waiting(&new)), (0, 50));
        drop(old);
        let _clients = connect();
        assert_eq!(waiting(&new), 50);
        let newest = listen(address, true).unwrap();
        let _clients = connect();
        assert_eq!((waiting(&new), waiting(&newest)), (0, 50));
    }

    #[test]
    fn sockets_addressed_to_another_process_are_left_alone() {
        let inherited = inherited().unwrap();
        assert!(inherited.listeners.is_empty() && inherited.udp.is_empty());
    }

    #[test]
    fn a_udp_port_is_never_shared_and_its_dual_stack_socket_takes_both() {
        let socket = datagrams(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
        let address = socket.local_addr().unwrap();
        assert_eq!(
            datagrams(address).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        socket.set_nonblocking(false).unwrap();
        let mut received = [0; 8];
        for (from, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
            if from.starts_with('[') && address.is_ipv4() {
                continue; // The machine has no IPv6.
            }
            let sender = UdpSocket::bind(from).unwrap();
            sender.send_to(b"hello", (to, address.port())).unwrap();
            assert_eq!(socket.recv(&mut received).unwrap(), 5);
        }
    }

    #[test]
    fn what_is_inherited_is_sorted_by_what_the_kernel_says_of_it() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut inherited = Inherited::default();
        let udp = datagrams(loopback).unwrap();
        let tcp = listen(loopback, false).unwrap();
        let peer = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        sort(udp.into(), "quic".to_owned(), &mut inherited).unwrap();
        sort(tcp.into(), "http".to_owned(), &mut inherited).unwrap();
        assert_eq!(inherited.udp[0].name, "quic");
        assert_eq!(inherited.listeners[0].name, "http");

        let unix = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        for (descriptor, why) in [
            (OwnedFd::from(peer), "no listening socket"),
            (unix.into(), "no socket of IPv4 or IPv6"),
            (file.into(), "Socket operation on non-socket"),
        ] {
            let error = sort(descriptor, String::new(), &mut inherited).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        assert_eq!((inherited.udp.len(), inherited.listeners.len()), (1, 1));
    }
}
