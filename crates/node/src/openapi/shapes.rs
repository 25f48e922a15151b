//! The schemas of bodies (contract.md section 3, "Shapes"), each with an example.

use serde_json::{Value, json};

/// All of them, by name.
pub(super) fn schemas() -> Value {
    json!({
        "Movie": object("A movie.", &[
            ("id", int32(), json!(1)),
            ("name", json!({ "type": "string" }), json!("The Long Way Home")),
            ("year", int32(), json!(1994)),
            ("duration", json!({ "type": "integer", "format": "int64", "description": "Seconds." }),
                json!(5820)),
        ]),
        "Customer": object("A customer.", &[
            ("id", int32(), json!(1)),
            ("name", json!({ "type": "string", "maxLength": 80 }), json!("Ada")),
            ("surname", json!({ "type": "string", "maxLength": 80 }), json!("Example")),
            ("birthday", json!({ "type": "string", "format": "date" }), json!("1987-05-14")),
            ("email", json!({ "type": "string", "maxLength": 256 }), json!("ada@example.com")),
        ]),
        "Session": object("A customer watches a movie.", &[
            ("id", int64(), json!(1)),
            ("start_time", json!({
                "type": "string",
                "format": "date-time",
                "description": "UTC, to the microsecond.",
            }), json!("2015-10-06T11:16:31.395859Z")),
            ("customer", reference("Customer"), example("Customer")),
            ("movie", reference("Movie"), example("Movie")),
        ]),
        "NewSession": new_session(),
        "Operation": {
            "type": "object",
            "required": ["operation"],
            "additionalProperties": false,
            "properties": { "operation": operation() },
            "example": { "operation": 7 },
        },
        "OperationResult": object("The number again, with the node's name and clock.", &[
            ("operation", operation(), json!(7)),
            ("host", json!({ "type": "string" }), json!("node-1")),
            ("time", time(), json!("2026-11-21T08:00:00.000000Z")),
        ]),
        "HereAndNow": object("The node's name and clock.", &[
            ("host", json!({ "type": "string" }), json!("node-1")),
            ("time", time(), json!("2026-11-21T08:00:00.000000Z")),
        ]),
        "Problem": problem(),
    })
}

/// The example of a record's schema.
pub(super) fn example(name: &str) -> Value {
    let movie = json!({ "id": 1, "name": "The Long Way Home", "year": 1994, "duration": 5820 });
    let customer = json!({
        "id": 1, "name": "Ada", "surname": "Example", "birthday": "1987-05-14",
        "email": "ada@example.com",
    });
    match name {
        "Movie" => movie,
        "Customer" => customer,
        "Session" => json!({
            "id": 1, "start_time": "2015-10-06T11:16:31.395859Z",
            "customer": customer, "movie": movie,
        }),
        "OperationResult" => json!({
            "operation": 7, "host": "node-1", "time": "2026-11-21T08:00:00.000000Z",
        }),
        "HereAndNow" => json!({ "host": "node-1", "time": "2026-11-21T08:00:00.000000Z" }),
        _ => json!({}),
    }
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object whose members are all there always.
fn object(description: &str, members: &[(&str, Value, Value)]) -> Value {
    let names: Vec<&str> = members.iter().map(|(name, ..)| *name).collect();
    let properties: serde_json::Map<String, Value> = members
        .iter()
        .map(|(name, schema, _)| ((*name).to_owned(), schema.clone()))
        .collect();
    let example: serde_json::Map<String, Value> = members
        .iter()
        .map(|(name, _, example)| ((*name).to_owned(), example.clone()))
        .collect();
    json!({
        "type": "object",
        "description": description,
        "required": names,
        "properties": properties,
        "example": example,
    })
}

pub(super) fn int32() -> Value {
    json!({ "type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX })
}

pub(super) fn int64() -> Value {
    json!({ "type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX })
}

fn operation() -> Value {
    json!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": i64::MAX })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time", "description": "The node's clock, UTC." })
}

fn new_session() -> Value {
    json!({
        "type": "object",
        "required": ["start_time", "customer_id", "movie_id"],
        "additionalProperties": false,
        "properties": {
            "start_time": {
                "type": "string",
                "format": "date-time",
                "description": "RFC 3339, years 0001 to 9999, with its offset; finer than \
                    microseconds is cut off, second 60 is the next minute's 0.",
            },
            "customer_id": int32(),
            "movie_id": int32(),
        },
        "example": {
            "start_time": "2021-12-09T16:12:52.059188Z", "customer_id": 1, "movie_id": 1,
        },
    })
}

/// RFC 9457 section 3.1.
fn problem() -> Value {
    json!({
        "type": "object",
        "description": "What went wrong (RFC 9457).",
        "required": ["type", "title", "status", "detail", "instance"],
        "properties": {
            "type": { "type": "string", "description": "`/problems/` and a name: one for each kind." },
            "title": { "type": "string", "description": "The status in words." },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string", "description": "What is wrong, and what to do." },
            "instance": { "type": "string", "description": "The path that was asked for." },
        },
        "example": {
            "type": "/problems/not-found", "title": "Not Found", "status": 404,
            "detail": "there is no such path", "instance": "/nowhere",
        },
    })
}
