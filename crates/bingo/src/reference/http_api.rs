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
