//! Checks of single values, shared by all sections of `gateway.yaml`. Each notes a fault instead of
//! returning it, and returns something that the check of the rest can go on with.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use chassis::config::{Fault, parse_duration, parse_size};

/// The faults found so far.
#[derive(Debug, Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, key: &str, value: impl Display, why: impl Display, remedy: &str) {
        self.0.push(Fault::new(key, value, why, remedy));
    }

    pub(crate) fn parsed(&mut self, key: &str, value: &str, remedy: &str) -> Option<SocketAddr> {
        value
            .parse()
            .map_err(|error| self.add(key, value, error, remedy))
            .ok()
    }

    /// A path as it stands in a request, or with `{name}` for a segment.
    pub(crate) fn path(&mut self, key: &str, value: &str) {
        let plain = value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        if !value.starts_with('/') || !plain {
            self.add(
                key,
                value,
                "it is no path",
                "begin it with / and use no blank, ? or #",
            );
        }
        let braces = value.split('/').all(|segment| {
            let inner = segment
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'));
            !inner.unwrap_or(segment).contains(['{', '}']) && inner != Some("")
        });
        if !braces {
            self.add(
                key,
                value,
                "braces must enclose a whole segment",
                "write it like /api/movie/{id}",
            );
        }
    }

    pub(crate) fn range<T: PartialOrd + Display + Copy>(
        &mut self,
        key: &str,
        value: T,
        min: T,
        max: T,
    ) {
        if value < min || value > max {
            let remedy = format!("choose {min} to {max}");
            self.add(key, value, "it is out of range", &remedy);
        }
    }

    pub(crate) fn duration(
        &mut self,
        key: &str,
        value: &str,
        min: Duration,
        max: Duration,
    ) -> Duration {
        let text = chassis::config::format_duration;
        match parse_duration(value) {
            Ok(duration) if duration >= min && duration <= max => return duration,
            Ok(_) => {
                let remedy = format!("choose {} to {}", text(min), text(max));
                self.add(key, value, "it is out of range", &remedy);
            }
            Err(why) => self.add(key, value, why, "write a duration"),
        }
        min
    }

    pub(crate) fn size(&mut self, key: &str, value: &str, min: u64, max: u64) -> u64 {
        let text = chassis::config::format_size;
        match parse_size(value) {
            Ok(size) if size >= min && size <= max => return size,
            Ok(_) => {
                let remedy = format!("choose {} to {}", text(min), text(max));
                self.add(key, value, "it is out of range", &remedy);
            }
            Err(why) => self.add(key, value, why, "write a size"),
        }
        min
    }
}
