//! A bounded GET of another process's admin listener: one connection each, a deadline, a limit on the
//! answer. No pool: it is asked once a second over loopback or a local network.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Below the second after which it is asked again.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(800);

/// The body of a 200; else why there is none, for people.
pub(crate) async fn get(
    authority: &str,
    path: &str,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Bytes, String> {
    let asking = ask(authority, path, bytes_max);
    match tokio::time::timeout(timeout, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
    }
}

async fn ask(authority: &str, path: &str, bytes_max: usize) -> Result<Bytes, String> {
    let stream = TcpStream::connect(authority).await;
    let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let _ended = Ended(connection.abort_handle());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| format!("no answer: {error}"))?;
    if answer.status() != StatusCode::OK {
        return Err(format!("it answers {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), bytes_max).collect().await;
    let body = body.map_err(|error| format!("its answer broke off: {error}"))?;
    Ok(body.to_bytes())
}

/// Ends the connection with the request, however that ends.
struct Ended(tokio::task::AbortHandle);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}
