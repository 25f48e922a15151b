//! What the operator asked of `bingo up`, as recorded in the installation's folder. A second `up`
//! compares with the record: the same flags change nothing, other flags are named.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::exec::Exec;

/// The flags of `bingo up` that shape an installation (interfaces.md "`bingo up`"). Flags that only
/// shape the call (`--detach`, `--timeout`, `--yes`, `--dir`) are not here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Addresses on which the gateways listen.
    pub bind: Vec<IpAddr>,
    pub http_port: u16,
    /// 0: HTTP alone.
    #[serde(default)]
    pub https_port: u16,
    pub admin_port: u16,
    pub nodes: u16,
    pub gateways: u16,
    /// `student_email` of the service's configuration.
    pub email: String,
    /// Rows to fill in.
    pub customers: u32,
    pub movies: u32,
    pub sessions: u32,
    pub seed: u64,
    /// Account of the children when started as root; `None`: the first of bingo, postgres, nobody.
    pub user: Option<String>,
    /// Whether the database is one that exists already; its URL holds a secret and is kept apart.
    pub postgres_url: Option<String>,
    /// Faults that the nodes reproduce (contract.md section 5); empty: none.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Names of the service, in the certificate and in printed addresses; empty: localhost.
    #[serde(default)]
    pub domain: Vec<String>,
    /// Whether `bingo.local` is announced to the local network.
    #[serde(default)]
    pub mdns: bool,
    /// Folder of PostgreSQL's binaries; `None`: searched for.
    pub postgres_bin: Option<String>,
    /// The program that the nodes run instead of ours.
    #[serde(default)]
    pub exec: Option<Exec>,
    /// The age at which nodes are replaced; `None`: only those that are known to die.
    #[serde(default)]
    pub max_age: Option<String>,
}

impl Options {
    /// What the certificate speaks for: the names that were asked for, this machine's own, and the
    /// addresses that are listened on.
    pub(crate) fn certificate_names(&self) -> Vec<String> {
        let own = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let listened = self.bind.iter().filter(|address| !address.is_unspecified());
        let mut names = self.domain.clone();
        names.extend(own);
        names.extend(listened.map(IpAddr::to_string));
        let mut distinct: Vec<String> = Vec::new();
        for name in names {
            if !distinct.contains(&name) {
                distinct.push(name);
            }
        }
        distinct
    }

    /// What people write: the first name that was given, else localhost where that reaches us. A
    /// wildcard is no name: which of those it stands for leads here is not ours to guess.
    pub(crate) fn host(&self) -> Option<String> {
        let bind = *self.bind.first()?;
        let mut names = self.domain.iter();
        Some(match names.find(|name| !name.starts_with('*')) {
            // An address of IPv6 stands in brackets (RFC 3986 3.2.2).
            Some(name) if name.parse::<Ipv6Addr>().is_ok() => format!("[{name}]"),
            Some(name) => name.clone(),
            None if bind.is_unspecified() || is_localhost(bind) => "localhost".to_owned(),
            None if bind.is_ipv6() => format!("[{bind}]"),
            None => bind.to_string(),
        })
    }

    /// Whether no other machine can reach the service.
    pub(crate) fn is_loopback_only(&self) -> bool {
        self.bind.iter().all(IpAddr::is_loopback)
    }

    /// The differences to `other`, a line each: `--flag: here → there`. Empty when there is none.
    pub fn differences(&self, other: &Options) -> Vec<String> {
        let (Ok(serde_json::Value::Object(ours)), Ok(serde_json::Value::Object(theirs))) =
            (serde_json::to_value(self), serde_json::to_value(other))
        else {
            return Vec::new();
        };
        ours.iter()
            .filter_map(|(key, ours)| {
                let theirs = theirs.get(key).unwrap_or(&serde_json::Value::Null);
                let flag = key.replace('_', "-");
                (ours != theirs).then(|| format!("--{flag}: runs with {ours}, asked for {theirs}"))
            })
            .collect()
    }
}

/// `postgresql://user:secret@host/db` without the secret, for records, logs and pages.
pub fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(user, |(user, _)| user);
            format!("{user}@{host}")
        }
        None => authority.to_owned(),
    };
    // A password may also stand among the parameters.
    let tail = match tail.split_once('?') {
        Some((path, parameters)) => {
            let kept: Vec<&str> = parameters
                .split('&')
                .filter(|p| !p.starts_with("password="))
                .collect();
            let mark = if kept.is_empty() { "" } else { "?" };
            format!("{path}{mark}{}", kept.join("&"))
        }
        None => tail.to_owned(),
    };
    format!("{scheme}://{authority}{tail}")
}

fn is_localhost(address: IpAddr) -> bool {
    [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ]
    .contains(&address)
}

#[cfg(test)]
pub(crate) fn example() -> Options {
    Options {
        bind: vec![IpAddr::from([127, 0, 0, 1])],
        http_port: 8080,
        https_port: 8443,
        admin_port: 9090,
        nodes: 2,
        gateways: 2,
        email: "test@example.com".into(),
        customers: 10,
        movies: 10,
        sessions: 10,
        seed: 1,
        user: None,
        postgres_url: None,
        faults: Vec::new(),
        domain: Vec::new(),
        mdns: false,
        postgres_bin: None,
        exec: None,
        max_age: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_flag_and_both_values() {
        let ours = example();
        let theirs = Options {
            nodes: 4,
            ..ours.clone()
        };
        assert_eq!(
            ours.differences(&theirs),
            ["--nodes: runs with 2, asked for 4"]
        );
        assert!(ours.differences(&ours).is_empty());
    }

    #[test]
    fn the_certificate_names_what_clients_may_write() {
        let options = Options {
            bind: vec!["192.0.2.7".parse().unwrap(), "0.0.0.0".parse().unwrap()],
            domain: vec!["example.org".into(), "localhost".into()],
            ..example()
        };
        assert_eq!(
            options.certificate_names(),
            ["example.org", "localhost", "127.0.0.1", "::1", "192.0.2.7"]
        );
    }

    #[test]
    fn the_name_that_people_write_is_one_that_was_given_and_never_made_up() {
        for (domain, bind, host) in [
            (&["example.org", "*.a.b"][..], "0.0.0.0", "example.org"),
            (&["*.a.b", "c.a.b"], "0.0.0.0", "c.a.b"),
            (&["*.a.b"], "0.0.0.0", "localhost"),
            (&["*.a.b"], "192.0.2.7", "192.0.2.7"),
            (&["2001:db8::1"], "::", "[2001:db8::1]"),
            (&[], "2001:db8::1", "[2001:db8::1]"),
            (&[], "127.0.0.1", "localhost"),
        ] {
            let options = Options {
                bind: vec![bind.parse().unwrap()],
                domain: domain.iter().map(|name| (*name).to_owned()).collect(),
                ..example()
            };
            assert_eq!(options.host().as_deref(), Some(host), "{domain:?} {bind}");
        }
    }

    #[test]
    fn a_masked_url_keeps_everything_but_the_password() {
        let cases = [
            ("postgresql://u:p@h:5/d", "postgresql://u@h:5/d"),
            (
                "postgresql://u:p:q@h/d?sslmode=disable",
                "postgresql://u@h/d?sslmode=disable",
            ),
            (
                "postgresql://u@h/d?password=x&a=b",
                "postgresql://u@h/d?a=b",
            ),
            ("postgresql://u@h/d?password=x", "postgresql://u@h/d"),
            ("postgresql:///d", "postgresql:///d"),
        ];
        for (url, masked) in cases {
            assert_eq!(mask_url(url), masked);
        }
    }
}
