//! SETTINGS: their form, their bounds, their order (RFC 9113, section 6.5).

use super::super::frame::{Code, flag, kind, setting};
use super::super::must::Must;
use super::super::script::Event;
use super::{Case, case};

const PROTOCOL: Must = Must::EndConnection(&[Code::PROTOCOL_ERROR]);
const FRAME_SIZE: Must = Must::EndConnection(&[Code::FRAME_SIZE_ERROR]);
const OK: Must = Must::Answer(1, &[200]);

pub(super) const CASES: &[Case] = &[
    case(
        "rfc9113-6.5-acknowledgement-with-payload",
        "an acknowledgement is empty",
        |script| {
            script.frame(kind::SETTINGS, flag::ACK, 0, [0; 6]);
        },
        FRAME_SIZE,
    ),
    case(
        "rfc9113-6.5-settings-on-a-stream",
        "SETTINGS belong to stream 0",
        |script| {
            script.frame(kind::SETTINGS, flag::NONE, 1, []);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.5-settings-of-five-bytes",
        "a SETTINGS is a multiple of six bytes",
        |script| {
            script.frame(kind::SETTINGS, flag::NONE, 0, [0, 3, 0, 0, 0]);
        },
        FRAME_SIZE,
    ),
    case(
        "rfc9113-6.5-settings-in-mid-connection",
        "SETTINGS may come at any time, and each is acknowledged",
        |script| {
            script.settings(&[(setting::ENABLE_PUSH, 0)]).settings(&[]);
            script.wait(Event::SettingsAcks(3)).get(1);
        },
        OK,
    ),
    case(
        "rfc9113-6.5.2-push-is-neither-0-nor-1",
        "ENABLE_PUSH is 0 or 1",
        |script| {
            script.settings(&[(setting::ENABLE_PUSH, 2)]);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.5.2-window-too-large",
        "INITIAL_WINDOW_SIZE is at most 2^31-1",
        |script| {
            script.settings(&[(setting::INITIAL_WINDOW_SIZE, 0x8000_0000)]);
        },
        Must::EndConnection(&[Code::FLOW_CONTROL_ERROR]),
    ),
    case(
        "rfc9113-6.5.2-frame-size-too-small",
        "MAX_FRAME_SIZE is at least 2^14",
        |script| {
            script.settings(&[(setting::MAX_FRAME_SIZE, 16_383)]);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.5.2-frame-size-too-large",
        "MAX_FRAME_SIZE is at most 2^24-1",
        |script| {
            script.settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)]);
        },
        PROTOCOL,
    ),
    case(
        "rfc9113-6.5.2-unknown-setting-is-ignored",
        "an unknown setting means nothing",
        |script| {
            script.settings(&[(setting::UNKNOWN, u32::MAX)]);
            script.wait(Event::SettingsAcks(2)).get(1);
        },
        OK,
    ),
    case(
        "rfc9113-6.5.2-table-of-no-bytes",
        "with HEADER_TABLE_SIZE 0 the server's field blocks use no table",
        |script| {
            script.settings(&[(setting::HEADER_TABLE_SIZE, 0)]);
            script
                .wait(Event::SettingsAcks(2))
                .get(1)
                .wait(Event::End(1))
                .get(3);
        },
        Must::Answer(3, &[200]),
    ),
    case(
        "rfc9113-6.5.2-no-stream-for-the-server",
        "MAX_CONCURRENT_STREAMS of a client binds pushes only",
        |script| {
            script.settings(&[(setting::MAX_CONCURRENT_STREAMS, 0)]);
            script.wait(Event::SettingsAcks(2)).get(1);
        },
        OK,
    ),
    case(
        "rfc9113-6.5.3-last-value-counts",
        "settings are taken in their order: the last value of one counts",
        |script| {
            let window = setting::INITIAL_WINDOW_SIZE;
            script.settings(&[(window, 100_000), (window, 1)]);
            script
                .wait(Event::SettingsAcks(2))
                .get(1)
                .exactly(1, 1)
                .window_update(1, 100_000);
        },
        OK,
    ),
];
