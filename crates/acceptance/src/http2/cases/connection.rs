//! The connection as a whole: preface, frame format and size, field blocks across frames, unknown
//! frames, PING and GOAWAY (RFC 9113, sections 3.4, 4, 5.5, 6.7, 6.8 and 7).

use super::super::connection::Seen;
use super::super::frame::{Code, flag, kind};
use super::super::hpack::Block;
use super::super::must::{Judgement, Must};
use super::super::script::{Event, Script};
use super::{Case, case};

const PROTOCOL: Must = Must::EndConnection(&[Code::PROTOCOL_ERROR]);
const FRAME_SIZE: Must = Must::EndConnection(&[Code::FRAME_SIZE_ERROR]);
const OK: Must = Must::Answer(1, &[200]);

pub(super) const CASES: &[Case] = &[
    case(
        "rfc9113-3.4-server-preface-is-settings",
        "the server's first frame is a SETTINGS",
        |script| {
            script.greeting();
        },
        Must::That(first_is_settings),
    )
    .bare(),
    case(
        "rfc9113-3.4-settings-are-acknowledged",
        "the SETTINGS of the client's preface are acknowledged",
        |script| {
            script.greeting().wait(Event::SettingsAcks(1)).get(1);
        },
        OK,
    )
    .bare(),
    case(
        "rfc9113-3.4-request-right-after-preface",
        "a client need not wait for the server's SETTINGS",
        |script| {
            script.greeting().get(1);
        },
        OK,
    )
    .bare(),
    case(
        "rfc9113-3.4-wrong-preface",
        "another preface ends the connection",
        |script| {
            script.raw(*b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n");
            script.frame(kind::SETTINGS, flag::NONE, 0, []);
        },
        PROTOCOL,
    )
    .bare(),
    case(
        "rfc9113-3.4-preface-without-settings",
        "a preface that goes on with another frame ends the connection",
        |script| {
            script
                .raw(super::super::frame::PREFACE)
                .ping(*b"too soon")
                .get(1);
        },
        PROTOCOL,
    )
    .bare(),
    case(
        "rfc9113-4.1-reserved-bit-is-ignored",
        "the reserved bit of a stream's number means nothing",
        |script| {
            let block = script.get_fields().block().bytes();
            let flags = flag::END_HEADERS | flag::END_STREAM;
            script.frame(kind::HEADERS, flags, 0x8000_0001, block);
        },
        OK,
    ),
    case(
        "rfc9113-4.1-undefined-flags-are-ignored",
        "flags that a type does not define mean nothing",
        |script| {
            script.frame(kind::PING, 0xfe, 0, *b"flagsFE!");
            script.wait(Event::Pong(*b"flagsFE!")).get(1);
        },
        OK,
    ),
    case(
        "rfc9113-4.1-unknown-type-is-ignored",
        "a frame of an unknown type is skipped",
        |script| {
            script.frame(kind::UNKNOWN, 0xff, 0, [0; 64]);
            script.frame(kind::UNKNOWN, 0x00, 0, []).get(1);
        },
        OK,
    ),
    case(
        "rfc9113-4.2-largest-frame-is-taken",
        "a frame of exactly the announced size is taken",
        |script| {
            let bytes = vec![0; script.frame_bytes_max.min(16_384)];
            script.frame(kind::UNKNOWN, flag::NONE, 0, bytes).get(1);
        },
        OK,
    ),
    case(
        "rfc9113-4.2-data-too-large",
        "a DATA over the announced size is a FRAME_SIZE_ERROR",
        |script| {
            let bytes = vec![b' '; script.frame_bytes_max + 1];
            script.post(1).frame(kind::DATA, flag::END_STREAM, 1, bytes);
        },
        Must::EndStream(1, &[Code::FRAME_SIZE_ERROR]),
    ),
    case(
        "rfc9113-4.2-headers-too-large",
        "a HEADERS over the announced size ends the connection",
        |script| {
            let block = script
                .get_fields()
                .block()
                .plain("x", vec![b'x'; script.frame_bytes_max]);
            script.whole(1, block);
        },
        FRAME_SIZE,
    ),
    case(
        "rfc9113-4.2-settings-too-large",
        "a SETTINGS over the announced size ends the connection",
        |script| {
            let pairs = vec![(0xf0f0, 1); script.frame_bytes_max / 6 + 1];
            script.settings(&pairs);
        },
        FRAME_SIZE,
    ),
    case(
        "rfc9113-4.3-block-interrupted-by-another-stream",
        "nothing comes between the frames of a field block: HEADERS of another stream",
        |script| {
            open_block(script);
            script.get(3);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-4.3-block-interrupted-by-data",
        "nothing comes between the frames of a field block: DATA",
        |script| {
            open_block(script);
            script.frame(kind::DATA, flag::END_STREAM, 1, []);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-4.3-block-interrupted-by-priority",
        "nothing comes between the frames of a field block: PRIORITY",
        |script| {
            open_block(script);
            script.priority(1, 0);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-4.3-block-interrupted-by-ping",
        "nothing comes between the frames of a field block: PING",
        |script| {
            open_block(script);
            script.ping(*b"not now!");
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-4.3-block-interrupted-by-settings",
        "nothing comes between the frames of a field block: SETTINGS",
        |script| {
            open_block(script);
            script.settings(&[]);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-4.3-block-interrupted-by-window-update",
        "nothing comes between the frames of a field block: WINDOW_UPDATE",
        |script| {
            open_block(script);
            script.window_update(0, 1);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-4.3-block-interrupted-by-reset",
        "nothing comes between the frames of a field block: RST_STREAM",
        |script| {
            open_block(script);
            script.reset(1, Code::CANCEL.0);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-5.5-block-interrupted-by-unknown-type",
        "a frame of an unknown type within a field block ends the connection",
        |script| {
            open_block(script);
            script.frame(kind::UNKNOWN, flag::NONE, 1, []);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-5.5-unknown-type-within-a-body",
        "a frame of an unknown type between the frames of a body is skipped",
        |script| {
            script.post(1).frame(kind::UNKNOWN, 0x1, 1, [1, 2, 3]);
            script.post_body(1, flag::END_STREAM);
        },
        OK,
    ),
    case(
        "rfc9113-6.7-ping-is-answered",
        "a PING comes back with its payload",
        |script| {
            script
                .ping(*b"\0\x01\xfe\xffping")
                .wait(Event::Pong(*b"\0\x01\xfe\xffping"))
                .get(1);
        },
        OK,
    ),
    case(
        "rfc9113-6.7-pong-unasked-is-ignored",
        "an acknowledgement of no PING is not answered",
        |script| {
            script.frame(kind::PING, flag::ACK, 0, *b"unasked!");
            script.ping(*b"theFence");
        },
        Must::That(unasked_is_silent),
    ),
    case(
        "rfc9113-6.7-ping-on-a-stream",
        "a PING belongs to stream 0",
        |script| {
            script.frame(kind::PING, flag::NONE, 1, [0; 8]);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.7-ping-too-short",
        "a PING has eight bytes, not six",
        |script| {
            script.frame(kind::PING, flag::NONE, 0, [0; 6]);
        },
        FRAME_SIZE,
    ),
    case(
        "rfc9113-6.7-ping-too-long",
        "a PING has eight bytes, not nine",
        |script| {
            script.frame(kind::PING, flag::NONE, 0, [0; 9]);
        },
        FRAME_SIZE,
    ),
    case(
        "rfc9113-6.8-goaway-on-a-stream",
        "a GOAWAY belongs to stream 0",
        |script| {
            script.frame(kind::GOAWAY, flag::NONE, 1, [0; 8]);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.8-goaway-too-short",
        "a GOAWAY has at least eight bytes",
        |script| {
            script.frame(kind::GOAWAY, flag::NONE, 0, [0; 7]);
        },
        FRAME_SIZE,
    )
    .should(),
    case(
        "rfc9113-6.8-requests-before-goaway-are-answered",
        "a client's GOAWAY stops no request that it has sent",
        |script| {
            script
                .post(1)
                .frame(kind::GOAWAY, flag::NONE, 0, *b"\0\0\0\0\0\0\0\0and why");
            script.post_body(1, flag::END_STREAM);
        },
        Must::That(answered_at_all),
    ),
    case(
        "rfc9113-7-unknown-code-in-reset",
        "an unknown error code triggers nothing special: RST_STREAM",
        |script| {
            script.post(1).reset(1, 0xdead_beef).get(3);
        },
        Must::Answer(3, &[200]),
    ),
    case(
        "rfc9113-7-unknown-code-in-goaway",
        "an unknown error code triggers nothing special: GOAWAY",
        |script| {
            script
                .post(1)
                .frame(kind::GOAWAY, flag::NONE, 0, *b"\0\0\0\0\xde\xad\xbe\xef");
            script.post_body(1, flag::END_STREAM);
        },
        Must::That(answered_at_all),
    )
    .should(),
    case(
        "rfc9113-9.1-connection-is-used-again",
        "a connection takes one request after the other",
        |script| {
            script
                .get(1)
                .wait(Event::End(1))
                .get(3)
                .wait(Event::End(3))
                .get(5);
        },
        Must::Answer(5, &[200]),
    ),
];

/// A HEADERS whose block goes on.
fn open_block(script: &mut Script) {
    let block: Block = script.get_fields().block();
    script.frame(kind::HEADERS, flag::END_STREAM, 1, block.bytes());
}

fn first_is_settings(seen: &Seen) -> Judgement {
    match seen.frames.first() {
        Some(first) if first.kind == kind::SETTINGS && !first.has(flag::ACK) => {
            Judgement::Right("SETTINGS".to_owned())
        }
        Some(first) => Judgement::Wrong(format!("{first} came first")),
        None => Judgement::Open,
    }
}

fn unasked_is_silent(seen: &Seen) -> Judgement {
    if seen.pong(*b"unasked!") {
        return Judgement::Wrong("an acknowledgement was answered".to_owned());
    }
    match (seen.pong(*b"theFence"), &seen.end) {
        (true, _) => Judgement::Right("only the PING was answered".to_owned()),
        (_, Some(end)) => Judgement::Wrong(end.clone()),
        _ => Judgement::Open,
    }
}

/// After a GOAWAY the server may close once the answer is out.
fn answered_at_all(seen: &Seen) -> Judgement {
    match (seen.answer(1), &seen.end) {
        (answer, _) if answer.ended && answer.status == Some(200) => {
            Judgement::Right("status 200".to_owned())
        }
        (_, Some(end)) => Judgement::Wrong(end.clone()),
        _ => Judgement::Open,
    }
}
