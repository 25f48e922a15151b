//! `GET /api/v1/events`: what has happened lately and what happens now, as server-sent events (HTML
//! standard, section 9.2). A client that comes back with `Last-Event-ID` gets what it missed, as far
//! as it is remembered; one that reads slowly misses events and is told how many.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{Answer, Context, EVENT_STREAMS_MAX, problem, with};
use crate::events::Events;
use crate::worker::Shared;

/// Pieces of a stream that wait for a slow client; each holds what was new when it was made.
pub(super) const PIECES_MAX: usize = 4;
/// A quiet stream says so often that it is alive, and finds out that its client is gone.
const QUIET: Duration = Duration::from_secs(15);

/// Answers with a stream that ends when the client goes away.
pub(super) fn follow(context: &Context, headers: &HeaderMap) -> Answer {
    let Some(permit) = stream_permit(context) else {
        return too_many(context);
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let events = &context.shared.events;
    let known = last.and_then(|id| events.after(id));
    let from = known.unwrap_or_else(|| events.oldest());
    let (pieces, received) = mpsc::channel(PIECES_MAX);
    tokio::spawn(send(Arc::clone(&context.shared), from, pieces, permit));
    streaming(received)
}

/// The right to one of the few streams there are; `None`: all are taken.
pub(super) fn stream_permit(context: &Context) -> Option<OwnedSemaphorePermit> {
    Arc::clone(&context.streams).try_acquire_owned().ok()
}

/// The refusal where all streams are taken.
pub(super) fn too_many(context: &Context) -> Answer {
    context.shared.metrics.limit_hit("admin_event_streams_max");
    let detail = format!("{EVENT_STREAMS_MAX} clients follow the events already");
    let status = StatusCode::SERVICE_UNAVAILABLE;
    with(
        problem(status, "overloaded", &detail),
        header::RETRY_AFTER,
        "1",
    )
}

/// An answer of events, which ends with whoever sends its pieces.
pub(super) fn streaming(received: mpsc::Receiver<Bytes>) -> Answer {
    let mut answer = Response::new(UnsyncBoxBody::new(Stream(received)));
    *answer.status_mut() = StatusCode::OK;
    let answer = with(answer, header::CONTENT_TYPE, "text/event-stream");
    with(answer, header::CACHE_CONTROL, "no-store")
}

async fn send(
    shared: Arc<Shared>,
    mut from: u64,
    pieces: mpsc::Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
) {
    let events = &shared.events;
    let mut next = events.next();
    // At once, so that the client sees the head of the answer.
    let mut text = ": events of this gateway\n\n".to_owned();
    loop {
        next.mark_unchanged();
        describe(events, &mut from, &mut text);
        if text.is_empty() {
            text.push_str(": quiet\n\n");
        }
        if pieces
            .send(Bytes::from(std::mem::take(&mut text)))
            .await
            .is_err()
        {
            return;
        }
        tokio::select! {
            changed = tokio::time::timeout(QUIET, next.changed()) => match changed {
                // Quiet, or something new.
                Err(_) | Ok(Ok(())) => {}
                Ok(Err(_)) => return,
            },
            () = pieces.closed() => return,
        }
    }
}

/// Writes the events from a number on, and moves the number behind them.
fn describe(events: &Events, from: &mut u64, text: &mut String) {
    for event in events.since(*from) {
        let lost = event.number.saturating_sub(*from);
        *from = event.number + 1;
        let (id, kind, data) = (events.id(&event), event.kind, &event.data);
        // Writing to a String cannot fail.
        if lost > 0 {
            let _ = write!(text, "event: lost\ndata: {{\"events\":{lost}}}\n\n");
        }
        let _ = write!(text, "id: {id}\nevent: {kind}\ndata: {data}\n\n");
    }
}

struct Stream(mpsc::Receiver<Bytes>);

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_client_that_comes_too_late_is_told_how_much_it_missed() {
        let events = Events::default();
        for _ in 0..crate::events::REMEMBERED_MAX + 3 {
            events.push("node_set", json!({}));
        }
        let (mut from, mut text) = (1, String::new());
        describe(&events, &mut from, &mut text);
        assert!(
            text.starts_with("event: lost\ndata: {\"events\":2}\n\nid: "),
            "{text:.80}"
        );
        text.clear();
        describe(&events, &mut from, &mut text);
        assert_eq!(text, "");
        events.push("node_set", json!({}));
        describe(&events, &mut from, &mut text);
        assert_eq!(text.matches("event: node_set\n").count(), 1);
    }
}
