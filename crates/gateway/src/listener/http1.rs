//! HTTP/1.1 on one connection, by hyper.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::Lease;
use super::stream::ClientStream;
use crate::body::ClientBody;
use crate::handle::{Client, handle};
use crate::valid::ValidLimits;
use crate::worker::Worker;

/// Most that hyper buffers of one connection in each direction.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

pub(super) async fn serve(
    worker: &Rc<Worker>,
    limits: &ValidLimits,
    stream: ClientStream,
    client: Client,
    lease: Rc<Lease>,
) {
    let client = client.with_lease(Rc::clone(&lease));
    let service = service_fn(|request: Request<Incoming>| async {
        let request = request.map(ClientBody::Http);
        Ok::<_, Infallible>(handle(worker, &client, request).await)
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(BUFFER_BYTES_MAX.max(limits.head_bytes_max))
        .max_header_size(limits.head_bytes_max)
        .max_headers(limits.fields_max)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();

    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = lease.closing() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Err(error) = ended else { return };
    let metrics = &worker.shared.metrics;
    if error.is_parse_too_large() {
        metrics.limit_hit("head_bytes_max");
    } else if error.is_timeout() {
        metrics.limit_hit("head_timeout");
    }
    tracing::debug!(error = %chassis::failure::chain(&error), "client connection ended");
    // To a client of HTTP/1.0 the orderly end of the connection is the end of the answer: one that
    // was broken off must end in disorder.
    if client.old.get()
        && error.is_user()
        && let Some(parts) = connection.into_parts()
    {
        parts.io.inner().end_in_disorder();
    }
}
