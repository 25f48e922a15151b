//! How long a node allows its answer to be used: RFC 9111 by `http-cache-semantics`, made stricter.
//! Only what the answer says itself counts, no guess from `Last-Modified` (section 4.2.2). The library
//! reads directives as written; they are case-insensitive (section 5.2), so they are put into lower
//! case first: a missed `No-Store` would be stored.

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_cache_semantics::{CacheOptions, CachePolicy};

/// How long an answer may be used, counted from when its request was sent (section 4.2.3: the time
/// that the exchange took is part of its age); `None` where it must not be stored or is used up.
///
/// `request` are the fields that the node got, `took` the time from the request to the answer's head,
/// `now` the time of the latter, for an `Expires` without a `Date`.
pub(crate) fn lifetime(
    uri: &Uri,
    request: &HeaderMap,
    status: StatusCode,
    answer: &HeaderMap,
    took: Duration,
    now: SystemTime,
) -> Option<Duration> {
    if [&header::EXPIRES, &header::AGE, &header::DATE]
        .into_iter()
        .any(|name| answer.get_all(name).iter().nth(1).is_some())
    {
        // The library reads the first of several; which of them counts is anybody's guess.
        return None;
    }
    let mut asked = Request::new(());
    *asked.method_mut() = Method::GET;
    *asked.uri_mut() = uri.clone();
    *asked.headers_mut() = request.clone();
    let mut answered = Response::new(());
    *answered.status_mut() = status;
    *answered.headers_mut() = answer.clone();
    for name in [header::CACHE_CONTROL, header::PRAGMA] {
        lower(answered.headers_mut(), name);
    }
    let options = CacheOptions {
        shared: true,
        cache_heuristic: 0.0,
        immutable_min_time_to_live: Duration::ZERO,
        ignore_cargo_cult: false,
    };
    let policy = CachePolicy::new_options(&asked, &answered, now, options);
    if !policy.is_storable() {
        return None;
    }
    // What is left of the freshness is counted from the answer's head by the library: `Age` is in it.
    let lifetime = policy.time_to_live(now);
    (lifetime > took).then_some(lifetime)
}

/// How old an answer says that it is (section 5.1); what is no number says nothing.
pub(crate) fn age(answer: &HeaderMap) -> Duration {
    let age = answer.get(header::AGE).and_then(|age| age.to_str().ok());
    let digits = age.filter(|age| age.bytes().all(|byte| byte.is_ascii_digit()));
    let seconds = digits.and_then(|age| age.parse::<u32>().ok());
    Duration::from_secs(seconds.unwrap_or_default().into())
}

fn lower(headers: &mut HeaderMap, name: HeaderName) {
    let values: Vec<HeaderValue> = headers
        .get_all(&name)
        .iter()
        .filter_map(|value| HeaderValue::from_bytes(&value.as_bytes().to_ascii_lowercase()).ok())
        .collect();
    headers.remove(&name);
    for value in values {
        headers.append(name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(784_111_777);
    const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn seconds(request: &[(&str, &str)], answer: &[(&str, &str)]) -> Option<u64> {
        let took = Duration::from_secs(3);
        let now = SystemTime::UNIX_EPOCH + NOW;
        let uri = Uri::from_static("/a?b");
        lifetime(&uri, &map(request), StatusCode::OK, &map(answer), took, now)
            .map(|lifetime| lifetime.as_secs())
    }

    #[test]
    fn an_answer_lives_as_long_as_it_says_less_the_age_that_it_has() {
        for (expected, answer) in [
            (60, &[("cache-control", "public, max-age=60")][..]),
            (60, &[("Cache-Control", "MAX-AGE=60")]),
            (30, &[("cache-control", "max-age=60, s-maxage=30")]),
            (
                90,
                &[
                    ("cache-control", "max-age=60"),
                    ("cache-control", "s-maxage=90"),
                ],
            ),
            (50, &[("cache-control", "max-age=60"), ("age", "10")]),
            (60, &[DATE, ("expires", "Sun, 06 Nov 1994 08:50:37 GMT")]),
            (60, &[("expires", "Sun, 06 Nov 1994 08:50:37 GMT")]),
        ] {
            assert_eq!(seconds(&[], answer), Some(expected), "{answer:?}");
        }
    }

    #[test]
    fn an_age_is_digits_or_none() {
        for (text, seconds) in [
            ("10", 10),
            ("0", 0),
            ("-1", 0),
            ("+1", 0),
            ("x", 0),
            ("", 0),
        ] {
            assert_eq!(age(&map(&[("age", text)])), Duration::from_secs(seconds));
        }
        assert_eq!(age(&map(&[])), Duration::ZERO);
    }

    #[test]
    fn what_the_node_forbids_is_not_stored() {
        for answer in [
            &[][..],
            &[("cache-control", "public")],
            &[("last-modified", "Sun, 06 Nov 1904 08:50:37 GMT")],
            &[("cache-control", "no-store, max-age=60")],
            &[("cache-control", "No-Store, max-age=60")],
            &[
                ("cache-control", "max-age=60"),
                ("cache-control", "no-store"),
            ],
            &[("cache-control", "private, max-age=60")],
            &[("cache-control", "private=\"x\", max-age=60")],
            &[("cache-control", "no-cache, max-age=60")],
            &[("cache-control", "max-age=0")],
            &[("cache-control", "max-age=x")],
            &[("cache-control", "s-maxage=0, max-age=60")],
            &[("cache-control", "immutable")],
            &[
                ("pragma", "No-Cache"),
                ("expires", "Sun, 06 Nov 1994 08:50:37 GMT"),
            ],
            &[DATE, ("expires", "0")],
            &[DATE, ("expires", "Sun, 06 Nov 1994 08:49:37 GMT")],
            &[("cache-control", "max-age=60"), ("age", "60")],
            &[("cache-control", "max-age=60"), ("age", "0"), ("age", "60")],
        ] {
            assert_eq!(seconds(&[], answer), None, "{answer:?}");
        }
        // Used up by the time that it took to come.
        assert_eq!(seconds(&[], &[("cache-control", "max-age=3")]), None);
    }

    #[test]
    fn what_needed_authorization_is_stored_only_where_the_node_allows_it() {
        let sent = [("authorization", "Basic x")];
        assert_eq!(seconds(&sent, &[("cache-control", "max-age=60")]), None);
        for allowed in [
            "public, max-age=60",
            "s-maxage=60",
            "must-revalidate, max-age=60",
        ] {
            assert_eq!(
                seconds(&sent, &[("cache-control", allowed)]),
                Some(60),
                "{allowed}"
            );
        }
    }
}
