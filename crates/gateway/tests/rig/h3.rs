//! A client of HTTP/3: quinn and h3, as the gateway, so what it shows is that both halves fit; an
//! independent client is among the suites.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use h3::client::{RequestStream, SendRequest};
use h3::error::StreamError;
use http::{HeaderMap, Request, Response};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, TransportConfig};
use tokio::task::JoinHandle;

use super::Answer;

type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// One connection of HTTP/3.
pub(crate) struct Client {
    pub(crate) sender: SendRequest<h3_quinn::OpenStreams, Bytes>,
    pub(crate) connection: Connection,
    /// Ends with the connection, saying why.
    pub(crate) ended: JoinHandle<h3::error::ConnectionError>,
    pub(crate) endpoint: Endpoint,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    /// An error where the gateway refuses the connection.
    pub(crate) async fn try_connect(address: SocketAddr) -> Result<Self, quinn::ConnectionError> {
        Self::with(address, TransportConfig::default()).await
    }

    /// One whose windows and timers are the test's.
    pub(crate) async fn with(
        address: SocketAddr,
        transport: TransportConfig,
    ) -> Result<Self, quinn::ConnectionError> {
        let endpoint = endpoint(transport);
        let connection = endpoint.connect(address, "localhost").unwrap().await?;
        let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(connection.clone()))
            .await
            .unwrap();
        let ended =
            tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(Self {
            sender,
            connection,
            ended,
            endpoint,
        })
    }

    /// Sends a head; what follows is the test's.
    pub(crate) async fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Stream, StreamError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://test.example{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender.send_request(request.body(()).unwrap()).await
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, StreamError> {
        let mut stream = self.begin(method, path, headers).await?;
        if !body.is_empty() {
            stream.send_data(Bytes::from(body.to_owned())).await?;
        }
        stream.finish().await?;
        let (answer, _) = read(&mut stream).await?;
        Ok(answer)
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await.unwrap()
    }
}

/// Where connections begin.
pub(crate) fn endpoint(transport: TransportConfig) -> Endpoint {
    let config = QuicClientConfig::try_from(super::tls::client(&["h3"])).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(config));
    config.transport_config(Arc::new(transport));
    let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

/// A whole answer and its trailers.
pub(crate) async fn read(stream: &mut Stream) -> Result<(Answer, HeaderMap), StreamError> {
    let (head, ()): (_, ()) = Response::into_parts(stream.recv_response().await?);
    let mut body = BytesMut::new();
    while let Some(mut data) = stream.recv_data().await? {
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    let trailers = stream.recv_trailers().await?.unwrap_or_default();
    let answer = Answer {
        status: head.status,
        headers: head.headers,
        body: body.freeze(),
    };
    Ok((answer, trailers))
}
