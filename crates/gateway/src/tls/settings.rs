//! The section `tls` of `gateway.yaml` as valid: either an own authority in a folder, or a certificate
//! from files. What the files hold is looked at when they are opened, not here.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustls::pki_types::DnsName;

use crate::config::Tls;
use crate::faults::Faults;

/// The name that mDNS gives to an installation (RFC 6762).
pub(crate) const MDNS_NAME: &str = "bingo.local";
const DEFAULT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Each name makes the certificate longer, which every handshake carries.
const NAMES_MAX: usize = 100;

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValidTls {
    Authority {
        folder: PathBuf,
        names: BTreeSet<Name>,
        mdns: bool,
    },
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
}

impl ValidTls {
    /// Where to announce that, and whether.
    pub(crate) fn announces(&self) -> Option<&Path> {
        match self {
            Self::Authority { folder, mdns, .. } => mdns.then_some(folder.as_path()),
            Self::Files { .. } => None,
        }
    }
}

impl fmt::Display for ValidTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority {
                folder,
                names,
                mdns,
            } => {
                let names: Vec<String> = names.iter().map(Name::to_string).collect();
                let (folder, names) = (folder.display(), names.join(", "));
                write!(f, "folder {folder}, names {names}, mdns {mdns}")
            }
            Self::Files { certificate, key } => {
                let (certificate, key) = (certificate.display(), key.display());
                write!(f, "certificate {certificate}, key {key}")
            }
        }
    }
}

/// What a certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// In lower case; a first label `*` stands for any one label.
    Dns(String),
    Ip(IpAddr),
}

impl Name {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return (!address.is_unspecified()).then_some(Self::Ip(address));
        }
        let plain = text.strip_prefix("*.").unwrap_or(text);
        // Clients take no wildcard for a whole top-level domain (RFC 6125 7.2).
        let narrow = plain == text || plain.contains('.');
        let good = narrow && DnsName::try_from(plain).is_ok() && !plain.ends_with('.');
        // Of digits and dots alone it is an address that was mistyped.
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let numeric = plain.rsplit('.').next().is_some_and(is_number);
        (good && !numeric).then(|| Self::Dns(text.to_ascii_lowercase()))
    }
}

/// Whether a certificate can speak for it: a DNS name, `*.` and one, or an IP address.
pub fn is_server_name(text: &str) -> bool {
    Name::parse(text).is_some()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// `None` where a fault was told.
pub(crate) fn valid(tls: &Tls, faults: &mut Faults) -> Option<ValidTls> {
    let Tls {
        folder,
        names,
        certificate,
        key,
        mdns,
    } = tls;
    match (folder, certificate, key) {
        (Some(folder), None, None) => Some(ValidTls::Authority {
            folder: path(folder, "tls.folder", faults)?,
            names: all_names(names.as_deref(), *mdns, faults)?,
            mdns: *mdns,
        }),
        (None, Some(certificate), Some(key)) => {
            if names.is_some() {
                let why = "the names are those of the certificate in tls.certificate";
                faults.add("tls.names", "[..]", why, "leave it out");
            }
            if *mdns {
                let why = "bingo.local is put into certificates of the own authority only";
                faults.add("tls.mdns", true, why, "name tls.folder instead of files");
            }
            Some(ValidTls::Files {
                certificate: path(certificate, "tls.certificate", faults)?,
                key: path(key, "tls.key", faults)?,
            })
        }
        (None, Some(_), None) | (None, None, Some(_)) => {
            let missing = if key.is_none() {
                "tls.key"
            } else {
                "tls.certificate"
            };
            let why = "a certificate serves only together with its key";
            faults.add(missing, "nothing", why, "name both files");
            None
        }
        (None, None, None) => {
            let why = "it says not where the certificate comes from";
            let remedy = "name a folder for an own authority, or certificate and key";
            faults.add("tls", "{}", why, remedy);
            None
        }
        (Some(_), _, _) => {
            let why = "it names an own authority and files as well";
            let remedy = "keep either folder (and names), or certificate and key";
            faults.add("tls", "{folder, certificate, key}", why, remedy);
            None
        }
    }
}

fn path(text: &str, key: &str, faults: &mut Faults) -> Option<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        faults.add(key, format!("{text:?}"), "it is no path", "name a path");
        return None;
    }
    Some(PathBuf::from(text))
}

fn all_names(names: Option<&[String]>, mdns: bool, faults: &mut Faults) -> Option<BTreeSet<Name>> {
    let defaults = DEFAULT_NAMES.map(str::to_owned);
    let names = names.unwrap_or(&defaults);
    let mut good = true;
    if names.is_empty() || names.len() > NAMES_MAX {
        let why = "a certificate needs a name, and few enough to be sent with each handshake";
        let remedy = format!("name 1 to {NAMES_MAX}, or leave the key out");
        faults.add("tls.names", format!("{} names", names.len()), why, &remedy);
        good = false;
    }
    let mut all = BTreeSet::new();
    for text in names {
        match Name::parse(text) {
            Some(name) => drop(all.insert(name)),
            None => {
                let remedy = "write names like example.org or *.example.org (xn--… for other \
                              alphabets) and addresses like 192.0.2.1 or 2001:db8::1";
                let why = "it is neither a DNS name nor an IP address of a server";
                faults.add("tls.names", text, why, remedy);
                good = false;
            }
        }
    }
    if mdns {
        all.insert(Name::Dns(MDNS_NAME.to_owned()));
    }
    good.then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<ValidTls, String> {
        let tls: Tls = chassis::config::from_yaml("test", yaml).unwrap();
        let mut faults = Faults::default();
        let valid = valid(&tls, &mut faults);
        match chassis::Failure::all(faults.0.iter().map(|fault| fault.failure("test"))) {
            None => Ok(valid.unwrap()),
            Some(failure) => Err(failure.to_string()),
        }
    }

    fn names(tls: &ValidTls) -> Vec<String> {
        match tls {
            ValidTls::Authority { names, .. } => names.iter().map(Name::to_string).collect(),
            ValidTls::Files { .. } => Vec::new(),
        }
    }

    #[test]
    fn an_authority_speaks_for_this_machine_unless_told_otherwise() {
        let tls = read("folder: /x").unwrap();
        assert_eq!(names(&tls), ["localhost", "127.0.0.1", "::1"]);
        assert!(tls.announces().is_none());
        let tls = read("{folder: /x, mdns: true, names: [Example.ORG, '*.a.b', 192.0.2.1]}");
        let tls = tls.unwrap();
        assert_eq!(
            names(&tls),
            ["*.a.b", "bingo.local", "example.org", "192.0.2.1"]
        );
        assert_eq!(tls.announces(), Some(Path::new("/x")));
    }

    #[test]
    fn both_kinds_or_neither_or_half_of_one_are_faults_with_remedies() {
        for (yaml, told) in [
            ("{}", "name a folder for an own authority"),
            ("names: [a]", "name a folder for an own authority"),
            ("{folder: /x, certificate: c, key: k}", "keep either folder"),
            ("certificate: c", "tls.key: `nothing`"),
            ("key: k", "tls.certificate: `nothing`"),
            ("{certificate: c, key: k, names: [a]}", "leave it out"),
            ("{certificate: c, key: k, mdns: true}", "tls.mdns"),
            ("{folder: ''}", "it is no path"),
            ("{folder: /x, names: []}", "0 names"),
            ("{folder: /x, names: [0.0.0.0]}", "tls.names: `0.0.0.0`"),
            ("{folder: /x, names: [1.2.3.400]}", "1.2.3.400"),
            ("{folder: /x, names: ['*.local']}", "*.local"),
            ("{folder: /x, names: ['a b', 'мир.рф', 'a.*.b']}", "a.*.b"),
        ] {
            let text = read(yaml).unwrap_err();
            assert!(text.contains(told), "{yaml}: {text}");
            assert!(text.contains("help: "), "{text}");
        }
        assert!(read("{certificate: c, key: k}").is_ok());
    }
}
