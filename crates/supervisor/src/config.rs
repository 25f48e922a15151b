//! `supervisor.yaml` as it is written: which processes, in which order, watched how. Turning it
//! into something that can be run, with every fault found in one go, is `plan`'s work.
//! `{port}` in a command, its environment, its probe, `listen` and `metrics` stands for a free loopback
//! port, another one for each run, so that a successor can serve beside the process it replaces.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis::Failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::Plan;

mod isolation;
mod logs;
mod privileges;

pub use isolation::{Isolation, Mount, Reach, Serve};
pub use logs::{LogFile, Logs};
pub use privileges::{Limits, Privileges, SystemCalls};

/// The whole file. Serializes to what it was read from.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the state is written after every change, as JSON of `Status`. Not set: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_file: Option<PathBuf>,
    /// Unix socket for `bingo down` and `bingo up`; at most 100 bytes. Not set: no control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_socket: Option<PathBuf>,
    /// Folder of one `<name>.log` per process. Not set: children write to our stdout and stderr, and a
    /// failed start can then not be explained by its last lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_folder: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Logs::is_default")]
    pub logs: Logs,
    /// A file to which a line of JSON is appended for each thing that happens to a process: started,
    /// healthy, exited, killed, replaced. Kept small here: rotated at 8 MiB, two old ones stay; others
    /// may write to it as well. Not set: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_file: Option<PathBuf>,
    /// `IP:PORT` on loopback where `/metrics` of the processes and of this machine is served. Not set:
    /// nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "socket-address"))]
    pub metrics_listen: Option<SocketAddr>,
    /// In any order; `after` decides who waits for whom.
    pub processes: Vec<Process>,
}

/// One process to keep alive.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Unique; letters, digits, `-`, `_`, `.`; also the name of its log file.
    pub name: String,
    /// `job` (done when it exited 0) and `postgres` (restarted on exit only, stopped by SIGINT) have
    /// rules of their own; any other word only groups processes.
    #[serde(default = "default_role")]
    pub role: String,
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// Local user to run as; needs root. Not set: ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privileges: Option<Privileges>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Added to `PATH`, `HOME` and `LANG`; nothing else of our environment is passed on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Log files that it opens and writes by itself, to be rotated; stdout and stderr need no entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_files: Vec<LogFile>,
    /// Where it runs. Not set: in our own folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_folder: Option<PathBuf>,
    /// Sockets that we open and hand down, in this order from descriptor 3 on. Processes that name
    /// the same TCP address share one listener; a UDP address is for one process alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<Socket>,
    #[serde(default, skip_serializing_if = "Probes::is_default")]
    pub probes: Probes,
    #[serde(default, skip_serializing_if = "Stop::is_default")]
    pub stop: Stop,
    #[serde(default)]
    pub restart: Restart,
    /// How much memory it may take, with all that it started. Not set: as much as there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Older than this it is replaced, up to a quarter earlier, so that processes of one age go one
    /// after the other. Too low replaces it all the time; too high and what fails with age fails. Not
    /// set: never.
    #[serde(
        default,
        with = "chassis::config::optional_duration",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "chassis::config::optional_duration::schema")]
    pub max_age: Option<Duration>,
    /// Replace it by a successor that is up and healthy before the old one is asked to end. It needs a
    /// way to serve beside each other: sockets that we hand down, a port shared by SO_REUSEPORT, or
    /// `{port}`; and a way to tell them apart: `probes.startup.notify`, or `{port}` in the probe.
    /// Without it the old one ends first, and nothing serves until the new one does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub start_first: bool,
    /// Started for the first time only when these are healthy (jobs: done); stopped before them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Shown in the status only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Shown in the status only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
}

/// Limits of resident memory, looked at ten times a second. Where the kernel's memory groups (cgroups)
/// can be had, each run has one that keeps `hard` between two looks; the status says who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Over it the process is replaced in order: drained, restarted. Too low replaces a healthy one;
    /// too near to `hard` leaves no time for that.
    #[serde(with = "chassis::config::size")]
    #[schemars(schema_with = "chassis::config::size::schema")]
    pub soft: u64,
    /// Over it the process is killed at once, it alone. At least `soft` and what it grows by in 4 s:
    /// one that grows faster is replaced below `soft` already. All of them together are what the
    /// machine must have.
    #[serde(with = "chassis::config::size")]
    #[schemars(schema_with = "chassis::config::size::schema")]
    pub hard: u64,
}

/// One socket that outlives its process; the child finds it by `name` in `LISTEN_FDNAMES`.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Socket {
    /// What the child finds in `LISTEN_FDNAMES`.
    pub name: String,
    /// `127.0.0.1:8080`, `[::1]:8080`; port 0 takes a free one.
    pub address: String,
    /// `tcp`: a listener. `udp`: a bound socket; two processes that read it would each get a part of
    /// every conversation, so naming its address twice is a fault.
    #[serde(default)]
    pub protocol: Protocol,
}

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

/// How a process is watched. Without `liveness` it is healthy as long as it runs.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probes {
    #[serde(default)]
    pub startup: Startup,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Liveness>,
}

impl Probes {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The time that a process has until its first good probe.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Startup {
    /// Too low kills a slow starter again and again; too high hides one that hangs at its start.
    #[serde(with = "chassis::config::duration", default = "default_startup")]
    #[schemars(schema_with = "chassis::config::duration::schema")]
    pub timeout: Duration,
    /// It tells when it serves: `READY=1` to the socket in NOTIFY_SOCKET (sd_notify(3)). Before that no
    /// probe counts. Set for a program that never tells, it is killed at the timeout.
    #[serde(default, skip_serializing_if = "is_false")]
    pub notify: bool,
}

impl Default for Startup {
    fn default() -> Self {
        Self {
            timeout: default_startup(),
            notify: false,
        }
    }
}

/// Exactly one of `http`, `tcp` and `command`.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Liveness {
    /// `http://HOST:PORT/PATH`: good is an answer 2xx, or 429: it is at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// With `http`: good is only an answer whose first 8 KiB hold this text as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// `HOST:PORT`: good is an accepted connection. A frozen process passes it: its kernel accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// Good is exit 0. Runs as the process's user with its environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// From the start of one probe to the start of the next.
    #[serde(with = "chassis::config::duration", default = "default_interval")]
    #[schemars(schema_with = "chassis::config::duration::schema")]
    pub interval: Duration,
    /// Too low kills a process that is merely busy.
    #[serde(with = "chassis::config::duration", default = "default_timeout")]
    #[schemars(schema_with = "chassis::config::duration::schema")]
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy; `fall` × `interval` bounds the detection.
    #[serde(default = "default_fall")]
    pub fall: u32,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            http: None,
            body: None,
            tcp: None,
            command: None,
            interval: default_interval(),
            timeout: default_timeout(),
            fall: default_fall(),
        }
    }
}

/// How a process is asked to end.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// `SIGTERM` and so on. Not set: SIGTERM, for the role `postgres` SIGINT (its fast shutdown).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Then it is killed. Must exceed the drain delay and drain deadline of the process.
    #[serde(with = "chassis::config::duration", default = "default_stop")]
    #[schemars(schema_with = "chassis::config::duration::schema")]
    pub timeout: Duration,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            signal: None,
            timeout: default_stop(),
        }
    }
}

impl Stop {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When a process that ended is started again; after exit 64 never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    #[default]
    Always,
    OnFailure,
    Never,
}

impl Config {
    /// Reads a file and checks it whole. Exit 64 with a message for every fault.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let config: Self = chassis::config::read(
            path,
            "give --config a file that exists; `bingo up` writes one to DIR/config/supervisor.yaml",
        )?;
        config.validate()?;
        Ok(config)
    }

    /// Every fault in one failure (exit 64): names, order, users, addresses, probes, signals.
    pub fn validate(&self) -> Result<(), Failure> {
        Plan::new(self).map(drop)
    }

    /// One command, kept alive in our own environment, writing to our stdout and stderr.
    pub fn for_command(command: Vec<String>) -> Self {
        let name = command
            .first()
            .and_then(|program| Path::new(program).file_name())
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let name: String = name.chars().filter(|c| is_name_character(*c)).collect();
        // A variable that is no UTF-8 cannot stand in YAML and is not passed on.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            processes: vec![Process {
                name: if name.is_empty() {
                    "command".to_owned()
                } else {
                    name
                },
                role: default_role(),
                command,
                environment,
                ..Process::default()
            }],
            ..Self::default()
        }
    }
}

/// Whether a character may stand in the name of a process.
pub(crate) fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

fn is_false(value: &bool) -> bool {
    !value
}

fn default_role() -> String {
    "process".to_owned()
}

fn default_startup() -> Duration {
    Duration::from_secs(60)
}

fn default_interval() -> Duration {
    Duration::from_millis(250)
}

fn default_timeout() -> Duration {
    Duration::from_millis(200)
}

fn default_fall() -> u32 {
    3
}

fn default_stop() -> Duration {
    Duration::from_secs(30)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "
state_file: /tmp/state.json
processes:
- name: node-1
  role: node
  command: [/bin/sleep, '9']
  probes:
    liveness: {http: 'http://127.0.0.1:9/ping', interval: 100ms}
  stop: {timeout: 5s}
  restart: on-failure
";

    #[test]
    fn a_file_reads_back_as_written_with_the_defaults_filled_in() {
        let config: Config = chassis::config::parse("example", EXAMPLE).unwrap();
        let process = &config.processes[0];
        let liveness = process.probes.liveness.as_ref().unwrap();
        assert_eq!(liveness.interval, Duration::from_millis(100));
        assert_eq!(liveness.timeout, Duration::from_millis(200));
        assert_eq!(liveness.fall, 3);
        assert_eq!(process.probes.startup.timeout, Duration::from_secs(60));
        assert_eq!(process.restart, Restart::OnFailure);
        let text = chassis::config::to_yaml(&config).unwrap();
        let again: Config = chassis::config::parse("again", &text).unwrap();
        assert_eq!(again, config, "{text}");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let text = EXAMPLE.replace("restart:", "restarts:");
        let failure = chassis::config::parse::<Config>("example", &text)
            .unwrap_err()
            .to_string();
        assert!(failure.contains("restarts"), "{failure}");
    }

    #[test]
    fn a_bare_command_needs_no_file() {
        let config = Config::for_command(vec!["/bin/sleep".to_owned(), "1".to_owned()]);
        config.validate().unwrap();
        assert_eq!(config.processes[0].name, "sleep");
        assert_eq!(config.processes[0].restart, Restart::Always);
        assert!(config.processes[0].environment.contains_key("PATH"));
        assert!(
            Config::for_command(Vec::new())
                .validate()
                .unwrap_err()
                .to_string()
                .contains("command")
        );
    }
}
