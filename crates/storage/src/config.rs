//! `postgres_cluster` of the configuration file (contract.md section 2), and where its password comes
//! from. `url` reads the same type from a `postgresql://` URL, which `bingo up --postgres-url` takes.
//!
//! The password is never printed by `Debug`; `Serialize` writes it as it is, because
//! `print_default_config` must show the vendor's default: print `masked()` anywhere else.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The environment variable that goes before every other source of the password.
pub const PASSWORD_VARIABLE: &str = "BINGO_POSTGRES_PASSWORD";

pub(crate) const DEFAULT_PORT: u16 = 5432;
const DEFAULT_MAX_REPLICA_LAG: Duration = Duration::from_secs(1);

/// One writable primary and any number of replicas, whichever host is which.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresCluster {
    /// One writable primary and any number of replicas; which is which is asked of each.
    #[schemars(length(min = 1))]
    pub hosts: Vec<Host>,
    /// The role to log in as.
    #[schemars(length(min = 1, max = 63))]
    pub user: String,
    /// Better kept out of this file: see `password_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A file whose first line is the password. Goes before `password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A file in the format of `~/.pgpass` (PostgreSQL, libpq "The Password File"), asked after
    /// `password_file` and before `password`. Unlike libpq we do not refuse one that others may read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passfile: Option<PathBuf>,
    /// The database.
    #[schemars(length(min = 1, max = 63))]
    pub db_name: String,
    /// libpq's words (PostgreSQL, libpq "SSL Support"). Only `verify-full` knows whom it talks to.
    pub ssl_mode: SslMode,
    /// PEM files for the modes that encrypt: the certificates that we trust, and our own with its key.
    /// Those that are not named are looked for in `~/.postgresql`: `root.crt`, `postgresql.crt`,
    /// `postgresql.key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_root_cert: Option<PathBuf>,
    /// Our certificate, where the server asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_cert: Option<PathBuf>,
    /// The key of our certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_key: Option<PathBuf>,
    /// Whether connections prepare their statements. Not set: unless a pooler is found to stand
    /// between (`pooler`). `true` behind one that cannot follow them: wrong answers; `false`: each
    /// query is planned anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepared_statements: Option<bool>,
    /// Reads go to the nearest server within `max_replica_lag` instead of the primary.
    pub use_closest_node: bool,
    /// Too low: replicas are hardly used. Too high: lists show old rows.
    #[serde(with = "chassis::config::duration")]
    #[schemars(schema_with = "chassis::config::duration::schema", extend("x-max" = "1h"))]
    pub max_replica_lag: Duration,
}

/// One server. An address that starts with `/` is the folder of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// A name, an address, or the folder of a Unix socket.
    #[schemars(extend("format" = "host"))]
    pub address: String,
    /// Of a Unix socket: the number at the end of its name.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
}

/// libpq's six words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    #[default]
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// A text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(transparent)]
#[schemars(inline, extend("writeOnly" = true))]
pub struct Secret(String);

impl Default for PostgresCluster {
    fn default() -> Self {
        Self {
            hosts: vec![Host::new("localhost", DEFAULT_PORT)],
            user: "postgres".into(),
            password: Some(Secret::new("postgres")),
            password_file: None,
            passfile: None,
            db_name: "postgres".into(),
            ssl_mode: SslMode::Disable,
            ssl_root_cert: None,
            ssl_cert: None,
            ssl_key: None,
            prepared_statements: None,
            use_closest_node: false,
            max_replica_lag: DEFAULT_MAX_REPLICA_LAG,
        }
    }
}

impl PostgresCluster {
    /// The password for one host: `BINGO_POSTGRES_PASSWORD`, `password_file`, `passfile`, `password`,
    /// `~/.pgpass`, in that order; `None` where none of them has one (trust or peer authentication).
    pub fn password(&self, host: &Host) -> Result<Option<String>, Error> {
        self.password_given(std::env::var(PASSWORD_VARIABLE).ok(), home(), host)
    }

    /// The same configuration with the password hidden, to be printed.
    pub fn masked(&self) -> Self {
        Self {
            password: self.password.as_ref().map(|_| Secret::new("***")),
            ..self.clone()
        }
    }

    fn password_given(
        &self,
        variable: Option<String>,
        home: Option<PathBuf>,
        host: &Host,
    ) -> Result<Option<String>, Error> {
        if let Some(password) = variable.filter(|text| !text.is_empty()) {
            return Ok(Some(password));
        }
        if let Some(path) = &self.password_file {
            const KEY: &str = "postgres_cluster.password_file";
            let text = read(path, KEY)?;
            return match text.lines().next().filter(|line| !line.is_empty()) {
                Some(line) => Ok(Some(line.to_owned())),
                None => Err(Error::configuration(
                    KEY,
                    format!("read {}: its first line is empty", path.display()),
                    "write the password into its first line, or leave the key out",
                )),
            };
        }
        if let Some(path) = &self.passfile {
            let text = read(path, "postgres_cluster.passfile")?;
            return Ok(self.passfile_entry(&text, host));
        }
        if let Some(Secret(password)) = self.password.as_ref().filter(|s| !s.0.is_empty()) {
            return Ok(Some(password.clone()));
        }
        let text = home.and_then(|home| std::fs::read_to_string(home.join(".pgpass")).ok());
        Ok(text.and_then(|text| self.passfile_entry(&text, host)))
    }

    /// The first line that matches `host:port:database:user:password`.
    fn passfile_entry(&self, text: &str, host: &Host) -> Option<String> {
        let port = host.port.to_string();
        let address = match host.address.starts_with('/') {
            true => "localhost",
            false => &host.address,
        };
        let wanted = [address, &port, &self.db_name, &self.user];
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .find_map(|line| {
                let fields = passfile_fields(line);
                let (password, keys) = fields.split_last()?;
                let fits = |(key, wanted): (&String, &&str)| key == "*" || key == *wanted;
                (keys.len() == wanted.len() && keys.iter().zip(&wanted).all(fits))
                    .then(|| password.clone())
            })
    }
}

impl Host {
    pub fn new(address: impl Into<String>, port: u16) -> Self {
        Self {
            address: address.into(),
            port,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, port } = self;
        match address {
            folder if folder.starts_with('/') => write!(f, "{folder}/.s.PGSQL.{port}"),
            v6 if v6.contains(':') => write!(f, "[{v6}]:{port}"),
            name => write!(f, "{name}:{port}"),
        }
    }
}

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn default_port() -> u16 {
    DEFAULT_PORT
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from)
}

fn read(path: &Path, key: &str) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::configuration(
            key,
            format!("read {}: {error}", path.display()),
            "name a file that this user may read",
        )
    })
}

/// Splits at unescaped colons; a backslash makes the next character plain.
fn passfile_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let next = match character {
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                None
            }
            '\\' => characters.next(),
            other => Some(other),
        };
        if let (Some(next), Some(field)) = (next, fields.last_mut()) {
            field.push(next);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_vendors_block() {
        let yaml = chassis::config::to_yaml(&PostgresCluster::default()).unwrap();
        let vendor: PostgresCluster = chassis::config::parse(
            "vendor",
            "hosts:\n- address: localhost\n  port: 5432\nuser: postgres\npassword: postgres\n\
             db_name: postgres\nssl_mode: disable\nuse_closest_node: false\n",
        )
        .unwrap();
        assert_eq!(vendor, PostgresCluster::default());
        let keys: Vec<_> = yaml
            .lines()
            .filter(|l| !l.starts_with([' ', '-']))
            .collect();
        assert_eq!(keys.len(), 7, "{yaml}");
        assert_eq!(keys.last(), Some(&"max_replica_lag: 1s"), "{yaml}");
    }

    #[test]
    fn sources_of_the_password_have_an_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let host = Host::new("db", 5432);
        let home = Some(folder.path().to_owned());
        write(
            ".pgpass",
            "# mine\nother:*:*:*:wrong\n*:5432:postgres:postgres:ho\\:me\n",
        );
        let mut cluster = PostgresCluster::default();
        let ask = |cluster: &PostgresCluster, variable: Option<&str>| {
            let found = cluster.password_given(variable.map(str::to_owned), home.clone(), &host);
            found.unwrap().unwrap()
        };
        cluster.password = None;
        assert_eq!(ask(&cluster, None), "ho:me");
        cluster.password = Some(Secret::new("key"));
        assert_eq!(ask(&cluster, None), "key");
        cluster.passfile = Some(write("pass", "db:*:*:*:passfile\n"));
        assert_eq!(ask(&cluster, None), "passfile");
        cluster.password_file = Some(write("word", "file\n"));
        assert_eq!(ask(&cluster, None), "file");
        assert_eq!(ask(&cluster, Some("variable")), "variable");
    }

    #[test]
    fn the_password_is_in_no_debug_text() {
        let text = format!("{:?}", PostgresCluster::default());
        assert!(text.contains("password: Some(***)"), "{text}");
    }
}
