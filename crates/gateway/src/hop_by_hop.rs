//! Fields that belong to one connection and must not cross the gateway (RFC 9110 section 7.6.1).
//! A field that survives here is how requests are smuggled, so the rules stand alone with a table
//! of cases. `Trailer` goes too, because trailers are not passed on.

use http::header::{self, HeaderMap, HeaderName};

/// Always removed, whether `Connection` names them or not. `Proxy-Status` is not among them: it is
/// meant for the client (RFC 9209 section 2).
const ALWAYS: [HeaderName; 9] = [
    header::TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
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
    for name in &ALWAYS {
        headers.remove(name);
    }
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
        ("te and trailer", &["te: trailers", "trailer: x"], &[]),
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
}
