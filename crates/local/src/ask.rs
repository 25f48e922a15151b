//! One HTTP request to a loopback port of ours and its whole answer (RFC 9112), without an HTTP
//! library: every process of ours answers with a length, and this asks a few times in a call of the
//! command. It blocks; it knows no chunks, redirects or TLS.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// To connect, and for each read and write.
const PATIENCE: Duration = Duration::from_secs(2);
/// The metrics of a gateway with many nodes are some hundred KiB.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// `GET path`.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    exchange(address, &format!("GET {path} HTTP/1.1\r\n"))
}

/// `POST path` without a body, as the holder of `token`.
pub(crate) fn post(address: SocketAddr, path: &str, token: &str) -> io::Result<Answer> {
    let head =
        format!("POST {path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n");
    exchange(address, &head)
}

fn exchange(address: SocketAddr, head: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("{head}Host: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    parse(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| io::Error::other("the answer is no whole HTTP"))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    // Cut short is no answer.
    length
        .is_none_or(|length| body.len() >= length)
        .then(|| Answer {
            status,
            body: body.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_none() {
        let answer = parse("HTTP/1.1 409 Conflict\r\ncontent-length: 3\r\n\r\nabc").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (409, "abc"));
        assert!(parse("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc").is_none());
        assert!(parse("HTTP/1.1 200 OK\r\nContent-Le").is_none());
        assert!(parse("SSH-2.0-x\r\n\r\n").is_none());
    }
}
