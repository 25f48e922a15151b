//! What a drill does, as its file says it: `drills/NAME.yaml`, one for each row of the fault table. The
//! files are built in, so that a drill means the same on every machine. Left out: conditions and steps:
//! a drill is one fault, repeated while load runs, and the bounds it is judged by.

use std::time::Duration;

use serde::Deserialize;

use crate::error::Error;

/// One fault with its bounds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    /// One line: what breaks.
    pub about: String,
    pub fault: Fault,
    /// From one fault to the next.
    #[serde(default = "usual_pause")]
    pub every_seconds: u64,
    pub bounds: Bounds,
    /// Runs only when it is named: it changes more than the installation.
    #[serde(default)]
    pub by_name_only: bool,
}

/// What is broken.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// A signal to one process of a role, another one each time. One that was stopped is continued
    /// after this long, if it still lives.
    Signal {
        role: Role,
        signal: SignalName,
        #[serde(default)]
        lasts_ms: u64,
    },
    /// `POST /operation` with these bits 32–35 set; its own failure is expected.
    Poison { bits: u64 },
    /// One such request for each of these bits, each another one and each from so many clients, all at
    /// once; afterwards each has to be refused.
    Poisons { bits: Vec<u64>, clients: u32 },
    /// One node is reached through a proxy that does this for a while.
    Proxy { mode: Mode, lasts_ms: u64 },
    /// A command of bingo's, such as `rollout`; it must succeed.
    Command { arguments: Vec<String> },
    /// The gateways read their configuration again, this many times.
    Reload { times: u32 },
    /// Every node and every gateway runs another program file, with the same contents.
    Upgrade,
    /// The volume of the logs is full.
    FullLogs { lasts_ms: u64 },
    /// The machine's clock is set on (or back) by so much.
    Clock { jump_seconds: i64, lasts_ms: u64 },
    /// This many more requests a second, for `POST /operation`.
    Overload {
        rps: u32,
        lasts_ms: u64,
        /// Right answers a second meanwhile.
        goodput_min: u32,
    },
}

/// Of a process, as `bingo status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Node,
    Gateway,
    Postgres,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalName {
    Kill,
    Stop,
}

/// What the fault proxy does with what passes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mode {
    /// Hands on as it comes.
    Pass,
    /// Hands on each piece so much later.
    Delay { milliseconds: u64 },
    /// Hands on nothing, in either direction, and accepts nobody: as behind a cut cable, but that
    /// the kernel still completes the handshakes its queue has room for.
    Cut,
    /// Accepts, and then hands on nothing.
    Stall,
    /// Resets (RST) what is open and what comes.
    Reset,
    /// Ends the node's side of each connection after its first piece, in order (FIN).
    HalfClose,
    /// Hands answers on byte by byte, so many a second.
    Trickle { bytes_per_second: u32 },
}

/// What a drill is judged by.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Requests that may fail, without those that are excused.
    #[serde(default)]
    pub failed_max: u64,
    #[serde(default)]
    pub excused: Excused,
    /// From the fault to the process (or its successor) that answers again.
    pub back_ms: Option<u64>,
    /// 99th percentile of the calls by id that were due while something was broken.
    pub by_id_p99_ms: Option<u64>,
}

/// Failures that nobody could have prevented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Excused {
    #[default]
    Nothing,
    /// Requests on connections that the broken gateway had accepted.
    Accepted,
}

fn usual_pause() -> u64 {
    12
}

/// The files, in the order in which they run.
const FILES: [&str; 23] = [
    include_str!("../../drills/node-sigkill.yaml"),
    include_str!("../../drills/node-sigstop.yaml"),
    include_str!("../../drills/node-panic.yaml"),
    include_str!("../../drills/node-leak.yaml"),
    include_str!("../../drills/node-unhealthy.yaml"),
    include_str!("../../drills/many-poisons.yaml"),
    include_str!("../../drills/node-slow.yaml"),
    include_str!("../../drills/node-trickle.yaml"),
    include_str!("../../drills/node-cut-off.yaml"),
    include_str!("../../drills/node-stall.yaml"),
    include_str!("../../drills/node-reset.yaml"),
    include_str!("../../drills/node-half-close.yaml"),
    include_str!("../../drills/rolling-restart.yaml"),
    include_str!("../../drills/reload.yaml"),
    include_str!("../../drills/upgrade.yaml"),
    include_str!("../../drills/gateway-sigkill.yaml"),
    include_str!("../../drills/gateway-sigstop.yaml"),
    include_str!("../../drills/postgres-sigkill.yaml"),
    include_str!("../../drills/postgres-sigstop.yaml"),
    include_str!("../../drills/log-disk-full.yaml"),
    include_str!("../../drills/overload.yaml"),
    include_str!("../../drills/clock-forward.yaml"),
    include_str!("../../drills/clock-back.yaml"),
];

impl Scenario {
    /// All drills, in the order in which they run.
    ///
    /// # Errors
    /// [`Error::Scenario`] for a file that cannot be read; a test reads them all.
    pub fn all() -> Result<Vec<Self>, Error> {
        FILES.into_iter().map(Self::parse).collect()
    }

    pub(super) fn every(&self) -> Duration {
        Duration::from_secs(self.every_seconds)
    }

    fn parse(text: &str) -> Result<Self, Error> {
        serde_saphyr::from_str(text).map_err(|error| Error::Scenario(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_can_be_read_and_no_name_is_there_twice() {
        let all = Scenario::all().expect("read");
        let mut names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FILES.len());
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let text = FILES[0].replace("about:", "abuot:");
        assert!(Scenario::parse(&text).is_err());
    }
}
