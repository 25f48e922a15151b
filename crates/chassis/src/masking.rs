//! Takes passwords out of texts that others wrote (a line of a child's log, a configuration): what
//! stands in a URL between `:` and `@`, what follows a word such as `password` and `=` or `:`, and private
//! keys in PEM.
//! It finds what looks like one; our own texts hold none to begin with.

use std::borrow::Cow;

/// What stands in the place of a secret.
pub const MASK: &str = "********";

const WORDS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "api_key",
    "apikey",
    "pgpassword",
    "private_key",
    "access_key",
    "secret_key",
    "cookie",
];

/// RFC 7468 section 10 and 11; older tools name the algorithm before it.
const PEM_BEGIN: &str = "PRIVATE KEY-----";
const PEM_END: &str = "-----END";

/// The text without what looks like a secret.
pub fn masked(text: &str) -> Cow<'_, str> {
    let mut ranges = in_urls(text);
    ranges.extend(after_words(text));
    ranges.extend(in_pem(text));
    if ranges.is_empty() {
        return Cow::Borrowed(text);
    }
    ranges.sort_unstable();
    let mut masked = String::with_capacity(text.len());
    let mut done = 0;
    for (start, end) in ranges {
        if start >= done {
            masked.push_str(text.get(done..start).unwrap_or_default());
            masked.push_str(MASK);
        }
        done = done.max(end);
    }
    masked.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(masked)
}

/// RFC 3986 section 3.2.1: `scheme://user:password@host`.
fn in_urls(text: &str) -> Vec<(usize, usize)> {
    let ends = |byte: u8| byte.is_ascii_whitespace() || b"/?#\"'<>\\".contains(&byte);
    let mut found = Vec::new();
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        let rest = text.as_bytes().get(start..).unwrap_or_default();
        let length = rest.iter().position(|byte| ends(*byte));
        let authority = rest.get(..length.unwrap_or(rest.len())).unwrap_or_default();
        let at_sign = authority.iter().rposition(|byte| *byte == b'@');
        let colon = authority.iter().position(|byte| *byte == b':');
        if let (Some(colon), Some(at_sign)) = (colon, at_sign)
            && colon < at_sign
        {
            found.push((start + colon + 1, start + at_sign));
        }
    }
    found
}

/// Between the lines that begin and end a private key; to the end of the text where it was cut off.
fn in_pem(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, begin) in text.match_indices(PEM_BEGIN) {
        let line = text.get(..at).unwrap_or_default();
        let line = line.rsplit('\n').next().unwrap_or_default();
        if line.contains("-----BEGIN") {
            let start = at + begin.len();
            let rest = text.get(start..).unwrap_or_default();
            found.push((start, start + rest.find(PEM_END).unwrap_or(rest.len())));
        }
    }
    found
}

fn after_words(text: &str) -> Vec<(usize, usize)> {
    let lower = text.to_ascii_lowercase();
    let mut found = Vec::new();
    for word in WORDS {
        for (at, _) in lower.match_indices(word) {
            found.extend(value_at(&lower, at + word.len()));
        }
    }
    found
}

/// What follows `=` or `:` at this place; a scheme of credentials such as `Bearer` is passed over.
fn value_at(text: &str, at: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let skip = |from: usize, these: &[u8]| {
        let rest = bytes.get(from..).unwrap_or_default();
        let other = rest.iter().position(|byte| !these.contains(byte));
        from + other.unwrap_or(rest.len())
    };
    let sign = skip(at, b"\"' \\");
    if !matches!(bytes.get(sign), Some(b'=' | b':')) {
        return None;
    }
    let mut start = skip(sign + 1, b" \"'\\");
    for scheme in ["bearer ", "basic "] {
        let rest = text.get(start..).unwrap_or_default();
        if rest.starts_with(scheme) {
            start = skip(start + scheme.len(), b" ");
        }
    }
    // In quotes it goes to the next one, blanks and all.
    let quote = start.checked_sub(1).and_then(|before| bytes.get(before));
    let quote = quote.copied().filter(|byte| matches!(byte, b'"' | b'\''));
    let ends = |byte: u8| match quote {
        Some(quote) => byte == quote || matches!(byte, b'\n' | b'\\'),
        None => byte.is_ascii_whitespace() || b"\"'\\,;&}])".contains(&byte),
    };
    let rest = bytes.get(start..).unwrap_or_default();
    let length = rest.iter().position(|byte| ends(*byte));
    let end = start + length.unwrap_or(rest.len());
    (end > start).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_the_rest_stays() {
        for (text, expected) in [
            ("postgres://u:p@h:5432/d", "postgres://u:********@h:5432/d"),
            ("http://h:80/a@b and x", "http://h:80/a@b and x"),
            ("password: canary\nuser: u", "password: ********\nuser: u"),
            ("PGPASSWORD=canary psql", "PGPASSWORD=******** psql"),
            (
                "AWS_SECRET_ACCESS_KEY=canary x",
                "AWS_SECRET_ACCESS_KEY=******** x",
            ),
            ("password='a canary' y", "password='********' y"),
            (
                "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----",
                "-----BEGIN PRIVATE KEY-----********-----END PRIVATE KEY-----",
            ),
            (
                "{\"token\": \"canary\", \"a\": 1}",
                "{\"token\": \"********\", \"a\": 1}",
            ),
            (
                "Authorization: Bearer canary",
                "Authorization: Bearer ********",
            ),
            (
                "{\\\"secret\\\":\\\"canary\\\"}",
                "{\\\"secret\\\":\\\"********\\\"}",
            ),
            (
                "token_file: /run/admin.token",
                "token_file: /run/admin.token",
            ),
            (
                "password authentication failed",
                "password authentication failed",
            ),
            ("пароль password=ключ;", "пароль password=********;"),
            ("password:", "password:"),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }
}
