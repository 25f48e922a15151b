//! The configuration file of `run_server`: the vendor's keys (contract.md section 2) and ours beside
//! them. Every key has a default, so the vendor's own file is a whole one.
//!
//! Left out: flags and environment variables, which the command lays over this.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chassis::Failure;
use chassis::config::{Fault, format_duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use storage::PostgresCluster;

use crate::faults::FaultSettings;
use crate::identity::DEFAULT_EMAIL;

/// The configuration of one node.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Decides the port and the log folder where nothing else names them.
    #[schemars(extend("format" = "email"))]
    pub student_email: String,
    pub postgres_cluster: PostgresCluster,
    /// Where the API is served; not set: all interfaces, on the port of the e-mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "socket-address"))]
    pub listen: Option<SocketAddr>,
    /// Where `/metrics` and `/health` are served; not set: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "socket-address"))]
    pub admin_listen: Option<SocketAddr>,
    /// The `host` of answers; not set: the machine's host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub name: Option<String>,
    /// A file to which a line of JSON is appended for each thing that happens to the database: away,
    /// back, promoted. All processes of an installation share it, and its supervisor keeps it small;
    /// where nobody does, it stops at 16 MiB. Not set: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub events_file: Option<PathBuf>,
    /// What `/long_dummy` takes. From the deadline on it would always fail.
    #[serde(with = "chassis::config::duration")]
    #[schemars(schema_with = "chassis::config::duration::schema", extend("x-max" = "1h"))]
    pub long_dummy_duration: Duration,
    /// How long a node that is told to end answers its probes as draining while it still accepts.
    /// Too low: gateways have not seen it and send requests to a closed port; too high: ends late.
    #[serde(with = "chassis::config::duration")]
    #[schemars(schema_with = "chassis::config::duration::schema", extend("x-max" = "1m"))]
    pub drain_delay: Duration,
    /// How long requests in flight may take to finish after that. Too low: they are broken off;
    /// above the supervisor's stop timeout: the process is killed.
    #[serde(with = "chassis::config::duration")]
    #[schemars(schema_with = "chassis::config::duration::schema", extend("x-max" = "1h"))]
    pub drain_deadline: Duration,
    pub limits: Limits,
    /// The vendor's faults, to be survived on purpose; all off.
    #[serde(skip_serializing_if = "FaultSettings::is_default")]
    pub faults: FaultSettings,
}

/// Bounds of what clients may take.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open connections; more wait in the kernel's queue. Too low: gateways wait for each other's
    /// idle connections; too high: the process runs out of descriptors.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: u32,
    /// Bytes of a request's line and header fields together; more is answered 431.
    #[serde(with = "chassis::config::size")]
    #[schemars(schema_with = "chassis::config::size::schema", extend("x-min" = "8KiB", "x-max" = "1MiB"))]
    pub head_bytes_max: u64,
    /// How long a connection may take to send a head, and may idle between requests. Too low: idle
    /// connections die under a gateway's next request; too high: dead clients hold memory.
    #[serde(with = "chassis::config::duration")]
    #[schemars(schema_with = "chassis::config::duration::schema", extend("x-min" = "10ms", "x-max" = "1h"))]
    pub head_timeout: Duration,
    /// Bytes of a request's body; more is answered 413.
    #[serde(with = "chassis::config::size")]
    #[schemars(schema_with = "chassis::config::size::schema", extend("x-max" = "64MiB"))]
    pub body_bytes_max: u64,
    /// How long a request's body may take to arrive; then 408.
    #[serde(with = "chassis::config::duration")]
    #[schemars(schema_with = "chassis::config::duration::schema", extend("x-min" = "10ms", "x-max" = "1h"))]
    pub body_timeout: Duration,
    /// How long producing an answer may take (the vendor's 20 s); then 504.
    #[serde(with = "chassis::config::duration")]
    #[schemars(schema_with = "chassis::config::duration::schema", extend("x-min" = "10ms", "x-max" = "1h"))]
    pub deadline: Duration,
    /// How long a request waits for a database that is away, or for one of the connections to it;
    /// then 503. Bounded by nine tenths of the request's own time, so that the answer reaches the
    /// client. Too low: clients see a failover of a few seconds; too high: they wait for nothing, and
    /// their requests hold memory here.
    #[serde(with = "chassis::config::duration")]
    #[schemars(schema_with = "chassis::config::duration::schema", extend("x-min" = "10ms", "x-max" = "1h"))]
    pub database_wait: Duration,
    /// How long the next 64 KiB of a list may wait for the database or for the client; then the
    /// body is broken off.
    #[serde(with = "chassis::config::duration")]
    #[schemars(schema_with = "chassis::config::duration::schema", extend("x-min" = "10ms", "x-max" = "1h"))]
    pub stall_timeout: Duration,
    /// Bytes a second that a client has to take of an answer, on average and after a grace of
    /// `stall_timeout`; one that takes less is broken off. Too low: a few slow clients hold the
    /// connections for lists; too high: honest clients on bad lines are broken off.
    #[serde(with = "chassis::config::size")]
    #[schemars(schema_with = "chassis::config::size::schema", extend("x-min" = "1B", "x-max" = "1GiB"))]
    pub receive_rate_min: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            student_email: DEFAULT_EMAIL.to_owned(),
            postgres_cluster: PostgresCluster::default(),
            listen: None,
            admin_listen: None,
            name: None,
            events_file: None,
            long_dummy_duration: Duration::from_secs(3),
            drain_delay: Duration::from_millis(500),
            drain_deadline: Duration::from_secs(25),
            limits: Limits::default(),
            faults: FaultSettings::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            head_bytes_max: 64 * 1024,
            head_timeout: Duration::from_secs(75),
            body_bytes_max: 64 * 1024,
            body_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(20),
            database_wait: storage::deadline::DEFAULT_PATIENCE,
            stall_timeout: Duration::from_secs(20),
            receive_rate_min: 32 * 1024,
        }
    }
}

impl Config {
    /// The vendor's default file, byte for byte; ours are not in it, so that it stays the vendor's.
    pub fn default_yaml() -> &'static str {
        DEFAULT_YAML
    }

    /// Values that cannot stand together, one fault each; looks at no file. `is_known` says whether the
    /// value of a key is what was written: of another nothing is told.
    pub fn contradictions(&self, is_known: &dyn Fn(&str) -> bool) -> Vec<Fault> {
        let mut faults = self.postgres_cluster.contradictions(is_known);
        let deadline = format_duration(self.limits.deadline);
        if self.long_dummy_duration >= self.limits.deadline && is_known("limits.deadline") {
            faults.push(Fault::new(
                "long_dummy_duration",
                format_duration(self.long_dummy_duration),
                format!("limits.deadline is {deadline}, so /long_dummy would always fail"),
                format!("choose less than {deadline}, or raise limits.deadline"),
            ));
        }
        if let (Some(api), Some(admin)) = (self.listen, self.admin_listen)
            && api == admin
            && api.port() != 0
            && is_known("listen")
        {
            faults.push(Fault::new(
                "admin_listen",
                admin,
                "listen is the same address",
                "choose another port for one of the two",
            ));
        }
        faults
    }

    /// What will do, and probably not what was meant.
    pub fn warnings(&self) -> Vec<Fault> {
        let mut warnings = self.postgres_cluster.warnings();
        let Limits {
            database_wait,
            deadline,
            ..
        } = self.limits;
        // The default is bounded in silence: nobody chose it.
        if database_wait >= deadline && database_wait != Limits::default().database_wait {
            warnings.push(Fault::new(
                "limits.database_wait",
                format_duration(database_wait),
                "it is cut to nine tenths of limits.deadline",
                format!("choose less than {}", format_duration(deadline)),
            ));
        }
        warnings
    }

    /// The node's name in answers.
    pub fn host_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let machine = rustix::system::uname();
            machine.nodename().to_string_lossy().into_owned()
        })
    }
}

/// The effective configuration as YAML, secrets hidden. Fails only on values that YAML cannot
/// express.
pub fn masked_yaml(config: &Config) -> Result<String, Failure> {
    chassis::config::to_yaml(&Config {
        postgres_cluster: config.postgres_cluster.masked(),
        ..config.clone()
    })
}

const DEFAULT_YAML: &str = "\
student_email: test@example.com
postgres_cluster:
  hosts:
  - address: localhost
    port: 5432
  user: postgres
  password: postgres
  db_name: postgres
  ssl_mode: disable
  use_closest_node: false
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_gives_the_default_configuration() {
        let config: Config = chassis::config::parse("default", Config::default_yaml()).unwrap();
        assert_eq!(config, Config::default());
        let empty: Config = chassis::config::parse("empty", "").unwrap();
        assert_eq!(empty, Config::default());
    }

    #[test]
    fn the_masked_configuration_reads_back_without_its_password() {
        let text =
            "student_email: a@b.c\npostgres_cluster:\n  password: canary\nlisten: 127.0.0.1:1\n";
        let config: Config = chassis::config::parse("test", text).unwrap();
        let masked = masked_yaml(&config).unwrap();
        assert!(!masked.contains("canary"), "{masked}");
        assert!(masked.contains("student_email: a@b.c"), "{masked}");
        let back: Config = chassis::config::parse("masked", &masked).unwrap();
        assert_eq!(back.listen, config.listen);
        assert_eq!(back.limits, config.limits);
    }

    #[test]
    fn values_that_cannot_stand_together_are_one_fault_each() {
        let text = "listen: 127.0.0.1:8080\nadmin_listen: 127.0.0.1:8080\n\
                    long_dummy_duration: 5s\nlimits: {deadline: 5s, database_wait: 5s}\n\
                    postgres_cluster: {hosts: [{address: a}, {address: a}], ssl_cert: /a}\n";
        let config: Config = chassis::config::parse("test", text).unwrap();
        let keys = |faults: Vec<Fault>| -> Vec<String> {
            faults.into_iter().map(|fault| fault.key).collect()
        };
        let expected = [
            "postgres_cluster.hosts[1]",
            "long_dummy_duration",
            "admin_listen",
        ];
        assert_eq!(keys(config.contradictions(&|_| true)), expected);
        let expected = ["postgres_cluster.ssl_cert", "limits.database_wait"];
        assert_eq!(keys(config.warnings()), expected);
        assert_eq!(Config::default().contradictions(&|_| true), []);
        let short: Config = chassis::config::parse("test", "limits: {deadline: 4s}").unwrap();
        assert_eq!(short.contradictions(&|_| true), []);
        assert_eq!(short.warnings(), []);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let failure = chassis::config::parse::<Config>("test", "student_mail: x\n").unwrap_err();
        assert!(failure.to_string().contains("student_mail"), "{failure}");
    }
}
