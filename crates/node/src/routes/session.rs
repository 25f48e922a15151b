//! `GET`, `POST` and `DELETE` of `/api/session`. Writes take an `Idempotency-Key`: a repeat with the
//! same key gets the first answer and has no second effect.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use storage::{Created, Deleted, IdempotencyKey, NewSession, SessionPlace, Timestamp};

use super::body::{self, Member, is_int32};
use super::{found_response, id, json_response, read_body};
use crate::app::App;
use crate::error::Problem;
use crate::listing::{Asked, Wanted, stream, unknown_cursor};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Characters of an idempotency key.
const KEY_MAX: usize = 255;

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    method: Method,
    asked: Asked,
) -> Result<Response, Problem> {
    let wanted = Wanted::check("/api/session", asked, &method)?;
    let list = match wanted.page::<SessionPlace>()? {
        None => app.storage.sessions(wanted.rows_read()).await?,
        Some(page) => {
            let list = app.storage.sessions_page(&page).await?;
            list.ok_or_else(unknown_cursor)?
        }
    };
    stream(&app, &wanted, list).await
}

pub(crate) async fn one(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
) -> Result<Response, Problem> {
    found_response(app.storage.session(id(&text)?).await?, "session")
}

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    require_json(&headers)?;
    let key = idempotency_key(&headers)?;
    let body = read_body(&app, &headers, body).await?;
    let session = parse(&body)?;
    // What was asked and not how it was spelt: a repeat may be written by another JSON writer.
    let request_hash = request_hash(&format!(
        "POST /api/session {} {} {}",
        session.start_time.micros(),
        session.customer_id,
        session.movie_id
    ));
    let key = key.map(|key| IdempotencyKey {
        key,
        request_hash: &request_hash,
    });
    match app.storage.create_session(session, key).await? {
        Created::Stored { id, json } => {
            let mut response = json_response(json.into_bytes());
            *response.status_mut() = StatusCode::CREATED;
            let location = format!("/api/session/{id}");
            if let Ok(location) = HeaderValue::from_str(&location) {
                response.headers_mut().insert(LOCATION, location);
            }
            Ok(response)
        }
        Created::UnknownReference => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown-reference",
            "there is no such customer or no such movie",
        )),
        Created::KeyReused => Err(key_reused()),
    }
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id: i64 = id(&text)?;
    let request_hash = request_hash(&format!("DELETE /api/session/{id}"));
    let key = idempotency_key(&headers)?.map(|key| IdempotencyKey {
        key,
        request_hash: &request_hash,
    });
    match app.storage.delete_session(id, key).await? {
        Deleted::Gone => Ok(StatusCode::NO_CONTENT.into_response()),
        Deleted::NotFound => Err(Problem::not_found("there is no session with this id")),
        Deleted::KeyReused => Err(key_reused()),
    }
}

fn key_reused() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency-key-reused",
        "this idempotency key was used for another request",
    )
}

/// 415 unless the body is announced, once, as `application/json` in UTF-8 and in no content coding
/// (RFC 9110 section 15.5.16): a compressed body would else be called broken JSON.
fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |detail: &str| {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Err(Problem::new(status, "unsupported-media-type", detail))
    };
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(media_type), None) = (types.next(), types.next()) else {
        return unsupported("send application/json, named in one Content-Type");
    };
    if !is_json(media_type) {
        return unsupported("send application/json, in UTF-8");
    }
    let is_plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        true => Ok(()),
        false => unsupported("send the body without a Content-Encoding"),
    }
}

/// Whatever its parameters, save for a `charset` that is not UTF-8 (RFC 8259 section 8.1).
fn is_json(media_type: &HeaderValue) -> bool {
    let Ok(text) = media_type.to_str() else {
        return false;
    };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let is_wrong_charset = |parameter: &str| {
        parameter.split_once('=').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("charset")
                && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
    };
    essence.eq_ignore_ascii_case("application/json") && !parts.any(is_wrong_charset)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .filter(|key| (1..=KEY_MAX).contains(&key.len()) && !key.contains('\t'))
        .filter(|_| values.next().is_none())
        .map(Some)
        .ok_or_else(|| {
            Problem::bad_request(format!(
                "there is one idempotency key, with 1 to {KEY_MAX} printable ASCII characters"
            ))
        })
}

fn request_hash(request: &str) -> [u8; 32] {
    Sha256::digest(request.as_bytes()).into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionBody {
    start_time: String,
    customer_id: i32,
    movie_id: i32,
}

const MEMBERS: [Member; 3] = [
    ("start_time", "a string", Value::is_string),
    ("customer_id", "an integer of -2^31..2^31-1", is_int32),
    ("movie_id", "an integer of -2^31..2^31-1", is_int32),
];

fn parse(body: &[u8]) -> Result<NewSession, Problem> {
    let body: SessionBody = body::read(body, &MEMBERS)?;
    Ok(NewSession {
        start_time: start_time(&body.start_time).ok_or_else(|| {
            Problem::bad_request(
                "start_time is a time of RFC 3339 with its offset, like 2021-12-09T16:12:52.059188Z",
            )
        })?,
        customer_id: body.customer_id,
        movie_id: body.movie_id,
    })
}

/// RFC 3339 section 5.6, years 0001 to 9999; finer than microseconds is cut off. Second 60, which it
/// allows for leap seconds, is the next minute's 0, as PostgreSQL has it (documentation, appendix B.1).
fn start_time(text: &str) -> Option<Timestamp> {
    if !is_rfc3339(text) {
        return None;
    }
    let parsed: jiff::Timestamp = cut(text).parse().ok()?;
    // The parser takes second 60 for 59.
    let time = match text.get(17..19)? {
        "60" => parsed
            .checked_add(jiff::SignedDuration::from_secs(1))
            .ok()?,
        _ => parsed,
    };
    let first = jiff::civil::date(1, 1, 1)
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()?;
    (time >= first.timestamp())
        .then(|| {
            Timestamp::from_unix_micros(time.as_nanosecond().div_euclid(1000).try_into().ok()?)
        })
        .flatten()
}

/// Without the digits of a second that are more than the parser takes.
fn cut(text: &str) -> Cow<'_, str> {
    const DIGITS_MAX: usize = 9;
    let Some((before, rest)) = text.split_once('.') else {
        return text.into();
    };
    let offset = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = rest.len() - offset.len();
    match rest.get(..DIGITS_MAX) {
        Some(kept) if digits > DIGITS_MAX => format!("{before}.{kept}{offset}").into(),
        _ => text.into(),
    }
}

/// Whether it has the shape; the parser takes more shapes than this one.
fn is_rfc3339(text: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => byte.eq_ignore_ascii_case(&b'T'),
        _ => byte == shape,
    };
    let Some((local, rest)) = text.as_bytes().split_at_checked(SHAPE.len()) else {
        return false;
    };
    let offset = match rest.strip_prefix(b".") {
        Some(rest) => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return false;
            }
            rest.get(digits..).unwrap_or_default()
        }
        None => rest,
    };
    let is_offset = match offset {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', hour @ .., b':', _, _] if hour.len() == 2 => offset
            .iter()
            .skip(1)
            .all(|byte| byte.is_ascii_digit() || *byte == b':'),
        _ => false,
    };
    is_offset && local.iter().zip(SHAPE).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_taken_with_any_offset_and_kept_to_the_microsecond() {
        let utc = start_time("2021-12-09T16:12:52.059188Z").unwrap();
        assert_eq!(start_time("2021-12-09T19:12:52.0591889+03:00"), Some(utc));
        assert_eq!(
            start_time("2021-12-09T16:12:52.0591889999999999Z"),
            Some(utc)
        );
        assert_eq!(
            Timestamp::from_unix_micros(1_639_066_372_059_188),
            Some(utc)
        );
    }

    #[test]
    fn second_60_is_the_next_minutes_0_as_in_postgresql() {
        for (leap, plain) in [
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
            ("2021-12-09T16:12:60.5Z", "2021-12-09T16:13:00.5Z"),
            ("2017-01-01T02:59:60.25+03:00", "2017-01-01T00:00:00.25Z"),
        ] {
            assert_eq!(start_time(leap), start_time(plain), "{leap}");
            assert!(start_time(leap).is_some(), "{leap}");
        }
    }

    #[test]
    fn a_time_without_offset_or_out_of_range_is_refused() {
        for wrong in [
            "2021-12-09T16:12:52",
            "2021-12-09 16:12:52Z",
            "2021-13-09T16:12:52Z",
            "2021-12-09",
            "0000-12-31T00:00:00Z",
            "+002021-12-09T16:12:52Z",
            "2021-12-09T16:12:52Z[UTC]",
            "2021-12-09T1612Z",
            "2021-12-09T16:12Z",
            "2021-12-09T16:12:52.Z",
            "2021-12-09T16:12:52+03",
            "2021-12-09T16:12:52+0300",
            "2021-12-09T16:12:52+3:000",
            "2021-12-09T16:12:61Z",
            "",
        ] {
            assert_eq!(start_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_json_is_taken_whatever_its_parameters() {
        let with = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            require_json(&HeaderMap::from_iter([(CONTENT_TYPE, value)]))
        };
        assert!(with("application/json").is_ok());
        assert!(with("Application/JSON; charset=utf-8").is_ok());
        assert!(with("application/json;charset=\"UTF-8\";v=1").is_ok());
        assert!(with("text/plain").is_err());
        assert!(with("application/json; charset=koi8-r").is_err());
        assert!(require_json(&HeaderMap::new()).is_err());
    }

    #[test]
    fn a_body_in_a_content_coding_or_of_two_types_is_not_taken() {
        let with = |name: HeaderName, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.append(name, HeaderValue::from_static(value));
            require_json(&headers).map_err(|problem| problem.status.as_u16())
        };
        assert_eq!(with(CONTENT_ENCODING, "Identity"), Ok(()));
        for (name, value) in [
            (CONTENT_ENCODING, "gzip"),
            (CONTENT_ENCODING, ""),
            (CONTENT_TYPE, "application/json"),
            (CONTENT_TYPE, "text/plain"),
        ] {
            assert_eq!(with(name.clone(), value), Err(415), "{name}: {value}");
        }
    }
}
