//! TLS for tests: one certificate of the process's own for localhost, and a client that trusts it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

struct Made {
    certificate: CertificateDer<'static>,
    server: Arc<ServerConfig>,
    quic: Arc<ServerConfig>,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut server = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut quic = server.clone();
        quic.alpn_protocols = vec![b"h3".to_vec()];
        Made {
            certificate,
            server: Arc::new(server),
            quic: Arc::new(quic),
        }
    })
}

/// What a gateway of the rig shows.
pub(crate) fn server() -> Arc<ServerConfig> {
    Arc::clone(&made().server)
}

/// The same for HTTP/3.
pub(crate) fn quic() -> Arc<ServerConfig> {
    Arc::clone(&made().quic)
}

/// Offers these protocols and trusts the gateway's certificate.
pub(crate) fn client(alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(made().certificate.clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    client
}

/// A handshake that offers these protocols; an error where the gateway ends it.
pub(crate) async fn connect(
    address: SocketAddr,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(client(alpn)))
        .connect(name, stream)
        .await
}
