//! What a request's head must be before anything is done with it, and what of it a node gets. hyper
//! has parsed it; here is refused what hyper lets through and two programs could read in two ways,
//! and the rest is brought into the one form that is forwarded (reliability.md "Hostile clients").
//! Pure, so that it can be fuzzed.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Uri, Version};

use crate::hop_by_hop;
use crate::problem::Refusal;

/// Fields by which other proxies tell what this gateway tells in other ways: a client's are lies. And
/// `Expect`, which this gateway has answered itself.
const VOUCHED: [HeaderName; 6] = [
    header::EXPECT,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-forwarded-prefix"),
];

/// Names that mean something to this gateway or to a node's framing and trust; written with `_` for
/// `-`, some programs take them for the same (RFC 3875 section 4.1.18 makes them so).
const IMITATED: [&str; 17] = [
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "forwarded",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-connection",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    "bingo-timeout-ms",
];

/// How large a head may be; how large it is in bytes, hyper has counted over HTTP/1.1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) bytes_max: usize,
    pub(crate) uri_bytes_max: usize,
    pub(crate) fields_max: usize,
}

/// What RFC 9113 section 6.5.2 adds to each field.
const FIELD_BYTES: usize = 32;

/// Refuses what can be understood in two ways, and settles which host is meant.
pub(crate) fn check(parts: &mut Parts, bounds: Bounds) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT {
        return Err(Refusal::BadRequest("this is no proxy: CONNECT is refused"));
    }
    if parts.headers.len() > bounds.fields_max {
        return Err(Refusal::TooManyFields);
    }
    if parts.version >= Version::HTTP_2 {
        if size(parts) > bounds.bytes_max {
            return Err(Refusal::HeadTooLarge);
        }
        check_margins(&parts.headers)?;
    }
    check_target(&parts.method, &parts.uri, bounds.uri_bytes_max)?;
    check_coding(&parts.headers)?;
    settle_host(parts)
}

/// A head's bytes as binary framing counts them, names of pseudo-header fields included.
fn size(parts: &Parts) -> usize {
    let field = |name: usize, value: usize| name + value + FIELD_BYTES;
    let uri = &parts.uri;
    let target = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let pseudo = [
        field(":method".len(), parts.method.as_str().len()),
        field(":scheme".len(), uri.scheme_str().map_or(0, str::len)),
        field(
            ":authority".len(),
            uri.authority().map_or(0, |host| host.as_str().len()),
        ),
        field(":path".len(), target),
    ];
    let fields = parts.headers.iter();
    let fields = fields.map(|(name, value)| field(name.as_str().len(), value.len()));
    pseudo.into_iter().sum::<usize>() + fields.sum::<usize>()
}

/// A value that begins or ends with white space is malformed (RFC 9113 section 8.2.1, RFC 9114
/// section 4.2); over HTTP/1.1 such space is no part of the value.
fn check_margins(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let has_margin = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        is_blank(bytes.first()) || is_blank(bytes.last())
    };
    if headers.values().any(has_margin) {
        return Err(Refusal::BadRequest(
            "a field's value begins or ends with white space",
        ));
    }
    Ok(())
}

fn check_target(method: &Method, uri: &Uri, uri_bytes_max: usize) -> Result<(), Refusal> {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.len() + target.len() > uri_bytes_max {
        return Err(Refusal::UriTooLong);
    }
    // RFC 9110 section 4.2.4: a way to make one host look like another.
    if authority.contains('@') {
        return Err(Refusal::BadRequest("the target names a user"));
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refusal::BadRequest("the target has bytes that no URI has"));
    }
    let star = method == Method::OPTIONS && uri.path() == "*";
    let whole = uri.path().starts_with('/') && uri.scheme().is_some() == uri.authority().is_some();
    if !whole && !star {
        return Err(Refusal::BadRequest(
            "the target is neither a path nor a URI",
        ));
    }
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Refusal::BadRequest("the target's scheme is not HTTP"));
    }
    Ok(())
}

/// `chunked` and nothing else: another coding would be lost on the way to a node, and a list is how
/// one program is made to see a body where another sees a request (RFC 9112 section 6.1).
fn check_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, None) => Ok(()),
        (Some(coding), None) if plain(coding) => Ok(()),
        _ => Err(Refusal::BadRequest("Transfer-Encoding must be `chunked`")),
    }
}

fn settle_host(parts: &mut Parts) -> Result<(), Refusal> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (host, more) = (hosts.next(), hosts.next().is_some());
    if more {
        return Err(Refusal::BadRequest("a request has one Host"));
    }
    let Some(authority) = parts.uri.authority() else {
        if host.is_none() && parts.version >= Version::HTTP_11 {
            return Err(Refusal::BadRequest("a request needs a Host"));
        }
        return Ok(());
    };
    let same = host.is_none_or(|host| {
        host.as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes())
    });
    // RFC 9113 section 8.3.1. HTTP/1.1 says that the target overrules `Host` (RFC 9112 section 3.2.2).
    if !same && parts.version >= Version::HTTP_2 {
        return Err(Refusal::BadRequest(":authority and Host differ"));
    }
    let host = HeaderValue::from_str(authority.as_str())
        .map_err(|_| Refusal::BadRequest("the target's host is none"))?;
    parts.headers.insert(header::HOST, host);
    Ok(())
}

/// Removes from a request's fields what a node must not see: what belongs to the client's
/// connection, and what only the gateway may say.
pub(crate) fn strip(headers: &mut HeaderMap) {
    hop_by_hop::strip(headers);
    hop_by_hop::remove_all(headers, &VOUCHED);
    let imitations: Vec<HeaderName> = headers
        .keys()
        .filter(|name| imitates(name.as_str()))
        .cloned()
        .collect();
    for name in imitations {
        headers.remove(name);
    }
}

fn imitates(name: &str) -> bool {
    name.contains('_') && {
        let meant = name.replace('_', "-");
        IMITATED.contains(&meant.as_str())
    }
}

/// The target as a node gets it: path and query alone (RFC 9112 section 3.2.1).
pub(crate) fn origin_form(uri: Uri) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    uri.into_parts()
        .path_and_query
        .map_or_else(Uri::default, Uri::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().version(version).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// The host that is meant, or the status of the refusal.
    fn checked(mut parts: Parts) -> Result<String, u16> {
        let bounds = Bounds {
            bytes_max: 1000,
            uri_bytes_max: 100,
            fields_max: 8,
        };
        match check(&mut parts, bounds) {
            Ok(()) => Ok(parts
                .headers
                .get(header::HOST)
                .map_or_else(String::new, |host| host.to_str().unwrap().to_owned())),
            Err(refusal) => Err(refusal.answer("/", None).status().as_u16()),
        }
    }

    #[test]
    fn a_request_means_one_host_or_is_refused() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for (version, uri, hosts, expected) in [
            (one, "/", &["a"][..], Ok("a")),
            (one, "/", &[], Err(400)),
            (one, "/", &["a", "b"], Err(400)),
            (one, "/", &["a", "a"], Err(400)),
            (one, "http://b/", &["a"], Ok("b")),
            (one, "http://b/", &["a", "b"], Err(400)),
            (one, "http://b/", &[], Ok("b")),
            (one, "ftp://b/", &["b"], Err(400)),
            (Version::HTTP_10, "/", &[], Ok("")),
            (two, "https://b/", &[], Ok("b")),
            (two, "https://b/", &["B"], Ok("b")),
            (two, "https://b/", &["a"], Err(400)),
            (two, "https://b/", &["b", "b"], Err(400)),
            (two, "/", &[], Err(400)),
        ] {
            let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let expected = expected.map(str::to_owned);
            let found = checked(request(version, uri, &fields));
            assert_eq!(found, expected, "{version:?} {uri} {hosts:?}");
        }
    }

    #[test]
    fn a_value_with_white_space_around_it_is_malformed_in_binary_framing() {
        for (version, value, good) in [
            (Version::HTTP_2, " a", false),
            (Version::HTTP_2, "a\t", false),
            (Version::HTTP_3, "a ", false),
            (Version::HTTP_2, "a b", true),
            (Version::HTTP_2, "", true),
            (Version::HTTP_11, " a", true),
        ] {
            let found = checked(request(
                version,
                "https://b/",
                &[("host", "b"), ("x", value)],
            ));
            assert_eq!(found.is_ok(), good, "{version:?} {value:?}");
        }
    }

    #[test]
    fn chunked_is_the_only_coding_and_stands_once() {
        for (codings, good) in [
            (&["chunked"][..], true),
            (&["Chunked"], true),
            (&["chunked", "chunked"], false),
            (&["chunked, chunked"], false),
            (&["gzip, chunked"], false),
            (&["identity"], false),
            (&["chunked;a=b"], false),
            (&["\tchunked"], false),
            (&[""], false),
        ] {
            let mut fields = vec![("host", "a")];
            fields.extend(codings.iter().map(|coding| ("transfer-encoding", *coding)));
            let found = checked(request(Version::HTTP_11, "/", &fields));
            assert_eq!(found.is_ok(), good, "{codings:?}");
        }
    }

    #[test]
    fn what_is_too_long_too_many_or_no_uri_is_refused() {
        let long = format!("/{}", "a".repeat(100));
        let many = [("a", "b"); 8];
        let mut fields = vec![("host", "a")];
        assert_eq!(checked(request(Version::HTTP_11, &long, &fields)), Err(414));
        // The host of an absolute target is part of it.
        let host = format!("http://{}/", "a".repeat(100));
        assert_eq!(checked(request(Version::HTTP_11, &host, &fields)), Err(414));
        let user = request(Version::HTTP_11, "http://b@a/", &fields);
        assert_eq!(checked(user), Err(400));
        let large = "c".repeat(900);
        for (version, expected) in [(Version::HTTP_11, Ok("a")), (Version::HTTP_2, Err(431))] {
            let fields = [("host", "a"), ("b", large.as_str())];
            let found = checked(request(version, "http://a/", &fields));
            assert_eq!(found, expected.map(str::to_owned));
        }
        fields.extend(many);
        assert_eq!(checked(request(Version::HTTP_11, "/", &fields)), Err(431));
        let connect = http::Request::connect("a:1").body(()).unwrap();
        assert_eq!(checked(connect.into_parts().0), Err(400));
    }

    #[test]
    fn a_field_that_imitates_one_that_the_gateway_vouches_for_is_removed() {
        let mut headers = HeaderMap::new();
        for name in [
            "content_length",
            "transfer_encoding",
            "x_forwarded_for",
            "x-forwarded_for",
            "x-real-ip",
            "bingo_timeout_ms",
            "expect",
        ] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        headers.insert("api_key", HeaderValue::from_static("1"));
        strip(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["api_key"]);
    }
}
