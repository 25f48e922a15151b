//! The table of cases: what is sent, what must come, each named by the section that says so. `Must`
//! cases hold a MUST of the text; `Should` cases hold a SHOULD, or one reading where the text leaves
//! a choice, and a server that differs there is told apart from one that fails.

mod compression;
mod connection;
mod flow;
mod requests;
mod settings;
mod streams;

use super::must::Must;
use super::script::Script;

/// How binding a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Must,
    Should,
}

/// What is there before the steps of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Prefaces and SETTINGS were exchanged and acknowledged.
    Ready,
    /// Nothing but the connection.
    Bare,
}

/// One case.
pub(super) struct Case {
    pub(super) id: &'static str,
    pub(super) says: &'static str,
    pub(super) level: Level,
    pub(super) start: Start,
    pub(super) play: fn(&mut Script),
    pub(super) must: Must,
}

impl Case {
    const fn bare(mut self) -> Self {
        self.start = Start::Bare;
        self
    }

    const fn should(mut self) -> Self {
        self.level = Level::Should;
        self
    }
}

const fn case(id: &'static str, says: &'static str, play: fn(&mut Script), must: Must) -> Case {
    Case {
        id,
        says,
        level: Level::Must,
        start: Start::Ready,
        play,
        must,
    }
}

/// Every case, in the order of the sections.
pub(super) fn all() -> impl Iterator<Item = &'static Case> {
    [
        connection::CASES,
        streams::CASES,
        settings::CASES,
        flow::CASES,
        requests::CASES,
        compression::CASES,
    ]
    .into_iter()
    .flatten()
}
