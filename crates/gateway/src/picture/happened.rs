//! What happened lately, for people: the end of the events that all processes append to one file, or,
//! where there is none, what this gateway remembers of itself. The file is read again when it changed,
//! so that it may be rotated, cut and written by anybody.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::events::{Event, Events};

/// Events that are shown.
const SHOWN_MAX: usize = 200;
/// So much of the end of the file is read.
const TAIL_BYTES: u64 = 128 * 1024;

/// One event, as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Happened {
    /// RFC 3339.
    at: String,
    source: String,
    kind: String,
    subject: String,
    #[serde(default)]
    reason: String,
}

/// The end of the file, in the order of time. Lines that are not understood are left out.
pub(crate) fn read(path: &Path) -> std::io::Result<Vec<Happened>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line of a part is the end of one.
    let lines = text.lines().skip(usize::from(skipped > 0));
    let mut all: Vec<Happened> = lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    all.sort_by(|one, other| one.at.cmp(&other.at));
    all.drain(..all.len().saturating_sub(SHOWN_MAX));
    Ok(all)
}

/// What this gateway remembers, in the same shape.
pub(crate) fn remembered(events: &Events, source: &str) -> Vec<Happened> {
    let next = *events.next().borrow();
    let from = next.saturating_sub(SHOWN_MAX as u64);
    let lately = events.since(from);
    let told = lately.iter().map(|event| described(event, source));
    told.collect()
}

fn described(event: &Event, source: &str) -> Happened {
    let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
    let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
    let change = match (text("from"), text("to")) {
        (_, "") => String::new(),
        (from, to) => format!("{from} to {to}"),
    };
    let reasons = [text("reason"), text("cause"), change.as_str()];
    let reasons = reasons.into_iter().filter(|reason| !reason.is_empty());
    Happened {
        at: text("time").to_owned(),
        source: source.to_owned(),
        kind: event.kind.to_owned(),
        subject: [text("node"), source]
            .into_iter()
            .find(|subject| !subject.is_empty())
            .unwrap_or_default()
            .to_owned(),
        reason: reasons.collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fmt::Write;

    #[test]
    fn of_a_long_file_the_end_is_read_and_broken_lines_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut text = String::new();
        for number in 0..5_000 {
            let line = json!({"at": format!("2026-11-21T10:00:{number:06}Z"), "source": "s",
                "kind": "killed", "subject": format!("node-{number}"), "reason": "why"});
            writeln!(text, "{line}").unwrap();
        }
        text.push_str("{\"at\":\"2027\"}\nnonsense\n{\"at\":\"2028\",\"sour");
        std::fs::write(&path, text).unwrap();
        let read = read(&path).unwrap();
        assert_eq!(read.len(), SHOWN_MAX);
        assert_eq!(read.last().unwrap().subject, "node-4999");
    }

    #[test]
    fn an_event_of_this_gateway_says_whom_it_is_about_and_why() {
        let events = Events::default();
        events.push(
            "node_ejected",
            json!({"node": "node-1", "reason": "broken"}),
        );
        events.push(
            "node_set",
            json!({"node": "node-1", "from": "active", "to": "draining"}),
        );
        let told = remembered(&events, "gateway-1");
        assert_eq!(
            (told[0].subject.as_str(), told[0].reason.as_str()),
            ("node-1", "broken")
        );
        assert_eq!(told[1].reason, "active to draining");
        assert!(!told[1].at.is_empty());
    }
}
