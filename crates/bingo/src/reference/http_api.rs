//! `http-api.md`: a table of the API's calls, from the OpenAPI document, which
//! has all the rest: `GET /openapi.json`, and for people `GET /docs`.

use serde_json::Value as Json;

use super::cell;

/// In the order in which a page about an API shows them.
const METHODS: [&str; 5] = ["get", "post", "put", "delete", "patch"];

pub(super) fn page() -> String {
    let document = node::openapi_document();
    let mut page = String::from(
        "# HTTP API\n\n\
         A summary of the OpenAPI 3.1 document that a node serves as `GET /openapi.json` and renders \
         as\n`GET /docs`: shapes, headers and examples stand there. `HEAD` is answered wherever `GET` \
         is. Every\nerror is a problem (RFC 9457) with `type`, `title`, `status`, `detail`, \
         `instance`.\n\n\
         Bodies are JSON objects with the members that are documented and no others: an unknown, missing \
         or\nrepeated one is 400. `POST /api/session` wants `Content-Type: application/json` (else 415); \
         `POST\n/operation` looks at no media type, for `curl -d` sends a form's.\n\n\
         `Bingo-Timeout-Ms: N` leaves a node N milliseconds for the answer, where that is less than its \
         own\n`limits.deadline` (20 s); then 504. A gateway sends it with what is left of the route's \
         deadline, and puts\nits own in the place of a client's: it is of use to who asks a node \
         directly. Where the database is away a\nrequest waits for it, `limits.database_wait` (10 s) and \
         nine tenths of its time at most, and then gets 503\nwith `Retry-After`.\n\n\
         | call | what | parameters | answers |\n|---|---|---|---|\n",
    );
    let paths = document.get("paths").and_then(Json::as_object);
    for (path, item) in paths.into_iter().flatten() {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                page.push_str(&row(&document, method, path, item, operation));
            }
        }
    }
    page
}

fn row(document: &Json, method: &str, path: &str, item: &Json, operation: &Json) -> String {
    let text = |key: &str| {
        operation
            .get(key)
            .and_then(Json::as_str)
            .unwrap_or_default()
    };
    let summary = match text("summary") {
        "" => text("description"),
        summary => summary,
    };
    let own = operation.get("parameters").and_then(Json::as_array);
    let shared = item.get("parameters").and_then(Json::as_array);
    let parameters: Vec<String> = shared
        .into_iter()
        .chain(own)
        .flatten()
        .map(|parameter| resolve(document, parameter))
        .filter_map(|parameter| parameter.get("name").and_then(Json::as_str))
        .map(|name| format!("`{name}`"))
        .collect();
    let answers = operation.get("responses").and_then(Json::as_object);
    let answers: Vec<&str> = answers
        .into_iter()
        .flatten()
        .map(|(status, _)| status.as_str())
        .collect();
    format!(
        "| `{} {path}` | {} | {} | {} |\n",
        method.to_uppercase(),
        cell(summary),
        parameters.join(" "),
        answers.join(" "),
    )
}

fn resolve<'a>(document: &'a Json, value: &'a Json) -> &'a Json {
    let path = value.get("$ref").and_then(Json::as_str);
    path.and_then(|path| document.pointer(path.strip_prefix('#')?))
        .unwrap_or(value)
}
