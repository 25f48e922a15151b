//! A small HTTP/1.1 client for tests and drills: one request, one new connection, one answer read
//! to its end. A fresh connection each time on purpose: a kept-alive one can hide that nobody
//! listens any more. Nothing is followed, retried or decompressed, so what a test sees is what was
//! sent. Left out: TLS, HTTP/2 and HTTP/3, which come with the gateway's front.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
pub use hyper::Method;
use hyper::body::{Body, Bytes, Incoming};
use hyper::{HeaderMap, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::Error;

/// The longest body read: a whole list is about 25 MB.
pub const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The longest wait for a whole answer, unless [`Request::timeout`] says otherwise; more than the
/// contract's 20 s, so that a 504 is seen as such.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Where requests go: `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    authority: String,
}

impl Base {
    /// Takes `http://HOST:PORT` or `HOST:PORT`, with nothing after it; the port defaults to 80.
    ///
    /// # Errors
    /// [`Error::Url`] for anything else.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let (base, path) = split(url)?;
        if path == "/" {
            return Ok(base);
        }
        let (url, reason) = (url.to_owned(), format!("it has the path `{path}`"));
        Err(Error::Url { url, reason })
    }

    /// `HOST:PORT`, as in the `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Every address of the host, in the resolver's order.
    ///
    /// # Errors
    /// [`Error::Resolve`] when there is none.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        let failed = |source| Error::Resolve {
            authority: self.authority.clone(),
            source,
        };
        let found: Vec<SocketAddr> = tokio::net::lookup_host(&self.authority)
            .await
            .map_err(failed)?
            .collect();
        if found.is_empty() {
            return Err(failed(std::io::Error::other("no address")));
        }
        Ok(found)
    }
}

impl std::fmt::Display for Base {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "http://{}", self.authority)
    }
}

/// One request, built up and then sent.
#[derive(Clone, Debug)]
pub struct Request {
    url: String,
    method: Method,
    headers: Vec<(String, String)>,
    body: Bytes,
    timeout: Duration,
}

/// One answer, whole.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// From before the connection was opened to the first byte of the body (of the head, where the
    /// body is empty).
    pub first_byte: Duration,
    /// From before the connection was opened to the end of the body.
    pub total: Duration,
}

impl Request {
    /// `url` is whole: `http://HOST:PORT/PATH?QUERY`.
    pub fn new(method: Method, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            method,
            headers: Vec::new(),
            body: Bytes::new(),
            timeout: TIMEOUT,
        }
    }

    /// Adds one header; it is checked when the request is sent.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body as it is.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body and `Content-Type: application/json`.
    #[must_use]
    pub fn json(self, body: &serde_json::Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }

    /// Sets the longest wait for the whole answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends it once and reads the answer to its end.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Request`], [`Error::Resolve`] and [`Error::Connect`] before anything
    /// was sent; [`Error::Exchange`] when the connection broke, in mid-body too; [`Error::Timeout`];
    /// [`Error::BodyTooLarge`]. An answer of any status is no error.
    pub async fn send(self) -> Result<Response, Error> {
        let (base, path) = split(&self.url)?;
        let mut stage = "connect";
        let limit = self.timeout;
        let exchange = self.exchange(&base, &path, &mut stage);
        match tokio::time::timeout(limit, exchange).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                authority: base.authority,
                stage,
                limit,
            }),
        }
    }

    async fn exchange(
        self,
        base: &Base,
        path: &str,
        stage: &mut &'static str,
    ) -> Result<Response, Error> {
        let begun = Instant::now();
        let request = self.request(base, path)?;
        let addresses = base.resolve().await?;
        let stream = TcpStream::connect(addresses.as_slice())
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| Error::Connect {
                authority: base.authority.clone(),
                source,
            })?;
        let broken = |stage| {
            move |source| Error::Exchange {
                authority: base.authority.clone(),
                stage,
                source,
            }
        };
        *stage = "wait for the head";
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken(stage))?;
        // It ends by itself once `sender` and the body are gone.
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(broken(stage))?;
        let head_at = begun.elapsed();
        let (head, body) = answer.into_parts();
        *stage = "read the body";
        let (body, first_byte) = read(body, base, begun).await?;
        Ok(Response {
            status: head.status,
            headers: head.headers,
            body,
            first_byte: first_byte.unwrap_or(head_at),
            total: begun.elapsed(),
        })
    }

    fn request(self, base: &Base, path: &str) -> Result<hyper::Request<Full<Bytes>>, Error> {
        let mut request = hyper::Request::builder().method(self.method).uri(path);
        if !self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            request = request.header("host", base.authority());
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
            .body(Full::new(self.body))
            .map_err(|source| Error::Request {
                url: self.url,
                source,
            })
    }
}

impl Response {
    /// The body as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; none when it is not JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// One header as text, empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }
}

/// `GET url`.
///
/// # Errors
/// As [`Request::send`].
pub async fn get(url: &str) -> Result<Response, Error> {
    Request::new(Method::GET, url).send().await
}

/// A URL as where to and what: the base, and path with query.
fn split(url: &str) -> Result<(Base, String), Error> {
    let failed = |reason: &str| Error::Url {
        url: url.to_owned(),
        reason: reason.to_owned(),
    };
    let whole = match url.split_once("://") {
        Some(("http", _)) => url.to_owned(),
        Some((scheme, _)) => return Err(failed(&format!("`{scheme}` is not spoken here"))),
        None => format!("http://{url}"),
    };
    let uri: Uri = whole.parse().map_err(|_| failed("it is no URL"))?;
    let authority = uri.authority().ok_or_else(|| failed("it has no host"))?;
    let port = authority.port_u16().unwrap_or(80);
    let authority = format!("{}:{port}", authority.host());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((Base { authority }, path.to_owned()))
}

async fn read(
    mut body: Incoming,
    base: &Base,
    begun: Instant,
) -> Result<(Bytes, Option<Duration>), Error> {
    let mut first_byte = None;
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(announced.min(BODY_BYTES_MAX));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| Error::Exchange {
            authority: base.authority.clone(),
            stage: "read the body",
            source,
        })?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        first_byte = first_byte.or_else(|| Some(begun.elapsed()));
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(Error::BodyTooLarge {
                authority: base.authority.clone(),
                limit_bytes: BODY_BYTES_MAX,
            });
        }
        bytes.extend_from_slice(data);
    }
    Ok((bytes.into(), first_byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::{Answer, StandIn};

    #[tokio::test]
    async fn an_answer_is_read_whole_with_its_times() {
        let server = StandIn::start(|_| Answer::ok("pong"));
        let answer = get(&format!("{}/ping", server.base()))
            .await
            .expect("answered");
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.text(), "pong");
        assert_eq!(answer.header("bingo-node"), "stand-in");
        assert!(answer.first_byte <= answer.total);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_an_error_and_not_a_short_answer() {
        let server = StandIn::start(|_| Answer::ok("pong").cut_short());
        let error = get(&server.base()).await.expect_err("broken off");
        assert!(
            matches!(
                error,
                Error::Exchange {
                    stage: "read the body",
                    ..
                }
            ),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up_at_the_timeout_with_the_stage_named() {
        let server = StandIn::start(|_| Answer::ok("late").after(Duration::from_secs(5)));
        let request = Request::new(Method::GET, &server.base()).timeout(Duration::from_millis(50));
        let error = request.send().await.expect_err("too late");
        assert!(error.to_string().contains("(wait for the head)"), "{error}");
    }

    #[tokio::test]
    async fn nobody_listening_is_a_connect_error() {
        let gone = StandIn::start(|_| Answer::ok("")).base();
        let error = get(&gone).await.expect_err("refused");
        assert!(matches!(error, Error::Connect { .. }), "{error}");
    }

    #[test]
    fn a_base_is_scheme_host_and_port_only() {
        let spelled = |url| Base::parse(url).map(|base| base.to_string());
        assert_eq!(
            spelled("localhost:8080").expect("read"),
            "http://localhost:8080"
        );
        assert_eq!(
            spelled("http://[::1]:8080/").expect("read"),
            "http://[::1]:8080"
        );
        for wrong in [
            "https://localhost",
            "http://localhost/ping",
            "http://",
            "a b",
        ] {
            assert!(spelled(wrong).is_err(), "{wrong}");
        }
    }
}
