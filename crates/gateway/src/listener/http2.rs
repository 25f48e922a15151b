//! HTTP/2 on one connection, by hyper.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::Lease;
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

/// Each stream is a task of this thread.
#[derive(Clone, Debug)]
struct Local;

impl<F> Executor<F> for Local
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
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
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, client) = (Rc::clone(worker), Rc::clone(&client));
        let request = request.map(ClientBody::Http);
        async move { Ok::<_, Infallible>(handle(&worker, &client, request).await) }
    });
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = lease.draining() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %chassis::failure::chain(&error), "client connection ended");
    }
}
