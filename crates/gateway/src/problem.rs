//! The gateway's own answers: problems (RFC 9457) that say in `Proxy-Status` (RFC 9209) that it was
//! the gateway who spoke, and why.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

/// Why the gateway answers by itself.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    BadRequest(&'static str),
    NoRoute,
    /// The value of `Allow`.
    WrongMethod(HeaderValue),
    /// The request's head took longer than `head_timeout`.
    SlowHead,
    /// The request's body took longer than the request's time.
    SlowBody,
    /// The request's body came below `body_rate_min`.
    BodyBelowRate,
    BodyTooLarge,
    UriTooLong,
    HeadTooLarge,
    TooManyFields,
    /// A node broke the connection before it answered and the request must not be sent again.
    NoAnswer,
    /// No node answered within the request's time. `reached`: one had the request.
    NoNodeInTime {
        reached: bool,
    },
    /// Too many requests wait for a node.
    HeldTooMany,
    /// Too many requests of its class wait for their turn, or it waited too long for its own.
    Shed {
        limit: &'static str,
    },
    /// A node was lost with this very request twice.
    Quarantined,
    /// The client takes an answer only from the cache, and there is none.
    NotCached,
}

type Parts = (StatusCode, &'static str, &'static str, &'static str);

const SLOW_HEAD: Parts = (
    StatusCode::REQUEST_TIMEOUT,
    "request-timeout",
    "http_request_error",
    "the request's head did not arrive in time",
);
const OVERLOADED: Parts = (
    StatusCode::SERVICE_UNAVAILABLE,
    "overloaded",
    "connection_limit_reached",
    "more requests wait for a node than may wait",
);
const QUARANTINED: Parts = (
    StatusCode::UNPROCESSABLE_ENTITY,
    "quarantined",
    "http_request_denied",
    "nodes were lost with this very request, twice; it is refused for a while",
);
const NOT_CACHED: Parts = (
    StatusCode::GATEWAY_TIMEOUT,
    "not-cached",
    "http_request_denied",
    "only-if-cached was asked for, and the cache has no answer",
);

impl Refusal {
    /// Status, slug of the problem's type, error type of RFC 9209 section 2.3, and what to say.
    fn parts(&self) -> Parts {
        const REQUEST: &str = "http_request_error";
        match self {
            Self::BadRequest(why) => (StatusCode::BAD_REQUEST, "bad-request", REQUEST, why),
            Self::NoRoute => (
                StatusCode::NOT_FOUND,
                "not-found",
                REQUEST,
                "no route has this path",
            ),
            Self::WrongMethod(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                REQUEST,
                "this path takes only the methods named in Allow",
            ),
            Self::SlowHead => SLOW_HEAD,
            Self::SlowBody => (
                StatusCode::REQUEST_TIMEOUT,
                "request-timeout",
                REQUEST,
                "the request's body did not arrive in time",
            ),
            Self::BodyBelowRate => (
                StatusCode::REQUEST_TIMEOUT,
                "request-timeout",
                REQUEST,
                "the request's body came too slowly",
            ),
            Self::HeadTooLarge | Self::TooManyFields => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head-too-large",
                REQUEST,
                "the request's head is too large or has too many fields",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "http_request_error",
                "the request's body is larger than this path takes",
            ),
            Self::UriTooLong => (
                StatusCode::URI_TOO_LONG,
                "uri-too-long",
                REQUEST,
                "the request's target is too long",
            ),
            Self::NoAnswer => (
                StatusCode::BAD_GATEWAY,
                "broken-answer",
                "connection_terminated",
                "the node broke the connection before it answered; the request may have had effect",
            ),
            Self::NoNodeInTime { reached: true } => (
                StatusCode::GATEWAY_TIMEOUT,
                "no-answer-in-time",
                "http_response_timeout",
                "no node answered in time; the request may have had effect",
            ),
            Self::NoNodeInTime { reached: false } => (
                StatusCode::GATEWAY_TIMEOUT,
                "no-node-in-time",
                "destination_unavailable",
                "no node could take the request in time",
            ),
            Self::HeldTooMany | Self::Shed { .. } => OVERLOADED,
            Self::Quarantined => QUARANTINED,
            Self::NotCached => NOT_CACHED,
        }
    }

    /// The error type of RFC 9209 section 2.3.
    pub(crate) fn error(&self) -> &'static str {
        self.parts().2
    }

    /// The limit that was hit, as `bingo_limit_hits_total` names it.
    pub(crate) fn limit(&self) -> Option<&'static str> {
        match self {
            Self::BodyTooLarge => Some("body_bytes_max"),
            Self::UriTooLong => Some("uri_bytes_max"),
            Self::HeadTooLarge => Some("head_bytes_max"),
            Self::TooManyFields => Some("fields_max"),
            Self::SlowHead => Some("head_timeout"),
            Self::BodyBelowRate => Some("body_rate_min"),
            Self::HeldTooMany => Some("held_max"),
            Self::Shed { limit } => Some(limit),
            Self::SlowBody | Self::NoNodeInTime { .. } => Some("deadline"),
            _ => None,
        }
    }

    /// Whether the rest of the request is of no use, so that the connection must end.
    fn closes(&self) -> bool {
        matches!(
            self,
            Self::BadRequest(_)
                | Self::SlowHead
                | Self::SlowBody
                | Self::BodyBelowRate
                | Self::BodyTooLarge
                | Self::UriTooLong
                | Self::HeadTooLarge
                | Self::TooManyFields
        )
    }

    /// The answer; `path` and `request_id` are the request's.
    pub(crate) fn answer(&self, path: &str, request_id: Option<HeaderValue>) -> Response<Bytes> {
        let (status, slug, error, detail) = self.parts();
        let body = serde_json::json!({
            "type": format!("/problems/{slug}"),
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": detail,
            "instance": path,
        });
        let mut answer = Response::new(Bytes::from(body.to_string()));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        let fixed = HeaderValue::from_static;
        headers.insert(header::CONTENT_TYPE, fixed("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, fixed("no-store"));
        if let Ok(value) = HeaderValue::try_from(format!("bingo; error={error}")) {
            headers.insert(HeaderName::from_static("proxy-status"), value);
        }
        if let Some(id) = request_id {
            headers.insert(crate::request_id::NAME, id);
        }
        if let Self::WrongMethod(allow) = self {
            headers.insert(header::ALLOW, allow.clone());
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, fixed("1"));
        }
        if self.closes() {
            headers.insert(header::CONNECTION, fixed("close"));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_answer_is_a_problem_that_names_the_gateway_as_its_source() {
        let refusal = Refusal::NoNodeInTime { reached: false };
        let answer = refusal.answer("/a\"b", Some(HeaderValue::from_static("id-1")));
        assert_eq!(answer.status(), 504);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(
            answer.headers()["proxy-status"],
            "bingo; error=destination_unavailable"
        );
        assert_eq!(answer.headers()["x-request-id"], "id-1");
        let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(body["type"], "/problems/no-node-in-time");
        assert_eq!(body["status"], 504);
        assert_eq!(body["instance"], "/a\"b");
    }

    #[test]
    fn a_shed_request_is_told_when_to_come_back() {
        let answer = Refusal::HeldTooMany.answer("/", None);
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["retry-after"]),
            (503, &HeaderValue::from_static("1"))
        );
    }
}
