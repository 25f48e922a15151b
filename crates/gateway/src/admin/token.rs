//! Who may change something: whoever brings the token of `admin.token_file`. The file is read at each
//! use, so that a new token needs no restart and an old one ends at once.

use std::path::Path;

use http::{HeaderMap, StatusCode, header};
use subtle::ConstantTimeEq;
use tokio::io::AsyncReadExt;

use super::{Answer, problem, with};
use crate::live::Live;

/// A longer file holds no token.
const TOKEN_BYTES_MAX: u64 = 4096;

/// The refusal of a change that brings no token, or a wrong one.
pub(super) async fn check(live: &Live, headers: &HeaderMap) -> Result<(), Answer> {
    let Some(path) = &live.token_file else {
        let detail = "this gateway takes no changes: name a file with a token in admin.token_file";
        return Err(problem(StatusCode::FORBIDDEN, "no-token-file", detail));
    };
    let token = match read(path).await {
        Ok(token) if !token.is_empty() => token,
        Ok(_) => return Err(unreadable(path, "it is empty")),
        Err(error) => return Err(unreadable(path, &error.to_string())),
    };
    match brought(headers) {
        Some(brought) if same(brought.as_bytes(), token.as_bytes()) => Ok(()),
        Some(_) => {
            let refusal = unauthorized("the token is another one");
            let challenge = "Bearer realm=\"bingo\", error=\"invalid_token\"";
            Err(with(refusal, header::WWW_AUTHENTICATE, challenge))
        }
        None => {
            let refusal = unauthorized("a change needs `Authorization: Bearer TOKEN`");
            let challenge = "Bearer realm=\"bingo\"";
            Err(with(refusal, header::WWW_AUTHENTICATE, challenge))
        }
    }
}

fn unauthorized(detail: &str) -> Answer {
    problem(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

/// Where the file lies is for the log: whoever asks has shown no token yet.
fn unreadable(path: &Path, why: &str) -> Answer {
    let file = path.display();
    tracing::error!(%file, why, "the token of the admin API cannot be read; every change is refused");
    let detail =
        "the file of admin.token_file holds no token that can be read; see the gateway's log";
    problem(StatusCode::FORBIDDEN, "no-token", detail)
}

async fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut text).await?;
    Ok(text.trim().to_owned())
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750 section 2.1; the scheme's case is free).
fn brought(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

/// In a time that tells nothing but the length.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(text));
            brought(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer  abc").as_deref(), Some("abc"));
        assert_eq!(of("Basic abc"), None);
        assert_eq!(of("abc"), None);
        assert_eq!(brought(&HeaderMap::new()), None);
    }

    #[test]
    fn only_the_very_same_token_is_the_same() {
        assert!(same(b"abc", b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!same(b"abc", other));
        }
    }
}
