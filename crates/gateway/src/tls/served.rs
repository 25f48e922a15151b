//! A certificate with its key, as handshakes use it, read from PEM and checked: that it parses, that
//! the key belongs to it, that it has a name and when it ends. Whether a chain leads to an authority
//! is asked of the same strict verifier that clients built on rustls use, so that what we would serve
//! is refused by us before it is refused by them. Left out: revocation, OCSP stapling.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::decision::{Seconds, Validity};
use super::settings::Name;

/// What one handshake needs, and what we must know about it.
pub(super) struct Served {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) names: BTreeSet<Name>,
    pub(super) validity: Validity,
    /// The files as read, to see when they change.
    pub(super) content: Content,
}

/// The bytes of the certificate's and of the key's file.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// What is wrong, with which of the two, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) of_key: bool,
    pub(super) why: String,
    pub(super) remedy: &'static str,
}

fn of_certificate(why: impl Into<String>, remedy: &'static str) -> Fault {
    Fault {
        of_key: false,
        why: why.into(),
        remedy,
    }
}

impl Served {
    pub(super) fn parse(content: Content, provider: &CryptoProvider) -> Result<Self, Fault> {
        let chain = chain(&content.certificate)?;
        let of_key = |why: String| Fault {
            of_key: true,
            why,
            remedy: "name a PEM file with a private key (PKCS#8, SEC1 or PKCS#1) without a passphrase",
        };
        let key = PrivateKeyDer::from_pem_slice(&content.key)
            .map_err(|error| of_key(format!("it holds no private key: {error}")))?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| of_key(format!("the key cannot be used: {error}")))?;
        let (names, validity) = facts(chain.first())?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|_| Fault {
            of_key: true,
            why: "the key belongs to another certificate".to_owned(),
            remedy: "name the key of that certificate; the server's own certificate stands first \
                     in its file",
        })?;
        Ok(Self {
            key: Arc::new(key),
            names,
            validity,
            content,
        })
    }

    /// Fails where a client of ours would refuse it for one of its names.
    pub(super) fn verify(
        &self,
        authority: &CertificateDer<'static>,
        provider: &Arc<CryptoProvider>,
        now: Seconds,
    ) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots
            .add(authority.clone())
            .map_err(|error| format!("the authority's certificate cannot be used: {error}"))?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| error.to_string())?;
        // A clock that stepped back must not make a good certificate look bad.
        let now = now.max(self.validity.not_before);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.unsigned_abs()));
        let (end, rest) = self
            .key
            .cert
            .split_first()
            .ok_or("there is no certificate")?;
        for name in &self.names {
            let example = match name {
                // A wildcard is no server's name: one that it stands for is.
                Name::Dns(text) => ServerName::try_from(text.replacen('*', "any", 1))
                    .map_err(|error| format!("{name}: {error}"))?,
                Name::Ip(address) => ServerName::from(*address),
            };
            verifier
                .verify_server_cert(end, rest, &example, &[], now)
                .map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let remedy = "name a PEM file with the server's certificate and those above it";
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| of_certificate(format!("it is broken: {error}"), remedy))?;
    match chain.is_empty() {
        true => Err(of_certificate("it holds no certificate", remedy)),
        false => Ok(chain),
    }
}

/// Names and validity of the first certificate of a chain.
fn facts(first: Option<&CertificateDer<'_>>) -> Result<(BTreeSet<Name>, Validity), Fault> {
    let remedy = "have it issued anew";
    let der = first.map(AsRef::as_ref).unwrap_or_default();
    let (_, parsed) = X509Certificate::from_der(der)
        .map_err(|error| of_certificate(format!("it is broken: {error}"), remedy))?;
    let validity = validity(&parsed);
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| of_certificate(format!("it is broken: {error}"), remedy))?
        .map(|extension| extension.value.general_names.iter().filter_map(name))
        .into_iter()
        .flatten()
        .collect::<BTreeSet<_>>();
    if names.is_empty() {
        let why = "it speaks for no server: it has no subjectAltName, the only place where clients \
                   look (RFC 9525)";
        return Err(of_certificate(why, remedy));
    }
    Ok((names, validity))
}

pub(super) fn validity(parsed: &X509Certificate<'_>) -> Validity {
    Validity {
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
    }
}

fn name(general: &GeneralName<'_>) -> Option<Name> {
    match general {
        GeneralName::DNSName(text) => Some(Name::Dns(text.to_ascii_lowercase())),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(|b| IpAddr::from(Ipv4Addr::from(b)));
            let six = <[u8; 16]>::try_from(*bytes).map(|b| IpAddr::from(Ipv6Addr::from(b)));
            four.or(six).ok().map(Name::Ip)
        }
        _ => None,
    }
}
