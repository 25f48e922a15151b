//! Which handler answers which path and method. HEAD is answered by each GET; a wrong method gets
//! 405 with `Allow` from axum, and its problem from `envelope`, like everything else that fails.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use crate::app::App;
use crate::envelope::envelope;
use crate::error::Problem;
use crate::openapi;
use crate::routes::{customer, dummy, movie, operation, page, probe, session};

/// The routes of contract.md section 3 and their methods, HEAD aside; metrics and logs are labelled
/// with these templates, and `openapi` describes them.
pub(crate) const ROUTES: [(&str, &[&str]); 15] = [
    ("/", &["GET"]),
    ("/ping", &["GET"]),
    ("/ready", &["GET"]),
    ("/config", &["GET"]),
    ("/operation", &["POST"]),
    ("/db_dummy", &["GET"]),
    ("/long_dummy", &["GET"]),
    ("/api/movie", &["GET"]),
    ("/api/customer", &["GET"]),
    ("/api/session", &["GET", "POST"]),
    ("/api/movie/{id}", &["GET"]),
    ("/api/customer/{id}", &["GET"]),
    ("/api/session/{id}", &["GET", "DELETE"]),
    ("/openapi.json", &["GET"]),
    ("/docs", &["GET"]),
];

/// What clients reach.
pub(crate) fn api(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/ping", get(probe::ping))
        .route("/ready", get(probe::ready))
        .route("/config", get(page::config))
        .route("/operation", post(operation::post))
        .route("/db_dummy", get(dummy::db))
        .route("/long_dummy", get(dummy::long))
        .route("/api/movie", get(movie::list))
        .route("/api/movie/{id}", get(movie::one))
        .route("/api/customer", get(customer::list))
        .route("/api/customer/{id}", get(customer::one))
        .route("/api/session", get(session::list).post(session::create))
        .route(
            "/api/session/{id}",
            get(session::one).delete(session::delete),
        )
        .route("/openapi.json", get(openapi::json))
        .route("/docs", get(openapi::page))
        .fallback(async || Problem::not_found("there is no such path"))
        .layer(from_fn_with_state(app.clone(), envelope))
        .with_state(app)
}

/// What operators reach, on a listener of its own.
pub(crate) fn admin(app: Arc<App>) -> Router {
    Router::new()
        .route("/metrics", get(probe::metrics))
        .route("/health", get(probe::ping))
        .with_state(app)
}
