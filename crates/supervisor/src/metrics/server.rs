//! `GET /metrics` of the supervisor, on loopback.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use chassis::Failure;
use chassis::seats::Seats;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::Source;
use crate::takeover::{Descriptors, Number};

/// Connections at once; beyond them a new one ends the oldest that is idle.
const CONNECTIONS_MAX: usize = 8;
/// What a connection may take as a whole: a scrape is one request.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The open listener.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
}

impl Server {
    /// Exit 64 where the address cannot be listened on.
    pub(crate) fn open(address: SocketAddr) -> Result<Self, Failure> {
        let opened = chassis::sockets::listen(address, false);
        let listener = opened.map_err(|error| {
            let help = chassis::sockets::remedy(&error, "metrics_listen");
            Failure::configuration(format!("listen on {address}"), error, help)
        })?;
        Ok(Self { listener })
    }

    /// Goes on with the listener of the program before.
    pub(crate) fn go_on(kept: Number) -> io::Result<Self> {
        let listener = TcpListener::from(kept.take()?);
        Ok(Self { listener })
    }

    /// What the next program goes on with.
    pub(crate) fn keep(&self, descriptors: &mut Descriptors) -> Number {
        descriptors.keep(&self.listener)
    }

    /// Where it is scraped.
    pub(crate) fn url(&self) -> Option<String> {
        let address = self.listener.local_addr().ok()?;
        Some(format!("http://{address}/metrics"))
    }

    /// Starts to serve; to be called inside a runtime.
    pub(crate) fn serve(&self, source: Source) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::spawn(accept(listener, source));
        Ok(())
    }
}

async fn accept(listener: tokio::net::TcpListener, source: Source) {
    let seats = Seats::new(CONNECTIONS_MAX);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let source = source.clone();
        let seat = seats.take();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let (source, busy) = (&source, seat.busy());
                async move {
                    let answer = answer(source, request).await;
                    drop(busy);
                    Ok::<_, Infallible>(answer)
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = tokio::time::timeout(CONNECTION_MAX, connection) => {}
                () = seat.given_up() => {}
            }
        });
    }
}

async fn answer(source: &Source, request: Request<Incoming>) -> Response<String> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, text) = match request.uri().path() {
        "/metrics" if is_read => {
            let accept = request.headers().get(ACCEPT);
            let accept = accept.and_then(|value| value.to_str().ok());
            let text = source.scrape().await;
            let (kind, text) = chassis::metrics::in_format(text, accept);
            (StatusCode::OK, kind, text)
        }
        "/metrics" => {
            let text = "this path takes GET\n".to_owned();
            (StatusCode::METHOD_NOT_ALLOWED, "text/plain", text)
        }
        _ => {
            let text = "there is /metrics\n".to_owned();
            (StatusCode::NOT_FOUND, "text/plain", text)
        }
    };
    let mut answer = Response::new(text);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
