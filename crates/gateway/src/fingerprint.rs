//! What tells one request from another where a node dies of it: method, target and body. Headers are
//! left out, because whoever repeats a poisonous request sends other ones. A SHA-256 and no cheaper
//! hash: a conviction refuses everything of the same fingerprint, on every gateway, so that nobody may
//! be able to make two that are alike.

use std::fmt::Write;

use http::Method;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The first half of the SHA-256 of a request's method, target and body; 32 hexadecimal digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fingerprint(u128);

impl Fingerprint {
    /// `target` is path and query.
    pub(crate) fn of(method: &Method, target: &str, body: &[u8]) -> Self {
        let mut digest = Sha256::new();
        for part in [method.as_str(), " ", target, "\n"] {
            digest.update(part);
        }
        digest.update(body);
        let first = digest.finalize().iter().take(16).fold(0, push);
        Self(first)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok()?;
        digits.then_some(Self(number))
    }

    /// How much a request of this fingerprint is drawn to what has this name: the same on every gateway
    /// (D. Thaler, C. Ravishankar, "Using name-based mappings to increase hit rates", 1998).
    pub(crate) fn draw(self, name: &str) -> u64 {
        let mut mixed = self.0 as u64 ^ 0x9e37_79b9_7f4a_7c15;
        for byte in name.bytes() {
            mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            mixed ^= mixed >> 29;
        }
        mixed = (mixed ^ (self.0 >> 64) as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 31)
    }
}

fn push(number: u128, byte: &u8) -> u128 {
    (number << 8) | u128::from(*byte)
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(32);
        // Writing to a String cannot fail.
        let _ = write!(text, "{self}");
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("no fingerprint"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_method_target_or_body_is_another_fingerprint_and_text_is_read_back() {
        let of = Fingerprint::of;
        let one = of(&Method::POST, "/operation", b"x");
        assert_eq!(one, of(&Method::POST, "/operation", b"x"));
        for other in [
            of(&Method::PUT, "/operation", b"x"),
            of(&Method::POST, "/operation?", b"x"),
            of(&Method::POST, "/operation", b"y"),
        ] {
            assert_ne!(one, other);
        }
        assert_eq!(Fingerprint::parse(&one.to_string()), Some(one));
        assert_eq!(one.to_string().len(), 32);
        for wrong in ["", "x", "+0000000000000000000000000000000", &"0".repeat(33)] {
            assert_eq!(Fingerprint::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn fingerprints_are_drawn_to_all_names_alike() {
        let mut first = 0;
        for body in 0..2000_u32 {
            let one = Fingerprint::of(&Method::POST, "/a", &body.to_le_bytes());
            first += usize::from(one.draw("node-1") > one.draw("node-2"));
        }
        assert!((900..1100).contains(&first), "{first}");
    }
}
