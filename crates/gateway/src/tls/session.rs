//! For tests: a TLS client of our own over a real loopback connection, to a server that echoes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
};

/// A client that is connected, and the thread that serves it.
pub(super) struct Session {
    pub(super) client: ClientConnection,
    stream: TcpStream,
    server: JoinHandle<()>,
}

impl Session {
    /// A handshake over a loopback connection, one byte each way.
    pub(super) fn open(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
    ) -> Result<Self, String> {
        let name = ServerName::try_from("localhost").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::clone(server);
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut tls = ServerConnection::new(config).unwrap();
            let mut tls = rustls::Stream::new(&mut tls, &mut stream);
            let mut byte = [0];
            // An error means that the client is gone.
            while tls.read_exact(&mut byte).is_ok() && tls.write_all(&byte).is_ok() {}
        });
        let mut session = Self {
            client: ClientConnection::new(Arc::clone(client), name).unwrap(),
            stream: TcpStream::connect(address).unwrap(),
            server,
        };
        match session.echo() {
            Ok(()) => Ok(session),
            Err(why) => Err(why.to_string()),
        }
    }

    pub(super) fn echo(&mut self) -> std::io::Result<()> {
        let mut tls = rustls::Stream::new(&mut self.client, &mut self.stream);
        tls.write_all(b"x")?;
        tls.read_exact(&mut [0])
    }

    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.client.peer_certificates().unwrap()[0]
            .clone()
            .into_owned()
    }

    pub(super) fn close(mut self) -> HandshakeKind {
        let kind = self.client.handshake_kind().unwrap();
        self.client.send_close_notify();
        let _ = self.client.write_tls(&mut self.stream);
        drop(self.stream);
        self.server.join().unwrap();
        kind
    }
}

/// Trusts the certificates in this PEM text and nothing else.
pub(super) fn client(pem: &[u8]) -> Arc<ClientConfig> {
    versions(pem, rustls::DEFAULT_VERSIONS)
}

pub(super) fn versions(
    pem: &[u8],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem) {
        roots.add(root.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    Arc::new(config)
}
