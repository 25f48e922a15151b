//! Which protocol a client begins with: HTTP/2's preface (RFC 9113 section 3.4) or anything else.
//! What was read to find out is handed on with the stream. Own deadline, because hyper has none for
//! the preface (stack.md, trap 10).

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::stream::Transport;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Room for what comes first: as a rule a whole head.
const FIRST_BYTES: usize = 4096;

/// What a client began with.
#[derive(Debug)]
pub(super) struct First {
    pub(super) http2: bool,
    pub(super) bytes: Bytes,
}

/// Reads until it is clear which it is. Fails where the client closes or says nothing for `timeout`.
pub(super) async fn read(transport: &mut Transport, timeout: Duration) -> io::Result<First> {
    let mut bytes = BytesMut::new();
    let reading = async {
        loop {
            transport.readable().await?;
            bytes.reserve(FIRST_BYTES);
            if transport.read_buf(&mut bytes).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            if let Some(http2) = is_http2(&bytes) {
                return Ok(http2);
            }
        }
    };
    let http2 = tokio::time::timeout(timeout, reading)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(First {
        http2,
        bytes: bytes.freeze(),
    })
}

/// `None` while it could be either.
fn is_http2(bytes: &[u8]) -> Option<bool> {
    if bytes.len() >= PREFACE.len() {
        return Some(bytes.starts_with(PREFACE));
    }
    (!PREFACE.starts_with(bytes)).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_told_from_a_request_as_soon_as_they_differ() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"P", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(true)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Some(true)),
            (b"PO", Some(false)),
            (b"PRI * HTTP/1.1\r\n", Some(false)),
            (b"\r\n", Some(false)),
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Some(false)),
        ] {
            assert_eq!(is_http2(bytes), expected, "{bytes:?}");
        }
    }
}
