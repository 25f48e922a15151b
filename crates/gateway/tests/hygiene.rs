//! What a node gets to see, byte by byte: each way of framing or naming that two programs could read
//! in two ways is refused (400, and the connection closes) or forwarded in one form.

mod rig;

use rig::{Gateway, Upstream, ok, raw};

const ROUTES: &str = "
threads: 1
probe: {interval: 20ms}
limits: {head_timeout: 500ms}
routes:
- {methods: [GET, POST, OPTIONS], path: /x, deadline: 5s}
- {methods: [POST], path: /streamed, deadline: 5s, body_bytes_max: 1MiB}
";

/// Fields that the gateway adds to every request; other tests look at them.
const ADDED: [&str; 7] = [
    "forwarded: ",
    "x-forwarded-for: ",
    "x-forwarded-proto: ",
    "x-forwarded-host: ",
    "via: ",
    "x-request-id: ",
    "bingo-timeout-ms: ",
];

/// What a second, smuggled request would be.
const SMUGGLED: &str = "GET /x?smuggled HTTP/1.1\r\nhost: b\r\n\r\n";

/// How a case must end.
#[derive(Clone, Copy, Debug)]
enum Ends {
    /// 400, and the connection closes; no node sees anything.
    Refused,
    /// A node sees this head (less what the gateway adds; lines joined by `|`) and this body, and the
    /// connection goes on or closes.
    As(&'static str, &'static str),
    /// The same, and the connection closes, whatever the client wanted.
    AsThenCloses(&'static str, &'static str),
}
use Ends::{As, AsThenCloses, Refused};

/// What the case is about, and the bytes: a line end in the table is CR LF on the wire.
type Case = (&'static str, &'static str, Ends);

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

const TARGETS: &[Case] = &[
    (
        "an absolute target overrules Host",
        "GET http://b/x?q HTTP/1.1\nhost: a\n\n",
        As("GET /x?q HTTP/1.1|host: b", ""),
    ),
    (
        "an absolute target and two Hosts",
        "GET http://b/x HTTP/1.1\nhost: a\nhost: c\n\n",
        Refused,
    ),
    (
        "an absolute target of another scheme",
        "GET ftp://a/x HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    (
        "user information in the target",
        "GET http://u@a/x HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    ("no Host", "GET /x HTTP/1.1\n\n", Refused),
    (
        "two Hosts",
        "GET /x HTTP/1.1\nhost: a\nhost: b\n\n",
        Refused,
    ),
    (
        "two Hosts that agree",
        "GET /x HTTP/1.1\nhost: a\nhost: a\n\n",
        Refused,
    ),
    (
        "a Host with user information",
        "GET /x HTTP/1.1\nhost: u@a\n\n",
        Refused,
    ),
    (
        "a Host with a path",
        "GET /x HTTP/1.1\nhost: a/b\n\n",
        Refused,
    ),
    (
        "a Host of two words",
        "GET /x HTTP/1.1\nhost: a b\n\n",
        Refused,
    ),
    (
        "a list of Hosts",
        "GET /x HTTP/1.1\nhost: a, b\n\n",
        Refused,
    ),
    (
        "CONNECT",
        "CONNECT a:443 HTTP/1.1\nhost: a:443\n\n",
        Refused,
    ),
    (
        "a target that begins with two slashes is another path",
        "GET //x HTTP/1.1\nhost: a\n\n",
        NO_ROUTE,
    ),
    (
        "a target without a slash",
        "GET x HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    (
        "a star without OPTIONS",
        "GET * HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    (
        "a tab in the target",
        "GET /x\t HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    (
        "bytes above ASCII in the target",
        "GET /x?\u{e9} HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    (
        "a fragment is dropped",
        "GET /x?q#f HTTP/1.1\nhost: a\n\n",
        As("GET /x?q HTTP/1.1|host: a", ""),
    ),
];

/// 404 at the gateway: the head is empty.
const NO_ROUTE: Ends = As("", "");

const FIELDS: &[Case] = &[
    (
        "what Connection names",
        "GET /x HTTP/1.1\nhost: a\nconnection: x-a, keep-alive\nx-a: 1\nx-b: 2\n\n",
        As("GET /x HTTP/1.1|host: a|x-b: 2", ""),
    ),
    (
        "Connection cannot name the length away",
        "POST /x HTTP/1.1\nhost: a\nconnection: content-length, host\ncontent-length: 3\n\nabc",
        As("POST /x HTTP/1.1|host: a|content-length: 3", "abc"),
    ),
    (
        "Connection cannot name the gateway's fields away",
        "GET /x HTTP/1.1\nhost: a\nconnection: x-forwarded-for, forwarded\n\n",
        As("GET /x HTTP/1.1|host: a", ""),
    ),
    (
        "fields of the connection",
        "GET /x HTTP/1.1\nhost: a\nkeep-alive: 5\nproxy-connection: close\nproxy-authorization: b\nte: gzip\nupgrade: h2c\nhttp2-settings: AAA\n\n",
        As("GET /x HTTP/1.1|host: a|http2-settings: AAA", ""),
    ),
    (
        "TE is made anew",
        "GET /x HTTP/1.1\nhost: a\nconnection: te\nte: deflate, trailers;q=0.5, trailers\n\n",
        As("GET /x HTTP/1.1|host: a|te: trailers|connection: te", ""),
    ),
    (
        "imitations",
        "GET /x HTTP/1.1\nhost: a\ncontent_length: 5\ntransfer_encoding: chunked\nx_forwarded_for: 1\nX_Forwarded-Proto: 1\napi_key: 2\n\n",
        As("GET /x HTTP/1.1|host: a|api_key: 2", ""),
    ),
    (
        "fields that the gateway vouches for",
        "GET /x HTTP/1.1\nhost: a\nx-real-ip: 1\nx-forwarded-port: 2\nx-forwarded-ssl: on\n\n",
        As("GET /x HTTP/1.1|host: a", ""),
    ),
    (
        "an expectation",
        "POST /x HTTP/1.1\nhost: a\nexpect: 100-continue\ncontent-length: 3\n\nabc",
        As("POST /x HTTP/1.1|host: a|content-length: 3", "abc"),
    ),
    (
        "names in capitals and blanks around values",
        "GET /x HTTP/1.1\nHOST:a\nX-A:  \t b c \t\n\n",
        As("GET /x HTTP/1.1|host: a|x-a: b c", ""),
    ),
    (
        "an empty line before the request",
        "\nGET /x HTTP/1.1\nhost: a\n\n",
        As("GET /x HTTP/1.1|host: a", ""),
    ),
    (
        "Upgrade without Connection",
        "GET /x HTTP/1.1\nhost: a\nupgrade: websocket\n\n",
        As("GET /x HTTP/1.1|host: a", ""),
    ),
    (
        "h2c is not passed on",
        "GET /x HTTP/1.1\nhost: a\nconnection: upgrade, http2-settings\nupgrade: h2c\nhttp2-settings: AAA\n\n",
        As("GET /x HTTP/1.1|host: a", ""),
    ),
];

/// Sends each case with a second request behind it and looks at what came of both.
async fn holds(cases: &[Case]) {
    for (about, request, ends) in cases {
        let node = Upstream::start(|_| ok("fine")).await;
        let gateway = Gateway::start(&[&node], ROUTES);
        let request = request.replace("\r\n", "\n").replace('\n', "\r\n");
        let answer = raw(gateway.address, format!("{request}{SMUGGLED}")).await;
        // A reset is how an answer can be lost to a client that goes on sending: never a 200.
        let answer = answer.unwrap_or_default();
        let seen = node.seen();
        let (first, then) = match ends {
            Refused => {
                assert!(
                    answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"),
                    "{about}: {answer}"
                );
                assert_eq!(answer.matches("HTTP/1.").count(), 1, "{about}: {answer}");
                assert!(seen.is_empty(), "{about}: {seen:?}");
                continue;
            }
            As(head, body) => ((head, body), true),
            AsThenCloses(head, body) => ((head, body), false),
        };
        let mut seen = seen.iter();
        if !first.0.is_empty() {
            let one = seen.next().unwrap_or_else(|| panic!("{about}: {answer}"));
            assert_eq!(canonical(&one.head), *first.0, "{about}");
            assert_eq!(one.body, first.1.as_bytes(), "{about}");
            assert!(one.trailers.is_empty(), "{about}");
        }
        let second: Vec<_> = seen.map(|one| one.target.as_str()).collect();
        let expected: &[&str] = if then { &["/x?smuggled"] } else { &[] };
        assert_eq!(second, expected, "{about}: {answer}");
    }
}

/// The head less what the gateway adds, its lines joined by `|`.
fn canonical(head: &str) -> String {
    let lines = head.trim_end().split("\r\n");
    let own = lines.filter(|line| !ADDED.iter().any(|added| line.starts_with(added)));
    own.collect::<Vec<_>>().join("|")
}

#[tokio::test]
async fn framing_has_one_reading() {
    holds(FRAMING).await;
}

#[tokio::test]
async fn chunks_have_one_reading() {
    holds(CHUNKS).await;
}

#[tokio::test]
async fn a_target_and_a_host_have_one_reading() {
    holds(TARGETS).await;
}

#[tokio::test]
async fn fields_of_a_connection_and_imitations_end_at_the_gateway() {
    holds(FIELDS).await;
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
