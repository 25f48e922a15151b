//! A list as a response: JSON written while rows arrive, handed on in chunks. The first row decides
//! the status and leaves at once; later ones leave 64 KiB at a time.
//!
//! A task reads the list ahead of the connection by a fixed number of chunks, which bounds memory.
//! A task and not a stream that the connection pulls: a connection whose client stopped reading
//! pulls nothing, and its timer would never run, while the list holds one of few database
//! connections. A list that cannot be finished ends with an error and not with `]`, so the
//! connection breaks off without the final chunk (RFC 9112 section 8) and no client takes a part for
//! the whole.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Query;
use axum::response::Response;
use bytes::Bytes;
use http::Method;
use http_body::Frame;
use serde::Deserialize;
use storage::{LIST_ROWS_MAX, List, Record};
use tokio::sync::mpsc;

use crate::app::App;
use crate::error::Problem;
use crate::json::WriteJson;
use crate::routes::json_response;

/// A chunk leaves when it has reached this size.
const CHUNK_BYTES: usize = 64 * 1024;
/// Room for the row that carries a chunk over its size; a longer one makes the buffer grow.
const ROW_BYTES: usize = 4 * 1024;
/// Chunks that may wait for the connection.
const CHUNKS_AHEAD: usize = 2;

/// The query of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ListQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

impl ListQuery {
    /// The number of rows asked for. HEAD needs the first one only, to know the status.
    pub(crate) fn rows_max(&self, method: &Method) -> Result<u32, Problem> {
        if self.cursor.is_some() {
            return Err(Problem::bad_request(
                "there are no cursors yet; use limit alone",
            ));
        }
        let rows = match &self.limit {
            None => LIST_ROWS_MAX,
            Some(text) => text
                .parse()
                .ok()
                .filter(|rows| (1..=LIST_ROWS_MAX).contains(rows))
                .ok_or_else(|| {
                    Problem::bad_request(format!("limit is an integer of 1..{LIST_ROWS_MAX}"))
                })?,
        };
        Ok(if *method == Method::HEAD { 1 } else { rows })
    }
}

/// The query of a list as axum hands it over.
pub(crate) type Asked = Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>;

/// The checked number of rows of a list's query.
pub(crate) fn rows_max(asked: Asked, method: &Method) -> Result<u32, Problem> {
    match asked {
        Ok(Query(query)) => query.rows_max(method),
        Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
    }
}

/// Waits for the first row, then answers 200 and streams; an empty list is `[]`.
pub(crate) async fn stream<R>(app: &Arc<App>, mut list: List<R>) -> Result<Response, Problem>
where
    R: Record,
    for<'a> R::View<'a>: WriteJson,
{
    let Some(first) = list.next().await? else {
        return Ok(json_response(b"[]".to_vec()));
    };
    let mut chunk = vec![b'['];
    first.view()?.write_json(&mut chunk);
    drop(first);
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    // The channel is empty, so there is room.
    let _ = sender.try_send(Piece::Chunk(chunk.into()));
    tokio::spawn(feed(app.clone(), list, sender));
    let mut response = json_response(Vec::new());
    *response.body_mut() = Body::new(Streamed {
        pieces: receiver,
        ended: false,
    });
    Ok(response)
}

enum Piece {
    Chunk(Bytes),
    /// The list is complete.
    End,
}

struct Streamed {
    pieces: mpsc::Receiver<Piece>,
    ended: bool,
}

/// Why a list's body ended before the list did; the reason itself is in the log.
#[derive(Debug, thiserror::Error)]
#[error("the list was broken off")]
struct BrokenOff;

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        match ready!(this.pieces.poll_recv(context)) {
            Some(Piece::Chunk(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Piece::End) => {
                this.ended = true;
                Poll::Ready(None)
            }
            None => {
                this.ended = true;
                Poll::Ready(Some(Err(BrokenOff)))
            }
        }
    }
}

/// Reads the list to its end; stops early when the body is dropped or nothing moves any more.
async fn feed<R>(app: Arc<App>, mut list: List<R>, sender: mpsc::Sender<Piece>)
where
    R: Record,
    for<'a> R::View<'a>: WriteJson,
{
    let stall_timeout = app.config.limits.stall_timeout;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES + ROW_BYTES);
        let step = async {
            let more = tokio::select! {
                more = fill(&mut list, &mut chunk) => more?,
                () = sender.closed() => return Ok(false),
            };
            let sent = sender.send(Piece::Chunk(chunk.into())).await.is_ok();
            if sent && !more {
                let _ = sender.send(Piece::End).await;
            }
            Ok::<bool, storage::Error>(sent && more)
        };
        match tokio::time::timeout(stall_timeout, step).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return,
            Ok(Err(error)) => {
                let error = chassis::failure::chain(&error);
                tracing::warn!(%error, "a list was broken off");
                return;
            }
            Err(_) => {
                app.metrics.limit_hit("stall_timeout");
                tracing::warn!("a list was broken off: neither side moved for the stall timeout");
                return;
            }
        }
    }
}

/// Writes rows until the chunk is full; `false` after the last row and its bracket.
async fn fill<R>(list: &mut List<R>, chunk: &mut Vec<u8>) -> Result<bool, storage::Error>
where
    R: Record,
    for<'a> R::View<'a>: WriteJson,
{
    while chunk.len() < CHUNK_BYTES {
        let Some(found) = list.next().await? else {
            chunk.push(b']');
            return Ok(false);
        };
        chunk.push(b',');
        found.view()?.write_json(chunk);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(limit: &str, method: &Method) -> Result<u32, Problem> {
        ListQuery {
            limit: Some(limit.to_owned()),
            cursor: None,
        }
        .rows_max(method)
    }

    #[test]
    fn a_limit_is_an_integer_within_its_bounds() {
        assert_eq!(rows("1", &Method::GET), Ok(1));
        assert_eq!(rows("100000", &Method::GET), Ok(100_000));
        for wrong in ["0", "100001", "-1", "ten", "", "1.5"] {
            assert!(rows(wrong, &Method::GET).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_head_request_reads_one_row() {
        assert_eq!(rows("500", &Method::HEAD), Ok(1));
    }
}
