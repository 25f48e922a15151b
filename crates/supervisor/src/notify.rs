//! Hears when a process tells that it serves (sd_notify(3), `READY=1`). Each run has an address of its
//! own, in the abstract namespace (unix(7)): no folder needs to be writable for the child, and who
//! told is known by where it was told, without credentials. The name cannot be guessed. Left out:
//! everything else that may be told; status and watchdog are what probes are for.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::Arc;

use tokio::net::UnixDatagram;

use crate::takeover::{Descriptors, Number};

/// A longer word is none of ours.
const WORD_BYTES_MAX: usize = 4096;

/// Where one run tells.
#[derive(Clone, Debug)]
pub(crate) struct Ear {
    socket: Arc<UnixDatagram>,
    name: String,
}

impl Ear {
    /// Must be called inside a runtime.
    pub(crate) fn open() -> io::Result<Self> {
        let random = || (chassis::random::random() * (1_u64 << 53) as f64) as u64;
        let name = format!("bingo-{}-{:x}{:x}", std::process::id(), random(), random());
        let socket = StdDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        socket.set_nonblocking(true)?;
        Self::of(socket, name)
    }

    /// Goes on hearing where the program before was told.
    pub(crate) fn go_on(name: String, socket: Number) -> io::Result<Self> {
        Self::of(StdDatagram::from(socket.take()?), name)
    }

    fn of(socket: StdDatagram, name: String) -> io::Result<Self> {
        let socket = Arc::new(UnixDatagram::from_std(socket)?);
        Ok(Self { socket, name })
    }

    /// What the next program needs to go on hearing.
    pub(crate) fn keep(&self, descriptors: &mut Descriptors) -> (String, Number) {
        (self.name.clone(), descriptors.keep(&*self.socket))
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(crate) fn address(&self) -> OsString {
        format!("@{}", self.name).into()
    }

    /// Returns when it was told that the process serves. Safe to drop.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        let mut word = vec![0; WORD_BYTES_MAX];
        loop {
            let length = self.socket.recv(&mut word).await?;
            let text = word.get(..length).unwrap_or_default();
            if text
                .split(|byte| *byte == b'\n')
                .any(|line| line == b"READY=1")
            {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_word_that_it_serves_counts() {
        let ear = Ear::open().unwrap();
        let teller = StdDatagram::unbound().unwrap();
        let tell = |text: &str| {
            let address = SocketAddr::from_abstract_name(&ear.name).unwrap();
            teller.send_to_addr(text.as_bytes(), &address).unwrap();
        };
        tell("STATUS=READY=1\n");
        let early = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(early, ear.ready()).await.is_err());
        tell("STATUS=up\nREADY=1\n");
        ear.ready().await.unwrap();
    }
}
