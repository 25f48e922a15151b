//! HTTP/2 on one connection, by hyper, with what hyper leaves to others: floods are metered in
//! `flood`, clients that take nothing are found in `progress`, idle connections are closed.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::Lease;
use super::progress::{Look, Streams, Watched};
use super::stream::ClientStream;
use crate::body::ClientBody;
use crate::handle::{Client, handle};
use crate::valid::ValidLimits;
use crate::worker::Worker;

/// What a client may send of one body before it is read, and of all bodies of a connection.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// What is taken of one answer before the client takes it.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// A connection that is silent for so long is asked for a sign of life, and for so long again
/// awaited: one that vanished without a word must not count for ever.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection is looked at so many times within the shortest of its timeouts.
const LOOKS: u32 = 4;

/// Each stream is a task of this thread.
#[derive(Clone, Debug)]
struct Tasks(Rc<Streams>);

impl<F> Executor<F> for Tasks
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        // Large, and moved on the way: boxed.
        let task = Box::pin(future);
        // hyper calls the service and then starts its task, so the last one begun is this one.
        match self.0.started() {
            Some(stream) => tokio::task::spawn_local(stream.run(task)),
            None => tokio::task::spawn_local(async move {
                task.await;
            }),
        };
    }
}

pub(super) async fn serve(
    worker: &Rc<Worker>,
    limits: &ValidLimits,
    stream: ClientStream,
    client: Client,
    lease: Rc<Lease>,
) {
    let client = Rc::new(client);
    let streams = Streams::new();
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, client) = (Rc::clone(worker), Rc::clone(&client));
        let stream = streams.begin();
        let request = request.map(ClientBody::Http);
        async move {
            let answer = handle(&worker, &client, request).await;
            Ok::<_, Infallible>(answer.map(|body| Watched::new(body, stream)))
        }
    });
    let connection =
        builder(limits, Tasks(Rc::clone(&streams))).serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut looks = looks(limits);
    let mut told = false;
    let ended = loop {
        let look = tokio::select! {
            ended = connection.as_mut() => break ended,
            () = lease.draining(), if !told => Look::Idle(Duration::MAX),
            now = looks.tick() => streams.look(now.into_std(), limits.client_stall_timeout),
        };
        match look {
            // It was told and does not go.
            Look::Idle(time) if told && time >= limits.head_timeout => return,
            Look::Idle(time) if time >= limits.head_timeout => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            Look::GaveUp => worker.shared.metrics.limit_hit("client_stall_timeout"),
            Look::Stalled => {
                worker.shared.metrics.limit_hit("client_stall_timeout");
                return;
            }
            Look::Moves | Look::Idle(_) => {}
        }
    };
    if let Err(error) = ended {
        if was_flooded(&error) {
            worker.shared.metrics.limit_hit("h2_flood");
        }
        tracing::debug!(error = %chassis::failure::chain(&error), "client connection ended");
    }
}

fn builder(limits: &ValidLimits, tasks: Tasks) -> http2::Builder<Tasks> {
    let resets_max = limits.h2_resets_max as usize;
    // The library answers what is over its limit with a bare 431 that nobody counts; so it is given
    // room for heads that are ours to refuse.
    let head_bytes_max = u32::try_from(limits.head_bytes_max * 2).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        .max_header_list_size(head_bytes_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(resets_max)
        .max_local_error_reset_streams(resets_max)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

fn looks(limits: &ValidLimits) -> tokio::time::Interval {
    let shortest = limits.client_stall_timeout.min(limits.head_timeout);
    let period = (shortest / LOOKS).max(Duration::from_millis(1));
    let mut looks = tokio::time::interval_at((Instant::now() + period).into(), period);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    looks
}

/// Whether the HTTP/2 library found a flood by itself.
fn was_flooded(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        }
        source = error.source();
    }
    false
}
