//! What is wrong with a file, as data: for people it becomes a `Failure`, for programs JSON.

use std::fmt::Display;

use crate::Failure;

/// One fault of a file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Where it stands, counted from 1; `None` for what is nowhere in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Like `nodes[0].address`; empty for the file as a whole.
    pub key: String,
    /// As written, shortened; `***` for a secret; empty where there is none.
    pub value: String,
    pub reason: String,
    pub remedy: String,
}

impl Fault {
    /// A fault of one key, found by whoever knows what the value means. The user and password of a
    /// URL are masked.
    pub fn new(
        key: impl Into<String>,
        value: impl Display,
        reason: impl Display,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            line: None,
            key: key.into(),
            value: super::check::masked(&value.to_string()),
            reason: reason.to_string(),
            remedy: remedy.into(),
        }
    }

    /// What is at fault: `line 3, probe.interval: `5``; parts that are missing are left out.
    pub fn place(&self) -> String {
        let line = self.line.map(|line| format!("line {line}"));
        let line_and_key = match (line, self.key.as_str()) {
            (Some(line), "") => line,
            (None, key) => key.to_owned(),
            (Some(line), key) => format!("{line}, {key}"),
        };
        match self.value.as_str() {
            "" => line_and_key,
            value => format!("{line_and_key}: `{value}`"),
        }
    }

    /// The failure (exit 64) of reading the file that is called `name`.
    pub fn failure(&self, name: &str) -> Failure {
        let attempted = format!("read {name} {}", self.place());
        Failure::configuration(attempted.trim_end(), &self.reason, &self.remedy)
    }

    /// Whether `self` says nothing new where `other` was told: it is about the same key or one below.
    pub(super) fn is_covered_by(&self, other: &Self) -> bool {
        self.key
            .strip_prefix(&other.key)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }
}
