//! What the node learns about the client: `Forwarded` (RFC 7239), `X-Forwarded-For`, `-Proto`,
//! `-Host`, `Via`.
//!
//! The rule of trust: the gateway vouches for what it saw itself and for nothing else. Its own
//! element is always the last one of `Forwarded` and `X-Forwarded-For`; elements before it came from
//! the client and may be invented. `X-Forwarded-Proto` and `-Host` have one value and are replaced.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

const FORWARDED: HeaderName = header::FORWARDED;
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The fields of one client connection. Most requests of a connection name the same host, so its
/// values are made once and then only counted up.
#[derive(Debug)]
pub(crate) struct Forwarded {
    address: HeaderValue,
    /// `for=…`, as `Forwarded` has it.
    node: String,
    proto: &'static str,
    last: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl Forwarded {
    /// `proto` is `http` or `https`.
    pub(crate) fn new(client: SocketAddr, proto: &'static str) -> Self {
        let address = client.ip().to_canonical();
        Self {
            // An IPv6 address must stand in brackets and quotes (RFC 7239 section 6).
            node: match address {
                IpAddr::V4(address) => format!("for={address}"),
                IpAddr::V6(address) => format!("for=\"[{address}]\""),
            },
            // An IP address is always a valid header value.
            address: HeaderValue::try_from(address.to_string())
                .unwrap_or(HeaderValue::from_static("unknown")),
            proto,
            last: RefCell::new(None),
        }
    }

    /// Sets the fields on a request whose `Host` is `host`. False where the host is none.
    #[must_use]
    pub(crate) fn set(&self, headers: &mut HeaderMap, host: Option<&HeaderValue>) -> bool {
        let Some(element) = self.element(host) else {
            return false;
        };
        append(headers, FORWARDED, element);
        append(headers, X_FORWARDED_FOR, self.address.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.proto));
        match host {
            Some(host) => headers.insert(X_FORWARDED_HOST, host.clone()),
            None => headers.remove(X_FORWARDED_HOST),
        };
        // RFC 9110 section 7.6.3.
        headers.append(header::VIA, HeaderValue::from_static("1.1 bingo"));
        true
    }

    /// `for=…;host=…;proto=…`; `None` where the host could not stand in a URL.
    fn element(&self, host: Option<&HeaderValue>) -> Option<HeaderValue> {
        let Some(host) = host else {
            return HeaderValue::try_from(format!("{};proto={}", self.node, self.proto)).ok();
        };
        let mut last = self.last.borrow_mut();
        if let Some((known, element)) = last.as_ref()
            && known == host
        {
            return Some(element.clone());
        }
        let text = host.to_str().ok()?;
        if !is_host(text) {
            return None;
        }
        let element = format!("{};host=\"{text}\";proto={}", self.node, self.proto);
        let element = HeaderValue::try_from(element).ok()?;
        *last = Some((host.clone(), element.clone()));
        Some(element)
    }
}

/// Host and port without user information (RFC 9110 section 7.2); quotes cannot occur in it.
fn is_host(text: &str) -> bool {
    !text.contains(['@', '"', '\\'])
        && (text.is_empty() || text.parse::<http::uri::Authority>().is_ok())
}

/// Joins our element to what is there: one field, ours last.
fn append(headers: &mut HeaderMap, name: HeaderName, ours: HeaderValue) {
    if !headers.contains_key(&name) {
        headers.insert(name, ours);
        return;
    }
    let mut joined = Vec::new();
    for value in headers.get_all(&name) {
        joined.extend_from_slice(value.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(ours.as_bytes());
    headers.insert(name, HeaderValue::try_from(joined).unwrap_or(ours));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(client: &str, host: Option<&str>, before: &[(&'static str, &str)]) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let host = host.map(|host| HeaderValue::from_str(host).unwrap());
        Forwarded::new(client.parse().unwrap(), "http")
            .set(&mut headers, host.as_ref())
            .then_some(headers)
    }

    #[test]
    fn a_node_learns_address_host_and_scheme() {
        let headers = set("192.0.2.1:99", Some("a.example:8080"), &[]).unwrap();
        assert_eq!(
            headers["forwarded"],
            "for=192.0.2.1;host=\"a.example:8080\";proto=http"
        );
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "a.example:8080");
    }

    #[test]
    fn what_the_client_claims_stands_before_what_the_gateway_saw() {
        let claims = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
        ];
        let headers = set("192.0.2.1:99", Some("a.example"), &claims).unwrap();
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 10.0.0.2, 192.0.2.1");
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(
            headers["forwarded"],
            "for=10.0.0.1, for=192.0.2.1;host=\"a.example\";proto=http"
        );
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "a.example");
    }

    #[test]
    fn an_ipv6_address_is_quoted_and_a_mapped_one_is_written_as_ipv4() {
        let headers = set("[2001:db8::1]:99", Some("[::1]:80"), &[]).unwrap();
        assert_eq!(
            headers["forwarded"],
            "for=\"[2001:db8::1]\";host=\"[::1]:80\";proto=http"
        );
        let headers = set("[::ffff:192.0.2.1]:99", None, &[]).unwrap();
        assert_eq!(headers["forwarded"], "for=192.0.2.1;proto=http");
    }

    #[test]
    fn a_host_that_could_break_out_of_its_quotes_is_refused() {
        for host in ["a\";for=1.2.3.4", "user@a", "a b", "a/b", "a\\b"] {
            assert!(set("192.0.2.1:99", Some(host), &[]).is_none(), "{host}");
        }
    }
}
