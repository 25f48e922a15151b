//! A closed loop of GETs over HTTP/3, for `bench/gateway`: `http3_load URL [--connections N]
//! [--streams N] [--seconds N]` prints `{"requests": …, "failed": …}`. Each stream of each connection
//! asks again as soon as its answer has ended. It believes any certificate: it is for a gateway that
//! the caller has just started.
//!
//! An example, because no load generator in Debian speaks HTTP/3 and the product needs none.

use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Uri};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

type Failed = Box<dyn Error + Send + Sync>;
type Sender = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

struct Arguments {
    uri: Uri,
    connections: u64,
    streams: u64,
    seconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let arguments = arguments()?;
    let until = Instant::now() + Duration::from_secs(arguments.seconds);
    let port = arguments.uri.port_u16().unwrap_or(443);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    endpoint.set_default_client_config(client()?);
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..arguments.connections {
        let connection = endpoint.connect(address, "localhost")?.await?;
        let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        for _ in 0..arguments.streams {
            streams.spawn(ask(sender.clone(), arguments.uri.clone(), until));
        }
    }
    let (mut requests, mut failed) = (0, 0);
    while let Some(done) = streams.join_next().await {
        let (right, wrong) = done?;
        requests += right;
        failed += wrong;
    }
    let mut out = std::io::stdout();
    writeln!(out, "{{\"requests\": {requests}, \"failed\": {failed}}}")?;
    Ok(())
}

/// Asks one after the other until `until`; returns how many were answered 200 and how many not.
async fn ask(mut sender: Sender, uri: Uri, until: Instant) -> (u64, u64) {
    let (mut right, mut wrong) = (0, 0);
    while Instant::now() < until {
        match once(&mut sender, &uri).await {
            Ok(true) => right += 1,
            _ => wrong += 1,
        }
    }
    (right, wrong)
}

async fn once(sender: &mut Sender, uri: &Uri) -> Result<bool, Failed> {
    let mut stream = sender.send_request(Request::get(uri).body(())?).await?;
    stream.finish().await?;
    let status = stream.recv_response().await?.status();
    while stream.recv_data().await?.is_some() {}
    Ok(status == 200)
}

fn arguments() -> Result<Arguments, Failed> {
    let mut words = std::env::args().skip(1);
    let uri = words.next().ok_or("which URL?")?.parse()?;
    let mut arguments = Arguments {
        uri,
        connections: 8,
        streams: 8,
        seconds: 5,
    };
    while let Some(flag) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| format!("{flag} wants a number"))?;
        match flag.as_str() {
            "--connections" => arguments.connections = value.parse()?,
            "--streams" => arguments.streams = value.parse()?,
            "--seconds" => arguments.seconds = value.parse()?,
            _ => return Err(format!("there is no flag {flag}").into()),
        }
    }
    Ok(arguments)
}

fn client() -> Result<quinn::ClientConfig, Failed> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let quic = QuicClientConfig::try_from(tls)?;
    Ok(quinn::ClientConfig::new(Arc::new(quic)))
}

/// Believes any certificate.
#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
