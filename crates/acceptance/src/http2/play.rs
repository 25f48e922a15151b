//! Plays one case or one flood against a target, and says what became of it.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::cases::{Case, Level, Start};
use super::connection::{Connection, Seen, setting_of};
use super::floods::{End, Flood};
use super::frame::{Frame, flag, kind, setting};
use super::must::{Judgement, Must, STILL_THERE};
use super::script::{Event, Script, Step};
use super::{Outcome, Target, Verdict};

/// Rounds of a flood in one write.
const ROUNDS_AT_ONCE: u32 = 50;
/// The longest time that a flood goes on.
const FLOOD_TIME_MAX: Duration = Duration::from_secs(20);
/// Between two questions of the witness.
const WITNESS_EVERY: Duration = Duration::from_millis(100);

/// Plays a case.
pub(super) async fn case(target: &Target, case: &Case) -> Verdict {
    let begun = Instant::now();
    let judged = judge(target, case).await;
    let (outcome, reason) = match (judged, case.level) {
        (Judgement::Right(reason), _) => (Outcome::Passed, reason),
        (Judgement::Near(reason), _) | (Judgement::Wrong(reason), Level::Should) => {
            (Outcome::Differs, reason)
        }
        (Judgement::Wrong(reason), Level::Must) => (Outcome::Failed, reason),
        (Judgement::Open, _) => (Outcome::Failed, "nothing was decided".to_owned()),
    };
    Verdict {
        id: case.id,
        says: case.says,
        outcome,
        reason,
        took: begun.elapsed(),
    }
}

async fn judge(target: &Target, case: &Case) -> Judgement {
    let patience = target.patience;
    let (mut connection, mut script) = match begin(target, case.start).await {
        Ok(begun) => begun,
        Err(why) => return Judgement::Wrong(why),
    };
    (case.play)(&mut script);
    let mut pings = 0;
    for step in script.steps {
        if let Err(why) = take(&mut connection, &step, &mut pings, patience).await {
            return Judgement::Wrong(format!("{why}; seen: {}", connection.seen()));
        }
    }
    conclude(&mut connection, &case.must, patience).await
}

/// A connection as the case wants it, and what it may know of the server.
async fn begin(target: &Target, start: Start) -> Result<(Connection, Script), String> {
    let patience = target.patience;
    let mut connection = Connection::open(target, patience).await?;
    let mut script = Script::new(target);
    if start == Start::Bare {
        return Ok((connection, script));
    }
    let mut greeting = Script::new(target);
    greeting.greeting();
    for step in greeting.steps {
        take(&mut connection, &step, &mut 0, patience).await?;
    }
    let limit = Instant::now() + patience;
    let greeted = |seen: &Seen| seen.settings_acks() > 0;
    if !connection.read(limit, greeted).await {
        return Err(format!("no HTTP/2 came: {}", connection.seen()));
    }
    let seen = connection.seen();
    let number = |which| setting_of(seen, which);
    script.streams_max = number(setting::MAX_CONCURRENT_STREAMS);
    script.window = number(setting::INITIAL_WINDOW_SIZE).unwrap_or(script.window);
    let frame_bytes = number(setting::MAX_FRAME_SIZE).and_then(|bytes| usize::try_from(bytes).ok());
    script.frame_bytes_max = frame_bytes.unwrap_or(script.frame_bytes_max);
    Ok((connection, script))
}

/// One step. An end of the connection is no fault here: what must come decides.
async fn take(
    connection: &mut Connection,
    step: &Step,
    pings: &mut u8,
    patience: Duration,
) -> Result<(), String> {
    let limit = Instant::now() + patience;
    match *step {
        Step::Send(ref bytes) => {
            connection.send(bytes, patience).await;
            Ok(())
        }
        Step::Await(event) => {
            let came = connection.read(limit, |seen| has_come(seen, event)).await;
            if came || connection.seen().end.is_some() {
                return Ok(());
            }
            Err(format!("waited in vain for {event:?}"))
        }
        Step::Exactly { stream, body_bytes } => {
            let body = |seen: &Seen| seen.answer(stream).body_bytes;
            connection
                .read(limit, |seen| body(seen) >= body_bytes)
                .await;
            *pings += 1;
            let payload = [b'n', b'o', b'M', b'o', b'r', b'e', b'?', *pings];
            connection.send(&ping(payload), patience).await;
            connection.read(limit, |seen| seen.pong(payload)).await;
            match body(connection.seen()) {
                found if found == body_bytes => Ok(()),
                found => Err(format!("{found} bytes of body where {body_bytes} may come")),
            }
        }
    }
}

fn has_come(seen: &Seen, event: Event) -> bool {
    match event {
        Event::Head(stream) => {
            let answer = seen.answer(stream);
            answer.status.is_some() || answer.reset.is_some()
        }
        Event::End(stream) => {
            let answer = seen.answer(stream);
            answer.ended || answer.reset.is_some()
        }
        Event::Pong(payload) => seen.pong(payload),
        Event::SettingsAcks(count) => seen.settings_acks() >= count,
    }
}

async fn conclude(connection: &mut Connection, must: &Must, patience: Duration) -> Judgement {
    let limit = Instant::now() + patience;
    if must.wants_ping() {
        let decided = |seen: &Seen| must.is_answered(seen) || must.judge(seen) != Judgement::Open;
        connection.read(limit, decided).await;
        if must.judge(connection.seen()) == Judgement::Open {
            connection.send(&ping(STILL_THERE), patience).await;
        }
    }
    let decided = |seen: &Seen| must.judge(seen) != Judgement::Open;
    connection.read(limit, decided).await;
    match must.judge(connection.seen()) {
        Judgement::Open => Judgement::Wrong(connection.seen().to_string()),
        Judgement::Wrong(why) => Judgement::Wrong(format!("{why}; seen: {}", connection.seen())),
        right => right,
    }
}

fn ping(payload: [u8; 8]) -> Vec<u8> {
    Frame::new(kind::PING, flag::NONE, 0, payload).encode()
}

/// Plays a flood, with its witness.
pub(super) async fn flood(target: &Target, flood: &Flood) -> Verdict {
    let begun = Instant::now();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let witness = tokio::spawn(witness(target.clone(), stopped));
    let played = timeout(FLOOD_TIME_MAX, pour(target, flood)).await;
    // The witness has gone only if it panicked, which joining it tells.
    let _ = stop.send(());
    let witnessed = witness.await;
    let (outcome, reason) = match (played, witnessed) {
        (_, Err(error)) => (Outcome::Failed, format!("the witness broke: {error}")),
        (_, Ok(Err(why))) => (Outcome::Failed, format!("others were not served: {why}")),
        (Ok(Err(why)), _) => (Outcome::Failed, why),
        (Err(_), Ok(Ok(_))) if flood.end == End::Ended => (
            Outcome::Failed,
            format!("not ended within {FLOOD_TIME_MAX:?}"),
        ),
        (Err(_), Ok(Ok(slowest))) => (
            Outcome::Passed,
            format!("borne for {FLOOD_TIME_MAX:?}; others within {slowest:?}"),
        ),
        (Ok(Ok(what)), Ok(Ok(slowest))) => (
            Outcome::Passed,
            format!("{what}; others within {slowest:?}"),
        ),
    };
    Verdict {
        id: flood.id,
        says: flood.says,
        outcome,
        reason,
        took: begun.elapsed(),
    }
}

/// The flood itself: what became of its connection, or why that is wrong.
async fn pour(target: &Target, flood: &Flood) -> Result<String, String> {
    let patience = target.patience;
    let (mut connection, mut first) = begin(target, Start::Ready).await?;
    (flood.before)(&mut first);
    for step in first.steps {
        take(&mut connection, &step, &mut 0, patience).await?;
    }
    let mut sent = 0;
    while sent < flood.rounds {
        let mut script = Script::new(target);
        let next = (sent + ROUNDS_AT_ONCE).min(flood.rounds);
        for round in sent..next {
            (flood.round)(&mut script, round);
        }
        sent = next;
        for step in script.steps {
            let Step::Send(bytes) = step else { continue };
            let taken = if flood.deaf {
                connection.send_deaf(&bytes, patience).await
            } else {
                connection.send(&bytes, patience).await
            };
            if taken {
                continue;
            }
            if connection.seen().end.is_none() {
                // A write that failed tells less than what can still be read.
                connection
                    .read(Instant::now() + patience, |seen| seen.end.is_some())
                    .await;
            }
            return match &connection.seen().end {
                Some(end) => Ok(format!(
                    "ended after {sent} rounds at most: {}",
                    why(&connection, end)
                )),
                None if flood.end == End::Ended => {
                    Err(format!("held back after {sent} rounds, not ended"))
                }
                None => Ok(format!("held back after {sent} rounds")),
            };
        }
    }
    let limit = Instant::now() + flood.hold.max(Duration::from_millis(500));
    connection.read(limit, |seen| seen.end.is_some()).await;
    match (&connection.seen().end, flood.end) {
        (Some(end), _) => Ok(format!(
            "ended after {sent} rounds: {}",
            why(&connection, end)
        )),
        (None, End::Ended) => Err(format!(
            "all {sent} rounds were taken; seen: {}",
            connection.seen()
        )),
        (None, End::Borne) => Ok(format!("all {sent} rounds were borne")),
    }
}

fn why(connection: &Connection, end: &str) -> String {
    match connection.seen().goaway() {
        Some(code) => format!("GOAWAY({code}), {end}"),
        None => end.to_owned(),
    }
}

/// Asks for the GET on fresh connections until it is stopped: the slowest answer, or the first that
/// did not come.
async fn witness(
    target: Target,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
) -> Result<Duration, String> {
    let mut slowest = Duration::ZERO;
    loop {
        let begun = Instant::now();
        let (mut connection, mut script) = begin(&target, Start::Ready).await?;
        script.get(1);
        for step in script.steps {
            take(&mut connection, &step, &mut 0, target.patience).await?;
        }
        match conclude(&mut connection, &Must::Answer(1, &[200]), target.patience).await {
            Judgement::Right(_) => slowest = slowest.max(begun.elapsed()),
            Judgement::Wrong(why) | Judgement::Near(why) => return Err(why),
            Judgement::Open => return Err("nothing was decided".to_owned()),
        }
        if timeout(WITNESS_EVERY, &mut stopped).await.is_ok() {
            return Ok(slowest);
        }
    }
}
