//! `X-Request-Id`: the client's own where it is sane, else one made here, so that all attempts of a
//! request carry the same one. A random prefix per thread and a counter: unique enough to find a
//! request in logs, and far cheaper than a UUID per request.

use std::cell::Cell;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const NAME: HeaderName = HeaderName::from_static("x-request-id");
/// A longer one is replaced: it would be copied into every log line.
const BYTES_MAX: usize = 128;

/// Makes the ids of one thread.
#[derive(Debug)]
pub(crate) struct RequestIds {
    prefix: u64,
    count: Cell<u64>,
}

impl RequestIds {
    pub(crate) fn new(prefix: u64) -> Self {
        Self {
            prefix,
            count: Cell::new(0),
        }
    }

    /// Sees to it that the request has exactly one sane id, and returns it.
    pub(crate) fn ensure(&self, headers: &mut HeaderMap) -> HeaderValue {
        let mut sent = headers.get_all(NAME).iter();
        if let (Some(id), None) = (sent.next(), sent.next())
            && is_sane(id)
        {
            return id.clone();
        }
        let id = self.make();
        headers.insert(NAME, id.clone());
        id
    }

    fn make(&self) -> HeaderValue {
        let count = self.count.get();
        self.count.set(count.wrapping_add(1));
        let number = (u128::from(self.prefix) << 64) | u128::from(count);
        HeaderValue::from_bytes(&hex(number)).unwrap_or(HeaderValue::from_static("0"))
    }
}

/// A name that nobody else gives or can foretell, for an `Idempotency-Key` of the gateway's own.
pub(crate) fn unguessable() -> HeaderValue {
    let mut bytes = [0; 16];
    // Without random numbers there would be no TLS either; a name of time and place is next best.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        bytes = (nanos.map_or(0, |time| time.as_nanos()) ^ u128::from(std::process::id()))
            .to_le_bytes();
    }
    HeaderValue::from_bytes(&hex(u128::from_le_bytes(bytes)))
        .unwrap_or(HeaderValue::from_static("0"))
}

fn hex(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    for (place, digit) in text.iter_mut().rev().enumerate() {
        let nibble = (number >> (4 * place)) as u8 & 0xf;
        *digit = nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    }
    text
}

fn is_sane(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=BYTES_MAX).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_any_other_is_replaced() {
        let ids = RequestIds::new(7);
        for (sent, kept) in [
            ("abc-123", true),
            ("a b", false),
            ("", false),
            ("<script>", false),
            (&"x".repeat(129), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(NAME, HeaderValue::from_str(sent).unwrap());
            let id = ids.ensure(&mut headers);
            assert_eq!(id == sent, kept, "{sent}");
            assert_eq!(headers[NAME], id);
        }
    }

    #[test]
    fn made_ids_differ() {
        let ids = RequestIds::new(7);
        assert_ne!(
            ids.ensure(&mut HeaderMap::new()),
            ids.ensure(&mut HeaderMap::new())
        );
    }
}
