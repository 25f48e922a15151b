//! Why processes were restarted, in few words: reasons are sentences, and a metric's label has a
//! bounded number of values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a reason begins with, and its word; the first that fits counts.
const WORDS: [(&str, &str); 9] = [
    ("exit", "exit"),
    ("signal ", "signal"),
    ("probe timeout", "probe_timeout"),
    ("probe ", "probe_status"),
    ("memory soft", "memory_soft"),
    ("memory hard", "memory_hard"),
    ("age", "age"),
    ("operator", "operator"),
    ("start ", "start_failed"),
];
const OTHER: &str = "other";

/// How often for which cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Causes(BTreeMap<String, u64>);

impl Causes {
    /// One more restart, for this reason.
    pub(crate) fn count(&mut self, reason: &str) {
        let mut words = WORDS.iter();
        let found = words.find(|(beginning, _)| reason.starts_with(beginning));
        let word = found.map_or(OTHER, |(_, word)| *word);
        let times = self.0.entry(word.to_owned()).or_default();
        *times = times.saturating_add(1);
    }

    /// Each cause that there can be, and how often it was: a count that begins with its first restart
    /// would hide that one from whoever watches for a rise.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let words = WORDS.iter().map(|(_, word)| *word).chain([OTHER]);
        words.map(|word| (word, self.0.get(word).copied().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_any_text_become_few_words() {
        let mut causes = Causes::default();
        for reason in [
            "exit 2: no database",
            "signal SIGKILL",
            "probe timeout: no answer within 200ms",
            "probe timeout: not healthy 60 s after its start",
            "probe 500: sick",
            "memory hard: 600 of 512 MiB",
            "operator: new program",
            "start /bin/x: not found",
            "a stray thought",
        ] {
            causes.count(reason);
        }
        let all: Vec<(&str, u64)> = causes.each().collect();
        let expected = [
            ("exit", 1),
            ("signal", 1),
            ("probe_timeout", 2),
            ("probe_status", 1),
            ("memory_soft", 0),
            ("memory_hard", 1),
            ("age", 0),
            ("operator", 1),
            ("start_failed", 1),
            ("other", 1),
        ];
        assert_eq!(all, expected);
    }
}
