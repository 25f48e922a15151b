//! Flow control in both directions (RFC 9113, sections 5.2 and 6.9). The target's GET must have a
//! body of more than a few bytes.

use super::super::frame::{Code, flag, kind, setting};
use super::super::must::Must;
use super::super::script::{Event, Script};
use super::{Case, case};

const FLOW: Must = Must::EndConnection(&[Code::FLOW_CONTROL_ERROR]);
const OK: Must = Must::Answer(1, &[200]);
const WINDOW_MAX: u32 = 0x7fff_ffff;

pub(super) const CASES: &[Case] = &[
    case(
        "rfc9113-5.2-body-of-many-windows",
        "a body over the first window arrives whole as the window is given",
        |script| {
            first_window(script, 1);
            script
                .get(1)
                .exactly(1, 1)
                .window_update(1, 2)
                .exactly(1, 3);
            script.window_update(1, 100_000);
        },
        OK,
    ),
    case(
        "rfc9113-6.9-update-of-0-on-a-stream",
        "a WINDOW_UPDATE of 0 is an error of its stream",
        |script| {
            script.post(1).window_update(1, 0);
        },
        Must::EndStream(1, &[Code::PROTOCOL_ERROR]),
    ),
    case(
        "rfc9113-6.9-update-of-0-on-the-connection",
        "a WINDOW_UPDATE of 0 on stream 0 ends the connection",
        |script| {
            script.window_update(0, 0);
        },
        Must::EndConnection(&[Code::PROTOCOL_ERROR]),
    ),
    case(
        "rfc9113-6.9-update-too-short",
        "a WINDOW_UPDATE has four bytes",
        |script| {
            script.frame(kind::WINDOW_UPDATE, flag::NONE, 0, [0, 0, 1]);
        },
        Must::EndConnection(&[Code::FRAME_SIZE_ERROR]),
    ),
    case(
        "rfc9113-6.9-reserved-bit-is-ignored",
        "the reserved bit of an increment means nothing",
        |script| {
            first_window(script, 1);
            script
                .get(1)
                .exactly(1, 1)
                .window_update(1, 0x8000_0002)
                .exactly(1, 3);
            script.window_update(1, 100_000);
        },
        OK,
    ),
    case(
        "rfc9113-6.9.1-no-byte-without-a-window",
        "with a window of 0 the head comes and no byte of the body",
        |script| {
            first_window(script, 0);
            script
                .get(1)
                .wait(Event::Head(1))
                .exactly(1, 0)
                .window_update(1, 100_000);
        },
        OK,
    ),
    case(
        "rfc9113-6.9.1-update-before-the-body",
        "an increment that comes first is not lost",
        |script| {
            first_window(script, 0);
            script
                .get(1)
                .window_update(1, 1)
                .exactly(1, 1)
                .window_update(1, 100_000);
        },
        OK,
    ),
    case(
        "rfc9113-6.9.1-connection-window-overflows",
        "a window of the connection over 2^31-1 ends it",
        |script| {
            script
                .window_update(0, WINDOW_MAX)
                .window_update(0, WINDOW_MAX);
        },
        FLOW,
    ),
    case(
        "rfc9113-6.9.1-stream-window-overflows",
        "a window of a stream over 2^31-1 is an error of the stream",
        |script| {
            script
                .post(1)
                .window_update(1, WINDOW_MAX)
                .window_update(1, WINDOW_MAX);
        },
        Must::EndStream(1, &[Code::FLOW_CONTROL_ERROR]),
    ),
    case(
        "rfc9113-6.9.1-client-overruns-a-window",
        "a client that sends more than it may is stopped",
        |script| {
            // One window of body in one go; what the server gives meanwhile does not reach us first.
            let frames = script.window as usize / 16_384 + 2;
            script.post(1);
            for _ in 0..frames.min(1_000) {
                script.frame(kind::DATA, flag::NONE, 1, vec![b' '; 16_384]);
            }
        },
        Must::OneOf(&[
            Must::EndStream(1, &[Code::FLOW_CONTROL_ERROR, Code::NO_ERROR, Code::CANCEL]),
            Must::Answer(1, &[413]),
        ]),
    )
    .should(),
    case(
        "rfc9113-6.9.2-window-grows-with-the-setting",
        "a larger INITIAL_WINDOW_SIZE widens the windows that are open",
        |script| {
            first_window(script, 1);
            script
                .get(1)
                .exactly(1, 1)
                .settings(&[(setting::INITIAL_WINDOW_SIZE, 5)]);
            script
                .exactly(1, 5)
                .settings(&[(setting::INITIAL_WINDOW_SIZE, 100_000)]);
        },
        OK,
    ),
    case(
        "rfc9113-6.9.2-window-below-0",
        "a window that a setting took below 0 has to be filled up first",
        |script| {
            first_window(script, 5);
            script
                .get(1)
                .exactly(1, 5)
                .settings(&[(setting::INITIAL_WINDOW_SIZE, 2)]);
            script
                .wait(Event::SettingsAcks(3))
                .window_update(1, 3)
                .exactly(1, 5);
            script
                .window_update(1, 1)
                .exactly(1, 6)
                .window_update(1, 100_000);
        },
        OK,
    ),
    case(
        "rfc9113-6.9.2-setting-overflows-a-window",
        "a setting that takes a window over 2^31-1 ends the connection",
        |script| {
            script.post(1).window_update(1, WINDOW_MAX - 65_535);
            script.settings(&[(setting::INITIAL_WINDOW_SIZE, 65_536)]);
        },
        FLOW,
    ),
    case(
        "rfc9113-6.9.2-setting-leaves-the-connection-alone",
        "INITIAL_WINDOW_SIZE does not touch the window of the connection",
        |script| {
            script.settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
            script.settings(&[(setting::INITIAL_WINDOW_SIZE, WINDOW_MAX)]);
            script.wait(Event::SettingsAcks(3)).get(1);
        },
        OK,
    ),
    case(
        "rfc9113-6.9.3-held-stream-holds-no-other",
        "a stream without a window does not stop another one",
        |script| {
            first_window(script, 0);
            script
                .get(1)
                .get(3)
                .window_update(3, 100_000)
                .wait(Event::End(3));
            script.window_update(1, 100_000);
        },
        OK,
    ),
];

/// The window of new streams, acknowledged.
fn first_window(script: &mut Script, bytes: u32) {
    script
        .settings(&[(setting::INITIAL_WINDOW_SIZE, bytes)])
        .wait(Event::SettingsAcks(2));
}
