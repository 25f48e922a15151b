//! The problems and headers that operations share.

use serde_json::{Map, Value, json};

use super::shapes::reference;

/// A problem: its name in the document, status, slug, when it is answered, its detail.
struct Shared {
    name: &'static str,
    status: u16,
    slugs: &'static [&'static str],
    when: &'static str,
    detail: &'static str,
}

const SHARED: [Shared; 14] = [
    Shared {
        name: "BadRequest",
        status: 400,
        slugs: &["bad-request", "malformed-cursor"],
        when: "The request cannot be understood: an id, a parameter, a header or the body.",
        detail: "the id is no integer of its column's range",
    },
    Shared {
        name: "NotFound",
        status: 404,
        slugs: &["not-found", "unknown-cursor"],
        when: "There is none with this id, or the row that a cursor stands for is gone.",
        detail: "there is no movie with this id",
    },
    Shared {
        name: "MethodNotAllowed",
        status: 405,
        slugs: &["method-not-allowed"],
        when: "The path has no such method; `Allow` names those that it has.",
        detail: "the header Allow names the methods of this path",
    },
    Shared {
        name: "RequestTimeout",
        status: 408,
        slugs: &["request-timeout"],
        when: "The body did not arrive in time.",
        detail: "the body did not arrive in time",
    },
    Shared {
        name: "TooLarge",
        status: 413,
        slugs: &["body-too-large"],
        when: "The body is larger than the limit.",
        detail: "the body may have 64KiB",
    },
    Shared {
        name: "AddressTooLong",
        status: 414,
        slugs: &["uri-too-long"],
        when: "The address is longer than the limit.",
        detail: "send a shorter address",
    },
    Shared {
        name: "UnsupportedMediaType",
        status: 415,
        slugs: &["unsupported-media-type"],
        when: "The body is not `application/json`.",
        detail: "send application/json",
    },
    Shared {
        name: "Unprocessable",
        status: 422,
        slugs: &["unknown-reference", "idempotency-key-reused", "quarantined"],
        when: "The request is understood and cannot be done: no such customer or movie; the key was \
            used for another request; or, from a gateway, the request has brought nodes down before.",
        detail: "there is no such customer or no such movie",
    },
    Shared {
        name: "TooManyRequests",
        status: 429,
        slugs: &[],
        when: "Only with the fault `rps_limit` on: the request waited 10 s for its turn.",
        detail: "",
    },
    Shared {
        name: "HeadTooLarge",
        status: 431,
        slugs: &["head-too-large"],
        when: "The header fields are too many or too large.",
        detail: "the request's line and header fields are too many or too large",
    },
    Shared {
        name: "Internal",
        status: 500,
        slugs: &["internal"],
        when: "A fault of this service; its log says why.",
        detail: "the request failed here; the log of this node says why, under its X-Request-Id",
    },
    Shared {
        name: "BadGateway",
        status: 502,
        slugs: &["broken-answer"],
        when: "From a gateway alone: the node's answer broke off.",
        detail: "the node's answer broke off",
    },
    Shared {
        name: "Unavailable",
        status: 503,
        slugs: &[
            "database-unavailable",
            "database-not-prepared",
            "database-busy",
            "draining",
            "overloaded",
        ],
        when: "Not now: the database is away, or the node is about to end; or, from a gateway, too \
            much is asked at once. `Retry-After` says when to ask again.",
        detail: "the database is away or overloaded; send the request again",
    },
    Shared {
        name: "DeadlineExceeded",
        status: 504,
        slugs: &["deadline", "no-answer-in-time", "no-node-in-time"],
        when: "The answer could not be produced in time: 20 s, or what `Bingo-Timeout-Ms` leaves; or, \
            from a gateway, no node answered or could take the request in time.",
        detail: "the answer could not be produced within the time of the request",
    },
];

/// `components.responses`.
pub(super) fn problems() -> Value {
    let all = SHARED
        .iter()
        .map(|shared| (shared.name.to_owned(), problem(shared)));
    Value::Object(all.collect())
}

/// The answers of an operation: its own, and the shared problems with these statuses, besides those
/// that every operation may give.
pub(super) fn with_problems(mut own: Map<String, Value>, statuses: &[u16]) -> Value {
    const EVERYWHERE: [u16; 9] = [400, 405, 414, 429, 431, 500, 502, 503, 504];
    for shared in &SHARED {
        if EVERYWHERE.contains(&shared.status) || statuses.contains(&shared.status) {
            let to = format!("#/components/responses/{}", shared.name);
            own.entry(shared.status.to_string())
                .or_insert(json!({ "$ref": to }));
        }
    }
    Value::Object(own)
}

fn problem(shared: &Shared) -> Value {
    let title = http::StatusCode::from_u16(shared.status)
        .ok()
        .and_then(|status| status.canonical_reason());
    let mut headers = common_headers();
    match shared.status {
        405 => insert(&mut headers, "Allow"),
        503 => insert(&mut headers, "Retry-After"),
        _ => {}
    }
    if shared.slugs.is_empty() {
        return json!({
            "description": shared.when,
            "headers": headers,
            "content": { "text/plain": {
                "schema": { "type": "string" }, "example": title,
            } },
        });
    }
    let types: Vec<String> = shared
        .slugs
        .iter()
        .map(|slug| format!("/problems/{slug}"))
        .collect();
    let mut content = json!({ "application/problem+json": {
        "schema": {
            "allOf": [reference("Problem")],
            "properties": { "type": { "enum": types }, "status": { "const": shared.status } },
        },
        "example": {
            "type": types.first(), "title": title, "status": shared.status,
            "detail": shared.detail, "instance": "/api/movie/1",
        },
    } });
    // The vendor's text, where a fault of the vendor's is on.
    if shared.status == 500 {
        content["text/plain"] = json!({
            "schema": { "type": "string", "description": "Only with the fault `operation` or `lifetime` on." },
            "example": "I feel bad.",
        });
    }
    json!({ "description": shared.when, "headers": headers, "content": content })
}

/// References to the headers of every answer.
pub(super) fn common_headers() -> Map<String, Value> {
    let mut headers = Map::new();
    for name in ["Date", "Cache-Control", "X-Request-Id"] {
        insert(&mut headers, name);
    }
    headers
}

/// Adds a reference to a header of `headers`.
pub(super) fn insert(headers: &mut Map<String, Value>, name: &str) {
    let to = format!("#/components/headers/{name}");
    headers.insert(name.to_owned(), json!({ "$ref": to }));
}

/// `components.headers`.
pub(super) fn headers() -> Value {
    json!({
        "Date": header(true, "When the answer was made.", "Sat, 21 Nov 2026 08:00:00 GMT"),
        "Cache-Control": header(true, "`no-store`, save for `/long_dummy`.", "no-store"),
        "X-Request-Id": header(
            true,
            "The request's own id where it was sane, else a new one; logs are found by it.",
            "019aa5a0-0000-7000-8000-000000000000",
        ),
        "Location": header(true, "Where the session is.", "/api/session/1"),
        "Link": header(
            false,
            "With `rel=\"next\"` the address of the next page; not at the list's end, and not where \
             neither `limit` nor `cursor` was given.",
            "</api/movie?limit=2&cursor=5>; rel=\"next\"",
        ),
        "Allow": header(true, "The methods of this path.", "GET, HEAD"),
        "Retry-After": header(true, "Seconds.", "1"),
        "Bingo-State": header(false, "`draining` on a node that is about to end.", "draining"),
        "Content-Security-Policy": header(true, "The page runs nothing but its own.", "default-src 'none'"),
    })
}

fn header(required: bool, description: &str, example: &str) -> Value {
    json!({
        "required": required,
        "description": description,
        "schema": { "type": "string" },
        "example": example,
    })
}
