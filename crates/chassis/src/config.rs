//! Reading YAML files, and the two quantities that stand in them: durations (`250ms`, `3s`, `10m`)
//! and sizes (`64KiB`, `1GiB`). The YAML library stands behind `parse` alone, so it can be changed.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::Failure;

/// Reads and parses a YAML file. A missing or unreadable file, bad YAML, an unknown key or a wrong
/// type is a `Failure` with exit 64; `help` says what to do when the file is missing.
pub fn read<T: DeserializeOwned>(path: &Path, help: &str) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::configuration(
            format!("read the configuration {}", path.display()),
            error,
            help,
        )
    })?;
    parse(&path.display().to_string(), &text)
}

/// Parses YAML text; `name` is what error messages call it.
pub fn parse<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, Failure> {
    // An empty document stands for "every key at its default".
    let text = if text.trim().is_empty() { "{}" } else { text };
    serde_saphyr::from_str(text).map_err(|error| {
        let place = error
            .location()
            .map_or(String::new(), |at| format!(" line {}", at.line()));
        let why = error.without_snippet().to_string();
        Failure::configuration(format!("parse {name}{place}"), why, "correct the file")
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

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(serde::de::Error::custom)
    }
}

/// `#[serde(with = "chassis::config::optional_duration")]`; together with `#[serde(default)]` a
/// missing key is `None`.
pub mod optional_duration {
    use std::time::Duration;

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
}

/// `#[serde(with = "chassis::config::size")]` for bytes written as `64KiB`.
pub mod size {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_size(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_size(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, serde::Serialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[serde(with = "duration")]
        wait: Duration,
        #[serde(
            default,
            with = "optional_duration",
            skip_serializing_if = "Option::is_none"
        )]
        age: Option<Duration>,
        #[serde(with = "size")]
        body: u64,
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
    fn an_unknown_key_is_refused_by_name_and_line() {
        let failure = parse::<Example>("example", "wait: 1s\nbody: 1B\ntypo: 1\n")
            .unwrap_err()
            .to_string();
        assert!(failure.contains("typo"), "{failure}");
        assert!(failure.contains("line 3"), "{failure}");
    }
}
