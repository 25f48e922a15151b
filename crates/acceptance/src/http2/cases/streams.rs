//! Streams: their states, numbers and count, and the frames that belong to them (RFC 9113, sections
//! 5.1 to 5.4, 6.1 to 6.4, 6.6 and 6.10).

use super::super::connection::Seen;
use super::super::frame::{Code, flag, kind};
use super::super::must::{Judgement, Must};
use super::super::script::Event;
use super::{Case, case};

const PROTOCOL: Must = Must::EndConnection(&[Code::PROTOCOL_ERROR]);
const OK: Must = Must::Answer(1, &[200]);
const LATE_END: Must = Must::EndStream(1, &[Code::STREAM_CLOSED]);
/// A frame on a closed stream may be an error (RFC 9113, 5.1) and may be ignored.
const LATE_MAY_PASS: Must = Must::OneOf(&[
    Must::Answer(3, &[200]),
    Must::EndStream(1, &[Code::STREAM_CLOSED]),
]);

pub(super) const CASES: &[Case] = &[
    case(
        "rfc9113-5.1-idle-data",
        "DATA on an idle stream ends the connection",
        |script| {
            script.frame(kind::DATA, flag::END_STREAM, 1, *b"x");
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-5.1-idle-reset",
        "RST_STREAM on an idle stream ends the connection",
        |script| {
            script.reset(1, Code::CANCEL.0);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-5.1-idle-window-update",
        "WINDOW_UPDATE on an idle stream ends the connection",
        |script| {
            script.window_update(1, 100);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-5.1-idle-continuation",
        "CONTINUATION on an idle stream ends the connection",
        |script| {
            let block = script.get_fields().block().bytes();
            script.frame(kind::CONTINUATION, flag::END_HEADERS, 1, block);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-5.1-idle-priority",
        "PRIORITY is allowed on an idle stream",
        |script| {
            script.priority(1, 0).priority(9, 0).get(1);
        },
        OK,
    ),
    case(
        "rfc9113-5.1-half-closed-data",
        "DATA after the end of the request is STREAM_CLOSED",
        |script| {
            script.get(1).frame(kind::DATA, flag::END_STREAM, 1, *b"x");
        },
        LATE_END,
    ),
    case(
        "rfc9113-5.1-half-closed-headers",
        "HEADERS after the end of the request is STREAM_CLOSED",
        |script| {
            script.get(1).get(1);
        },
        Must::EndStream(1, &[Code::STREAM_CLOSED, Code::PROTOCOL_ERROR]),
    ),
    case(
        "rfc9113-5.1-half-closed-continuation",
        "CONTINUATION after the end of the request ends the connection",
        |script| {
            let block = script.get_fields().block().bytes();
            script
                .get(1)
                .frame(kind::CONTINUATION, flag::END_HEADERS, 1, block);
        },
        Must::EndConnection(&[Code::PROTOCOL_ERROR, Code::STREAM_CLOSED]),
    ),
    case(
        "rfc9113-5.1-half-closed-window-update-and-priority",
        "WINDOW_UPDATE and PRIORITY are allowed after the end of the request",
        |script| {
            script.get(1).window_update(1, 1000).priority(1, 0);
        },
        OK,
    ),
    case(
        "rfc9113-5.1-closed-by-reset-data",
        "DATA after one's own RST_STREAM starts nothing",
        |script| {
            script
                .post(1)
                .reset(1, Code::CANCEL.0)
                .frame(kind::DATA, flag::END_STREAM, 1, *b"x")
                .get(3);
        },
        LATE_MAY_PASS,
    ),
    case(
        "rfc9113-5.1-closed-by-reset-headers",
        "HEADERS after one's own RST_STREAM starts no second request",
        |script| {
            script.post(1).reset(1, Code::CANCEL.0).get(1).get(3);
        },
        Must::OneOf(&[
            Must::That(third_and_not_first),
            Must::EndStream(1, &[Code::STREAM_CLOSED, Code::PROTOCOL_ERROR]),
        ]),
    ),
    case(
        "rfc9113-5.1-closed-data",
        "DATA on a stream that both have ended starts nothing",
        |script| {
            script
                .get(1)
                .wait(Event::End(1))
                .frame(kind::DATA, flag::NONE, 1, *b"x")
                .get(3);
        },
        LATE_MAY_PASS,
    ),
    case(
        "rfc9113-5.1-closed-headers",
        "HEADERS on a stream that both have ended is an error",
        |script| {
            script.get(1).wait(Event::End(1)).get(1);
        },
        Must::EndStream(1, &[Code::STREAM_CLOSED, Code::PROTOCOL_ERROR]),
    ),
    case(
        "rfc9113-5.1-closed-window-update-and-reset",
        "WINDOW_UPDATE and RST_STREAM may come late on an ended stream",
        |script| {
            script
                .get(1)
                .wait(Event::End(1))
                .window_update(1, 1)
                .reset(1, Code::CANCEL.0)
                .get(3);
        },
        Must::Answer(3, &[200]),
    ),
    case(
        "rfc9113-5.1-closed-priority",
        "PRIORITY is allowed on a closed stream",
        |script| {
            script.get(1).wait(Event::End(1)).priority(1, 0).get(3);
        },
        Must::Answer(3, &[200]),
    ),
    case(
        "rfc9113-5.1.1-even-number",
        "a client's stream has an odd number",
        |script| {
            script.get(2);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-5.1.1-number-falls",
        "a new stream's number is above all before it",
        |script| {
            script.get(5).get(3);
        },
        Must::EndConnection(&[Code::PROTOCOL_ERROR, Code::STREAM_CLOSED]),
    ),
    case(
        "rfc9113-5.1.1-numbers-may-be-skipped",
        "a new stream's number need not be the next",
        |script| {
            script.get(1001);
        },
        Must::Answer(1001, &[200]),
    ),
    case(
        "rfc9113-5.1.1-skipped-stream-is-closed",
        "a stream whose number was skipped is closed",
        |script| {
            script
                .get(5)
                .wait(Event::End(5))
                .frame(kind::DATA, flag::END_STREAM, 3, *b"x");
        },
        Must::EndStream(3, &[Code::STREAM_CLOSED, Code::PROTOCOL_ERROR]),
    )
    .should(),
    case(
        "rfc9113-5.1.2-too-many-streams",
        "streams over the announced count are refused, those within it are answered",
        |script| {
            let last = 2 * script.streams_max.unwrap_or(0).min(2_000) + 1;
            for stream in (1..=last).step_by(2) {
                script.post(stream);
            }
        },
        Must::That(refused_if_bounded),
    ),
    case(
        "rfc9113-5.3-dependency-on-itself",
        "priority signals are deprecated: a stream that depends on itself is ignored or refused",
        |script| {
            script.priority(1, 1).get(1);
        },
        Must::OneOf(&[OK, Must::EndStream(1, &[Code::PROTOCOL_ERROR])]),
    ),
    case(
        "rfc9113-5.4.2-reset-is-not-answered",
        "a RST_STREAM is not answered by one",
        |script| {
            script.post(1).reset(1, Code::CANCEL.0).ping(*b"theFence");
        },
        Must::That(no_reset_for_a_reset),
    ),
    case(
        "rfc9113-6.1-data-on-stream-0",
        "DATA belongs to a stream",
        |script| {
            script.frame(kind::DATA, flag::NONE, 0, *b"x");
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.1-data-padding-too-long",
        "padding as long as the frame ends the connection: DATA",
        |script| {
            script.post(1).frame(
                kind::DATA,
                flag::PADDED | flag::END_STREAM,
                1,
                [5, 0, 0, 0, 0],
            );
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.1-padded-data",
        "padding is no part of the body",
        |script| {
            let padded = [&[3], script.post_body.as_bytes(), &[0; 3]].concat();
            script
                .post(1)
                .frame(kind::DATA, flag::PADDED | flag::END_STREAM, 1, padded);
        },
        OK,
    ),
    case(
        "rfc9113-6.1-empty-last-data",
        "a body may end with an empty DATA",
        |script| {
            script
                .post(1)
                .post_body(1, flag::NONE)
                .frame(kind::DATA, flag::END_STREAM, 1, []);
        },
        OK,
    ),
    case(
        "rfc9113-6.2-headers-on-stream-0",
        "HEADERS belongs to a stream",
        |script| {
            script.get(0);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.2-headers-padding-too-long",
        "padding as long as the frame ends the connection: HEADERS",
        |script| {
            let block = [vec![200], script.get_fields().block().raw([0; 8]).bytes()].concat();
            let flags = flag::PADDED | flag::END_HEADERS | flag::END_STREAM;
            let block: Vec<u8> = block.into_iter().take(100).collect();
            script.frame(kind::HEADERS, flags, 1, block);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.2-padded-headers-with-priority",
        "padding and priority are no part of the field block",
        |script| {
            let block = script.get_fields().block().bytes();
            let whole = [&[4, 0, 0, 0, 0, 15], block.as_slice(), &[0; 4]].concat();
            let flags = flag::PADDED | flag::PRIORITY | flag::END_HEADERS | flag::END_STREAM;
            script.frame(kind::HEADERS, flags, 1, whole);
        },
        OK,
    ),
    case(
        "rfc9113-6.2-priority-flag-without-priority",
        "a HEADERS too short for its own flags is an error",
        |script| {
            let flags = flag::PRIORITY | flag::END_HEADERS | flag::END_STREAM;
            script.frame(kind::HEADERS, flags, 1, [0, 0]);
        },
        Must::EndConnection(&[Code::FRAME_SIZE_ERROR, Code::PROTOCOL_ERROR]),
    ),
    case(
        "rfc9113-6.3-priority-on-stream-0",
        "PRIORITY belongs to a stream",
        |script| {
            script.priority(0, 1);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.3-priority-too-short",
        "a PRIORITY has five bytes",
        |script| {
            script.post(1).frame(kind::PRIORITY, flag::NONE, 1, [0; 4]);
        },
        Must::EndStream(1, &[Code::FRAME_SIZE_ERROR]),
    ),
    case(
        "rfc9113-6.4-reset-on-stream-0",
        "RST_STREAM belongs to a stream",
        |script| {
            script.reset(0, Code::CANCEL.0);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.4-reset-too-short",
        "a RST_STREAM has four bytes",
        |script| {
            script
                .post(1)
                .frame(kind::RST_STREAM, flag::NONE, 1, [0; 3]);
        },
        Must::EndConnection(&[Code::FRAME_SIZE_ERROR]),
    ),
    case(
        "rfc9113-6.4-reset-ends-one-stream-only",
        "a stream that is reset leaves the others alone",
        |script| {
            script
                .post(1)
                .post(3)
                .reset(3, Code::CANCEL.0)
                .post_body(1, flag::END_STREAM);
        },
        OK,
    ),
    case(
        "rfc9113-6.6-push-promise-of-a-client",
        "a client cannot push",
        |script| {
            let block = [vec![0, 0, 0, 2], script.get_fields().block().bytes()].concat();
            script
                .post(1)
                .frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, block);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.10-continuation-without-headers",
        "a CONTINUATION follows a block that goes on",
        |script| {
            let block = script.get_fields().block().bytes();
            script
                .post(1)
                .frame(kind::CONTINUATION, flag::END_HEADERS, 1, block);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.10-continuation-on-stream-0",
        "a CONTINUATION belongs to a stream",
        |script| {
            let block = script.get_fields().block().bytes();
            script.frame(kind::HEADERS, flag::END_STREAM, 1, block);
            script.frame(kind::CONTINUATION, flag::END_HEADERS, 0, []);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.10-continuation-on-another-stream",
        "a CONTINUATION belongs to the stream of its block",
        |script| {
            let block = script.get_fields().block().bytes();
            script.frame(kind::HEADERS, flag::END_STREAM, 1, block);
            script.frame(kind::CONTINUATION, flag::END_HEADERS, 3, []);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.10-block-in-pieces",
        "a field block may be cut anywhere",
        |script| {
            let block = script.get_fields().block().bytes();
            script.frame(kind::HEADERS, flag::END_STREAM, 1, []);
            for piece in block.chunks(block.len().div_ceil(3)) {
                script.frame(kind::CONTINUATION, flag::NONE, 1, piece);
            }
            script.frame(kind::CONTINUATION, flag::END_HEADERS, 1, []);
        },
        OK,
    ),
];

fn third_and_not_first(seen: &Seen) -> Judgement {
    if seen.answer(1).status.is_some() {
        return Judgement::Wrong("the closed stream was answered".to_owned());
    }
    match (seen.answer(3), &seen.end) {
        (answer, _) if answer.ended => Judgement::Right("ignored".to_owned()),
        (_, Some(end)) => Judgement::Wrong(end.clone()),
        _ => Judgement::Open,
    }
}

fn refused_if_bounded(seen: &Seen) -> Judgement {
    let Some(&bound) = seen
        .settings
        .get(&super::super::frame::setting::MAX_CONCURRENT_STREAMS)
    else {
        return Judgement::Wrong("no bound was announced, which is a SHOULD of 5.1.2".to_owned());
    };
    let over = 2 * bound.min(2_000) + 1;
    let codes = &[
        Code::REFUSED_STREAM,
        Code::PROTOCOL_ERROR,
        Code::ENHANCE_YOUR_CALM,
    ];
    Must::EndStream(over, codes).judge(seen)
}

fn no_reset_for_a_reset(seen: &Seen) -> Judgement {
    match (seen.answer(1).reset, seen.pong(*b"theFence"), &seen.end) {
        (Some(code), ..) => Judgement::Wrong(format!("RST_STREAM({code}) for a RST_STREAM")),
        (None, true, _) => Judgement::Right("silence".to_owned()),
        (None, false, Some(end)) => Judgement::Wrong(end.clone()),
        (None, false, None) => Judgement::Open,
    }
}
