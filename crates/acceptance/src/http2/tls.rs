//! TLS of the judge: one authority is trusted, names are verified, `h2` alone is offered.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Whom to trust.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Trusts the authorities of a PEM file.
    ///
    /// # Errors
    /// What was wrong with which file.
    pub fn trusting(authority: &Path) -> Result<Self, String> {
        let failed = |why: String| format!("read authorities from {}: {why}", authority.display());
        let mut roots = RootCertStore::empty();
        let found = CertificateDer::pem_file_iter(authority);
        for certificate in found.map_err(|error| failed(error.to_string()))? {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            let added = roots.add(certificate);
            added.map_err(|error| failed(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(failed("no certificate in it".to_owned()));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| failed(error.to_string()))?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    pub(super) async fn connect(
        &self,
        authority: &str,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let failed = |why: String| format!("TLS with {authority}: {why}");
        let name = ServerName::try_from(host(authority).to_owned());
        let name = name.map_err(|error| failed(error.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.0));
        let stream = connector.connect(name, tcp).await;
        let stream = stream.map_err(|error| failed(error.to_string()))?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            return Ok(stream);
        }
        Err(failed("the server chose no h2 (RFC 9113, 3.2)".to_owned()))
    }
}

/// The host of an authority, without port and brackets.
fn host(authority: &str) -> &str {
    match authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((address, _)) => address,
        None => authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host),
    }
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn a_host_is_named_without_its_port() {
        assert_eq!(host("localhost:8443"), "localhost");
        assert_eq!(host("localhost"), "localhost");
        assert_eq!(host("[::1]:8443"), "::1");
    }
}
