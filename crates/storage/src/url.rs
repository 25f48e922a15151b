//! A cluster from a `postgresql://` URL (PostgreSQL 34.1.1.2, "Connection URIs"). The driver parses
//! what it knows; what it does not know is taken out first. No error shows the URL: it may hold a
//! password.

use std::path::PathBuf;

use crate::config::{DEFAULT_PORT, Host, PostgresCluster, Secret, SslMode};
use crate::error::Error;

impl PostgresCluster {
    /// Reads `postgresql://user[:password]@host:port[,host:port]/db?passfile=…&sslmode=…` (PostgreSQL,
    /// libpq "Connection URIs"). Other parameters are refused by name.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        refuse_stray_at(url)?;
        let (plain, ours) = take_our_parameters(url)?;
        let parsed: tokio_postgres::Config = plain
            .parse()
            .map_err(|error: tokio_postgres::Error| unparsed(url, &error))?;
        let user = parsed
            .get_user()
            .ok_or_else(|| invalid_url("it names no user"))?;
        let password = parsed
            .get_password()
            .map(|bytes| Secret::new(String::from_utf8_lossy(bytes)));
        let cluster = Self {
            hosts: hosts_of(&parsed)?,
            user: user.into(),
            db_name: parsed.get_dbname().unwrap_or(user).into(),
            // As in libpq, a password in the URL goes before the file.
            passfile: ours.passfile.filter(|_| password.is_none()),
            password,
            ssl_mode: ours.ssl_mode,
            ssl_root_cert: ours.ssl_root_cert,
            ssl_cert: ours.ssl_cert,
            ssl_key: ours.ssl_key,
            ..Self::default()
        };
        match cluster.hosts.is_empty() {
            true => Err(invalid_url("it names no host")),
            false => Ok(cluster),
        }
    }
}

#[derive(Default)]
struct OurParameters {
    passfile: Option<PathBuf>,
    ssl_mode: SslMode,
    ssl_root_cert: Option<PathBuf>,
    ssl_cert: Option<PathBuf>,
    ssl_key: Option<PathBuf>,
}

/// The driver knows neither `passfile`, nor certificates, nor all six words of `sslmode`: they are taken out first.
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
            Some(("sslrootcert", path)) => ours.ssl_root_cert = Some(percent_decoded(path)?.into()),
            Some(("sslcert", path)) => ours.ssl_cert = Some(percent_decoded(path)?.into()),
            Some(("sslkey", path)) => ours.ssl_key = Some(percent_decoded(path)?.into()),
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

/// What stands before the last `@` may be a password, and the driver ends one at the first `@`, or at a
/// `?` as we do: its tail would be taken for a host or a parameter, and be shown as one.
fn refuse_stray_at(url: &str) -> Result<(), Error> {
    let ends_user = |before: &str| !before.contains(['@', '?']);
    match url.rsplit_once('@') {
        Some((before, _)) if !ends_user(before) => Err(Error::configuration(
            "postgres URL",
            "a @ stands where none may stand",
            "write a @ in a password or a parameter as %40, and likewise / as %2F, ? as %3F, \
             # as %23, % as %25",
        )),
        _ => Ok(()),
    }
}

/// What the driver found wrong. It names a parameter that it does not know, which may be the tail of
/// a password with a raw `&`.
fn unparsed(url: &str, error: &tokio_postgres::Error) -> Error {
    match url.contains("password=") {
        true => invalid_url("a parameter or a port cannot be read"),
        false => invalid_url(&chassis::failure::chain(error)),
    }
}

fn hosts_of(parsed: &tokio_postgres::Config) -> Result<Vec<Host>, Error> {
    let ports = parsed.get_ports();
    let address = |host: &tokio_postgres::config::Host| match host {
        tokio_postgres::config::Host::Tcp(name) => name.clone(),
        tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
    };
    let port = |i: usize| ports.get(i).or(ports.first()).copied();
    let mut hosts: Vec<Host> = Vec::new();
    for (i, host) in parsed.get_hosts().iter().enumerate() {
        let host = Host::new(address(host), port(i).unwrap_or(DEFAULT_PORT));
        // The host itself is left out, as the whole URL is.
        if chassis::config::is_no_host(&host.address) {
            return Err(invalid_url("a host is neither a name nor an address"));
        }
        hosts.push(host);
    }
    Ok(hosts)
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
            "postgresql://u:p@hid den/d",
            "postgresql://u:p@h%40hidden/d",
            "postgresql://u@h/d?password=p&hidden=1",
        ] {
            let error = PostgresCluster::from_url(url).unwrap_err();
            let text = chassis::failure::chain(&error);
            assert!(!text.contains("hid"), "{text}");
            assert!(
                error.remedy().contains("postgresql://"),
                "{}",
                error.remedy()
            );
        }
    }

    #[test]
    fn a_raw_at_in_a_password_is_refused_with_its_remedy_and_nothing_of_it_is_shown() {
        for url in [
            "postgresql://u:CANA@RY7@127.0.0.1:1/d",
            "postgresql://u:CANA@RY7@h/d?sslmode=disable",
            "postgresql://u:CANA?RY7@h/d",
            "postgresql://u:p@h/d?password=CANA@RY7",
            "postgresql://u:p@h/d?RY7=CANA@x",
        ] {
            let error = PostgresCluster::from_url(url).unwrap_err();
            let text = format!("{} {}", chassis::failure::chain(&error), error.remedy());
            assert!(text.contains("%40"), "{text}");
            assert!(!text.contains("CANA") && !text.contains("RY7"), "{text}");
        }
        let whole = PostgresCluster::from_url("postgresql://u:CANA%40RY%3F7@h/d").unwrap();
        assert_eq!(whole.password.unwrap().reveal(), "CANA@RY?7");
    }
}
