//! Reading YAML files, and the two quantities that stand in them: durations (`250ms`, `3s`, `10m`)
//! and sizes (`64KiB`, `1GiB`). The YAML library stands behind this module alone, so it can be changed.
//!
//! A configuration type derives `Deserialize` and `schemars::JsonSchema`. Its schema is the one place
//! that says which keys there are, what they may hold (`#[schemars(range(min = 1), …)]`,
//! `schema_with = "chassis::config::duration::schema"`, `extend("x-min" = "1ms")`,
//! `extend("format" = "host")`, `writeOnly` for a secret) and, through its doc comments, what they
//! mean: files are checked against it, and the reference pages are written from it.

mod broken;
mod check;
mod fault;
mod located;
mod nearest;
mod repair;
mod shape;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::Failure;

pub use check::{email_fault, is_no_host};
pub use fault::Fault;
pub use nearest::nearest;

/// Reads and checks a YAML file. A missing or unreadable file, or one with faults, is a `Failure`
/// with exit 64 and a message for every fault; `help` says what to do when the file is missing.
pub fn read<T: DeserializeOwned + JsonSchema>(path: &Path, help: &str) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::configuration(
            format!("read the configuration {}", path.display()),
            error,
            help,
        )
    })?;
    parse(&path.display().to_string(), &text)
}

/// Parses YAML text; `name` is what error messages call it. Text that is no YAML is one message with
/// line and column; unknown keys, wrong types and impossible values are one message each.
pub fn parse<T: DeserializeOwned + JsonSchema>(name: &str, text: &str) -> Result<T, Failure> {
    // An empty document stands for "every key at its default".
    if is_empty(text) {
        return from_yaml(name, "{}");
    }
    let document = from_yaml(name, text)?;
    let faults = check::check(text, &json_schema::<T>(), &document);
    match Failure::all(faults.iter().map(|fault| fault.failure(name))) {
        Some(failure) => Err(failure),
        None => from_yaml(name, text),
    }
}

/// A file that was looked through, whatever its faults.
#[derive(Debug)]
pub struct Examined<T> {
    /// `None` where not even the rest can be read. With faults it holds something else in their
    /// place: to be checked, never to be run on.
    pub value: Option<T>,
    pub faults: Vec<Fault>,
    lines: HashMap<String, u64>,
}

impl<T> Examined<T> {
    /// Adds what was found by looking at `value`; what is about a faulty key is known already.
    pub fn add(&mut self, found: Vec<Fault>) {
        let known = self.faults.len();
        for mut fault in found {
            let shape = self.faults.get(..known).unwrap_or_default();
            if shape.iter().any(|one| fault.is_covered_by(one)) {
                continue;
            }
            fault.line = fault.line.or(self.line(&fault.key));
            self.faults.push(fault);
        }
        self.faults.sort_by_key(|fault| fault.line);
    }

    /// Where a key stands, counted from 1; `None` where it is not in the file.
    pub fn line(&self, key: &str) -> Option<u64> {
        self.lines.get(key).copied()
    }
}

/// As `parse`, for files whose values mean more than their schema says: all faults of the shape, and
/// a value in which the others can be looked for in the same run.
pub fn examine<T: DeserializeOwned + JsonSchema>(text: &str) -> Examined<T> {
    let nothing = |fault: Fault| Examined {
        value: None,
        faults: vec![fault],
        lines: HashMap::new(),
    };
    let text = if is_empty(text) { "{}" } else { text };
    let document = match serde_saphyr::from_str(text) {
        Ok(document) => document,
        Err(error) => return nothing(no_yaml(&error)),
    };
    let schema = json_schema::<T>();
    let faults = check::check(text, &schema, &document);
    let repaired = repair::repair(text, &schema, &document, &faults);
    let value = if faults.is_empty() {
        match serde_saphyr::from_str(text) {
            Ok(value) => Some(value),
            Err(error) => return nothing(no_yaml(&error)),
        }
    } else {
        serde_json::from_value(repaired.document).ok()
    };
    Examined {
        value,
        faults,
        lines: repaired.lines,
    }
}

fn no_yaml(error: &serde_saphyr::Error) -> Fault {
    let broken = broken::Broken::new(error);
    Fault {
        line: broken.at.map(|(line, _)| line),
        ..Fault::new("", "", broken.why, broken.help)
    }
}

/// Reads back what `to_yaml` wrote, for files that no human writes: it stops at the first fault.
pub fn from_yaml<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, Failure> {
    serde_saphyr::from_str(text).map_err(|error| {
        let broken = broken::Broken::new(&error);
        let attempted = format!("parse {name}{}", broken.place());
        Failure::configuration(attempted, broken.why, broken.help)
    })
}

/// The JSON Schema (2020-12) of a configuration type.
pub fn json_schema<T: JsonSchema>() -> serde_json::Value {
    schemars::schema_for!(T).to_value()
}

/// Only comments, blanks and document markers.
fn is_empty(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    })
}

/// Writes a value as YAML. Fails only on values that YAML cannot express.
pub fn to_yaml<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    serde_saphyr::to_string(value)
        .map_err(|error| Failure::run_time("write YAML", error, String::new()))
}

const DURATION_UNITS: [(&str, f64); 5] = [
    ("us", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// Parses `250us`, `250ms`, `1.5s`, `10m`, `2h`. The error says what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let number = quantity(text, &DURATION_UNITS).ok_or_else(|| {
        format!("`{text}` is no duration; write a number and one of us, ms, s, m, h, like 250ms")
    })?;
    Duration::try_from_secs_f64(number).map_err(|error| format!("`{text}`: {error}"))
}

/// The shortest text that `parse_duration` reads back to the same value.
pub fn format_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0 => "0s".to_owned(),
        n if n % 3_600_000_000 == 0 => format!("{}h", n / 3_600_000_000),
        n if n % 60_000_000 == 0 => format!("{}m", n / 60_000_000),
        n if n % 1_000_000 == 0 => format!("{}s", n / 1_000_000),
        n if n % 1_000 == 0 => format!("{}ms", n / 1_000),
        n => format!("{n}us"),
    }
}

const SIZE_UNITS: [(&str, f64); 4] = [
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("B", 1.0),
];

/// Parses `512B`, `64KiB`, `1.5MiB`, `2GiB` to bytes. The error says what is accepted.
pub fn parse_size(text: &str) -> Result<u64, String> {
    quantity(text, &SIZE_UNITS)
        .map(|bytes| bytes as u64)
        .ok_or_else(|| {
            format!("`{text}` is no size; write a number and one of B, KiB, MiB, GiB, like 64MiB")
        })
}

/// The shortest text that `parse_size` reads back to the same value.
pub fn format_size(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

fn quantity(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim())?.1;
    number.parse::<f64>().ok().map(|number| number * factor)
}

/// `#[serde(with = "chassis::config::duration")]` for a `Duration` written as `250ms`.
pub mod duration {
    use std::time::Duration;

    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(serde::de::Error::custom)
    }

    /// For `#[schemars(schema_with = "…")]`.
    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration" })
    }
}

/// `#[serde(with = "chassis::config::optional_duration")]`; together with `#[serde(default)]` a
/// missing key is `None`.
pub mod optional_duration {
    use std::time::Duration;

    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_str(&super::format_duration(*value)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse_duration(&text).map_err(serde::de::Error::custom))
            .transpose()
    }

    /// For `#[schemars(schema_with = "…")]`.
    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "null"], "format": "duration" })
    }
}

/// `#[serde(with = "chassis::config::size")]` for bytes written as `64KiB`.
pub mod size {
    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_size(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_size(&text).map_err(serde::de::Error::custom)
    }

    /// For `#[schemars(schema_with = "…")]`.
    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "size" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, serde::Serialize, JsonSchema, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[serde(with = "duration")]
        #[schemars(schema_with = "duration::schema", extend("x-max" = "1m"))]
        wait: Duration,
        #[serde(
            default,
            with = "optional_duration",
            skip_serializing_if = "Option::is_none"
        )]
        #[schemars(schema_with = "optional_duration::schema")]
        age: Option<Duration>,
        #[serde(with = "size")]
        #[schemars(schema_with = "size::schema")]
        body: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        way: Option<Way>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        places: Vec<Place>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("writeOnly" = true))]
        word: Option<String>,
    }

    #[derive(serde::Deserialize, serde::Serialize, JsonSchema, Debug, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    enum Way {
        ThereOnly,
        Back,
    }

    #[derive(serde::Deserialize, serde::Serialize, JsonSchema, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Place {
        #[schemars(extend("format" = "host"))]
        address: String,
        #[schemars(range(min = 1))]
        port: u16,
        #[serde(default)]
        open: bool,
    }

    fn faults(text: &str) -> Vec<String> {
        let failure = parse::<Example>("example", text).unwrap_err();
        assert_eq!(failure.exit, crate::Exit::Configuration);
        let message =
            |m: &crate::failure::Message| format!("{}: {} | {}", m.attempted, m.why, m.help);
        failure.messages.iter().map(message).collect()
    }

    #[test]
    fn durations_and_sizes_survive_a_round_trip() {
        for text in ["250us", "250ms", "3s", "10m", "2h", "0s"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["1B", "64KiB", "50MiB", "2GiB", "0B"] {
            assert_eq!(format_size(parse_size(text).unwrap()), text);
        }
        assert_eq!(parse_duration("1.5s").unwrap(), Duration::from_millis(1500));
    }

    #[test]
    fn quantities_without_a_unit_are_refused_with_a_remedy() {
        assert!(parse_duration("250").unwrap_err().contains("like 250ms"));
        assert!(parse_duration("-1s").is_err());
        assert!(parse_size("64").unwrap_err().contains("like 64MiB"));
    }

    #[test]
    fn a_file_reads_back_as_written() {
        let text = "wait: 250ms\nbody: 64KiB\n";
        let example: Example = parse("example", text).unwrap();
        assert_eq!(example.wait, Duration::from_millis(250));
        assert_eq!(example.age, None);
        let again: Example = parse("example", &to_yaml(&example).unwrap()).unwrap();
        assert_eq!(again, example);
    }

    #[test]
    fn every_fault_is_told_in_one_run_with_key_value_reason_remedy_and_line() {
        let text = "wait: 2h
body: 64
way: bakc
places:
- address: db:5432
  port: 70000
- adress: db
  port: 0
  open: perhaps
word: [canary]
ways: 1
";
        let expected = [
            "line 1, wait: `2h`: it is above 1m | choose 1m or less",
            "line 2, body: `64`: it has no unit | write a number and one of B, KiB, MiB, GiB, like 64MiB",
            "line 3, way: `bakc`: there is no such word | did you mean `back`? Known are there-only, back",
            "line 5, places[0].address: `db:5432`: it holds a port | write the port under a key of its \
             own: `port: 5432`",
            "line 6, places[0].port: `70000`: it is above 65535 | write a whole number from 1 to 65535",
            "line 7, places[1].adress: there is no such key | did you mean `address`? Else remove it",
            "line 7, places[1].address: it is missing | add this key",
            "line 8, places[1].port: `0`: it is below 1 | write a whole number from 1 to 65535",
            "line 9, places[1].open: `perhaps`: it is neither true nor false | write true or false",
            "line 10, word: `***`: it is a list or a section | write one value",
            "line 11, ways: there is no such key | did you mean `way`? Else remove it",
        ];
        let found = faults(text);
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(*found, format!("read example {expected}"));
        }
        assert_eq!(found.len(), expected.len(), "{found:#?}");
    }

    #[test]
    fn faults_of_the_shape_leave_a_value_in_which_others_can_be_looked_for() {
        let text =
            "wait: 2h\nbody: 3B\nplaces:\n- {address: 'a:1', prt: 1}\n- {address: b, port: 2}\n";
        let mut examined = examine::<Example>(text);
        let value = examined.value.as_ref().unwrap();
        assert_eq!((value.body, value.places.len()), (3, 2));
        assert_eq!(
            (value.places[1].address.as_str(), value.places[1].port),
            ("b", 2)
        );
        examined.add(vec![
            Fault::new("wait", "", "covered: its shape is wrong", ""),
            Fault::new("places[0].port.deeper", "", "covered: it is missing", ""),
            Fault::new("places[1].port", 2, "it is even", "choose another"),
        ]);
        let told: Vec<String> = examined.faults.iter().map(Fault::place).collect();
        let expected = [
            "line 1, wait: `2h`",
            "line 4, places[0].address: `a:1`",
            "line 4, places[0].prt",
            "line 4, places[0].port",
            "line 5, places[1].port: `2`",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_file_without_faults_is_examined_to_what_it_parses_to_and_a_broken_one_to_one_fault() {
        let text = "wait: 1s\nbody: 1B\nword: 123\nplaces: [{address: '::1', port: '7'}]\n";
        let examined = examine::<Example>(text);
        assert_eq!(examined.faults, []);
        assert_eq!(examined.value.unwrap(), parse("x", text).unwrap());
        let broken = examine::<Example>("wait: [\n");
        assert!(broken.value.is_none());
        assert_eq!(broken.faults.len(), 1);
    }

    #[test]
    fn broken_yaml_is_one_message_with_line_and_column() {
        let found = faults("wait: 1s\n body: [\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("parse example at line 2, column"),
            "{found:?}"
        );
        let twice = faults("wait: 1s\nwait: 2s\n");
        assert!(
            twice[0].contains("the key `wait` stands here a second time"),
            "{twice:?}"
        );
    }

    #[test]
    fn numbers_may_stand_for_texts_and_quoted_numbers_for_numbers() {
        let text = "wait: 1s\nbody: 1B\nword: 123\nplaces:\n- {address: 10.0.0.1, port: '7'}\n";
        let example: Example = parse("example", text).unwrap();
        assert_eq!(example.word.as_deref(), Some("123"));
        assert_eq!(example.places[0].port, 7);
    }

    #[test]
    fn a_document_of_another_shape_is_refused() {
        assert!(faults("- wait\n")[0].contains("no section"));
        assert!(faults("wait: {a: 1}\nbody: 1B\n")[0].contains("it is a list or a section"));
        assert!(faults("wait:\nbody: 1B\n")[0].contains("it is empty"));
    }
}
