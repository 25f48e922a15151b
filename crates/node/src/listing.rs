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
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Query;
use axum::response::Response;
use bytes::Bytes;
use http::header::LINK;
use http::{HeaderValue, Method, StatusCode};
use http_body::Frame;
use serde::Deserialize;
use storage::{LIST_ROWS_MAX, List, Page, Record};
use tokio::sync::mpsc;
use tracing::Instrument;

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

/// The query of a list, as it was written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ListQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

/// The query of a list as axum hands it over.
pub(crate) type Asked = Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>;

/// A list that was asked for, checked. HEAD reads the first row only, to know status and `Link`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    path: &'static str,
    limit: Option<u32>,
    cursor: Option<String>,
    is_head: bool,
}

impl Wanted {
    /// `path` is the list's own, for the address of its next page.
    pub(crate) fn check(
        path: &'static str,
        asked: Asked,
        method: &Method,
    ) -> Result<Self, Problem> {
        let Query(query) = asked.map_err(|_| {
            Problem::bad_request(
                "the query is limit=N and cursor=C, each at most once, with %XX for what may not \
                     stand in an address",
            )
        })?;
        let limit = query.limit.map(|text| {
            text.parse()
                .ok()
                .filter(|rows| (1..=LIST_ROWS_MAX).contains(rows) && !text.starts_with('+'))
                .ok_or_else(|| {
                    Problem::bad_request(format!("limit is an integer of 1..{LIST_ROWS_MAX}"))
                })
        });
        Ok(Self {
            path,
            limit: limit.transpose()?,
            cursor: query.cursor,
            is_head: *method == Method::HEAD,
        })
    }

    /// The page that was asked for; `None`: the whole list, which has no next page.
    pub(crate) fn page<P: FromStr>(&self) -> Result<Option<Page<P>>, Problem> {
        if self.limit.is_none() && self.cursor.is_none() {
            return Ok(None);
        }
        let cursor = self.cursor.as_deref().map(str::parse).transpose();
        Ok(Some(Page {
            from: cursor.map_err(|_| malformed_cursor())?,
            rows: self.rows(),
            rows_read: self.rows_read(),
        }))
    }

    /// How many rows are read.
    pub(crate) fn rows_read(&self) -> u32 {
        if self.is_head { 1 } else { self.rows() }
    }

    fn rows(&self) -> u32 {
        self.limit.unwrap_or(LIST_ROWS_MAX)
    }

    /// RFC 8288 section 3; the cursor's characters need no escape.
    fn link(&self, place: &str) -> Option<HeaderValue> {
        let Self { path, .. } = self;
        let rows = self.rows();
        let link = format!("<{path}?limit={rows}&cursor={place}>; rel=\"next\"");
        HeaderValue::from_str(&link).ok()
    }
}

/// 400: no cursor of this list.
fn malformed_cursor() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "malformed-cursor",
        "the cursor is none of this list's: take it from the header Link of the page before",
    )
}

/// 404: a cursor whose place is gone.
pub(crate) fn unknown_cursor() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-cursor",
        "the row that the cursor stands for is gone: begin again without it",
    )
}

/// Waits for the first row, then answers 200 and streams; an empty list is `[]`.
pub(crate) async fn stream<R>(
    app: &Arc<App>,
    wanted: &Wanted,
    mut list: List<R>,
) -> Result<Response, Problem>
where
    R: Record,
    for<'a> R::View<'a>: WriteJson,
{
    let Some(first) = list.next().await? else {
        return Ok(json_response(b"[]".to_vec()));
    };
    let mut chunk = vec![b'['];
    first.view()?.write_json(&mut chunk);
    let link = first.next_place().and_then(|place| wanted.link(place));
    drop(first);
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    // The channel is empty, so there is room.
    let _ = sender.try_send(Piece::Chunk(chunk.into()));
    tokio::spawn(feed(app.clone(), list, sender).in_current_span());
    let mut response = json_response(Vec::new());
    if let Some(link) = link {
        response.headers_mut().insert(LINK, link);
    }
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
                let cause = crate::error::cause(&error);
                tracing::warn!(cause, "a list was broken off");
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
    use storage::Place;

    use super::*;

    fn wanted(limit: Option<&str>, cursor: Option<&str>) -> Result<Wanted, Problem> {
        let query = ListQuery {
            limit: limit.map(str::to_owned),
            cursor: cursor.map(str::to_owned),
        };
        Wanted::check("/api/movie", Ok(Query(query)), &Method::GET)
    }

    #[test]
    fn a_limit_is_an_integer_within_its_bounds() {
        let rows = |limit| wanted(Some(limit), None).map(|wanted| wanted.rows_read());
        assert_eq!(rows("1"), Ok(1));
        assert_eq!(rows("100000"), Ok(100_000));
        for wrong in ["0", "100001", "-1", "+1", "ten", "", "1.5"] {
            assert!(rows(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_head_request_reads_one_row_and_knows_where_the_next_page_begins() {
        let query = ListQuery {
            limit: Some("500".to_owned()),
            cursor: None,
        };
        let head = Wanted::check("/api/movie", Ok(Query(query)), &Method::HEAD).unwrap();
        let page = head.page::<Place>().unwrap().unwrap();
        assert_eq!((page.rows, page.rows_read), (500, 1));
        assert_eq!(
            head.link("7").unwrap(),
            "</api/movie?limit=500&cursor=7>; rel=\"next\""
        );
    }

    #[test]
    fn without_limit_and_cursor_the_whole_list_is_meant() {
        assert_eq!(wanted(None, None).unwrap().page::<Place>(), Ok(None));
        let from_cursor = wanted(None, Some("7")).unwrap().page::<Place>().unwrap();
        assert_eq!(from_cursor.unwrap().rows, LIST_ROWS_MAX);
        let unknown = wanted(None, Some("x"))
            .unwrap()
            .page::<Place>()
            .unwrap_err();
        assert_eq!(unknown.slug, "malformed-cursor");
    }
}
