//! What the cache does with a request and an answer, apart from freshness (`freshness`). Pure.
//!
//! The key is the path and query as the client wrote them, byte by byte, before any rewriting, and
//! the fields that the answer's `Vary` names. Scheme and `Host` are not in it: a gateway has one
//! service behind it, whatever name it is called by (localhost, an address, bingo.local), and a
//! stranger who makes names up must not fill the store nor have each of them refreshed. What makes
//! that safe is that nothing of them reaches a node either: the cache asks in the gateway's own name,
//! with the node's address as `Host` and without the client's `Forwarded` fields. An answer that
//! varies with a field that was not sent on is not stored.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

/// What may be done for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Served from the cache; where it has nothing, the answer is fetched for everybody.
    Use,
    /// Served from the cache; where it has nothing, the request goes on by itself: HEAD, because its
    /// answer has no body to store, and `no-store`, which forbids storing (RFC 9111 section 5.2.1.5).
    Look,
    /// Not for the cache: another method; a body or an upgrade, which are in no key.
    Pass,
}

/// A client's `no-cache`, `max-age`, `min-fresh` and `Pragma` count for nothing: any reload button
/// would send a request of seconds to a node (RFC 9111 section 5.2.1 lets a cache decide).
pub(crate) fn treatment(method: &Method, headers: &HeaderMap, bare: bool) -> Treatment {
    if !bare {
        Treatment::Pass
    } else if method == Method::HEAD {
        Treatment::Look
    } else if method != Method::GET {
        Treatment::Pass
    } else if names_directive(headers, "no-store") {
        Treatment::Look
    } else {
        Treatment::Use
    }
}

/// The client takes nothing but a stored answer (RFC 9111 section 5.2.1.7).
pub(crate) fn only_if_cached(headers: &HeaderMap) -> bool {
    names_directive(headers, "only-if-cached")
}

fn names_directive(headers: &HeaderMap, name: &str) -> bool {
    headers.contains_key(header::CACHE_CONTROL)
        && members(headers, &header::CACHE_CONTROL).any(|member| {
            let directive = member.split('=').next().unwrap_or(member);
            directive.trim().eq_ignore_ascii_case(name)
        })
}

/// Fields of a client's request that a fetch does not carry: whose request it is, what the client
/// has already, which part it wants, and what it thinks of caches.
const NOT_SENT: [HeaderName; 13] = [
    header::HOST,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
    header::CACHE_CONTROL,
    header::PRAGMA,
];

/// The end-to-end fields of a client's request, as a fetch sends them; hop-by-hop ones are gone
/// already.
pub(crate) fn fetch_headers(mut headers: HeaderMap) -> HeaderMap {
    for name in &NOT_SENT {
        headers.remove(name);
    }
    let forwarded: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-forwarded-"))
        .cloned()
        .collect();
    for name in forwarded {
        headers.remove(name);
    }
    headers
}

/// The fields that an answer was chosen by (RFC 9110 section 12.5.5); `None` where no key could hold
/// them.
pub(crate) fn vary(answer: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for member in members(answer, &header::VARY) {
        let name = HeaderName::from_bytes(member.as_bytes()).ok()?;
        // `*` is a header name to the parser as well.
        if member == "*" || NOT_SENT.contains(&name) || name.as_str().starts_with("x-forwarded-") {
            return None;
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let readable = answer
        .get_all(header::VARY)
        .iter()
        .all(|value| value.to_str().is_ok());
    readable.then_some(names)
}

/// Whether an answer that was chosen by the fields `names` of `stored` is the one for `request`.
pub(crate) fn selects(names: &[HeaderName], stored: &HeaderMap, request: &HeaderMap) -> bool {
    names
        .iter()
        .all(|name| stored.get_all(name).iter().eq(request.get_all(name).iter()))
}

/// Whether an answer of this kind is kept at all. 200 alone: errors never, and a redirect or a part
/// would have to be understood. One that sets a cookie is meant for one client, whatever it says.
pub(crate) fn keeps(status: StatusCode, answer: &HeaderMap) -> bool {
    status == StatusCode::OK
        && !answer.contains_key(header::SET_COOKIE)
        && !answer.contains_key(header::CONTENT_RANGE)
}

/// Whether the answer to a fetch may be given to the client whose request began it, when it cannot be
/// stored. A redirect may name the host that it was asked under, which was not the client's.
pub(crate) fn hands_over(status: StatusCode) -> bool {
    !status.is_redirection()
}

/// What is stored of an answer's fields: not those that each answer gets anew. Hop-by-hop ones are
/// gone already.
pub(crate) fn stored_headers(mut headers: HeaderMap, etag: &HeaderValue) -> HeaderMap {
    for name in [
        header::DATE,
        header::AGE,
        header::CONTENT_LENGTH,
        header::TRAILER,
        crate::request_id::NAME,
        HeaderName::from_static("bingo-node"),
        HeaderName::from_static("bingo-state"),
    ] {
        headers.remove(name);
    }
    headers.insert(header::ETAG, etag.clone());
    headers
}

/// Whether the client has the answer already: `If-None-Match` by weak comparison (RFC 9110 sections
/// 8.8.3.2 and 13.1.2).
pub(crate) fn not_modified(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let strong = |tag: &'static str, text: &str| text.strip_prefix(tag).map(str::to_owned);
    let opaque = |text: &str| strong("W/", text).unwrap_or_else(|| text.to_owned());
    let Ok(own) = etag.to_str() else {
        return false;
    };
    let own = opaque(own);
    request.contains_key(header::IF_NONE_MATCH)
        && members(request, &header::IF_NONE_MATCH).any(|tag| tag == "*" || opaque(tag) == own)
}

/// The fields of a 304 (RFC 9110 section 15.4.5), of those stored.
pub(crate) fn not_modified_headers(stored: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    for name in [
        header::CACHE_CONTROL,
        header::CONTENT_LOCATION,
        header::ETAG,
        header::EXPIRES,
        header::VARY,
        header::LAST_MODIFIED,
    ] {
        for value in stored.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

/// The members of a list (RFC 9110 section 5.6.1), those of all lines of a field.
fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn treated(method: Method, lines: &[(&str, &str)]) -> Treatment {
        treatment(&method, &map(lines), true)
    }

    #[test]
    fn what_a_request_may_get_of_the_cache() {
        use Treatment::{Look, Pass, Use};
        assert_eq!(treated(Method::GET, &[]), Use);
        assert_eq!(
            treated(Method::GET, &[("cache-control", "no-cache, max-age=0")]),
            Use
        );
        assert_eq!(treated(Method::GET, &[("pragma", "no-cache")]), Use);
        assert_eq!(
            treated(Method::GET, &[("cache-control", "max-age=0, No-Store")]),
            Look
        );
        assert_eq!(treated(Method::HEAD, &[]), Look);
        assert_eq!(treated(Method::POST, &[]), Pass);
        assert_eq!(treatment(&Method::GET, &HeaderMap::new(), false), Pass);
        assert!(only_if_cached(&map(&[("cache-control", "only-if-cached")])));
        assert!(!only_if_cached(&map(&[(
            "cache-control",
            "x=only-if-cached"
        )])));
    }

    #[test]
    fn a_fetch_carries_nothing_that_names_the_client_or_its_host() {
        let sent = map(&[
            ("host", "evil.example"),
            ("forwarded", "for=1"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-host", "evil.example"),
            ("if-none-match", "\"a\""),
            ("range", "bytes=0-1"),
            ("cache-control", "no-cache"),
            ("accept-language", "de"),
            ("cookie", "a=b"),
        ]);
        let expected = map(&[("accept-language", "de"), ("cookie", "a=b")]);
        assert_eq!(fetch_headers(sent), expected);
    }

    #[test]
    fn an_answer_that_varies_with_what_was_not_sent_has_no_key() {
        let names = |text: &str| vary(&map(&[("vary", text)])).map(|names| names.len());
        assert_eq!(vary(&HeaderMap::new()), Some(vec![]));
        assert_eq!(names("Accept, accept-language,ACCEPT"), Some(2));
        for text in [
            "*",
            "accept, *",
            "Host",
            "x-forwarded-proto",
            "a b",
            "Range",
        ] {
            assert_eq!(names(text), None, "{text}");
        }
        let lines = map(&[("vary", "accept"), ("vary", "*")]);
        assert_eq!(vary(&lines), None);
    }

    #[test]
    fn a_variant_is_chosen_by_all_values_of_all_its_fields() {
        let names = [header::ACCEPT, header::ACCEPT_LANGUAGE];
        let stored = map(&[("accept", "a"), ("accept", "b")]);
        let same = map(&[("accept", "a"), ("accept", "b"), ("cookie", "x")]);
        assert!(selects(&names, &stored, &same));
        assert!(!selects(&names, &stored, &map(&[("accept", "a")])));
        let more = map(&[("accept", "a"), ("accept", "b"), ("accept-language", "de")]);
        assert!(!selects(&names, &stored, &more));
    }

    #[test]
    fn only_a_whole_answer_for_everybody_is_kept() {
        assert!(keeps(StatusCode::OK, &HeaderMap::new()));
        for status in [203, 204, 206, 301, 304, 404, 410, 500, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(!keeps(status, &map(&[("cache-control", "max-age=60")])));
        }
        assert!(!keeps(StatusCode::OK, &map(&[("set-cookie", "a=b")])));
    }

    #[test]
    fn what_each_answer_gets_anew_is_not_stored() {
        let etag = HeaderValue::from_static("\"x\"");
        let headers = map(&[
            ("date", "d"),
            ("age", "3"),
            ("bingo-node", "node-1"),
            ("x-request-id", "1"),
            ("content-length", "4"),
            ("content-type", "text/plain"),
        ]);
        let stored = stored_headers(headers, &etag);
        assert_eq!(
            stored,
            map(&[("content-type", "text/plain"), ("etag", "\"x\"")])
        );
    }

    #[test]
    fn a_client_that_has_the_answer_is_recognised_by_weak_comparison() {
        let etag = HeaderValue::from_static("\"x\"");
        let has = |text: &str| not_modified(&map(&[("if-none-match", text)]), &etag);
        assert!(has("\"x\"") && has("W/\"x\"") && has("\"a\", \"x\"") && has("*"));
        assert!(!has("\"y\"") && !has("x") && !has(""));
        assert!(!not_modified(&HeaderMap::new(), &etag));
        let weak = HeaderValue::from_static("W/\"x\"");
        assert!(not_modified(&map(&[("if-none-match", "\"x\"")]), &weak));
    }
}
