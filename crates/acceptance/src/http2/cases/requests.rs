//! How HTTP is carried (RFC 9113, section 8): pseudo-header fields, fields that may not be sent,
//! content and its length, trailers, CONNECT. A malformed request may be answered 400 or reset.

use super::super::connection::Seen;
use super::super::frame::{Code, flag, kind};
use super::super::hpack::Block;
use super::super::must::{Judgement, Must};
use super::super::script::{Fields, Script};
use super::{Case, case};

const OK: Must = Must::Answer(1, &[200]);
const REFUSE: Must = Must::Refuse(1);

pub(super) const CASES: &[Case] = &[
    case(
        "rfc9113-8.1-head-has-no-body",
        "an answer to HEAD has no body",
        |script| {
            let fields = script.get_fields().set(":method", "HEAD");
            script.request(1, &fields).ping(*b"theFence");
        },
        Must::That(no_body),
    ),
    case(
        "rfc9113-8.1-trailers-are-taken",
        "a request may end with trailers",
        |script| {
            let trailers = Block::default().plain("x-trailer", "1");
            script.post(1).post_body(1, flag::NONE).whole(1, trailers);
        },
        OK,
    ),
    case(
        "rfc9113-8.1-second-headers-without-the-end",
        "trailers without the end of the stream are malformed",
        |script| {
            let trailers = Block::default().plain("x-trailer", "1");
            script.post(1).post_body(1, flag::NONE);
            script.frame(kind::HEADERS, flag::END_HEADERS, 1, trailers.bytes());
        },
        REFUSE,
    ),
    case(
        "rfc9113-8.1-pseudo-header-in-trailers",
        "trailers have no pseudo-header",
        |script| {
            let trailers = Block::default().plain(":method", "POST");
            script.post(1).post_body(1, flag::NONE).whole(1, trailers);
        },
        REFUSE,
    ),
    case(
        "rfc9113-8.1.1-content-longer-than-its-length",
        "content over its content-length is malformed",
        |script| body_with_length(script, 0, -1),
        REFUSE,
    ),
    case(
        "rfc9113-8.1.1-content-shorter-than-its-length",
        "content under its content-length is malformed",
        |script| body_with_length(script, 0, 1),
        REFUSE,
    ),
    case(
        "rfc9113-8.1.1-content-in-pieces-longer-than-its-length",
        "content over its content-length, in two DATA, is malformed",
        |script| body_with_length(script, 1, 0),
        REFUSE,
    ),
    case(
        "rfc9113-8.1.1-content-of-its-length",
        "content of its content-length is taken",
        |script| body_with_length(script, 0, 0),
        OK,
    ),
    case(
        "rfc9113-8.1.1-length-without-content",
        "a content-length above 0 without content is malformed",
        |script| {
            let fields = script.post_fields().with("content-length", "5");
            script.request(1, &fields);
        },
        REFUSE,
    ),
    case(
        "rfc9113-8.1.1-two-lengths",
        "two content-lengths that differ are malformed",
        |script| {
            let length = script.post_body.len();
            let fields = script
                .post_fields()
                .with("content-length", length.to_string());
            script
                .head(1, &fields.with("content-length", "1"))
                .post_body(1, flag::END_STREAM);
        },
        REFUSE,
    ),
    case(
        "rfc9113-8.1.1-length-that-is-no-number",
        "a content-length that is no number is malformed",
        |script| {
            let fields = script.post_fields().with("content-length", "+5");
            script.head(1, &fields).post_body(1, flag::END_STREAM);
        },
        REFUSE,
    ),
    case(
        "rfc9113-8.2-uppercase-name",
        "a name in upper case is malformed",
        |script| with_field(script, "X-Upper", "1"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.1-name-with-space",
        "a name with a space is malformed",
        |script| with_field(script, "x space", "1"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.1-name-with-colon",
        "a name with a colon within it is malformed",
        |script| with_field(script, "x:colon", "1"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.1-name-with-control-character",
        "a name with a control character is malformed",
        |script| with_field(script, "x-\u{1}", "1"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.1-name-beyond-ascii",
        "a name with a byte over 0x7e is malformed",
        |script| with_field(script, "x-\u{e9}", "1"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.1-empty-name",
        "an empty name is malformed",
        |script| with_field(script, "", "1"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.1-value-with-nul",
        "a value with NUL is malformed",
        |script| with_field(script, "x-value", "a\0b"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.1-value-with-line-feed",
        "a value with a line feed is malformed",
        |script| with_field(script, "x-value", "a\nx-smuggled: 1"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.1-value-with-carriage-return",
        "a value with a carriage return is malformed",
        |script| with_field(script, "x-value", "a\rb"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.1-value-begins-with-space",
        "a value that begins with a space is malformed",
        |script| with_field(script, "x-value", " a"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.1-value-ends-with-tab",
        "a value that ends with a tab is malformed",
        |script| with_field(script, "x-value", "a\t"),
        REFUSE,
    ),
    case(
        "rfc9113-10.3-path-with-line-feed",
        "a line feed in the path reaches nobody",
        |script| with_set(script, ":path", "/\r\nx-smuggled: 1"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.2-connection",
        "connection is no field of HTTP/2",
        |script| with_field(script, "connection", "keep-alive"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.2-keep-alive",
        "keep-alive is no field of HTTP/2",
        |script| with_field(script, "keep-alive", "timeout=5"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.2-proxy-connection",
        "proxy-connection is no field of HTTP/2",
        |script| with_field(script, "proxy-connection", "keep-alive"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.2-transfer-encoding",
        "transfer-encoding is no field of HTTP/2",
        |script| {
            let fields = script.post_fields().with("transfer-encoding", "chunked");
            script.head(1, &fields).post_body(1, flag::END_STREAM);
        },
        REFUSE,
    ),
    case(
        "rfc9113-8.2.2-upgrade",
        "upgrade is no field of HTTP/2",
        |script| with_field(script, "upgrade", "h2c"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.2-te-other-than-trailers",
        "te says trailers or nothing",
        |script| with_field(script, "te", "gzip"),
        REFUSE,
    ),
    case(
        "rfc9113-8.2.2-te-trailers",
        "te: trailers is taken",
        |script| with_field(script, "te", "trailers"),
        OK,
    ),
    case(
        "rfc9113-8.2.3-cookie-in-crumbs",
        "a cookie may come in several fields",
        |script| {
            let fields = script
                .get_fields()
                .with("cookie", "a=1")
                .with("cookie", "b=2");
            script.request(1, &fields);
        },
        OK,
    ),
    case(
        "rfc9113-8.3-unknown-pseudo-header",
        "an unknown pseudo-header is malformed",
        |script| {
            let fields = script.get_fields().first(":unknown", "1");
            script.request(1, &fields);
        },
        REFUSE,
    ),
    case(
        "rfc9113-8.3-pseudo-header-of-an-answer",
        "a request has no :status",
        |script| {
            let fields = script.get_fields().first(":status", "200");
            script.request(1, &fields);
        },
        REFUSE,
    ),
    case(
        "rfc9113-8.3-pseudo-header-after-a-field",
        "pseudo-headers come before all other fields",
        |script| {
            let fields = script.get_fields().without(":path").with("x-first", "1");
            let fields = fields.with(":path", &script.get_path);
            script.request(1, &fields);
        },
        REFUSE,
    ),
    case(
        "rfc9113-8.3-two-methods",
        "a pseudo-header stands once: :method",
        |script| twice(script, ":method", "GET"),
        REFUSE,
    ),
    case(
        "rfc9113-8.3-two-paths",
        "a pseudo-header stands once: :path",
        |script| twice(script, ":path", "/other"),
        REFUSE,
    ),
    case(
        "rfc9113-8.3-two-schemes",
        "a pseudo-header stands once: :scheme",
        |script| twice(script, ":scheme", "https"),
        REFUSE,
    ),
    case(
        "rfc9113-8.3-two-authorities",
        "a pseudo-header stands once: :authority",
        |script| twice(script, ":authority", "other.example"),
        REFUSE,
    ),
    case(
        "rfc9113-8.3.1-no-method",
        "a request has a method",
        |script| without(script, ":method"),
        REFUSE,
    ),
    case(
        "rfc9113-8.3.1-no-scheme",
        "a request has a scheme",
        |script| without(script, ":scheme"),
        REFUSE,
    ),
    case(
        "rfc9113-8.3.1-no-path",
        "a request has a path",
        |script| without(script, ":path"),
        REFUSE,
    ),
    case(
        "rfc9113-8.3.1-empty-path",
        "a path is not empty",
        |script| with_set(script, ":path", ""),
        REFUSE,
    ),
    case(
        "rfc9113-8.3.1-path-without-slash",
        "a path begins with a slash",
        |script| with_set(script, ":path", "ping"),
        REFUSE,
    ),
    case(
        "rfc9113-8.3.1-host-instead-of-authority",
        "host may stand for the authority",
        |script| {
            let fields = script.get_fields().without(":authority");
            let fields = fields.with("host", &script.authority);
            script.request(1, &fields);
        },
        OK,
    ),
    case(
        "rfc9113-8.3.1-host-of-another-authority",
        "a host that differs from the authority should be refused",
        |script| with_field(script, "host", "other.example"),
        REFUSE,
    )
    .should(),
    case(
        "rfc9113-8.3.1-authority-with-user",
        "an authority names no user",
        |script| {
            let value = format!("user:secret@{}", script.authority);
            with_set(script, ":authority", &value);
        },
        REFUSE,
    )
    .should(),
    case(
        "rfc9113-8.5-connect-with-scheme-and-path",
        "CONNECT has neither scheme nor path",
        |script| with_set(script, ":method", "CONNECT"),
        REFUSE,
    ),
    case(
        "rfc9113-8.5-connect-is-not-served",
        "CONNECT to a server that is no tunnel gets an answer or a reset, never a 2xx",
        |script| {
            let fields = Fields::default().with(":method", "CONNECT");
            let fields = fields.with(":authority", &script.authority);
            script.head(1, &fields);
        },
        Must::That(no_tunnel),
    ),
    case(
        "rfc9113-8.7-refused-streams-leave-the-connection",
        "a malformed request leaves the connection to the others, or ends it",
        |script| {
            without(script, ":path");
            script.get(3);
        },
        Must::OneOf(&[
            Must::Answer(3, &[200]),
            Must::EndConnection(&[Code::PROTOCOL_ERROR]),
        ]),
    ),
    case(
        "rfc9113-10.5.1-head-beyond-measure",
        "a field block of 256 KiB is refused: 431, or an error",
        |script| {
            let block = script.get_fields().block();
            let block = (0..16).fold(block, |block, _| block.plain("x", vec![b'x'; 16_000]));
            let bytes = block.bytes();
            let last = bytes.len().div_ceil(16_000) - 1;
            for (at, piece) in bytes.chunks(16_000).enumerate() {
                let end = if at == last {
                    flag::END_HEADERS
                } else {
                    flag::NONE
                };
                if at == 0 {
                    script.frame(kind::HEADERS, flag::END_STREAM | end, 1, piece);
                } else {
                    script.frame(kind::CONTINUATION, end, 1, piece);
                }
            }
        },
        Must::That(head_refused),
    ),
];

/// A POST whose content-length is that of its body and `off` more, sent as the body once and
/// `again` more times.
fn body_with_length(script: &mut Script, again: usize, off: i64) {
    let length = i64::try_from(script.post_body.len()).unwrap_or_default() + off;
    let fields = script
        .post_fields()
        .with("content-length", length.to_string());
    script.head(1, &fields);
    for _ in 0..again {
        script.post_body(1, flag::NONE);
    }
    script.post_body(1, flag::END_STREAM);
}

fn with_field(script: &mut Script, name: &str, value: &str) {
    let fields = script.get_fields().with(name, value);
    script.request(1, &fields);
}

fn with_set(script: &mut Script, name: &str, value: &str) {
    let fields = script.get_fields().set(name, value);
    script.request(1, &fields);
}

fn twice(script: &mut Script, name: &str, value: &str) {
    let fields = script.get_fields().first(name, value);
    script.request(1, &fields);
}

fn without(script: &mut Script, name: &str) {
    let fields = script.get_fields().without(name);
    script.request(1, &fields);
}

fn no_body(seen: &Seen) -> Judgement {
    let answer = seen.answer(1);
    match (&seen.end, answer.body_bytes) {
        (_, 1..) => Judgement::Wrong(format!("{} bytes of body", answer.body_bytes)),
        _ if answer.ended && answer.status.is_some() => Judgement::Right("no body".to_owned()),
        (Some(end), _) => Judgement::Wrong(end.clone()),
        _ => Judgement::Open,
    }
}

fn no_tunnel(seen: &Seen) -> Judgement {
    let answer = seen.answer(1);
    match (answer.status, answer.reset, &seen.end) {
        (Some(status @ 200..=299), ..) => Judgement::Wrong(format!("status {status}")),
        (Some(status), ..) => Judgement::Right(format!("status {status}")),
        (None, Some(code), _) => Judgement::Right(format!("RST_STREAM({code})")),
        (None, None, Some(end)) => Judgement::Right(end.clone()),
        _ => Judgement::Open,
    }
}

fn head_refused(seen: &Seen) -> Judgement {
    let answer = seen.answer(1);
    match (answer.status, answer.reset, &seen.end) {
        (Some(status @ (400 | 413 | 431)), ..) => Judgement::Right(format!("status {status}")),
        (Some(status), ..) => Judgement::Wrong(format!("status {status}")),
        (None, Some(code), _) => Judgement::Right(format!("RST_STREAM({code})")),
        (None, None, Some(end)) => Judgement::Right(end.clone()),
        _ => Judgement::Open,
    }
}
