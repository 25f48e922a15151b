//! HTTP/1.1 on one connection, by hyper. A head that does not come in time is answered here, because
//! hyper closes without a word; a connection that is only idle closes so.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::io::AsyncWriteExt;

use super::stream::ClientStream;
use super::{Lease, refused};
use crate::body::ClientBody;
use crate::handle::{Client, handle};
use crate::valid::ValidLimits;
use crate::worker::Worker;

/// Most that hyper buffers of one connection in each direction, and in any case a whole piece of an
/// answer. It is what a client that reads nothing costs.
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// For the answer to a head that came too late.
const LATE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn serve(
    worker: &Rc<Worker>,
    limits: &ValidLimits,
    stream: ClientStream,
    client: Client,
    lease: Rc<Lease>,
) {
    let client = client.with_lease(Rc::clone(&lease));
    let used = Cell::new(false);
    let service = service_fn(|request: Request<Incoming>| async {
        used.set(true);
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
    tracing::debug!(error = %chassis::failure::chain(&error), "client connection ended");
    let metrics = &worker.shared.metrics;
    if error.is_parse_too_large() {
        metrics.limit_hit("head_bytes_max");
    }
    let Some(parts) = connection.into_parts() else {
        return;
    };
    let mut stream = parts.io.into_inner();
    if error.is_timeout() {
        let begun = !parts.read_buf.is_empty();
        if begun || !used.get() {
            metrics.limit_hit("head_timeout");
        }
        if begun {
            answer_late(&mut stream).await;
        }
    } else if client.old.get() && error.is_user() {
        // To a client of HTTP/1.0 the orderly end of the connection is the end of the answer: one
        // that was broken off must end in disorder.
        stream.end_in_disorder();
    }
}

/// Whoever sends a head too slowly may read as slowly: what the socket does not take is not waited for
/// long.
async fn answer_late(stream: &mut ClientStream) {
    let answer = async {
        stream.write_all(&refused::late(Timestamp::now())).await?;
        stream.shutdown().await
    };
    if !matches!(tokio::time::timeout(LATE_TIMEOUT, answer).await, Ok(Ok(()))) {
        tracing::debug!("a client whose head came too late did not take its answer");
    }
}
