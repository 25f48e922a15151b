//! Fields that belong to one connection and must not cross the gateway (RFC 9110 section 7.6.1).
//! A field that survives here is how requests are smuggled, so the rules stand alone with a table
//! of cases. Trailers are passed on, less what has no business in them.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

/// Always removed, whether `Connection` names them or not. `Proxy-Status` is not among them: it is
/// meant for the client (RFC 9209 section 2).
const ALWAYS: [HeaderName; 8] = [
    header::TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::UPGRADE,
];

/// Never removed because `Connection` names them: without them the message means another thing.
const PROTECTED: [HeaderName; 2] = [header::HOST, header::CONTENT_LENGTH];

/// Removes the fields of this connection, in either direction.
pub(crate) fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named = named_by_connection(headers);
        headers.remove(header::CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    remove_all(headers, &ALWAYS);
    if headers.contains_key(header::TRAILER) {
        strip_announced(headers);
    }
}

/// Trailers that are not passed on are not announced either.
fn strip_announced(headers: &mut HeaderMap) {
    let names = headers.get_all(header::TRAILER).iter();
    let names = names.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names: Vec<String> = names
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(may_trail)
        .map(|name| name.as_str().to_owned())
        .collect();
    headers.remove(header::TRAILER);
    if let Ok(names) = HeaderValue::try_from(names.join(", "))
        && !names.is_empty()
    {
        headers.insert(header::TRAILER, names);
    }
}

/// Removes fields that nearly no message has: to look through the few names that it has costs less
/// than to look each of these up.
pub(crate) fn remove_all(headers: &mut HeaderMap, unwanted: &[HeaderName]) {
    if headers.keys().any(|name| unwanted.contains(name)) {
        for name in unwanted {
            headers.remove(name);
        }
    }
}

/// Whether the sender of these fields takes trailers (RFC 9110 section 10.1.4).
pub(crate) fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(header::TE).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// Says to the next one that this gateway takes trailers.
pub(crate) fn ask_for_trailers(headers: &mut HeaderMap) {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.append(header::CONNECTION, HeaderValue::from_static("te"));
}

/// Names the trailers that a body ends with, those that may be passed on: HTTP/1.1 sends no others.
pub(crate) fn announce(headers: &mut HeaderMap, trailers: &HeaderMap) {
    let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    headers.remove(header::TRAILER);
    if let Ok(names) = HeaderValue::try_from(names.join(", "))
        && !names.is_empty()
    {
        headers.insert(header::TRAILER, names);
    }
}

/// A frame of a body as it may be passed on.
pub(crate) fn passable(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strip_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Removes from trailers what frames, routes, authenticates or describes a message: those come at its
/// head or not at all (RFC 9110 section 6.5.1), and a program that merges both would be deceived.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    let forbidden: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| !may_trail(name))
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

fn may_trail(name: &HeaderName) -> bool {
    const HEAD_ONLY: [&str; 34] = [
        "accept",
        "age",
        "authorization",
        "cache-control",
        "connection",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "idempotency-key",
        "keep-alive",
        "location",
        "max-forwards",
        "pragma",
        "range",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "via",
        "www-authenticate",
        "x-real-ip",
        "x-request-id",
        "alt-svc",
        "origin",
        "referer",
        "warning",
        "strict-transport-security",
        "http2-settings",
    ];
    const HEAD_ONLY_FAMILIES: [&str; 7] = [
        "access-control-",
        "bingo-",
        "content-",
        "if-",
        "proxy-",
        "sec-",
        "x-forwarded-",
    ];
    let name = name.as_str().replace('_', "-");
    !HEAD_ONLY.contains(&name.as_str())
        && !HEAD_ONLY_FAMILIES
            .iter()
            .any(|family| name.starts_with(family))
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !PROTECTED.contains(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    /// Each case: what it is about, the fields before, the fields after.
    const CASES: &[(&str, &[&str], &[&str])] = &[
        (
            "nothing to strip",
            &["accept: a", "cookie: b"],
            &["accept: a", "cookie: b"],
        ),
        (
            "connection itself",
            &["connection: close", "a: 1"],
            &["a: 1"],
        ),
        (
            "announced trailers, those that pass",
            &["trailer: X-Sum, Content-Length", "trailer: x-two"],
            &["trailer: x-sum, x-two"],
        ),
        (
            "announced trailers of which none passes",
            &["trailer: set-cookie,, a b", "a: 1"],
            &["a: 1"],
        ),
        (
            "a named field",
            &["connection: x-one", "x-one: 1", "x-two: 2"],
            &["x-two: 2"],
        ),
        (
            "several named fields, blanks and capitals",
            &[
                "connection: X-One ,\tKEEP-ALIVE,x-two",
                "x-one: 1",
                "x-two: 2",
                "a: 1",
            ],
            &["a: 1"],
        ),
        (
            "two connection fields",
            &[
                "connection: x-one",
                "connection: x-two",
                "x-one: 1",
                "x-two: 2",
            ],
            &[],
        ),
        (
            "every occurrence of a named field",
            &["connection: x", "x: 1", "x: 2"],
            &[],
        ),
        (
            "garbage in connection",
            &["connection: ,, @@, x y,", "a: 1"],
            &["a: 1"],
        ),
        ("keep-alive unnamed", &["keep-alive: timeout=5"], &[]),
        ("transfer-encoding", &["transfer-encoding: chunked"], &[]),
        ("te", &["te: trailers"], &[]),
        ("trailers are announced", &["trailer: x"], &["trailer: x"]),
        (
            "upgrade",
            &["connection: upgrade", "upgrade: websocket"],
            &[],
        ),
        (
            "proxy fields",
            &[
                "proxy-connection: keep-alive",
                "proxy-authorization: x",
                "proxy-authenticate: y",
            ],
            &[],
        ),
        (
            "proxy-status is for the client",
            &["proxy-status: x"],
            &["proxy-status: x"],
        ),
        (
            "host and length cannot be named away",
            &[
                "connection: host, content-length",
                "host: a",
                "content-length: 3",
            ],
            &["host: a", "content-length: 3"],
        ),
    ];

    #[test]
    fn the_table_of_cases_holds() {
        for (about, before, after) in CASES {
            let mut headers = map(before);
            strip(&mut headers);
            assert_eq!(headers, map(after), "{about}");
        }
    }

    #[test]
    fn trailers_lose_what_belongs_to_a_head() {
        let mut trailers = map(&[
            "x-checksum: 1",
            "server-timing: a",
            "grpc-status: 0",
            "digest: a",
            "content-length: 5",
            "content_length: 5",
            "transfer-encoding: chunked",
            "host: a",
            "authorization: b",
            "set-cookie: c",
            "x-forwarded-for: d",
            "trailer: e",
            "if-match: f",
        ]);
        strip_trailers(&mut trailers);
        let left = [
            "x-checksum: 1",
            "server-timing: a",
            "grpc-status: 0",
            "digest: a",
        ];
        assert_eq!(trailers, map(&left));
    }

    #[test]
    fn who_takes_trailers_says_so_in_te() {
        for (fields, expected) in [
            (&["te: trailers"][..], true),
            (&["te: gzip;q=0.5, Trailers"], true),
            (&["te: gzip", "te: trailers"], true),
            (&["te: gzip"], false),
            (&["te: trailersx"], false),
            (&[], false),
        ] {
            assert_eq!(wants_trailers(&map(fields)), expected, "{fields:?}");
        }
    }
}
