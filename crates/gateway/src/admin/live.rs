//! `GET /api/v1/live`: the picture once a second and the seconds that were settled since, as
//! server-sent events (HTML standard, section 9.2). A client that reads slowly skips pictures and
//! gets all seconds: each event holds what came after the one before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::events::{PIECES_MAX, stream_permit, streaming, too_many};
use super::{Answer, Context};
use crate::picture::Picture;

/// Graphs of seconds reach so far back.
const SPAN_SECONDS: u64 = 600;
/// Nobody writes for longer than this unless the process stands still; clients give up after it.
const QUIET: Duration = Duration::from_secs(5);

/// Answers with a stream that ends when the client goes away. `after`: the last second that it has.
pub(super) fn follow(context: &Context, after: u64) -> Answer {
    let Some(permit) = stream_permit(context) else {
        return too_many(context);
    };
    let (pieces, received) = mpsc::channel(PIECES_MAX);
    tokio::spawn(send(Arc::clone(&context.picture), after, pieces, permit));
    streaming(received)
}

async fn send(
    picture: Arc<Picture>,
    mut after: u64,
    pieces: mpsc::Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
) {
    let mut latest = picture.follow();
    let mut text = ": the picture of this installation\n\n".to_owned();
    loop {
        let now = Arc::clone(&latest.borrow_and_update());
        if !now.is_null() {
            text.push_str(&event("seconds", &seconds(&picture, &mut after)));
            text.push_str(&event("picture", &now.to_string()));
        }
        let piece = Bytes::from(std::mem::take(&mut text));
        if pieces.send(piece).await.is_err() {
            return;
        }
        tokio::select! {
            changed = tokio::time::timeout(QUIET, latest.changed()) => match changed {
                Err(_) => text.push_str(": quiet\n\n"),
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
            },
            () = pieces.closed() => return,
        }
    }
}

/// JSON holds no line break, so one line is one event.
fn event(kind: &str, data: &str) -> String {
    format!("event: {kind}\ndata: {data}\n\n")
}

fn seconds(picture: &Picture, after: &mut u64) -> String {
    let view = picture.view(SPAN_SECONDS, *after);
    *after = view.last().unwrap_or(*after);
    serde_json::to_string(&view).unwrap_or_else(|_| Value::Null.to_string())
}
