//! Answers that hyper gives by itself. A head that it cannot read (400), that is too large (431) or
//! whose target is (414) it answers with a bare status before any code of ours; such an answer is
//! recognised on its way out by its very form, which none of ours has, and is replaced by the problem
//! that every other error is. So is the answer that hyper leaves out, to a head that comes too late.
//!
//! Left out: a bare answer that is written together with the end of another one stays bare.

use http::{HeaderValue, StatusCode};
use jiff::Timestamp;

use crate::problem::Refusal;

const VERSION: &[u8] = b"HTTP/1.1 ";
/// What follows the status line, up to the date.
const BARE: &[u8] = b"\r\nconnection: close\r\ncontent-length: 0\r\ndate: ";
/// An IMF-fixdate (RFC 9110 section 5.6.7) and the end of the head.
const DATE_BYTES: usize = 29;
const END: &[u8] = b"\r\n\r\n";

/// The whole answer that stands for one of hyper's own; `None` for bytes of any other kind.
pub(super) fn instead(bytes: &[u8]) -> Option<Vec<u8>> {
    let line = bytes.strip_prefix(VERSION)?;
    let status = StatusCode::from_bytes(line.get(..3)?).ok()?;
    let refusal = match status {
        StatusCode::BAD_REQUEST => Refusal::BadRequest("the request's head cannot be understood"),
        StatusCode::URI_TOO_LONG => Refusal::UriTooLong,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Refusal::HeadTooLarge,
        _ => return None,
    };
    let reason = status.canonical_reason()?.len();
    let date = line.get(4 + reason..)?.strip_prefix(BARE)?;
    let (date, end) = date.split_at_checked(DATE_BYTES)?;
    (end == END).then(|| whole(&refusal, date))
}

/// To a client whose head did not come in time.
pub(super) fn late(now: Timestamp) -> Vec<u8> {
    // An IMF-fixdate, which is always of GMT.
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    whole(&Refusal::SlowHead, date.as_bytes())
}

/// No path was understood, so its `instance` is the `*` of RFC 9112 section 3.2.4.
fn whole(refusal: &Refusal, date: &[u8]) -> Vec<u8> {
    let random = || (chassis::random::random() * (1_u64 << 53) as f64) as u64;
    let id = format!("{:016x}{:016x}", random(), random());
    let answer = refusal.answer("*", HeaderValue::try_from(id).ok());
    let status = answer.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in answer.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    let length = format!("content-length: {}\r\ndate: ", answer.body().len());
    for part in [length.as_bytes(), date, END, answer.body()] {
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sat, 21 Nov 2026 11:12:30 GMT";

    fn bare(line: &str) -> String {
        format!("HTTP/1.1 {line}\r\nconnection: close\r\ncontent-length: 0\r\ndate: {DATE}\r\n\r\n")
    }

    #[test]
    fn a_bare_refusal_becomes_a_problem_with_the_same_status() {
        for (line, slug) in [
            ("400 Bad Request", "bad-request"),
            ("414 URI Too Long", "uri-too-long"),
            ("431 Request Header Fields Too Large", "head-too-large"),
        ] {
            let answer = String::from_utf8(instead(bare(line).as_bytes()).unwrap()).unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {line}\r\n")),
                "{answer}"
            );
            for part in [slug, "connection: close\r\n", "x-request-id: ", DATE] {
                assert!(answer.contains(part), "{part} is missing in {answer}");
            }
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        }
    }

    #[test]
    fn a_head_that_comes_too_late_has_a_problem_with_a_date() {
        let now = Timestamp::from_second(1_795_259_550).unwrap();
        let answer = String::from_utf8(late(now)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"));
        assert!(answer.contains(&format!("date: {DATE}\r\n")), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }

    #[test]
    fn any_other_bytes_are_left_alone() {
        let good = bare("400 Bad Request");
        for bytes in [
            bare("404 Not Found"),
            bare("400 Bad"),
            good.replace("close", "keep-alive"),
            good.replace("date", "x-request-id: 1\r\ndate"),
            format!("{good}a"),
            good.replacen("HTTP", "http", 1),
            "HTTP/1.1 4".to_owned(),
            String::new(),
        ] {
            assert!(instead(bytes.as_bytes()).is_none(), "{bytes}");
        }
    }
}
