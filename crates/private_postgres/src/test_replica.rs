//! Test servers that follow one another: a replica that streams from its primary, its promotion, and
//! a server that hangs.
//!
//! A replica is copied by `pg_basebackup` and not file by file: it is what an operator does, and the
//! primary may go on meanwhile.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::test_server::SUPERUSER_PASSWORD;
use crate::{Error, TestServer, program};

const PROMOTE_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

impl TestServer {
    /// A running replica of this server, which it streams from until it is promoted.
    pub fn start_replica(&self) -> Result<Self, Error> {
        let port = self.port().to_string();
        Self::start_on(|_, cluster| {
            let folder = cluster.sockets.as_path();
            let backup = cluster.binaries.program("pg_basebackup");
            let mut backup = program::command(&backup, &cluster.account, folder);
            backup
                .env("PGPASSWORD", SUPERUSER_PASSWORD)
                .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port])
                .args(["--checkpoint=fast", "--wal-method=stream", "--no-sync"])
                .args(["--write-recovery-conf", "-D"])
                .arg(&cluster.data);
            program::run(backup, &cluster.account, "")
        })
    }

    /// Makes a replica the primary of a timeline of its own; returns when it takes writes.
    pub fn promote(&self) -> Result<(), Error> {
        // What `pg_ctl promote` does.
        self.write("promote", "")?;
        self.kill(Signal::USR1);
        let deadline = Instant::now() + PROMOTE_LIMIT;
        let standby = self.cluster.data.join("standby.signal");
        while standby.exists() {
            if Instant::now() > deadline {
                return Err(Error::NotReady {
                    path: self.cluster.data.clone(),
                    why: format!("not promoted in time: {}", self.log()),
                });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Freezes the server and all that it started: it accepts connections, by way of the kernel, and
    /// answers nothing.
    pub fn freeze(&self) {
        self.kill(Signal::STOP);
        self.signal_backends(Signal::STOP);
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.signal_backends(Signal::CONT);
        self.kill(Signal::CONT);
    }

    /// PostgreSQL's backends are children of its first process, each in a group of its own.
    fn signal_backends(&self, signal: Signal) {
        let Some(pid) = self.pid() else {
            return;
        };
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(Path::new(&children)).unwrap_or_default();
        for child in children.split_whitespace() {
            if let Some(child) = child.parse().ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process(child, signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_follows_is_promoted_and_freezes() {
        let primary = TestServer::start().unwrap();
        let replica = primary.start_replica().unwrap();
        assert!(replica.cluster.data.join("standby.signal").exists());
        replica.promote().unwrap();
        assert!(!replica.cluster.data.join("standby.signal").exists());
        replica.freeze();
        let stat = format!("/proc/{}/stat", replica.pid().unwrap());
        let deadline = Instant::now() + PROMOTE_LIMIT;
        while !fs::read_to_string(&stat).unwrap().contains(") T ") {
            assert!(Instant::now() < deadline);
        }
        replica.thaw();
    }
}
