//! Problems (RFC 9457): what a client is told when it does not get what it asked for. This is the
//! one place that turns a storage error into a status.
//!
//! A problem becomes a response twice: here without its `instance`, and in `envelope`, which knows
//! the request, with its body. So no handler needs to know the path that it was asked by. What the
//! client is told and what is logged are apart: `cause` goes to the log alone.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use crate::json::write_string;

/// Seconds after which a client may ask again while the database is away.
const RETRY_AFTER_SECONDS: &str = "1";

/// The slug where the database is away.
const AWAY: &str = "database-unavailable";

/// A refusal or a failure, as RFC 9457 section 3 has it. `type` is `/problems/<slug>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) slug: &'static str,
    /// For the client: what is wrong, and what to do.
    pub(crate) detail: String,
    /// For the log: why.
    pub(crate) cause: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, slug: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            slug,
            detail: detail.into(),
            cause: None,
        }
    }

    /// 400: the request cannot be understood.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// 404.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// 503: not now, but soon.
    pub(crate) fn unavailable(slug: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, slug, detail)
    }

    /// 504: no answer within the request's time.
    pub(crate) fn deadline() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "deadline",
            "the answer could not be produced within the time of the request",
        )
    }

    /// 500: a fault of ours.
    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the request failed here; the log of this node says why, under its X-Request-Id",
            )
        }
    }

    /// For a 4xx that axum or hyper answered before any handler of ours.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::METHOD_NOT_ALLOWED => Self::new(
                status,
                "method-not-allowed",
                "the header Allow names the methods of this path",
            ),
            StatusCode::URI_TOO_LONG => Self::new(status, "uri-too-long", "send a shorter address"),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::new(
                status,
                "head-too-large",
                "the request's line and header fields are too many or too large",
            ),
            status => Self::new(status, "bad-request", "the request cannot be understood"),
        }
    }

    /// Whether the database is away.
    pub(crate) fn is_of_absence(&self) -> bool {
        self.slug == AWAY
    }

    /// The JSON body; `instance` is the path that was asked for.
    pub(crate) fn to_json(&self, instance: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(b"{\"type\":");
        write_string(&format!("/problems/{}", self.slug), &mut out);
        out.extend_from_slice(b",\"title\":");
        write_string(self.status.canonical_reason().unwrap_or("Error"), &mut out);
        out.extend_from_slice(
            format!(",\"status\":{},\"detail\":", self.status.as_u16()).as_bytes(),
        );
        write_string(&self.detail, &mut out);
        out.extend_from_slice(b",\"instance\":");
        write_string(instance, &mut out);
        out.push(b'}');
        out
    }
}

/// The status and headers; the body is filled in by `envelope`.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<storage::Error> for Problem {
    fn from(error: storage::Error) -> Self {
        /// PostgreSQL appendix A: undefined_table, undefined_column, query_canceled.
        const NOT_PREPARED: [&str; 2] = ["42P01", "42703"];
        const CANCELED: &str = "57014";
        let code = error.code().map(|code| code.code().to_owned());
        let problem = match code.as_deref() {
            _ if error.is_unavailable() => Self::unavailable(
                AWAY,
                "the database is away or overloaded; send the request again",
            ),
            Some(code) if NOT_PREPARED.contains(&code) => Self::unavailable(
                "database-not-prepared",
                "the database has not been filled yet: bingo prepare_db",
            ),
            Some(CANCELED) => Self::deadline(),
            // A lock that was not given, a serialization failure, a deadlock.
            _ if error.is_retryable() => Self::unavailable(
                "database-busy",
                "another request held what this one needs; send it again",
            ),
            _ => Self::internal(""),
        };
        Self {
            cause: Some(cause(&error)),
            ..problem
        }
    }
}

/// What went wrong, for the log: what was attempted and the SQLSTATE. The server's own words are left
/// out, for they may repeat the values of a statement.
pub(crate) fn cause(error: &storage::Error) -> String {
    match error.code() {
        Some(code) => format!("{error}: SQLSTATE {}", code.code()),
        None => chassis::failure::chain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_rfc_9457() {
        let json = Problem::not_found("no movie \"5\"").to_json("/api/movie/5");
        assert_eq!(
            String::from_utf8(json).unwrap(),
            concat!(
                r#"{"type":"/problems/not-found","title":"Not Found","status":404,"#,
                r#""detail":"no movie \"5\"","instance":"/api/movie/5"}"#
            )
        );
    }

    #[test]
    fn a_database_that_is_away_is_worth_a_retry_and_its_hosts_stay_in_the_log() {
        let problem = Problem::from(storage::Error::Unreachable {
            attempts: vec![storage::error::Attempt {
                host: "canary:5432".into(),
                answer: "connection refused".into(),
                remedy: String::new(),
            }],
        });
        assert_eq!(problem.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(problem.cause.as_ref().unwrap().contains("canary"));
        assert!(
            !String::from_utf8(problem.to_json("/"))
                .unwrap()
                .contains("canary")
        );
        assert_eq!(problem.into_response().headers()[RETRY_AFTER], "1");
    }
}
