//! A way in for the fuzz target and the property tests (`fuzz/`, `tests/properties.rs`): bytes become a
//! request as hyper would hand it over, and what is left of it for a node is held against the rules.
//! Returns what is broken instead of panicking, as everything in this crate.

use std::collections::HashSet;
use std::net::SocketAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};

use crate::forwarded::Forwarded;
use crate::{head, hop_by_hop};

/// Fields that never reach a node, whoever names them or not.
const NEVER: [&str; 10] = [
    "connection",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-port",
    "x-real-ip",
];

/// `data` is a request line and fields, in lines that end with LF; lines that make no request or
/// field are left out, as hyper refuses them. `Err` says which rule does not hold.
pub fn request(data: &[u8]) -> Result<(), String> {
    let Some(mut parts) = parse(data) else {
        return Ok(());
    };
    let named = connection_names(&parts.headers);
    let bounds = head::Bounds {
        bytes_max: 10_000,
        uri_bytes_max: 200,
        fields_max: 50,
    };
    if head::check(&mut parts, bounds).is_err() {
        return Ok(());
    }
    check_target(&parts)?;
    let mut headers = parts.headers;
    head::strip(&mut headers);
    check_fields(&headers, &named)?;
    let once = headers.clone();
    head::strip(&mut headers);
    if headers != once {
        return Err("stripping twice is not stripping once".to_owned());
    }
    check_forwarded(headers)?;
    trailers(data)
}

fn parse(data: &[u8]) -> Option<Parts> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut line = lines.next()?.splitn(3, |byte| *byte == b' ');
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(line.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(line.next()?).ok()?;
    *request.version_mut() = match line.next() {
        Some(b"2") => Version::HTTP_2,
        Some(b"1.0") => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    *request.headers_mut() = fields(lines);
    Some(request.into_parts().0)
}

fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.take(100) {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        if let (Some(name), Some(value)) = (halves.next(), halves.next())
            && let Ok(name) = HeaderName::from_bytes(name)
            && let Ok(value) = HeaderValue::from_bytes(value.trim_ascii())
        {
            headers.append(name, value);
        }
    }
    headers
}

fn connection_names(headers: &HeaderMap) -> HashSet<String> {
    let mut names = HashSet::new();
    for value in headers.get_all(header::CONNECTION) {
        for name in String::from_utf8_lossy(value.as_bytes()).split(',') {
            names.insert(name.trim().to_ascii_lowercase());
        }
    }
    names.remove("host");
    names.remove("content-length");
    names
}

fn check_target(parts: &Parts) -> Result<(), String> {
    let hosts = parts.headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && parts.version >= Version::HTTP_11) {
        return Err(format!("{hosts} hosts"));
    }
    if let (Some(authority), Some(host)) = (parts.uri.authority(), parts.headers.get(header::HOST))
        && host.as_bytes() != authority.as_str().as_bytes()
    {
        return Err(format!("the host is {host:?} and not {authority}"));
    }
    let target = head::origin_form(parts.uri.clone()).to_string();
    if !(target.starts_with('/') || target == "*") || !target.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(format!("the target is {target:?}"));
    }
    Ok(())
}

fn check_fields(headers: &HeaderMap, named: &HashSet<String>) -> Result<(), String> {
    for name in headers.keys().map(HeaderName::as_str) {
        let plain = name.replace('_', "-");
        if NEVER.contains(&name) || named.contains(name) {
            return Err(format!("{name} is left"));
        }
        if plain != name && (plain == "content-length" || plain.starts_with("x-forwarded-for")) {
            return Err(format!("{name} is left and looks like {plain}"));
        }
    }
    Ok(())
}

fn check_forwarded(mut headers: HeaderMap) -> Result<(), String> {
    let host = headers.get(header::HOST).cloned();
    let client = Forwarded::new(SocketAddr::from(([192, 0, 2, 1], 1)), "https");
    if !client.set(&mut headers, host.as_ref()) {
        return Ok(());
    }
    let last = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().map(|value| value.as_bytes().to_vec());
        value.filter(|_| values.next().is_none())
    };
    let ours = [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "proto=https"),
    ];
    for (name, end) in ours {
        if !last(name).is_some_and(|value| value.ends_with(end.as_bytes())) {
            return Err(format!("{name} does not end with {end}"));
        }
    }
    Ok(())
}

fn trailers(data: &[u8]) -> Result<(), String> {
    let mut trailers = fields(data.split(|byte| *byte == b'\n'));
    hop_by_hop::strip_trailers(&mut trailers);
    for name in ["content-length", "transfer-encoding", "host", "connection"] {
        if trailers.contains_key(name) {
            return Err(format!("{name} is left in trailers"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_rule_is_told() {
        let mut headers = HeaderMap::new();
        headers.insert("x-secret", HeaderValue::from_static("1"));
        let named = HashSet::from(["x-secret".to_owned()]);
        assert!(check_fields(&headers, &named).is_err());
        assert!(check_fields(&headers, &HashSet::new()).is_ok());
        headers.insert("content_length", HeaderValue::from_static("1"));
        assert!(check_fields(&headers, &HashSet::new()).is_err());
    }

    #[test]
    fn a_request_line_and_fields_are_read() {
        let parts = parse(b"POST /a?b 1.0\nhost: c\nbad field\nx: \xff\n").unwrap();
        assert_eq!(
            (parts.method, parts.version),
            (Method::POST, Version::HTTP_10)
        );
        assert_eq!(parts.headers.len(), 2);
        assert_eq!(parts.uri, "/a?b");
    }
}
