//! What must come of a case, and whether it has. A server may always be stricter in scope: any
//! connection may be ended with the code of a stream's error (RFC 9113, 5.4.1), and a connection may
//! be closed without a GOAWAY, which is only a SHOULD. What it may not do is to go on as if nothing
//! had happened, or to name another error. A pure decision over what was seen.

use super::connection::Seen;
use super::frame::Code;

/// What must come.
#[derive(Clone, Copy)]
pub(super) enum Must {
    /// An error of the connection with one of these codes, and its end (RFC 9113, 5.4.1).
    EndConnection(&'static [Code]),
    /// An error of this stream with one of these codes (5.4.2), or of the connection.
    EndStream(u32, &'static [Code]),
    /// A malformed request: PROTOCOL_ERROR, or 400 before it (8.1.1).
    Refuse(u32),
    /// A whole answer with one of these states, and a connection that still answers.
    Answer(u32, &'static [u16]),
    /// A whole answer of any state below 500, and a connection that still answers.
    AnyAnswer(u32),
    /// One of these.
    OneOf(&'static [Must]),
    /// Whatever this says.
    That(fn(&Seen) -> Judgement),
}

/// Whether it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Right(String),
    /// The error was found and had its effect, under the general name PROTOCOL_ERROR instead of the one
    /// that the text asks for: no peer can act on the difference.
    Near(String),
    Wrong(String),
    /// Not yet; wrong if nothing more comes.
    Open,
}

/// A PING with this payload asks whether a connection still answers, once the rest is right.
pub(super) const STILL_THERE: [u8; 8] = *b"stillUp?";

impl Must {
    pub(super) fn judge(&self, seen: &Seen) -> Judgement {
        match *self {
            Self::EndConnection(codes) => end_connection(seen, codes),
            Self::EndStream(stream, codes) => match (seen.answer(stream).reset, seen.goaway()) {
                (Some(code), _) if codes.contains(&code) => {
                    Judgement::Right(format!("RST_STREAM({code})"))
                }
                // An error of the connection tells more than what becomes of its streams.
                (Some(code), None | Some(Code::NO_ERROR)) => another("RST_STREAM", code, codes),
                _ => end_connection(seen, codes),
            },
            Self::Refuse(stream) => match seen.answer(stream).status {
                Some(400) => Judgement::Right("400".to_owned()),
                _ => Self::EndStream(stream, &[Code::PROTOCOL_ERROR]).judge(seen),
            },
            Self::Answer(stream, states) => answer(seen, stream, |status| states.contains(&status)),
            Self::AnyAnswer(stream) => answer(seen, stream, |status| status < 500),
            Self::OneOf(each) => {
                let judged: Vec<Judgement> = each.iter().map(|must| must.judge(seen)).collect();
                let right = judged
                    .iter()
                    .find(|found| matches!(found, Judgement::Right(_)));
                let open = judged.iter().find(|found| **found == Judgement::Open);
                let chosen = right.or(open).or(judged.first());
                chosen.cloned().unwrap_or(Judgement::Open)
            }
            Self::That(judge) => judge(seen),
        }
    }

    /// Whether an answer that is right still has to be followed by a PING's.
    pub(super) fn wants_ping(&self) -> bool {
        match self {
            Self::Answer(..) | Self::AnyAnswer(_) => true,
            Self::OneOf(each) => each.iter().any(Self::wants_ping),
            _ => false,
        }
    }

    /// Whether the streams have come as far as they should, so that the PING may leave.
    pub(super) fn is_answered(&self, seen: &Seen) -> bool {
        match self {
            Self::Answer(stream, _) | Self::AnyAnswer(stream) => seen.answer(*stream).ended,
            Self::OneOf(each) => each.iter().any(|must| must.is_answered(seen)),
            _ => false,
        }
    }
}

fn end_connection(seen: &Seen, codes: &[Code]) -> Judgement {
    match (seen.goaway(), &seen.end) {
        (Some(code), _) if code != Code::NO_ERROR && !codes.contains(&code) => {
            another("GOAWAY", code, codes)
        }
        (_, Some(end)) if end.starts_with("given up") => Judgement::Wrong(end.clone()),
        (Some(code), Some(_)) if codes.contains(&code) => {
            Judgement::Right(format!("GOAWAY({code}), closed"))
        }
        (_, Some(_)) => Judgement::Right("closed without a GOAWAY that says why".to_owned()),
        (_, None) => Judgement::Open,
    }
}

fn answer(seen: &Seen, stream: u32, right: impl Fn(u16) -> bool) -> Judgement {
    let answer = seen.answer(stream);
    if let Some(code) = answer.reset.filter(|_| !answer.ended) {
        return Judgement::Wrong(format!("RST_STREAM({code}) instead of an answer"));
    }
    if let Some(code) = seen.goaway().filter(|code| *code != Code::NO_ERROR) {
        return Judgement::Wrong(format!("GOAWAY({code}) instead of an answer"));
    }
    match answer.status {
        Some(status) if !right(status) => Judgement::Wrong(format!("status {status}")),
        Some(status) if answer.ended && seen.pong(STILL_THERE) => {
            Judgement::Right(format!("status {status}"))
        }
        _ => Judgement::Open,
    }
}

/// An error by another name.
fn another(frame: &str, code: Code, codes: &[Code]) -> Judgement {
    let text = format!("{frame}({code}), not {}", list(codes));
    match code {
        Code::PROTOCOL_ERROR => Judgement::Near(text),
        _ => Judgement::Wrong(text),
    }
}

fn list(codes: &[Code]) -> String {
    let names: Vec<String> = codes.iter().map(Code::to_string).collect();
    names.join(" or ")
}
