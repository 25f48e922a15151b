//! The admin listener: metrics and health for machines, status and events for people, changes for
//! whoever has the token. Never routed to nodes and never reachable over a public listener.
//!
//! A change is refused without the token on loopback too: every account of the machine, and every
//! page in a browser on it, can reach a loopback port. Such a page may not read either (`hosts`).

mod changes;
mod events;
mod hosts;
mod live;
mod page;
mod status;
mod token;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chassis::seats::{Busy, Seats};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::picture::Picture;
use crate::reload::Reloader;
use crate::worker::Shared;

pub(crate) use hosts::Hosts;

/// Admin connections at once; beyond them a new one ends the one that is idle for longest. None is
/// left to wait: the supervisor's probe is among them, and would take this process for hung.
const CONNECTIONS_MAX: usize = 64;
/// Of which so many may follow events: others must get through.
const EVENT_STREAMS_MAX: usize = 16;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const JSON: &str = "application/json";

/// An answer's body; a stream of events has no end.
type AdminBody = UnsyncBoxBody<Bytes, Infallible>;
type Answer = Response<AdminBody>;

/// What the admin listener shows and changes.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    shared: Arc<Shared>,
    reloader: Arc<Reloader>,
    /// A permit per stream of events.
    streams: Arc<Semaphore>,
    picture: Arc<Picture>,
}

impl Context {
    pub(crate) fn new(shared: Arc<Shared>, reloader: Arc<Reloader>, picture: Arc<Picture>) -> Self {
        Self {
            shared,
            reloader,
            streams: Arc::new(Semaphore::new(EVENT_STREAMS_MAX)),
            picture,
        }
    }
}

/// Serves one admin listener for ever.
pub(crate) async fn serve(context: Context, listener: TcpListener) {
    let seats = Seats::new(CONNECTIONS_MAX);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let local = stream.local_addr();
        // What is not known is taken for the stricter.
        let is_loopback = local.map_or(true, |at| at.ip().to_canonical().is_loopback());
        let context = context.clone();
        let seat = seats.take();
        if seat.displaces {
            context.shared.metrics.limit_hit("admin_connections_max");
        }
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let (context, busy) = (&context, seat.busy());
                async move {
                    let answer = answer(context, request, is_loopback).await;
                    Ok::<_, Infallible>(while_busy(answer, busy))
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "admin connection ended");
                },
                () = seat.given_up() => {}
            }
        });
    }
}

/// The connection is busy until the answer's last byte was handed on. Its length is told beforehand
/// where it is known: a client of few lines knows no chunks.
fn while_busy(mut answer: Answer, busy: Busy) -> Answer {
    // RFC 9110 section 8.6: 204 has none.
    if answer.status() != StatusCode::NO_CONTENT
        && let Some(length) = answer.body().size_hint().exact()
    {
        let length = HeaderValue::from(length);
        answer.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    answer.map(|body| {
        let body = body.map_frame(move |frame| {
            let _until_here = &busy;
            frame
        });
        body.boxed_unsync()
    })
}

/// What a path stands for.
enum Resource {
    Metrics,
    Health,
    Status,
    Events,
    Reload,
    /// Who is suspected and convicted.
    Quarantine,
    /// The way to the page.
    Root,
    /// A file of the page.
    Page,
    Picture,
    History,
    Live,
    /// What this gateway tells its peers.
    Report,
    WholeHistory,
    /// The conviction of this fingerprint.
    Conviction(String),
    /// The state of the node of this name.
    NodeState(String),
}

impl Resource {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/metrics" => Self::Metrics,
            "/health" => Self::Health,
            "/api/v1/status" => Self::Status,
            "/api/v1/events" => Self::Events,
            "/api/v1/reload" => Self::Reload,
            "/api/v1/quarantine" => Self::Quarantine,
            "/" => Self::Root,
            "/dashboard" => Self::Page,
            "/api/v1/picture" => Self::Picture,
            "/api/v1/history" => Self::History,
            "/api/v1/live" => Self::Live,
            "/api/v1/gateway" => Self::Report,
            "/api/v1/gateway/history" => Self::WholeHistory,
            _ => {
                if path.starts_with("/dashboard/") {
                    return Some(Self::Page);
                }
                if let Some(who) = path.strip_prefix("/api/v1/quarantine/") {
                    return Some(Self::Conviction(who.to_owned()));
                }
                let name = path
                    .strip_prefix("/api/v1/nodes/")?
                    .strip_suffix("/state")?;
                if name.is_empty() || name.contains('/') {
                    return None;
                }
                Self::NodeState(name.to_owned())
            }
        })
    }

    /// The value of `Allow`.
    fn methods(&self) -> &'static str {
        match self {
            Self::Reload => "POST",
            Self::NodeState(_) => "PUT",
            Self::Conviction(_) => "DELETE",
            _ => "GET, HEAD",
        }
    }
}

async fn answer(context: &Context, request: Request<Incoming>, is_loopback: bool) -> Answer {
    let shared = &context.shared;
    if let Some(refusal) = shared.live().hosts.refusal(&request, is_loopback) {
        return refusal;
    }
    let Some(resource) = Resource::of(request.uri().path()) else {
        return nothing();
    };
    let allowed = resource.methods();
    let method = request.method();
    if !allowed.split(", ").any(|one| one == method.as_str()) {
        let detail = format!("this path takes {allowed}");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let answer = problem(status, "method-not-allowed", &detail);
        return with(answer, header::ALLOW, allowed);
    }
    if *method != Method::GET
        && *method != Method::HEAD
        && let Err(refusal) = token::check(&shared.live(), request.headers()).await
    {
        return refusal;
    }
    match resource {
        Resource::Metrics => {
            let accept = request.headers().get(header::ACCEPT);
            let (kind, text) = shared.scrape(accept.and_then(|accept| accept.to_str().ok()));
            whole(StatusCode::OK, kind, text)
        }
        Resource::Health => status::health(shared),
        Resource::Status => status::status(shared),
        Resource::Events => events::follow(context, request.headers()),
        Resource::Root => page::lead(),
        Resource::Page => page::file(request.uri().path()).unwrap_or_else(nothing),
        Resource::Picture => page::picture(context),
        Resource::History => page::history(context, request.uri()).await,
        Resource::Live => match page::after(request.uri()) {
            Some(after) => live::follow(context, after),
            None => page::no_second(),
        },
        Resource::Report => page::report(context, request.uri()).await,
        Resource::WholeHistory => page::whole_history(context).await,
        Resource::Quarantine => json_answer(StatusCode::OK, &shared.quarantine.list()),
        Resource::Conviction(who) => changes::lift(shared, &who),
        Resource::Reload => changes::reload(context).await,
        Resource::NodeState(name) => changes::set_state(shared, &name, request.into_body()).await,
    }
}

fn nothing() -> Answer {
    let detail = "there is nothing at this path";
    problem(StatusCode::NOT_FOUND, "not-found", detail)
}

fn whole(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let body = Full::new(Bytes::from(body));
    let mut answer = Response::new(UnsyncBoxBody::new(body));
    *answer.status_mut() = status;
    let answer = with(answer, header::CONTENT_TYPE, kind);
    with(answer, header::CACHE_CONTROL, "no-store")
}

fn json_answer(status: StatusCode, body: &Value) -> Answer {
    whole(status, JSON, body.to_string())
}

fn problem(status: StatusCode, slug: &str, detail: &str) -> Answer {
    problem_with(status, slug, detail, json!({}))
}

/// A problem (RFC 9457) with further members.
fn problem_with(status: StatusCode, slug: &str, detail: &str, mut body: Value) -> Answer {
    if let Value::Object(members) = &mut body {
        let title = status.canonical_reason().unwrap_or_default();
        members.insert("type".to_owned(), json!(format!("/problems/{slug}")));
        members.insert("title".to_owned(), json!(title));
        members.insert("status".to_owned(), json!(status.as_u16()));
        members.insert("detail".to_owned(), json!(detail));
    }
    whole(status, "application/problem+json", body.to_string())
}

fn with(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
    answer
}
