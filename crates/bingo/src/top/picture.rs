//! What a gateway tells, as far as it is shown: the picture and the last two minutes of the history.
//! The gateway puts both together as JSON; here they are read leniently, because a newer or an older
//! gateway may answer: what is missing or null is nothing, what is unknown is left out.
//!
//! All text passes one place, in which what could move a cursor or turn a line around is replaced:
//! reasons hold lines of a child's log, targets come from clients.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Nobody spoke for so long: as on the page, a picture comes each second.
const SILENT_MILLISECONDS: i64 = 4500;

/// All that is known of an installation, and since when nothing more.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// None: no gateway has answered yet.
    pub(crate) picture: Option<Picture>,
    pub(crate) history: History,
    /// When a gateway answered last.
    heard: Option<Timestamp>,
    /// Why none answered just now, a line each; empty: one did.
    pub(crate) silence: Vec<String>,
}

impl Seen {
    /// Takes in what was answered at a time.
    pub(crate) fn take(&mut self, answer: Result<local::Told, Vec<String>>, at: Timestamp) {
        let read = answer.and_then(|told| {
            let picture = read("picture", told.picture).map_err(|why| vec![why])?;
            // Graphs are not worth a picture.
            let history = read("history", told.history).unwrap_or_default();
            Ok((picture, history))
        });
        match read {
            Ok((picture, history)) => {
                self.picture = Some(picture);
                self.history = history;
                self.heard = Some(at);
                self.silence = Vec::new();
            }
            Err(why) => self.silence = why.into_iter().map(|line| plain(&line)).collect(),
        }
    }

    /// No gateway answers: what is shown is old.
    pub(crate) fn is_lost(&self, now: Timestamp) -> bool {
        let silent = |heard: Timestamp| now.as_millisecond() - heard.as_millisecond();
        let is_silent = self
            .heard
            .is_some_and(|heard| silent(heard) > SILENT_MILLISECONDS);
        !self.silence.is_empty() || is_silent
    }
}

fn read<T: for<'a> Deserialize<'a>>(what: &str, value: Value) -> Result<T, String> {
    serde_json::from_value(harmless(value))
        .map_err(|error| format!("its {what} is not understood: {error}"))
}

/// Without nulls in objects, so that they are as if left out; with plain texts and names.
fn harmless(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(plain(&text)),
        Value::Array(list) => Value::Array(list.into_iter().map(harmless).collect()),
        Value::Object(members) => {
            let members = members.into_iter().filter(|(_, value)| !value.is_null());
            let members = members.map(|(name, value)| (plain(&name), harmless(value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        other => other,
    }
}

/// Without what a terminal acts upon (ECMA-48 controls) or what changes the order or width of a line
/// (Unicode's format characters).
fn plain(text: &str) -> String {
    let is_harmful = |c: char| {
        let formats = [
            '\u{200b}'..='\u{200f}',
            '\u{2028}'..='\u{202e}',
            '\u{2060}'..='\u{206f}',
        ];
        c.is_control() || c == '\u{feff}' || formats.iter().any(|range| range.contains(&c))
    };
    text.replace(is_harmful, " ")
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Picture {
    /// RFC 3339, as are all times.
    pub(crate) at: String,
    /// Which gateway tells it.
    pub(crate) by: String,
    /// The figures of traffic are of so many seconds.
    pub(crate) seconds: f64,
    pub(crate) total: Rate,
    pub(crate) now: Vec<Rate>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) processes: Processes,
    pub(crate) databases: Vec<Database>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) cache: Cache,
    pub(crate) budgets: Budgets,
    pub(crate) held: u64,
    pub(crate) sheds: u64,
    pub(crate) quarantine: Quarantine,
    pub(crate) objectives: Vec<Objective>,
    /// In the order of time.
    pub(crate) events: Vec<Event>,
}

/// Of all requests, or of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rate {
    pub(crate) method: String,
    pub(crate) route: String,
    pub(crate) requests: f64,
    /// Answers of 4xx.
    pub(crate) refused: f64,
    /// Answers of 5xx.
    pub(crate) errors: f64,
    /// Seconds.
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    /// `bad`, `warning`.
    pub(crate) weight: String,
    pub(crate) what: String,
    pub(crate) why: String,
    pub(crate) since: String,
}

impl Problem {
    pub(crate) fn is_bad(&self) -> bool {
        self.weight == "bad"
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Gateway {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) since: String,
    pub(crate) reason: String,
    pub(crate) active_requests: Option<i64>,
    pub(crate) connections: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) since: String,
    pub(crate) reason: String,
    pub(crate) in_flight: u64,
    pub(crate) others_say: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Processes {
    /// Why nothing is known of them.
    pub(crate) unknown: Option<String>,
    pub(crate) list: Vec<Process>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) since: String,
    pub(crate) reason: String,
    pub(crate) pid: Option<u32>,
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) restarts: u64,
    pub(crate) last_restart_reason: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Database {
    pub(crate) host: String,
    pub(crate) role: String,
    pub(crate) since: String,
    pub(crate) others_say: BTreeMap<String, String>,
    pub(crate) lag_seconds: Option<f64>,
    pub(crate) round_trip_seconds: Option<f64>,
    pub(crate) busy_connections: u64,
    pub(crate) waiting: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) processors: u64,
    pub(crate) busy_percent: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) memory_available_bytes: Option<u64>,
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) disk_available_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cache {
    pub(crate) hits: f64,
    pub(crate) misses: f64,
    pub(crate) bytes: u64,
    pub(crate) entries: usize,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Budgets {
    pub(crate) retry: Budget,
    pub(crate) hedge: Budget,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Budget {
    pub(crate) used_per_second: f64,
    pub(crate) per_second_max: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Quarantine {
    pub(crate) convicted: Vec<Charge>,
    pub(crate) suspected: Vec<Charge>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Charge {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) node: String,
    pub(crate) reason: String,
    pub(crate) until: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Objective {
    pub(crate) method: String,
    pub(crate) route: String,
    /// Over all that is remembered, at most a day.
    pub(crate) day: Standing,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Standing {
    pub(crate) requests: u64,
    pub(crate) errors: Promise,
    pub(crate) slow: Option<Promise>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Promise {
    /// In percent: 100 untouched, 0 used up, below it broken.
    pub(crate) left_percent: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    pub(crate) at: String,
    pub(crate) source: String,
    pub(crate) kind: String,
    pub(crate) subject: String,
    pub(crate) reason: String,
}

/// Columns by second.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct History {
    at: Vec<u64>,
    endpoints: Vec<EndpointColumns>,
    nodes: Vec<NodeColumns>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct EndpointColumns {
    method: String,
    route: String,
    requests: Vec<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeColumns {
    name: String,
    requests: Vec<f64>,
    failed: Vec<f64>,
}

impl History {
    /// The endpoint's requests in each of so many seconds up to the last one; none where nobody counted.
    pub(crate) fn requests(&self, method: &str, route: &str, seconds: u64) -> Vec<Option<f64>> {
        let Some(last) = self.at.last() else {
            return Vec::new();
        };
        let mut all = self.endpoints.iter();
        let column = all.find(|one| one.method == method && one.route == route);
        let column = column
            .map(|one| one.requests.as_slice())
            .unwrap_or_default();
        let from = (last + 1).saturating_sub(seconds);
        let counted: BTreeMap<u64, usize> = self.at.iter().copied().zip(0..).collect();
        let at = |second| {
            let index = *counted.get(&second)?;
            Some(column.get(index).copied().unwrap_or_default())
        };
        (from..=*last).map(at).collect()
    }

    /// Requests and failed ones of a node in so many seconds up to the last, and how many of these were
    /// counted.
    pub(crate) fn of_node(&self, name: &str, seconds: usize) -> (f64, f64, usize) {
        let counted = self.at.len().min(seconds);
        let lately = |column: &[f64]| column.iter().rev().take(counted).sum::<f64>();
        let node = self.nodes.iter().find(|one| one.name == name);
        let sums = node.map(|one| (lately(&one.requests), lately(&one.failed)));
        let (requests, failed) = sums.unwrap_or_default();
        (requests, failed, counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(picture: Value) -> local::Told {
        let history = json!({"at": [10, 11, 13], "endpoints": [
            {"method": "GET", "route": "/a", "requests": [1, 2, 3]}],
            "nodes": [{"name": "node-1", "requests": [4, 5, 6], "failed": [0, 0, 1]}]});
        local::Told { picture, history }
    }

    #[test]
    fn what_is_null_missing_or_new_does_no_harm() {
        let mut seen = Seen::default();
        let picture = json!({"at": null, "nodes": [{"name": "node-1", "reason": null}],
            "invented": {"later": 1}});
        seen.take(Ok(told(picture)), Timestamp::UNIX_EPOCH);
        assert_eq!(seen.picture.unwrap().nodes[0].name, "node-1");
        assert_eq!(seen.silence, [""; 0]);
    }

    #[test]
    fn text_of_others_moves_no_cursor_and_turns_no_line_around() {
        let picture = json!({"nodes": [{"name": "a\u{1b}[2J\u{9b}b\u{202e}c\nd",
            "others_say": {"x\u{7}": "y\r"}}]});
        let mut seen = Seen::default();
        seen.take(Ok(told(picture)), Timestamp::UNIX_EPOCH);
        let node = &seen.picture.unwrap().nodes[0];
        assert_eq!(node.name, "a [2J b c d");
        assert_eq!(node.others_say["x "], "y ");
    }

    #[test]
    fn a_second_that_nobody_counted_is_a_gap_and_not_zero() {
        let mut seen = Seen::default();
        seen.take(Ok(told(json!({}))), Timestamp::UNIX_EPOCH);
        let of = |route: &str| seen.history.requests("GET", route, 4);
        assert_eq!(of("/a"), [Some(1.0), Some(2.0), None, Some(3.0)]);
        assert_eq!(of("/b"), [Some(0.0), Some(0.0), None, Some(0.0)]);
        assert_eq!(seen.history.of_node("node-1", 2), (11.0, 1.0, 2));
    }

    #[test]
    fn old_figures_stay_and_are_known_to_be_old() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut seen = Seen::default();
        seen.take(Ok(told(json!({"by": "gateway-1"}))), second(100));
        assert!(!seen.is_lost(second(104)));
        assert!(seen.is_lost(second(105)));
        seen.take(Err(vec!["refused".to_owned()]), second(101));
        assert!(seen.is_lost(second(101)));
        assert_eq!(seen.picture.unwrap().by, "gateway-1");
    }
}
