//! What faults can be asked for: the section `faults` of the configuration, and the names that
//! `--faults` takes. Off by default, each apart.

use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The section `faults`; nothing in it is on by default.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultSettings {
    /// Requests a second for the whole process; one over it waits, at most 10 s, then 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub rps_limit: Option<u32>,
    /// How long nothing is served at the start.
    #[serde(
        with = "chassis::config::optional_duration",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "chassis::config::optional_duration::schema", extend("x-max" = "1h"))]
    pub slow_start: Option<Duration>,
    /// Uptime after which the process exits, panics, leaks or answers 500, like `20m..25m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "duration-range"))]
    pub lifetime: Option<Lifetime>,
    /// Whether processes that were started together die apart.
    #[serde(skip_serializing_if = "is_false")]
    pub lifetime_jitter: bool,
    /// Whether bits 32 to 35 of an operation's number make the process leak, panic or feel bad.
    #[serde(skip_serializing_if = "is_false")]
    pub operation: bool,
    /// Bytes a second that a leak takes.
    #[serde(with = "chassis::config::size")]
    #[schemars(schema_with = "chassis::config::size::schema", extend("x-max" = "1GiB"))]
    pub leak_rate: u64,
}

/// The shortest and the longest life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub min: Duration,
    pub max: Duration,
}

/// What `--faults` names: `vendor` for all of them, or single ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultNames(Vec<&'static str>);

/// The names of the faults, as `--faults` takes them.
const NAMES: [&str; 4] = ["rps_limit", "slow_start", "lifetime", "operation"];
const ALL: &str = "vendor";

impl Default for FaultSettings {
    fn default() -> Self {
        Self {
            rps_limit: None,
            slow_start: None,
            lifetime: None,
            lifetime_jitter: false,
            operation: false,
            leak_rate: 50 << 20,
        }
    }
}

impl FaultSettings {
    /// Whether the section says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Turns on what is named, with the vendor's values where the section gives no others.
    pub fn enable(&mut self, names: &FaultNames) {
        for name in &names.0 {
            match *name {
                "rps_limit" => {
                    self.rps_limit.get_or_insert(100);
                }
                "slow_start" => {
                    self.slow_start.get_or_insert(Duration::from_secs(30));
                }
                "lifetime" => {
                    self.lifetime.get_or_insert(Lifetime {
                        min: Duration::from_secs(20 * 60),
                        max: Duration::from_secs(25 * 60),
                    });
                }
                _ => self.operation = true,
            }
        }
    }

    /// Each fault and whether it is on.
    pub(super) fn each(&self) -> [(&'static str, bool); 4] {
        [
            (NAMES[0], self.rps_limit.is_some()),
            (NAMES[1], self.slow_start.is_some()),
            (NAMES[2], self.lifetime.is_some()),
            (NAMES[3], self.operation),
        ]
    }

    /// The names of those that are on.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let on = self.each().into_iter().filter(|(_, on)| *on);
        on.map(|(name, _)| name).collect()
    }
}

impl FromStr for FaultNames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == ALL {
            return Ok(Self(NAMES.to_vec()));
        }
        let names = text.split(',').map(|name| {
            let known = NAMES.into_iter().find(|known| *known == name.trim());
            known.ok_or_else(|| {
                let names = NAMES.join(", ");
                format!("`{name}` is no fault; write {ALL}, or some of {names}")
            })
        });
        names.collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no lifetime; write two durations, like 20m..25m");
        let (min, max) = text.split_once("..").ok_or_else(wrong)?;
        let min = chassis::config::parse_duration(min)?;
        let max = chassis::config::parse_duration(max)?;
        (min <= max).then_some(Self { min, max }).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Lifetime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [min, max] = [self.min, self.max].map(chassis::config::format_duration);
        write!(f, "{min}..{max}")
    }
}

impl Serialize for Lifetime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lifetime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(names: &str) -> FaultSettings {
        let mut settings = FaultSettings::default();
        settings.enable(&names.parse().unwrap());
        settings
    }

    #[test]
    fn nothing_is_on_unless_asked_for() {
        assert!(FaultSettings::default().names().is_empty());
        assert_eq!(enabled("vendor").names(), NAMES);
        assert_eq!(
            enabled("operation,rps_limit").names(),
            ["rps_limit", "operation"]
        );
    }

    #[test]
    fn a_section_reads_back_as_written_and_keeps_its_values_under_the_flag() {
        let text = "rps_limit: 40\nslow_start: 2s\nlifetime: 1s..1500ms\nleak_rate: 1MiB\n";
        let mut settings: FaultSettings = chassis::config::parse("test", text).unwrap();
        settings.enable(&"vendor".parse().unwrap());
        assert_eq!(settings.rps_limit, Some(40));
        let yaml = chassis::config::to_yaml(&settings).unwrap();
        assert!(yaml.contains("lifetime: 1s..1500ms"), "{yaml}");
        assert_eq!(
            chassis::config::parse::<FaultSettings>("again", &yaml).unwrap(),
            settings
        );
    }

    #[test]
    fn a_name_or_a_lifetime_that_is_none_is_refused_with_what_to_write() {
        let error = "operations".parse::<FaultNames>().unwrap_err();
        assert!(error.contains("vendor, or some of rps_limit"), "{error}");
        for wrong in ["20m", "25m..20m", "1..2", ""] {
            assert!(wrong.parse::<Lifetime>().is_err(), "{wrong}");
        }
    }
}
