//! What can be asked: each path and method, its parameters and its answers.

use serde_json::{Map, Value, json};

use super::answers::{common_headers, insert, with_problems};
use super::shapes::{example, int32, int64, reference};

/// `paths`.
pub(super) fn paths() -> Value {
    json!({
        "/": { "get": get("index", "service", "The vendor's page",
            text("336 bytes.", "Hi. Accept my congratulations."), &[]) },
        "/ping": { "get": ping() },
        "/ready": { "get": get("ready", "service", "Whether the database answers, too",
            text("It does.", "ready"), &[]) },
        "/config": { "get": get("config", "service", "The configuration, secrets masked",
            body("In effect now.", "application/yaml", &json!({ "type": "object" }),
                &json!({ "student_email": "test@example.com" })), &[]) },
        "/operation": { "post": operation() },
        "/db_dummy": { "get": get("dbDummy", "dummies", "Takes a tenth of a second in the database",
            record("HereAndNow", "Taken."), &[]) },
        "/long_dummy": { "get": get("longDummy", "dummies",
            "Takes `long_dummy_duration`; may be cached for a minute",
            record("HereAndNow", "Taken."), &[]) },
        "/api/movie": { "get": list("Movie", "movies",
            "Ordered by year (newest first), name, id (highest first)") },
        "/api/movie/{id}": { "get": one("Movie", "movies", &int32()) },
        "/api/customer": { "get": list("Customer", "customers",
            "Ordered by surname, name, birthday (latest first), id (highest first)") },
        "/api/customer/{id}": { "get": one("Customer", "customers", &int32()) },
        "/api/session": {
            "get": list("Session", "sessions",
                "Ordered by the movie's year (newest first) and name, the customer's id, the \
                 session's id (highest first)"),
            "post": create(),
        },
        "/api/session/{id}": {
            "get": one("Session", "sessions", &int64()),
            "delete": delete(),
        },
        "/openapi.json": { "get": get("openapi", "service", "This document",
            body("OpenAPI 3.1.", "application/json", &json!({ "type": "object" }),
                &json!({ "openapi": "3.1.0" })), &[]) },
        "/docs": { "get": docs() },
    })
}

/// `components.parameters`.
pub(super) fn parameters() -> Value {
    json!({
        "Limit": {
            "name": "limit", "in": "query",
            "description": "How many at most.",
            "schema": { "type": "integer", "minimum": 1, "maximum": storage::LIST_ROWS_MAX },
            "example": 100,
        },
        "Cursor": cursor(storage::PLACE_PATTERN),
        "SessionCursor": cursor(storage::SESSION_PLACE_PATTERN),
        "IdempotencyKey": {
            "name": "Idempotency-Key", "in": "header",
            "description": "Makes the request repeatable: a repeat with the same key gets the first \
                answer and has no second effect; one that comes while the first runs waits for it. \
                Kept for a day. Gateways add one where there is none.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$" },
        },
        "RequestId": {
            "name": "X-Request-Id", "in": "header",
            "description": "Taken over into the answer and the logs where it has 1 to 128 letters, \
                digits or -_.:+/=@; else replaced.",
            "schema": { "type": "string" },
            "example": "abc-1",
        },
        "Traceparent": {
            "name": "traceparent", "in": "header",
            "description": "W3C Trace Context; its trace stands in the logs.",
            "schema": { "type": "string" },
            "example": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        },
    })
}

fn cursor(pattern: &str) -> Value {
    json!({
        "name": "cursor", "in": "query",
        "description": "Where to go on: from the header `Link` of the page before. Opaque.",
        "schema": { "type": "string", "pattern": pattern },
    })
}

fn parameter(name: &str) -> Value {
    json!({ "$ref": format!("#/components/parameters/{name}") })
}

fn id_of(schema: &Value) -> Value {
    json!({ "name": "id", "in": "path", "required": true, "schema": schema, "example": 1 })
}

/// An answer with a body.
fn body(description: &str, media_type: &str, schema: &Value, example: &Value) -> Value {
    json!({
        "description": description,
        "headers": common_headers(),
        "content": { media_type: { "schema": schema, "example": example } },
    })
}

fn text(description: &str, example: &str) -> Value {
    body(
        description,
        "text/plain",
        &json!({ "type": "string" }),
        &json!(example),
    )
}

fn record(name: &str, description: &str) -> Value {
    body(
        description,
        "application/json",
        &reference(name),
        &example(name),
    )
}

/// An operation: `success` is the answer 200, `problems` those beside the ones that all have.
fn get(name: &str, tag: &str, summary: &str, success: Value, problems: &[u16]) -> Value {
    with_parameters(
        name,
        tag,
        summary,
        Vec::new(),
        with_problems(only(200, success), problems),
    )
}

fn only(status: u16, answer: Value) -> Map<String, Value> {
    Map::from_iter([(status.to_string(), answer)])
}

fn with_parameters(
    name: &str,
    tag: &str,
    summary: &str,
    mut own: Vec<Value>,
    answers: Value,
) -> Value {
    own.extend([parameter("RequestId"), parameter("Traceparent")]);
    json!({
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "parameters": own,
        "responses": answers,
    })
}

fn ping() -> Value {
    let mut unhealthy = text(
        "The process does not serve, or is about to end.",
        "I feel bad",
    );
    let mut headers = common_headers();
    insert(&mut headers, "Bingo-State");
    unhealthy["headers"] = Value::Object(headers);
    let mut answers = only(200, text("The process serves.", "pong"));
    answers.insert("500".to_owned(), unhealthy);
    with_parameters(
        "ping",
        "service",
        "Whether the process serves; says nothing of the database",
        Vec::new(),
        with_problems(answers, &[]),
    )
}

fn docs() -> Value {
    let mut page = body(
        "HTML without any outside resource.",
        "text/html",
        &json!({ "type": "string" }),
        &json!("<!doctype html>"),
    );
    let mut headers = common_headers();
    insert(&mut headers, "Content-Security-Policy");
    page["headers"] = Value::Object(headers);
    get("docs", "service", "This document as a page", page, &[])
}

fn list(name: &str, tag: &str, order: &str) -> Value {
    let schema = json!({
        "type": "array", "items": reference(name), "maxItems": storage::LIST_ROWS_MAX,
    });
    let mut page = body(
        "The list, or a page of it. It is streamed: one that cannot be finished ends without its \
         final chunk, and the connection is closed.",
        "application/json",
        &schema,
        &json!([example(name)]),
    );
    let cursor = match name {
        "Session" => "SessionCursor",
        _ => "Cursor",
    };
    let mut headers = common_headers();
    insert(&mut headers, "Link");
    page["headers"] = Value::Object(headers);
    with_parameters(
        &format!("list{name}s"),
        tag,
        order,
        vec![parameter("Limit"), parameter(cursor)],
        with_problems(only(200, page), &[404]),
    )
}

fn one(name: &str, tag: &str, id: &Value) -> Value {
    let summary = format!("One {}", name.to_lowercase());
    with_parameters(
        &format!("get{name}"),
        tag,
        &summary,
        vec![id_of(id)],
        with_problems(only(200, record(name, "Found.")), &[404]),
    )
}

fn create() -> Value {
    let mut stored = record(
        "Session",
        "Stored, now or by an earlier request with this key.",
    );
    let mut headers = common_headers();
    insert(&mut headers, "Location");
    stored["headers"] = Value::Object(headers);
    let mut operation = with_parameters(
        "createSession",
        "sessions",
        "Store a session",
        vec![parameter("IdempotencyKey")],
        with_problems(only(201, stored), &[408, 413, 415, 422]),
    );
    operation["requestBody"] = request_body("NewSession");
    operation
}

fn delete() -> Value {
    let gone = json!({
        "description": "Deleted, now or by an earlier request with this key.",
        "headers": common_headers(),
    });
    with_parameters(
        "deleteSession",
        "sessions",
        "Delete a session",
        vec![id_of(&int64()), parameter("IdempotencyKey")],
        with_problems(only(204, gone), &[404, 422]),
    )
}

fn operation() -> Value {
    let mut operation = with_parameters(
        "operation",
        "dummies",
        "Repeats a number; stores nothing. The body's media type is not looked at",
        Vec::new(),
        with_problems(only(200, record("OperationResult", "Done.")), &[408, 413]),
    );
    operation["requestBody"] = request_body("Operation");
    operation
}

fn request_body(name: &str) -> Value {
    json!({
        "required": true,
        "description": "At most `limits.body_bytes_max` (64KiB).",
        "content": { "application/json": { "schema": reference(name) } },
    })
}
