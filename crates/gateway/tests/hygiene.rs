//! What a node gets to see, byte by byte: each way of framing that two programs could read in two ways
//! is refused (400, and the connection closes) or forwarded in one form.

mod rig;

use rig::cases::{As, AsThenCloses, Case, ROUTES, Refused, SMUGGLED, holds};
use rig::{Gateway, Upstream, ok, raw};

const FRAMING: &[Case] = &[
    (
        "a plain request",
        "GET /x HTTP/1.1\nhost: a\n\n",
        As("GET /x HTTP/1.1|host: a", ""),
    ),
    (
        "a length",
        "POST /x HTTP/1.1\nhost: a\ncontent-length: 3\n\nabc",
        As("POST /x HTTP/1.1|host: a|content-length: 3", "abc"),
    ),
    (
        "chunks become a length",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3\nabc\n0\n\n",
        As("POST /x HTTP/1.1|host: a|content-length: 3", "abc"),
    ),
    (
        "chunked in capitals",
        "POST /x HTTP/1.1\nhost: a\nTransfer-Encoding: CHUNKED\n\n3\nabc\n0\n\n",
        As("POST /x HTTP/1.1|host: a|content-length: 3", "abc"),
    ),
    (
        "blanks around chunked",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: \t chunked \t\n\n3\nabc\n0\n\n",
        As("POST /x HTTP/1.1|host: a|content-length: 3", "abc"),
    ),
    (
        "a length and chunks",
        "POST /x HTTP/1.1\nhost: a\ncontent-length: 5\ntransfer-encoding: chunked\n\n0\n\n",
        AsThenCloses("POST /x HTTP/1.1|host: a", ""),
    ),
    (
        "chunks and a length",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\ncontent-length: 5\n\n0\n\n",
        AsThenCloses("POST /x HTTP/1.1|host: a", ""),
    ),
    (
        "two lengths that differ",
        "POST /x HTTP/1.1\nhost: a\ncontent-length: 3\ncontent-length: 4\n\nabcd",
        Refused,
    ),
    (
        "two lengths that agree",
        "POST /x HTTP/1.1\nhost: a\ncontent-length: 3\ncontent-length: 3\n\nabc",
        As("POST /x HTTP/1.1|host: a|content-length: 3", "abc"),
    ),
    (
        "a list of lengths",
        "POST /x HTTP/1.1\nhost: a\ncontent-length: 3, 3\n\nabc",
        Refused,
    ),
    (
        "a signed length",
        "POST /x HTTP/1.1\nhost: a\ncontent-length: +3\n\nabc",
        Refused,
    ),
    (
        "a negative length",
        "POST /x HTTP/1.1\nhost: a\ncontent-length: -3\n\nabc",
        Refused,
    ),
    (
        "a hexadecimal length",
        "POST /x HTTP/1.1\nhost: a\ncontent-length: 0x3\n\nabc",
        Refused,
    ),
    (
        "a length with an underscore",
        "POST /x HTTP/1.1\nhost: a\ncontent-length: 1_0\n\nabc",
        Refused,
    ),
    (
        "a length that is a float",
        "POST /x HTTP/1.1\nhost: a\ncontent-length: 3.0\n\nabc",
        Refused,
    ),
    (
        "a length of more than 64 bits",
        "POST /x HTTP/1.1\nhost: a\ncontent-length: 18446744073709551619\n\nabc",
        Refused,
    ),
    (
        "a length that is nothing",
        "POST /x HTTP/1.1\nhost: a\ncontent-length: \n\nabc",
        Refused,
    ),
    (
        "a coding before chunked",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: gzip, chunked\n\n0\n\n",
        Refused,
    ),
    (
        "a coding after chunked",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked, gzip\n\n0\n\n",
        Refused,
    ),
    (
        "chunked twice in a list",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked, chunked\n\n0\n\n",
        Refused,
    ),
    (
        "chunked twice in two fields",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\ntransfer-encoding: chunked\n\n0\n\n",
        Refused,
    ),
    (
        "identity after chunked",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\ntransfer-encoding: identity\n\n0\n\n",
        Refused,
    ),
    (
        "identity",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: identity\n\n",
        Refused,
    ),
    (
        "no known coding",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: xchunked\n\n0\n\n",
        Refused,
    ),
    (
        "a quoted coding",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: \"chunked\"\n\n0\n\n",
        Refused,
    ),
    (
        "a coding with a parameter",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked;q=1\n\n0\n\n",
        Refused,
    ),
    (
        "a coding that is nothing",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding:\n\n0\n\n",
        Refused,
    ),
    (
        "a vertical tab before chunked",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: \u{b}chunked\n\n0\n\n",
        Refused,
    ),
    (
        "a blank before the colon",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding : chunked\n\n0\n\n",
        Refused,
    ),
    (
        "a tab before the colon",
        "POST /x HTTP/1.1\nhost: a\ncontent-length\t: 3\n\nabc",
        Refused,
    ),
    (
        "a blank before the name",
        "GET /x HTTP/1.1\n host: a\n\n",
        Refused,
    ),
    (
        "a folded field",
        "POST /x HTTP/1.1\nhost: a\na: b\n transfer-encoding: chunked\n\n",
        Refused,
    ),
    (
        "a folded coding",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding:\n chunked\n\n0\n\n",
        Refused,
    ),
    (
        "a field without a colon",
        "GET /x HTTP/1.1\nhost: a\nnonsense\n\n",
        Refused,
    ),
    (
        "a field without a name",
        "GET /x HTTP/1.1\nhost: a\n: b\n\n",
        Refused,
    ),
    (
        "a name in brackets",
        "GET /x HTTP/1.1\nhost: a\n[a]: b\n\n",
        Refused,
    ),
    (
        "NUL in a value",
        "GET /x HTTP/1.1\nhost: a\na: b\0c\n\n",
        Refused,
    ),
    (
        "NUL in a name",
        "GET /x HTTP/1.1\nhost: a\na\0: b\n\n",
        Refused,
    ),
    (
        "NUL in the target",
        "GET /x\0 HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    (
        "CR in a value",
        "GET /x HTTP/1.1\nhost: a\na: b\rc: d\n\n",
        Refused,
    ),
    (
        "CR as a line end",
        "GET /x HTTP/1.1\nhost: a\rb: c\n\n",
        Refused,
    ),
    (
        "chunks in HTTP/1.0",
        "POST /x HTTP/1.0\nhost: a\ntransfer-encoding: chunked\n\n0\n\n",
        Refused,
    ),
    (
        "a version that is none",
        "GET /x HTTP/1.2\nhost: a\n\n",
        Refused,
    ),
    (
        "a version in small letters",
        "GET /x http/1.1\nhost: a\n\n",
        Refused,
    ),
    ("no version", "GET /x\nhost: a\n\n", Refused),
    (
        "a blank after the version",
        "GET /x HTTP/1.1 \nhost: a\n\n",
        Refused,
    ),
    (
        "two blanks before the target",
        "GET  /x HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    (
        "a method that is no token",
        "G=T /x HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
];

const CHUNKS: &[Case] = &[
    (
        "an extension is dropped",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3;a=b\nabc\n0;c\n\n",
        As("POST /x HTTP/1.1|host: a|content-length: 3", "abc"),
    ),
    (
        "zeros before a size",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n0003\nabc\n0\n\n",
        As("POST /x HTTP/1.1|host: a|content-length: 3", "abc"),
    ),
    (
        "a size with 0x",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n0x3\nabc\n0\n\n",
        Refused,
    ),
    (
        "a signed size",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n+3\nabc\n0\n\n",
        Refused,
    ),
    (
        "a size that is nothing",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n\nabc\n0\n\n",
        Refused,
    ),
    (
        "a size of more than 64 bits",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n10000000000000003\nabc\n0\n\n",
        Refused,
    ),
    (
        "a chunk that is longer than its size",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n2\nabc\n0\n\n",
        Refused,
    ),
    (
        "a bare LF after a size",
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\x0babc",
        Refused,
    ),
    (
        "a forbidden trailer is dropped",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3\nabc\n0\ncontent-length: 9\n\n",
        As("POST /x HTTP/1.1|host: a|content-length: 3", "abc"),
    ),
    (
        "a trailer that is no field",
        "POST /x HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n3\nabc\n0\nnonsense\n\n",
        Refused,
    ),
];

#[tokio::test]
async fn framing_has_one_reading() {
    holds(FRAMING).await;
}

#[tokio::test]
async fn chunks_have_one_reading() {
    holds(CHUNKS).await;
}

#[tokio::test]
async fn bare_line_feeds_are_refused_or_become_whole_line_ends() {
    for request in [
        "GET /x HTTP/1.1\nhost: a\n\n",
        "GET /x HTTP/1.1\r\nhost: a\nx-b: c\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: a\r\n\n",
    ] {
        let node = Upstream::start(|_| ok("fine")).await;
        let gateway = Gateway::start(&[&node], ROUTES);
        let answer = raw(gateway.address, request).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{request:?}: {answer}");
        let head = node.seen().remove(0).head;
        assert!(!head.replace("\r\n", "").contains('\n'), "{head:?}");
    }
    let chunked = "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in [
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r\n0\n\r\n",
    ] {
        let node = Upstream::start(|_| ok("fine")).await;
        let gateway = Gateway::start(&[&node], ROUTES);
        let answer = raw(gateway.address, format!("{chunked}{body}{SMUGGLED}")).await;
        let answer = answer.unwrap_or_default();
        assert!(answer.starts_with("HTTP/1.1 400"), "{body:?}: {answer}");
        assert!(node.seen().is_empty(), "{body:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_broken_off_never_reaches_a_node_whole() {
    let node = Upstream::start(|_| ok("fine")).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    for (path, end) in [
        ("/x", "3\r\nab"),
        ("/streamed", "3\r\nabc\r\n9\r\nzz\r\n0\r\n\r\n"),
        ("/streamed", "zz\r\n"),
    ] {
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{end}");
        let mut stream = tokio::net::TcpStream::connect(gateway.address)
            .await
            .unwrap();
        use tokio::io::AsyncWriteExt;
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{end:?}");
    }
    assert!(node.seen().is_empty());
}
