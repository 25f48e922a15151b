//! A client's connection as hyper writes to it, with two things that hyper has no place for.
//!
//! A request that hyper itself refuses (400 for a broken head, 431 for a large one, 414 for a long
//! address) it answers with a bare status, before any code of ours. Such an answer is recognised on
//! its way out, for it lacks the request id that all of ours have, and is given the headers and the
//! problem that every other error has.
//!
//! And a client that takes its answer too slowly is broken off (`pace`): the write fails, hyper
//! closes the connection, and a body in chunks stays without its final one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::app::App;
use crate::error::Problem;
use crate::pace::Pace;

/// What an answer to a request that was never understood begins with.
const REFUSED: &[u8] = b"HTTP/1.1 4";
/// Every answer of ours has it.
const OURS: &[u8] = b"x-request-id: ";

/// A client's connection.
pub(crate) struct ClientStream {
    app: Arc<App>,
    stream: TcpStream,
    pace: Pace,
    /// Runs while the client takes nothing.
    impatience: Option<Pin<Box<Sleep>>>,
    /// An answer in place of hyper's, and how much of it was written.
    instead: Option<(Vec<u8>, usize)>,
}

impl ClientStream {
    pub(crate) fn new(app: Arc<App>, stream: TcpStream) -> Self {
        let limits = &app.config.limits;
        Self {
            pace: Pace::new(limits.receive_rate_min, limits.stall_timeout),
            app,
            stream,
            impatience: None,
            instead: None,
        }
    }

    /// Settles what a write came to: time for a client that takes nothing, credit for one that does.
    fn paced(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Pending => {
                let end = self.pace.blocked(Instant::now());
                let sleep = self
                    .impatience
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end.into())));
                ready!(sleep.as_mut().poll(context));
                self.app.metrics.limit_hit("receive_rate_min");
                Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client took its answer too slowly",
                )))
            }
            Poll::Ready(result) => {
                self.impatience = None;
                if let Ok(bytes) = &result {
                    self.pace.took(*bytes, Instant::now());
                }
                Poll::Ready(result)
            }
        }
    }

    /// Writes the answer that stands for one of `bytes` bytes of hyper's.
    fn write_instead(
        &mut self,
        context: &mut Context<'_>,
        bytes: usize,
    ) -> Poll<io::Result<usize>> {
        while let Some((text, written)) = &mut self.instead {
            let rest = text.get(*written..).unwrap_or_default();
            if rest.is_empty() {
                self.instead = None;
                break;
            }
            let result = Pin::new(&mut self.stream).poll_write(context, rest);
            if let Poll::Ready(Ok(more)) = &result {
                *written += more;
            }
            ready!(self.paced(context, result))?;
        }
        Poll::Ready(Ok(bytes))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_none() {
            let Some(problem) = refusal(bytes) else {
                let result = Pin::new(&mut this.stream).poll_write(context, bytes);
                return this.paced(context, result);
            };
            tracing::debug!(status = problem.status.as_u16(), "a head was refused");
            this.instead = Some((answer(&problem), 0));
        }
        this.write_instead(context, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = parts.iter().find(|part| !part.is_empty());
        let first = first.map_or(&[][..], |part| part);
        if self.instead.is_some() || refusal(first).is_some() {
            return self.poll_write(context, first);
        }
        let this = &mut *self;
        let result = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.paced(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The problem that a bare answer of hyper's stands for; `None` for bytes of any other kind.
fn refusal(bytes: &[u8]) -> Option<Problem> {
    if !bytes.starts_with(REFUSED) || !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    if bytes.windows(OURS.len()).any(|window| window == OURS) {
        return None;
    }
    let code = bytes.get(REFUSED.len() - 1..REFUSED.len() + 2)?;
    let status = StatusCode::from_bytes(code).ok()?;
    Some(Problem::of_status(status))
}

/// A whole answer. No path was understood, so its `instance` is the `*` of RFC 9112 section 3.2.4.
fn answer(problem: &Problem) -> Vec<u8> {
    let body = problem.to_json("*");
    let status = problem.status.as_u16();
    let reason = problem.status.canonical_reason().unwrap_or_default();
    let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
    let id = uuid::Uuid::now_v7();
    let length = body.len();
    let mut answer = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/problem+json\r\n\
         cache-control: no-store\r\nx-request-id: {id}\r\nconnection: close\r\n\
         content-length: {length}\r\ndate: {now}\r\n\r\n"
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_refusal_is_recognised() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                     content-length: 0\r\n\r\n";
        assert_eq!(
            refusal(bare).map(|problem| problem.status.as_u16()),
            Some(431)
        );
        for other in [
            &b"HTTP/1.1 404 Not Found\r\nx-request-id: 1\r\ncontent-length: 2\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 431",
            b"",
        ] {
            assert_eq!(refusal(other), None);
        }
    }
}
