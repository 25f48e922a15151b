//! `postgres_cluster` of the configuration file (contract.md section 2), and where its password comes
//! from. The same type is read from a `postgresql://` URL, which `bingo up --postgres-url` takes.
//!
//! The password is never printed by `Debug`; `Serialize` writes it as it is, because
//! `print_default_config` must show the vendor's default: print `masked()` anywhere else.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The environment variable that goes before every other source of the password.
pub const PASSWORD_VARIABLE: &str = "BINGO_POSTGRES_PASSWORD";

const DEFAULT_PORT: u16 = 5432;
const DEFAULT_MAX_REPLICA_LAG: Duration = Duration::from_secs(1);

/// One writable primary and any number of replicas, whichever host is which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresCluster {
    pub hosts: Vec<Host>,
    pub user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A file whose first line is the password. Goes before `password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A file in the format of `~/.pgpass` (PostgreSQL, libpq "The Password File"), asked after
    /// `password_file` and before `password`. Unlike libpq we do not refuse one that others may read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passfile: Option<PathBuf>,
    pub db_name: String,
    pub ssl_mode: SslMode,
    /// Reads go to the nearest server within `max_replica_lag` instead of the primary.
    pub use_closest_node: bool,
    /// Too low: replicas are hardly used. Too high: lists show old rows.
    #[serde(
        with = "chassis::config::duration",
        skip_serializing_if = "is_default_lag"
    )]
    pub max_replica_lag: Duration,
}

/// One server. An address that starts with `/` is the folder of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    pub address: String,
    #[serde(default = "default_port")]
    pub port: u16,
}

/// libpq's six words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
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
            use_closest_node: false,
            max_replica_lag: DEFAULT_MAX_REPLICA_LAG,
        }
    }
}

impl PostgresCluster {
    /// Reads `postgresql://user[:password]@host:port[,host:port]/db?passfile=…&sslmode=…` (PostgreSQL,
    /// libpq "Connection URIs"). Other parameters are refused by name.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let (plain, ours) = take_our_parameters(url)?;
        let parsed: tokio_postgres::Config =
            plain.parse().map_err(|error: tokio_postgres::Error| {
                invalid_url(&chassis::failure::chain(&error))
            })?;
        let user = parsed
            .get_user()
            .ok_or_else(|| invalid_url("it names no user"))?;
        let password = parsed
            .get_password()
            .map(|bytes| Secret::new(String::from_utf8_lossy(bytes)));
        let cluster = Self {
            hosts: hosts_of(&parsed),
            user: user.into(),
            db_name: parsed.get_dbname().unwrap_or(user).into(),
            // As in libpq, a password in the URL goes before the file.
            passfile: ours.passfile.filter(|_| password.is_none()),
            password,
            ssl_mode: ours.ssl_mode,
            ..Self::default()
        };
        match cluster.hosts.is_empty() {
            true => Err(invalid_url("it names no host")),
            false => Ok(cluster),
        }
    }

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
            let text = read(path, "postgres_cluster.password_file")?;
            return Ok(text.lines().next().map(str::to_owned));
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

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's shape
fn is_default_lag(lag: &Duration) -> bool {
    *lag == DEFAULT_MAX_REPLICA_LAG
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

#[derive(Default)]
struct OurParameters {
    passfile: Option<PathBuf>,
    ssl_mode: SslMode,
}

/// The driver knows neither `passfile` nor all six words of `sslmode`: both are taken out first.
fn take_our_parameters(url: &str) -> Result<(String, OurParameters), Error> {
    if !(url.starts_with("postgresql://") || url.starts_with("postgres://")) {
        return Err(invalid_url("it does not start with postgresql://"));
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut ours = OurParameters::default();
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("passfile", path)) => ours.passfile = Some(percent_decoded(path)?.into()),
            Some(("sslmode", word)) => ours.ssl_mode = ssl_mode(word)?,
            _ => rest.push(pair),
        }
    }
    let separator = if rest.is_empty() { "" } else { "?" };
    Ok((format!("{base}{separator}{}", rest.join("&")), ours))
}

fn ssl_mode(word: &str) -> Result<SslMode, Error> {
    Ok(match word {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            return Err(Error::configuration(
                "sslmode",
                format!("`{word}` is not known"),
                "one of disable allow prefer require verify-ca verify-full",
            ));
        }
    })
}

fn percent_decoded(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(invalid_url("a % is not followed by two hexadecimal digits"));
        };
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| invalid_url("a parameter is not UTF-8"))
}

fn hosts_of(parsed: &tokio_postgres::Config) -> Vec<Host> {
    let ports = parsed.get_ports();
    let address = |host: &tokio_postgres::config::Host| match host {
        tokio_postgres::config::Host::Tcp(name) => name.clone(),
        tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
    };
    let port = |i: usize| ports.get(i).or(ports.first()).copied();
    let hosts = parsed.get_hosts().iter().enumerate();
    hosts
        .map(|(i, host)| Host::new(address(host), port(i).unwrap_or(DEFAULT_PORT)))
        .collect()
}

/// The URL itself is left out: it may hold a password.
fn invalid_url(why: &str) -> Error {
    Error::configuration(
        "postgres URL",
        why,
        "write postgresql://USER[:PASSWORD]@HOST:PORT/DATABASE[?passfile=FILE&sslmode=MODE]",
    )
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
        assert_eq!(keys.len(), 6, "{yaml}");
        assert_eq!(keys.last(), Some(&"use_closest_node: false"), "{yaml}");
    }

    #[test]
    fn a_url_gives_hosts_user_database_and_files() {
        let url =
            "postgresql://bingo@127.0.0.1:5433/films?passfile=%2Frun/pg%20pass&sslmode=prefer";
        let cluster = PostgresCluster::from_url(url).unwrap();
        assert_eq!(cluster.hosts, [Host::new("127.0.0.1", 5433)]);
        assert_eq!(
            (cluster.user.as_str(), cluster.db_name.as_str()),
            ("bingo", "films")
        );
        assert_eq!(cluster.passfile, Some(PathBuf::from("/run/pg pass")));
        assert_eq!(cluster.ssl_mode, SslMode::Prefer);
        assert_eq!(cluster.password, None);
        let two = PostgresCluster::from_url("postgres://u:s%40crt@a:1,b:2/d").unwrap();
        assert_eq!(two.hosts, [Host::new("a", 1), Host::new("b", 2)]);
        assert_eq!(two.password.unwrap().reveal(), "s@crt");
        let socket = PostgresCluster::from_url("postgresql://u@%2Frun%2Fpg:7/d").unwrap();
        assert_eq!(socket.hosts, [Host::new("/run/pg", 7)]);
    }

    #[test]
    fn a_wrong_url_is_refused_without_showing_the_password() {
        for url in [
            "mysql://u:hidden@h/d",
            "postgresql://u:hidden@h:x/d",
            "postgresql:///d",
        ] {
            let error = PostgresCluster::from_url(url).unwrap_err();
            let text = chassis::failure::chain(&error);
            assert!(!text.contains("hidden"), "{text}");
            assert!(
                error.remedy().contains("postgresql://"),
                "{}",
                error.remedy()
            );
        }
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
