//! A client's connection as hyper reads and writes it: plain or TLS, beginning with the bytes that
//! were read to learn which protocol it is. What hyper has no place for is done on the way: floods of
//! HTTP/2 are metered, bare refusals of HTTP/1.1 replaced, its slow readers given up. An enum and not a type parameter: hyper is
//! large, and one copy of it for each protocol is enough.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::flood::Meter;
use super::refused;
use super::taking::Taking;
use crate::worker::Shared;

/// What carries the bytes.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Waits for something to read, as far as it can be told without a buffer to read into.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.readable().await,
            Self::Tls(_) => Ok(()),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct ClientStream {
    transport: Transport,
    /// Read already, and to be read again.
    first: Bytes,
    spoken: Spoken,
    stall_timeout: Duration,
    shared: Arc<Shared>,
}

/// What is done on the way.
#[derive(Debug)]
enum Spoken {
    /// An answer in place of hyper's, and how much of it was written.
    Http1 {
        instead: Option<(Vec<u8>, usize)>,
        taking: Taking,
    },
    Http2 {
        meter: Meter,
    },
}

impl ClientStream {
    pub(super) fn http1(
        transport: Transport,
        first: Bytes,
        stall_timeout: Duration,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            transport,
            first,
            spoken: Spoken::Http1 {
                instead: None,
                taking: Taking::new(stall_timeout),
            },
            stall_timeout,
            shared,
        }
    }

    pub(super) fn http2(
        transport: Transport,
        first: Bytes,
        meter: Meter,
        stall_timeout: Duration,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            transport,
            first,
            spoken: Spoken::Http2 { meter },
            stall_timeout,
            shared,
        }
    }

    /// Lets the connection end by a reset, so that its end is not taken for an answer's.
    pub(super) fn end_in_disorder(&self) {
        // An error means that it has ended already.
        let _ = self.transport.tcp().set_zero_linger();
    }
}

impl ClientStream {
    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Spoken::Http2 { meter } = &mut self.spoken
            && let Err(limit) = meter.came(bytes, Instant::now())
        {
            self.shared.metrics.limit_hit(limit);
            return Err(io::Error::other(limit));
        }
        Ok(())
    }

    /// Looks at what came of writing; a client that takes too little is given up.
    fn went<T: Copy>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        bytes: impl Fn(T) -> usize,
    ) -> Poll<io::Result<T>> {
        match (&mut self.spoken, &written) {
            (Spoken::Http1 { taking, .. }, Poll::Ready(Ok(done))) => taking.took(bytes(*done)),
            (Spoken::Http1 { taking, .. }, Poll::Pending) => {
                ready!(taking.waits(context));
                self.shared.metrics.limit_hit("client_stall_timeout");
                // Nothing of it is worth keeping in the kernel.
                self.end_in_disorder();
                let why = "the client takes too little";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            (Spoken::Http2 { meter }, Poll::Ready(Ok(done))) => meter.went(bytes(*done)),
            (_, Poll::Ready(Err(error))) => self.note(error),
            (Spoken::Http2 { .. }, Poll::Pending) => {}
        }
        written
    }

    /// The kernel has given the client up, and says so once.
    fn note(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::TimedOut {
            self.shared.metrics.limit_hit("client_stall_timeout");
        }
    }

    /// Writes the answer that stands for one of `bytes` bytes of hyper's.
    fn write_instead(
        &mut self,
        context: &mut Context<'_>,
        bytes: usize,
    ) -> Poll<io::Result<usize>> {
        if let Spoken::Http1 { instead, .. } = &mut self.spoken {
            while let Some((answer, written)) = instead {
                let rest = answer.get(*written..).unwrap_or_default();
                if rest.is_empty() {
                    *instead = None;
                    break;
                }
                *written += ready!(Pin::new(&mut self.transport).poll_write(context, rest))?;
            }
        }
        Poll::Ready(Ok(bytes))
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        // What the client has not taken yet, nobody watches any more; the kernel would keep it for
        // minutes. An error means that nothing is left.
        let socket = SockRef::from(self.transport.tcp());
        let _ = socket.set_tcp_user_timeout(Some(self.stall_timeout));
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if this.first.is_empty() {
            ready!(Pin::new(&mut this.transport).poll_read(context, buffer))
                .inspect_err(|error| this.note(error))?;
        } else {
            let length = this.first.len().min(buffer.remaining());
            buffer.put_slice(this.first.get(..length).unwrap_or_default());
            this.first.advance(length);
            if this.first.is_empty() {
                // Its memory would stay for as long as the connection.
                this.first = Bytes::new();
            }
        }
        Poll::Ready(this.came(buffer.filled().get(before..).unwrap_or_default()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Spoken::Http1 { instead, .. } = &mut this.spoken {
            if instead.is_none() {
                *instead = refused::instead(bytes).map(|answer| (answer, 0));
            }
            if instead.is_some() {
                return this.write_instead(context, bytes.len());
            }
        }
        let written = Pin::new(&mut this.transport).poll_write(context, bytes);
        this.went(context, written, |bytes| bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = parts {
            return self.poll_write(context, only);
        }
        let this = &mut *self;
        let written = Pin::new(&mut this.transport).poll_write_vectored(context, parts);
        this.went(context, written, |bytes| bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = Pin::new(&mut this.transport).poll_flush(context);
        this.went(context, flushed, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
