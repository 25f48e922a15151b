//! The live page and what it reads: its files, which are part of the program (no folder to find, no
//! version to mix up), graphs and picture as JSON, and what gateways tell each other.
//!
//! The page may load nothing from elsewhere and run nothing that is not one of these files.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use serde::Serialize;

use super::{Answer, Context, JSON, problem, whole, with};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! file {
    ($name:literal, $kind:expr) => {
        ($name, $kind, include_str!(concat!("../../page/", $name)))
    };
}

/// Path below `/dashboard/`, type, text.
const FILES: [(&str, &str, &str); 13] = [
    file!("index.html", HTML),
    file!("page.css", STYLE),
    file!("main.js", SCRIPT),
    file!("stream.js", SCRIPT),
    file!("format.js", SCRIPT),
    file!("table.js", SCRIPT),
    file!("endpoints.js", SCRIPT),
    file!("graphs.js", SCRIPT),
    file!("fleet.js", SCRIPT),
    file!("changes.js", SCRIPT),
    file!("vendor/uPlot.iife.min.js", SCRIPT),
    file!("vendor/uPlot.min.css", STYLE),
    file!("vendor/uPlot-LICENSE", "text/plain; charset=utf-8"),
];

/// Spans that graphs are asked for, in seconds.
const SPANS: [(&str, u64); 3] = [("10m", 600), ("2h", 7_200), ("24h", 86_400)];

/// A file of the page; `None` where there is none of this name.
pub(super) fn file(path: &str) -> Option<Answer> {
    let name = match path {
        "/dashboard" | "/dashboard/" => "index.html",
        _ => path.strip_prefix("/dashboard/")?,
    };
    let (_, kind, text) = FILES.iter().find(|(own, _, _)| *own == name)?;
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    let mut answer = Response::new(UnsyncBoxBody::new(body));
    *answer.status_mut() = StatusCode::OK;
    for (name, value) in [
        (header::CONTENT_TYPE, *kind),
        // Small, and of the version of the program that answers.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().insert(name, value);
    }
    Some(answer)
}

/// `/` leads people to the page.
pub(super) fn lead() -> Answer {
    let text = "the page is at /dashboard\n".to_owned();
    let answer = whole(StatusCode::TEMPORARY_REDIRECT, "text/plain", text);
    with(answer, header::LOCATION, "/dashboard")
}

/// `/api/v1/picture`: all but the graphs.
pub(super) fn picture(context: &Context) -> Answer {
    let latest = Arc::clone(&context.picture.follow().borrow());
    if latest.is_null() {
        let detail = "this gateway has just started and looks around; ask again in a second";
        let answer = problem(StatusCode::SERVICE_UNAVAILABLE, "too-early", detail);
        return with(answer, header::RETRY_AFTER, "1");
    }
    whole(StatusCode::OK, JSON, latest.to_string())
}

/// `/api/v1/history?span=10m|2h|24h[&after=SECOND]`: the graphs.
pub(super) async fn history(context: &Context, uri: &Uri) -> Answer {
    let span = parameter(uri, "span").unwrap_or("10m");
    let Some((_, span)) = SPANS.into_iter().find(|(name, _)| *name == span) else {
        let detail = "span is one of 10m, 2h, 24h";
        return problem(StatusCode::BAD_REQUEST, "bad-request", detail);
    };
    let Some(after) = after(uri) else {
        return no_second();
    };
    let picture = Arc::clone(&context.picture);
    encoded(move || picture.view(span, after)).await
}

/// `/api/v1/gateway?after=SECOND`: what this gateway served, for its peers.
pub(super) async fn report(context: &Context, uri: &Uri) -> Answer {
    let Some(after) = after(uri) else {
        return no_second();
    };
    let picture = Arc::clone(&context.picture);
    encoded(move || picture.report(after)).await
}

/// `/api/v1/gateway/history`: what all gateways served, for one that starts.
pub(super) async fn whole_history(context: &Context) -> Answer {
    let picture = Arc::clone(&context.picture);
    encoded(move || picture.history().whole()).await
}

/// The parameter `after`; 0 where there is none, `None` where it is no second.
pub(super) fn after(uri: &Uri) -> Option<u64> {
    parameter(uri, "after").map_or(Some(0), |text| text.parse().ok())
}

pub(super) fn no_second() -> Answer {
    let detail = "after is a second since 1970, like 1790000000";
    problem(StatusCode::BAD_REQUEST, "bad-request", detail)
}

fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(own, value)| (own == name).then_some(value))
}

/// As JSON, made on a thread of its own: a day of every endpoint takes longer than a probe may wait.
async fn encoded<T: Serialize>(make: impl FnOnce() -> T + Send + 'static) -> Answer {
    let encoding = tokio::task::spawn_blocking(move || serde_json::to_string(&make()));
    match encoding.await.map(Result::ok) {
        Ok(Some(text)) => whole(StatusCode::OK, JSON, text),
        _ => {
            tracing::error!("a history could not be encoded");
            let detail = "the history could not be encoded; see the gateway's log";
            problem(StatusCode::INTERNAL_SERVER_ERROR, "history-broken", detail)
        }
    }
}
