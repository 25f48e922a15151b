//! Encryption of the connections, as libpq's `sslmode` has it (PostgreSQL 34.19, "SSL Support"), on
//! rustls. What `disable`, `allow`, `prefer` and `require` promise is secrecy from who only listens;
//! `verify-ca` checks the chain, `verify-full` the name as well.
//!
//! As libpq does, a root certificate that is named makes `require` check the chain, and a server
//! certificate that stands itself among the roots is trusted. Left out: revocation lists, key files
//! with a passphrase, the common name where a certificate has no alternative names (RFC 9525 5.1).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{Error, PostgresCluster, SslMode};

const ROOT_KEY: &str = "postgres_cluster.ssl_root_cert";
const CERTIFICATE_KEY: &str = "postgres_cluster.ssl_cert";
const KEY_KEY: &str = "postgres_cluster.ssl_key";

/// What connections of this cluster are encrypted with. Errors: a file that is named, or that the
/// mode needs, cannot be read or holds no certificate or key.
pub(crate) fn connector(cluster: &PostgresCluster) -> Result<MakeRustlsConnect, Error> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".postgresql"));
    Ok(MakeRustlsConnect::new(client_config(
        cluster,
        home.as_deref(),
    )?))
}

/// Everything that is wrong with the files of this cluster, one error each.
pub(crate) fn faults(cluster: &PostgresCluster) -> Vec<Error> {
    let folder = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".postgresql"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut faults = Vec::new();
    faults.extend(ServerCheck::new(cluster, folder.as_deref(), provider).err());
    match own_files(cluster, folder.as_deref()) {
        Ok(None) => {}
        Ok(Some((certificate, key))) => {
            faults.extend(certificates(CERTIFICATE_KEY, &certificate).err());
            faults.extend(private_key(&key).err());
            if faults.is_empty() {
                // Each is good by itself; they may not belong together.
                faults.extend(client_config(cluster, folder.as_deref()).err());
            }
        }
        Err(fault) => faults.push(fault),
    }
    faults
}

/// `folder`: where the files are that no key names.
fn client_config(cluster: &PostgresCluster, folder: Option<&Path>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let check = ServerCheck::new(cluster, folder, provider.clone())?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::configuration("TLS", error.to_string(), "report this"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    match own_certificate(cluster, folder)? {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            Error::configuration(
                CERTIFICATE_KEY,
                error.to_string(),
                "name a certificate and the key that belongs to it",
            )
        }),
    }
}

/// Our own certificate and its key, where we have one.
type OwnCertificate = Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>;

fn own_certificate(
    cluster: &PostgresCluster,
    folder: Option<&Path>,
) -> Result<OwnCertificate, Error> {
    let Some((certificate, key)) = own_files(cluster, folder)? else {
        return Ok(None);
    };
    let private = private_key(&key)?;
    Ok(Some((
        certificates(CERTIFICATE_KEY, &certificate)?,
        private,
    )))
}

/// Both files of the configuration, or both of `~/.postgresql`, or none.
fn own_files(
    cluster: &PostgresCluster,
    folder: Option<&Path>,
) -> Result<Option<(PathBuf, PathBuf)>, Error> {
    if cluster.ssl_mode == SslMode::Disable {
        return Ok(None);
    }
    let default = |name| folder.map(|folder| folder.join(name));
    match (&cluster.ssl_cert, &cluster.ssl_key) {
        (None, None) => {
            let files = default("postgresql.crt").zip(default("postgresql.key"));
            Ok(files.filter(|(certificate, key)| certificate.exists() && key.exists()))
        }
        (Some(certificate), Some(key)) => Ok(Some((certificate.clone(), key.clone()))),
        (Some(_), None) => Err(Error::configuration(
            KEY_KEY,
            "ssl_cert is set and ssl_key is not",
            "name both or neither",
        )),
        (None, Some(_)) => Err(Error::configuration(
            CERTIFICATE_KEY,
            "ssl_key is set and ssl_cert is not",
            "name both or neither",
        )),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| unreadable(KEY_KEY, path, &error.to_string()))
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let all = read().map_err(|error| unreadable(key, path, &error.to_string()))?;
    match all.is_empty() {
        true => Err(unreadable(key, path, "it holds no certificate")),
        false => Ok(all),
    }
}

fn unreadable(key: &str, path: &Path, why: &str) -> Error {
    Error::configuration(
        key,
        format!("read {}: {why}", path.display()),
        "name a PEM file that this user may read",
    )
}

/// How the server's certificate is checked.
#[derive(Debug)]
struct ServerCheck {
    provider: Arc<CryptoProvider>,
    /// `None`: any certificate will do.
    chain: Option<Arc<WebPkiServerVerifier>>,
    roots: Vec<CertificateDer<'static>>,
    name: bool,
}

impl ServerCheck {
    fn new(
        cluster: &PostgresCluster,
        folder: Option<&Path>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let mut check = Self {
            provider,
            chain: None,
            roots: Vec::new(),
            name: cluster.ssl_mode == SslMode::VerifyFull,
        };
        let default = || folder.map(|folder| folder.join("root.crt"));
        let path = match (cluster.ssl_mode, &cluster.ssl_root_cert) {
            (SslMode::Disable | SslMode::Allow | SslMode::Prefer, _) => return Ok(check),
            (SslMode::Require, None) => return Ok(check),
            (_, Some(path)) => path.clone(),
            (SslMode::VerifyCa | SslMode::VerifyFull, None) => default().ok_or_else(|| {
                Error::configuration(
                    ROOT_KEY,
                    "the ssl_mode needs it, and without HOME there is no ~/.postgresql/root.crt",
                    "name a PEM file with the certificates that you trust",
                )
            })?,
        };
        check.roots = certificates(ROOT_KEY, &path)?;
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(check.roots.iter().cloned());
        if added == 0 {
            return Err(unreadable(ROOT_KEY, &path, "no certificate can be used"));
        }
        let chain =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), check.provider.clone());
        let chain = chain
            .build()
            .map_err(|error| unreadable(ROOT_KEY, &path, &error.to_string()))?;
        check.chain = Some(chain);
        Ok(check)
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::Error::InvalidCertificate;
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(server, intermediates, name, ocsp, now) {
            // The name is looked at last: all else was found good.
            Err(InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            // "An authority's certificate used as a server's": PostgreSQL's own instructions make
            // such a self-signed one. Its dates were looked at before that.
            Err(InvalidCertificate(CertificateError::Other(_))) if self.roots.contains(server) => {
                if self.name {
                    let parsed = ParsedCertificate::try_from(server)?;
                    rustls::client::verify_server_name(&parsed, name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(ssl_mode: SslMode) -> PostgresCluster {
        PostgresCluster {
            ssl_mode,
            ..PostgresCluster::default()
        }
    }

    #[test]
    fn a_mode_that_needs_no_file_needs_no_file() {
        for mode in [SslMode::Disable, SslMode::Allow, SslMode::Prefer] {
            assert!(client_config(&cluster(mode), None).is_ok());
        }
        assert!(client_config(&cluster(SslMode::Require), None).is_ok());
    }

    #[test]
    fn files_that_no_key_names_are_found_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["a".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let write = |name, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("root.crt", &pem);
        write("postgresql.crt", &pem);
        let full = cluster(SslMode::VerifyFull);
        let config = client_config(&full, Some(folder.path())).unwrap();
        assert!(!config.client_auth_cert_resolver.has_certs());
        write("postgresql.key", &key.serialize_pem());
        let config = client_config(&full, Some(folder.path())).unwrap();
        assert!(config.client_auth_cert_resolver.has_certs());
        let none = client_config(&cluster(SslMode::Disable), Some(folder.path())).unwrap();
        assert!(!none.client_auth_cert_resolver.has_certs());
    }

    #[test]
    fn a_missing_file_is_named_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let error = client_config(&cluster(SslMode::VerifyFull), Some(folder.path())).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(ROOT_KEY) && text.contains("root.crt"),
            "{text}"
        );
        let half = PostgresCluster {
            ssl_cert: Some("/nowhere.crt".into()),
            ..cluster(SslMode::Require)
        };
        let text = client_config(&half, None).unwrap_err().to_string();
        assert!(text.contains(KEY_KEY), "{text}");
        let empty = folder.path().join("empty.crt");
        std::fs::write(&empty, "").unwrap();
        let empty = PostgresCluster {
            ssl_root_cert: Some(empty),
            ..cluster(SslMode::VerifyCa)
        };
        let text = client_config(&empty, None).unwrap_err().to_string();
        assert!(text.contains("empty.crt"), "{text}");
    }
}
