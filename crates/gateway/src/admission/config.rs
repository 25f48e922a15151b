//! The section `admission` of `gateway.yaml`, as written and as valid.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::{Bounds, DEFAULT, LISTS};
use crate::config::Class;
use crate::faults::Faults;

/// How many requests of each class may be at the nodes, and wait for that. Probes pass.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admission {
    pub point: ClassBounds,
    pub list: ClassBounds,
    pub slow: ClassBounds,
    pub write: ClassBounds,
}

/// What one class may do at once.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassBounds {
    /// Requests at the nodes at once, each to the end of its answer. Too low: nodes idle while
    /// requests wait. Too high: requests pile up inside nodes, where they cannot be put in order.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub concurrent_max: usize,
    /// Requests that wait for that; over it 503. Too low: a short outage of the nodes or their
    /// database costs errors. Too high: memory, up to 64KiB for each that has a body.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub queue_max: usize,
    /// How long each waits at most; over it 503. Too low: an outage that lasts longer costs errors.
    /// Too high: clients wait long for nothing. Useless above the routes' `deadline`.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "1h"))]
    pub queue_timeout: String,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            point: ClassBounds::of(DEFAULT),
            list: ClassBounds::of(LISTS),
            slow: ClassBounds::of(DEFAULT),
            write: ClassBounds::of(DEFAULT),
        }
    }
}

impl ClassBounds {
    fn of(bounds: Bounds) -> Self {
        Self {
            concurrent_max: bounds.concurrent_max,
            queue_max: bounds.queue_max,
            queue_timeout: chassis::config::format_duration(bounds.queue_timeout),
        }
    }

    fn validate(&self, class: &str, faults: &mut Faults) -> Bounds {
        let key = |name: &str| format!("admission.{class}.{name}");
        let (least, hour) = (Duration::from_millis(10), Duration::from_secs(3600));
        faults.range(&key("concurrent_max"), self.concurrent_max, 1, 1_000_000);
        faults.range(&key("queue_max"), self.queue_max, 0, 1_000_000);
        Bounds {
            concurrent_max: self.concurrent_max,
            queue_max: self.queue_max,
            queue_timeout: faults.duration(&key("queue_timeout"), &self.queue_timeout, least, hour),
        }
    }
}

impl Admission {
    /// By class, in the order of `Class::ALL`.
    pub(crate) fn validate(&self, faults: &mut Faults) -> [Bounds; Class::ALL.len()] {
        Class::ALL.map(|(class, name)| {
            let written = match class {
                Class::Point => &self.point,
                Class::List => &self.list,
                Class::Slow => &self.slow,
                Class::Write => &self.write,
            };
            written.validate(name, faults)
        })
    }
}
