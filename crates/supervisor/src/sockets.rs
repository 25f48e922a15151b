//! The sockets that are handed down. They are opened here once, before any child gives up its
//! rights, so a child without any serves a privileged port; and they stay open over restarts, so
//! that connections and datagrams wait for the successor instead of being refused.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use chassis::Failure;
use serde::{Deserialize, Serialize};

use crate::config::Protocol;
use crate::plan::{Plan, Process, Socket};
use crate::takeover::{Descriptors, Number};

/// One open socket for each distinct address and protocol.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    address: SocketAddr,
    protocol: Protocol,
    /// Where it really is: port 0 became a real one.
    local: SocketAddr,
    descriptor: OwnedFd,
}

/// An open socket for the program that this process becomes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    address: SocketAddr,
    protocol: Protocol,
    local: SocketAddr,
    descriptor: Number,
}

impl Sockets {
    /// Takes over what the program before had open. Fails where one is closed.
    pub(crate) fn go_on(kept: Vec<Kept>) -> io::Result<Self> {
        let open = kept.into_iter().map(|kept| {
            Ok(Open {
                address: kept.address,
                protocol: kept.protocol,
                local: kept.local,
                descriptor: kept.descriptor.take()?,
            })
        });
        let open: io::Result<Vec<Open>> = open.collect();
        Ok(Self { open: open? })
    }

    /// What the next program needs to go on with them.
    pub(crate) fn keep_open(&self, descriptors: &mut Descriptors) -> Vec<Kept> {
        let kept = self.open.iter().map(|open| Kept {
            address: open.address,
            protocol: open.protocol,
            local: open.local,
            descriptor: descriptors.keep(&open.descriptor),
        });
        kept.collect()
    }

    /// Opens what the plan names and is not open yet; each busy or forbidden address is named (exit
    /// 64), and then none of the new ones is kept.
    pub(crate) fn open(&mut self, plan: &Plan) -> Result<(), Failure> {
        let before = self.open.len();
        let mut failures = Vec::new();
        for process in &plan.processes {
            for socket in &process.sockets {
                if self.find(socket).is_some() {
                    continue;
                }
                match open(socket) {
                    Ok(open) => self.open.push(open),
                    Err(error) => failures.push(refused(process, socket, error)),
                }
            }
        }
        match Failure::all(failures) {
            Some(failure) => {
                self.open.truncate(before);
                Err(failure)
            }
            None => Ok(()),
        }
    }

    /// Where the process's first socket really is.
    pub(crate) fn first_of(&self, process: &Process) -> Option<SocketAddr> {
        Some(self.find(process.sockets.first()?)?.local)
    }

    /// A descriptor to hand down.
    pub(crate) fn duplicate(&self, socket: &Socket) -> io::Result<OwnedFd> {
        let open = self.find(socket).ok_or_else(|| {
            let address = socket.address;
            io::Error::other(format!("the socket {address} is closed"))
        })?;
        open.descriptor.try_clone()
    }

    /// Closes what the plan no longer names, as `close` does.
    pub(crate) fn keep(&mut self, plan: &Plan) {
        self.open.retain(|open| {
            let mut named = plan.processes.iter().flat_map(|process| &process.sockets);
            named.any(|socket| open.serves(socket))
        });
    }

    /// Closes all of them here: when their last process has closed them too, connections are
    /// refused and no longer queued.
    pub(crate) fn close(&mut self) {
        self.open.clear();
    }

    fn find(&self, socket: &Socket) -> Option<&Open> {
        self.open.iter().find(|open| open.serves(socket))
    }
}

impl Open {
    fn serves(&self, socket: &Socket) -> bool {
        self.address == socket.address && self.protocol == socket.protocol
    }
}

fn open(socket: &Socket) -> io::Result<Open> {
    let address = socket.address;
    let (local, descriptor) = match socket.protocol {
        Protocol::Tcp => {
            let listener = chassis::sockets::listen(address, false)?;
            (listener.local_addr()?, OwnedFd::from(listener))
        }
        Protocol::Udp => {
            let socket = chassis::sockets::datagrams(address)?;
            (socket.local_addr()?, OwnedFd::from(socket))
        }
    };
    Ok(Open {
        address,
        protocol: socket.protocol,
        local,
        descriptor,
    })
}

fn refused(process: &Process, socket: &Socket, error: io::Error) -> Failure {
    let (address, name) = (socket.address, &process.name);
    let attempted = match socket.protocol {
        Protocol::Tcp => format!("listen on {address} for {name}"),
        Protocol::Udp => format!("take the UDP port of {address} for {name}"),
    };
    let help = if error.kind() == io::ErrorKind::PermissionDenied {
        "start as root, or choose a port from 1024 on"
    } else {
        "choose another port, or end the process that holds this one"
    };
    Failure::configuration(attempted, error, help)
}
