//! Hostile clients: a legal or nearly legal thing, over and over. Each flood goes out on one
//! connection while a witness asks for a plain GET on fresh ones; the witness must be answered. A
//! flood that costs the server more than its sender (RFC 9113, 10.5) must besides be ended before it
//! is through; one that costs no more may be borne. What memory the server needs meanwhile is seen
//! from outside, by whoever runs this.

use std::time::Duration;

use super::frame::{Code, flag, kind, setting};
use super::hpack::{Block, DYNAMIC};
use super::script::{Event, Script};

/// What must come of a flood, besides an answer for everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The connection is ended before the last round.
    Ended,
    /// Ended, held back, or taken: all the same.
    Borne,
}

/// One flood.
pub(super) struct Flood {
    pub(super) id: &'static str,
    pub(super) says: &'static str,
    /// Once, before the rounds.
    pub(super) before: fn(&mut Script),
    /// The bytes of one round; streams are numbered from it.
    pub(super) round: fn(&mut Script, u32),
    pub(super) rounds: u32,
    /// Reads nothing of what comes.
    pub(super) deaf: bool,
    /// How long the connection is held after the last round.
    pub(super) hold: Duration,
    pub(super) end: End,
}

impl Flood {
    const fn new(
        id: &'static str,
        says: &'static str,
        round: fn(&mut Script, u32),
        end: End,
    ) -> Self {
        Self {
            id,
            says,
            before: |_| {},
            round,
            rounds: 20_000,
            deaf: false,
            hold: Duration::ZERO,
            end,
        }
    }

    const fn rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds;
        self
    }

    const fn deaf(mut self) -> Self {
        self.deaf = true;
        self
    }

    const fn before(mut self, before: fn(&mut Script)) -> Self {
        self.before = before;
        self
    }

    const fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }
}

pub(super) const FLOODS: &[Flood] = &[
    Flood::new(
        "cve-2023-44487-rapid-reset",
        "requests that are reset at once",
        |script, round| {
            let stream = 2 * round + 1;
            script.get(stream).reset(stream, Code::CANCEL.0);
        },
        End::Ended,
    ),
    Flood::new(
        "cve-2025-8671-made-you-reset-window-overflow",
        "requests that make the server reset them: a window that overflows",
        |script, round| {
            let stream = 2 * round + 1;
            script.get(stream).window_update(stream, 0x7fff_ffff);
        },
        End::Ended,
    ),
    Flood::new(
        "cve-2025-8671-made-you-reset-window-of-0",
        "requests that make the server reset them: an increment of 0",
        |script, round| {
            let stream = 2 * round + 1;
            script.get(stream).window_update(stream, 0);
        },
        End::Ended,
    ),
    Flood::new(
        "cve-2025-8671-made-you-reset-data-after-the-end",
        "requests that make the server reset them: a body after the end",
        |script, round| {
            let stream = 2 * round + 1;
            script
                .get(stream)
                .frame(kind::DATA, flag::NONE, stream, *b"x");
        },
        End::Ended,
    ),
    Flood::new(
        "cve-2025-8671-made-you-reset-malformed",
        "malformed requests, each to be reset",
        |script, round| {
            let fields = script.get_fields().without(":path");
            script.request(2 * round + 1, &fields);
        },
        End::Ended,
    ),
    Flood::new(
        "cve-2024-27316-continuation-without-end",
        "a field block that never ends",
        |script, round| {
            let block = Block::default().plain(format!("x-{round}"), vec![b'x'; 1_000]);
            script.frame(kind::CONTINUATION, flag::NONE, 1, block.bytes());
        },
        End::Ended,
    )
    .before(open_block),
    Flood::new(
        "cve-2019-9516-empty-continuations",
        "a field block of empty frames that never ends",
        |script, _| {
            script.frame(kind::CONTINUATION, flag::NONE, 1, []);
        },
        End::Ended,
    )
    .before(open_block),
    Flood::new(
        "cve-2016-6581-hpack-bomb",
        "field blocks of a few bytes that unpack to a megabyte",
        |script, round| {
            let mut block = script.get_fields().block();
            if round == 0 {
                block = block.remembered("x", vec![b'x'; 4_000]);
            }
            let block = (0..300).fold(block, |block, _| block.indexed(DYNAMIC));
            script.whole(2 * round + 1, block);
        },
        End::Borne,
    )
    .rounds(2_000),
    Flood::new(
        "cve-2019-9512-ping-flood",
        "PINGs whose answers are read",
        |script, round| {
            script.ping(u64::from(round).to_be_bytes());
        },
        End::Borne,
    ),
    Flood::new(
        "cve-2019-9512-ping-flood-of-the-deaf",
        "PINGs whose answers nobody reads",
        |script, round| {
            script.ping(u64::from(round).to_be_bytes());
        },
        End::Borne,
    )
    .rounds(400_000)
    .deaf(),
    Flood::new(
        "cve-2019-9515-settings-flood",
        "SETTINGS whose acknowledgements are read",
        |script, round| {
            script.settings(&[(setting::INITIAL_WINDOW_SIZE, 1_000 + round)]);
        },
        End::Borne,
    ),
    Flood::new(
        "cve-2019-9515-settings-flood-of-the-deaf",
        "SETTINGS whose acknowledgements nobody reads",
        |script, _| {
            script.settings(&[]);
        },
        End::Borne,
    )
    .rounds(400_000)
    .deaf(),
    Flood::new(
        "cve-2019-9514-reset-flood-of-the-deaf",
        "malformed requests whose resets nobody reads",
        |script, round| {
            let fields = script.get_fields().without(":path");
            script.request(2 * round + 1, &fields);
        },
        End::Ended,
    )
    .deaf(),
    Flood::new(
        "cve-2019-9518-empty-data",
        "a body of empty DATA",
        |script, _| {
            script.frame(kind::DATA, flag::NONE, 1, []);
        },
        End::Borne,
    )
    .before(open_post)
    .rounds(200_000),
    Flood::new(
        "cve-2019-9518-padded-data-of-nothing",
        "a body of DATA that is padding alone",
        |script, _| {
            script.frame(kind::DATA, flag::PADDED, 1, [0]);
        },
        End::Borne,
    )
    .before(open_post)
    .rounds(60_000),
    Flood::new(
        "cve-2019-9513-priority-flood",
        "PRIORITY of a thousand streams, again and again",
        |script, round| {
            script.priority(2 * (round % 1_000) + 1, 2 * ((round + 7) % 1_000) + 1);
        },
        End::Borne,
    )
    .rounds(200_000),
    Flood::new(
        "rfc9113-10.5-window-update-flood",
        "windows that open a byte at a time",
        |script, _| {
            script.window_update(0, 1).window_update(1, 1);
        },
        End::Borne,
    )
    .before(open_post)
    .rounds(100_000),
    Flood::new(
        "rfc9113-10.5-unknown-frames",
        "frames of an unknown type",
        |script, _| {
            script.frame(kind::UNKNOWN, flag::NONE, 0, [0; 1_000]);
        },
        End::Borne,
    ),
    Flood::new(
        "rfc9113-10.5-resets-of-a-closed-stream",
        "RST_STREAM for a stream that has long ended",
        |script, _| {
            script.reset(1, Code::CANCEL.0);
        },
        End::Borne,
    )
    .before(|script| {
        script.get(1).wait(Event::End(1));
    })
    .rounds(100_000),
    Flood::new(
        "cve-2019-9511-window-of-a-byte",
        "answers whose bodies may leave a byte at a time",
        |script, round| {
            for stream in 0..20 {
                script.window_update(2 * ((round + stream) % 20) + 1, 1);
            }
        },
        End::Borne,
    )
    .before(|script| {
        script.settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
        for stream in 0..20 {
            script.get(2 * stream + 1);
        }
    })
    .rounds(500),
    Flood::new(
        "cve-2019-9517-window-of-0-held",
        "large answers asked for on many streams, and a window that stays shut",
        |script, round| {
            let fields = script.fields("GET", &script.large_path);
            script.request(2 * round + 1, &fields);
        },
        End::Borne,
    )
    .before(|script| {
        script.settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    })
    .rounds(50)
    .hold(Duration::from_secs(5)),
    Flood::new(
        "rfc9113-10.5-bodies-that-never-end",
        "heads of requests whose bodies never come",
        |script, round| {
            script.post(2 * round + 1);
        },
        End::Borne,
    )
    .rounds(50)
    .hold(Duration::from_secs(5)),
];

/// A HEADERS whose block goes on.
fn open_block(script: &mut Script) {
    let block = script.get_fields().block();
    script.frame(kind::HEADERS, flag::END_STREAM, 1, block.bytes());
}

/// A request whose body goes on.
fn open_post(script: &mut Script) {
    script.post(1);
}
