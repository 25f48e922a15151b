//! Tells whether a pooler (PgBouncer in transaction mode and its kind) stands between us and the
//! server. Behind one, consecutive statements may reach different server sessions, so prepared
//! statements and session settings must not be used: a statement of the same name that another client
//! prepared would be run in the place of ours.
//!
//! A server's cancellation key holds the number of the process that serves the connection (PostgreSQL
//! 55.2.9, "Canceling Requests in Progress"); a pooler makes up keys of its own. The driver shows the
//! key to nobody, but writes it into the request to cancel: we let it write into memory. To wait for
//! an error instead would be too late, it may never come.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{Client, Error as DriverError, SimpleQueryMessage};

/// CancelRequest: its length, its code, the process, the secret.
const REQUEST_BYTES: usize = 16;
const BUFFER_BYTES: usize = 64;

/// True unless the process that the key names is the one that answers. One round trip.
pub(crate) async fn is_pooled(client: &Client) -> Result<bool, DriverError> {
    let answers = client.simple_query("SELECT pg_backend_pid()").await?;
    let backend = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten()?.parse::<i32>().ok(),
        _ => None,
    });
    Ok(backend.is_none() || backend != process_of_key(client).await)
}

async fn process_of_key(client: &Client) -> Option<i32> {
    let (ours, mut theirs) = tokio::io::duplex(BUFFER_BYTES);
    // The answer to a request for encryption, should the driver begin with one.
    theirs.write_all(b"S").await.ok()?;
    let token = client.cancel_token();
    token.cancel_query_raw(Memory(ours), InMemory).await.ok()?;
    let mut written = Vec::new();
    theirs.read_to_end(&mut written).await.ok()?;
    let request = written.get(written.len().checked_sub(REQUEST_BYTES)?..)?;
    Some(i32::from_be_bytes(request.get(8..12)?.try_into().ok()?))
}

/// A connection that leads nowhere.
struct Memory(DuplexStream);

/// "Encrypts" it by leaving it as it is.
struct InMemory;

impl TlsConnect<Memory> for InMemory {
    type Stream = Memory;
    type Error = io::Error;
    type Future = Ready<io::Result<Memory>>;

    fn connect(self, stream: Memory) -> Self::Future {
        ready(Ok(stream))
    }
}

impl TlsStream for Memory {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Memory {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
