//! `GET /openapi.json`: what the API takes and answers, as an OpenAPI 3.1 document, and `GET /docs`,
//! a page that renders it with nothing from outside.
//!
//! The document is made here from plain JSON, not from attributes on handlers: the answers' JSON is
//! written by hand (see `json`), so no type of ours has the shape that attributes would describe, and
//! most of what clients need to know, the errors and headers, stands in no type at all. What keeps it
//! true are tests: its paths and methods are compared with the router's, and schemathesis asks a
//! running node all of it (`make suites`).
//!
//! - `operations`: paths, parameters and what each answers.
//! - `answers`: the problems and headers that they share.
//! - `shapes`: the schemas of bodies.

mod answers;
mod operations;
mod shapes;

use std::sync::LazyLock;

use axum::response::Response;
use http::HeaderValue;
use http::header::HeaderName;
use serde_json::json;

use crate::routes::typed_response;

/// Made once; a few dozen kilobytes.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

const PAGE: &str = include_str!("page.html");
/// Where the page has its nonce.
const NONCE: &str = "{nonce}";
const SECURITY: HeaderName = HeaderName::from_static("content-security-policy");

pub(crate) async fn json() -> Response {
    typed_response("application/json", DOCUMENT.as_str())
}

/// The page's script and style are its own and marked by a nonce; the browser runs nothing else.
pub(crate) async fn page() -> Response {
    let nonce = uuid::Uuid::now_v7().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = typed_response("text/html; charset=utf-8", PAGE.replace(NONCE, &nonce));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(SECURITY, policy);
    }
    response
}

/// The whole document.
pub fn document() -> serde_json::Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "bingo",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Movies, customers and the sessions that they watch. Every answer carries \
                `Date`, `Cache-Control` and `X-Request-Id`; every error is a problem (RFC 9457). \
                `HEAD` is answered wherever `GET` is. A node has 20 s for an answer, or the milliseconds \
                of the header `Bingo-Timeout-Ms` where those are fewer; a gateway writes that header \
                itself, with what it has left, and a client's is not passed on. Where the database is \
                away a request waits for it, 10 s at most, and then gets 503 with `Retry-After`. A \
                `traceparent` and its `tracestate` (W3C Trace Context) are passed on by gateways, and \
                the trace stands in the logs.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": [
            { "name": "movies" }, { "name": "customers" }, { "name": "sessions" },
            { "name": "dummies", "description": "Requests that only take time, or a number." },
            { "name": "service", "description": "The service about itself." },
        ],
        "paths": operations::paths(),
        "components": {
            "schemas": shapes::schemas(),
            "responses": answers::problems(),
            "headers": answers::headers(),
            "parameters": operations::parameters(),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::router::ROUTES;

    fn members(value: &Value) -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn the_document_has_the_routers_paths_and_methods_and_no_others() {
        let paths = document()["paths"].clone();
        let routes: BTreeSet<String> = ROUTES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(members(&paths), routes);
        for (path, methods) in ROUTES {
            let expected: BTreeSet<String> =
                methods.iter().map(|method| method.to_lowercase()).collect();
            let mut found = members(&paths[path]);
            found.remove("parameters");
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(value: &Value, document: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(to)) = members.get("$ref") {
                        let to = to.strip_prefix('#').unwrap();
                        assert!(document.pointer(to).is_some(), "{to}");
                    }
                    members.values().for_each(|value| check(value, document));
                }
                Value::Array(values) => values.iter().for_each(|value| check(value, document)),
                _ => {}
            }
        }
        let document = document();
        check(&document, &document);
    }

    #[test]
    fn every_operation_has_a_name_an_answer_with_an_example_and_its_errors() {
        let document = document();
        let mut names = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                if method == "parameters" {
                    continue;
                }
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name.to_owned()), "{name} twice");
                assert!(operation["summary"].is_string(), "{method} {path}");
                let answers = operation["responses"].as_object().unwrap();
                for status in ["405", "500", "503"] {
                    assert!(answers.contains_key(status), "{status}: {method} {path}");
                }
                for (status, answer) in answers.iter().filter(|(status, _)| status.starts_with('2'))
                {
                    assert!(
                        answer["headers"]["X-Request-Id"].is_object(),
                        "{method} {path}"
                    );
                    if method != "head" && status != "204" {
                        let content = answer["content"].as_object().unwrap();
                        let has_example = content.values().all(|body| !body["example"].is_null());
                        assert!(has_example, "{method} {path}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_page_asks_nobody_but_us() {
        for outside in ["http://", "https://", "//cdn", "src=", "@import", "url("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        assert_eq!(PAGE.matches(NONCE).count(), 2);
        assert!(PAGE.lines().count() < 300);
    }
}
