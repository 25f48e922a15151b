//! The own certificate authority: makes itself and issues certificates (X.509, RFC 5280). The key and
//! the certificate stand together in one file, so that no crash can leave a pair that does not
//! belong together; the certificate alone is published beside it, for import.
//!
//! Its certificate says, critically, for which names it may speak (nameConstraints): this machine, the
//! mDNS name and what was configured when it was made. Who imports it trusts it for these and not for
//! the rest of the web, even when its key is stolen. The price: a name that it may not speak for needs
//! a new authority, which must be imported anew.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::decision::{Seconds, Validity};
use super::served::{Content, validity};
use super::settings::{MDNS_NAME, Name};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

pub(super) struct Authority {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) validity: Validity,
    /// The certificate as PEM, for import.
    pub(super) pem: String,
    key: KeyPair,
}

impl Authority {
    /// The text of a new authority's file. `tag` tells authorities apart in a list of imported ones.
    pub(super) fn make(
        names: &BTreeSet<Name>,
        tag: &str,
        now: Seconds,
    ) -> Result<String, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        set_validity(&mut params, Validity::of_authority(now));
        params.distinguished_name = named(&format!("bingo authority {tag}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted(names),
            excluded_subtrees: Vec::new(),
        });
        let certificate = params.self_signed(&key)?;
        Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
    }

    /// Reads an authority's file; the error says why it cannot be used.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is no text".to_owned())?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| format!("it holds no private key: {error}"))?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|error| format!("its key cannot be used: {error}"))?;
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|error| format!("it holds no certificate: {error}"))?;
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|error| format!("its certificate is broken: {error}"))?;
        if !parsed.is_ca() {
            return Err("its certificate is not an authority's".to_owned());
        }
        if parsed.public_key().subject_public_key.data != key.public_key_raw() {
            return Err("its key belongs to another certificate".to_owned());
        }
        let begin = text.find(BEGIN).unwrap_or_default();
        let rest = text.get(begin..).unwrap_or_default();
        let end = rest.find(END).map_or(rest.len(), |at| at + END.len());
        let pem = format!("{}\n", rest.get(..end).unwrap_or_default());
        let validity = validity(&parsed);
        Ok(Self {
            certificate,
            validity,
            pem,
            key,
        })
    }

    /// A new certificate with its key for these names, as one PEM text that holds both.
    pub(super) fn issue(
        &self,
        names: &BTreeSet<Name>,
        now: Seconds,
    ) -> Result<Content, rcgen::Error> {
        let mut params = CertificateParams::default();
        set_validity(&mut params, Validity::of_certificate(now, self.validity));
        params.distinguished_name = named("bingo gateway");
        params.subject_alt_names = names
            .iter()
            .map(|name| {
                Ok(match name {
                    Name::Dns(text) => SanType::DnsName(text.as_str().try_into()?),
                    Name::Ip(address) => SanType::IpAddress(*address),
                })
            })
            .collect::<Result<_, rcgen::Error>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key)?;
        let certificate = params.signed_by(&key, &issuer)?;
        let both = format!("{}{}", key.serialize_pem(), certificate.pem()).into_bytes();
        Ok(Content {
            certificate: both.clone(),
            key: both,
        })
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "bingo");
    name.push(DnType::CommonName, common_name);
    name
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let time = |seconds: Seconds| {
        let since = Duration::from_secs(seconds.max(0).unsigned_abs());
        rcgen::date_time_ymd(1970, 1, 1) + since
    };
    params.not_before = time(validity.not_before);
    params.not_after = time(validity.not_after);
}

/// A form of name without any permitted subtree would be unconstrained (RFC 5280 4.2.1.10): there
/// is always one of DNS names and one of addresses.
fn permitted(names: &BTreeSet<Name>) -> Vec<GeneralSubtree> {
    let always = ["localhost", MDNS_NAME].map(|name| Name::Dns(name.to_owned()));
    let mut all: Vec<GeneralSubtree> = always
        .iter()
        .chain(names)
        .map(|name| match name {
            Name::Dns(text) => {
                GeneralSubtree::DnsName(text.strip_prefix("*.").unwrap_or(text).to_owned())
            }
            Name::Ip(address) => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, bits))
            }
        })
        .collect();
    let loopback = [
        CidrSubnet::from_addr_prefix(IpAddr::from(Ipv4Addr::new(127, 0, 0, 0)), 8),
        CidrSubnet::from_addr_prefix(IpAddr::from(Ipv6Addr::LOCALHOST), 128),
    ];
    all.extend(loopback.map(GeneralSubtree::IpAddress));
    let mut distinct = Vec::new();
    for subtree in all {
        if !distinct.contains(&subtree) {
            distinct.push(subtree);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::decision::DAY;
    use super::super::served::Served;
    use super::*;

    const NOW: Seconds = 1_800_000_000;

    fn names(list: &[&str]) -> BTreeSet<Name> {
        list.iter().map(|text| Name::parse(text).unwrap()).collect()
    }

    fn made(list: &[&str]) -> Authority {
        let text = Authority::make(&names(list), "test", NOW).unwrap();
        Authority::parse(text.as_bytes()).unwrap()
    }

    /// Issues for the names and asks the strict verifier at that time.
    fn verified(authority: &Authority, list: &[&str], at: Seconds) -> Result<(), String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let content = authority.issue(&names(list), NOW).unwrap();
        let served = Served::parse(content, &provider).unwrap();
        assert_eq!(served.names, names(list));
        served.verify(&authority.certificate, &provider, at)
    }

    #[test]
    fn a_strict_verifier_accepts_every_name_that_was_asked_for() {
        let all = [
            "localhost",
            "127.0.0.1",
            "::1",
            "example.org",
            "*.a.example",
            "192.0.2.1",
        ];
        let authority = made(&all);
        verified(&authority, &all, NOW).unwrap();
        verified(&authority, &all, NOW + 89 * DAY).unwrap();
        assert!(
            verified(&authority, &all, NOW + 91 * DAY)
                .unwrap_err()
                .contains("expired")
        );
        // Later names of this machine need no new authority.
        verified(
            &authority,
            &["bingo.local", "x.localhost", "127.0.0.9"],
            NOW,
        )
        .unwrap();
    }

    #[test]
    fn an_imported_authority_cannot_speak_for_the_rest_of_the_web() {
        let authority = made(&["localhost", "example.org"]);
        for other in [
            "example.com",
            "notlocalhost",
            "192.0.2.7",
            "2001:db8::1",
            "*.b.local",
        ] {
            let refused = verified(&authority, &[other], NOW).unwrap_err();
            assert!(refused.contains("NameConstraint"), "{other}: {refused}");
        }
        let other = made(&["localhost"]);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let content = other.issue(&names(&["localhost"]), NOW).unwrap();
        let served = Served::parse(content, &provider).unwrap();
        assert!(
            served
                .verify(&authority.certificate, &provider, NOW)
                .is_err()
        );
    }

    #[test]
    fn what_is_published_is_the_certificate_alone() {
        let authority = made(&["localhost"]);
        assert!(authority.pem.starts_with(BEGIN) && authority.pem.trim_end().ends_with(END));
        assert!(!authority.pem.contains("PRIVATE"));
    }

    #[test]
    fn a_broken_file_is_told_and_never_a_panic() {
        let text = Authority::make(&names(&["localhost"]), "test", NOW).unwrap();
        let other = Authority::make(&names(&["localhost"]), "test", NOW).unwrap();
        for end in 0..text.len() - 1 {
            assert!(Authority::parse(&text.as_bytes()[..end]).is_err(), "{end}");
        }
        let begin = text.find(BEGIN).unwrap();
        let mixed = format!("{}{}", &text[..begin], &other[other.find(BEGIN).unwrap()..]);
        let told = Authority::parse(mixed.as_bytes()).err().unwrap();
        assert!(told.contains("another certificate"), "{told}");
        let authority = Authority::parse(text.as_bytes()).unwrap();
        let leaf = authority.issue(&names(&["localhost"]), NOW).unwrap();
        let told = Authority::parse(&leaf.key).err().unwrap();
        assert!(told.contains("not an authority's"), "{told}");
        assert!(Authority::parse(&[0xff; 9]).is_err());
    }
}
