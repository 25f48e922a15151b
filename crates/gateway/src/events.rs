//! What has happened lately: a ring of bounded length, for whoever watches the gateway and for
//! whoever comes back after a break. Not the log: only what changes which nodes take requests, and
//! under which configuration. Where a file is named, it is told there as well, and outlives the process.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chassis::events::Told;
use serde_json::{Value, json};
use tokio::sync::watch;

mod told;

/// Events that are remembered; older ones are forgotten.
pub(crate) const REMEMBERED_MAX: usize = 1_000;

/// How long the end of the process waits for the disk.
const FLUSH_MAX: Duration = Duration::from_millis(200);

/// One thing that has happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Counted from 0 in this process.
    pub(crate) number: u64,
    pub(crate) kind: &'static str,
    /// JSON on one line.
    pub(crate) data: String,
    /// The same as the file has it, but for who tells it.
    told: Told,
}

/// The events of this process.
#[derive(Debug)]
pub(crate) struct Events {
    /// Tells the ids of this process from those of one before it, or beside it on the same listener.
    process: String,
    ring: Mutex<VecDeque<Event>>,
    /// The number of the next event.
    next: watch::Sender<u64>,
    file: chassis::events::Events,
}

impl Default for Events {
    fn default() -> Self {
        Self::new(chassis::events::Events::default())
    }
}

impl Events {
    /// `file` is told as well.
    pub(crate) fn new(file: chassis::events::Events) -> Self {
        let now = jiff::Timestamp::now().as_millisecond();
        Self {
            process: format!("{now:x}-{:x}", std::process::id()),
            ring: Mutex::default(),
            next: watch::Sender::new(0),
            file,
        }
    }

    /// Waits until the file has all, for a moment at most; for the end of the process.
    pub(crate) fn flush(&self) {
        self.file.flush(FLUSH_MAX);
    }

    /// `data` is an object; `time` is added to it.
    pub(crate) fn push(&self, kind: &'static str, mut data: Value) {
        let (word, subject, reason) = told::of(kind, &data);
        self.file.tell(word, &subject, &reason);
        let told = Told::new("", word, &subject, &reason);
        if let Value::Object(object) = &mut data {
            let now = jiff::Timestamp::now().to_string();
            object.insert("time".to_owned(), json!(now));
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() >= REMEMBERED_MAX {
            ring.pop_front();
        }
        let number = *self.next.borrow();
        ring.push_back(Event {
            number,
            kind,
            data: data.to_string(),
            told,
        });
        // Under the lock, so that numbers are in the ring's order.
        self.next.send_replace(number + 1);
    }

    /// Remembered events from this number on; the first may have a higher one.
    pub(crate) fn since(&self, number: u64) -> Vec<Event> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = ring.iter().filter(|event| event.number >= number);
        wanted.cloned().collect()
    }

    /// The last ones, at most so many, as the file of events would have them from `source`.
    pub(crate) fn told(&self, count: usize, source: &str) -> Vec<Told> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let last = ring.iter().skip(ring.len().saturating_sub(count));
        let told = last.map(|event| Told {
            source: source.to_owned(),
            ..event.told.clone()
        });
        told.collect()
    }

    /// The number of the first event that is remembered, or of the next one.
    pub(crate) fn oldest(&self) -> u64 {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.front()
            .map_or(*self.next.borrow(), |event| event.number)
    }

    /// Says when there are more; its value is the number of the next event.
    pub(crate) fn next(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// An event's id for `Last-Event-ID`.
    pub(crate) fn id(&self, event: &Event) -> String {
        format!("{}-{}", self.process, event.number)
    }

    /// The number after the event with this id; `None` for an id of another process.
    pub(crate) fn after(&self, id: &str) -> Option<u64> {
        let number = id.strip_prefix(&self.process)?.strip_prefix('-')?;
        number.parse::<u64>().ok()?.checked_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_forgets_the_oldest_and_keeps_counting() {
        let events = Events::default();
        for _ in 0..REMEMBERED_MAX + 5 {
            events.push("node_set", json!({"node": "a"}));
        }
        let all = events.since(0);
        assert_eq!((all.len(), all[0].number), (REMEMBERED_MAX, 5));
        let last = all.last().unwrap();
        let id = events.id(last);
        assert_eq!(events.after(&id), Some(last.number + 1));
        assert!(events.since(last.number + 1).is_empty());
        assert!(last.data.contains("\"time\":\""), "{}", last.data);
    }

    #[test]
    fn what_is_remembered_is_told_in_the_words_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let events = Events::new(chassis::events::Events::to_file(&path, "gateway-1"));
        let ejected = json!({"node": "node-1", "reason": "broken"});
        events.push("node_ejected", ejected);
        let set = json!({"node": "node-1", "from": "active", "to": "draining"});
        events.push("node_set", set);
        events.file.flush(Duration::from_secs(20));
        let words = |all: Vec<Told>| -> Vec<[String; 4]> {
            let all = all.into_iter();
            all.map(|told| [told.source, told.kind, told.subject, told.reason])
                .collect()
        };
        let told = words(events.told(10, "gateway-1"));
        assert_eq!(told[0], ["gateway-1", "ejected", "node-1", "broken"]);
        assert_eq!(told[1][3], "active to draining");
        assert_eq!(told, words(chassis::events::latest(&path, 10).unwrap()));
        assert_eq!(words(events.told(1, "gateway-1")), told[1..]);
    }

    #[test]
    fn an_id_of_another_process_says_nothing_here() {
        let events = Events::default();
        for id in ["", "5", "x-5", "-", "1-1-99999999999999999999999"] {
            assert_eq!(events.after(id), None, "{id}");
        }
    }
}
