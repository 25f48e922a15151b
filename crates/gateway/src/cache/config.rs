//! What `gateway.yaml` says about the cache, as written and as valid: a section for the store and the
//! key `cache` of a route.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::faults::Faults;

/// The store of a gateway, for all routes that have `cache`.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Everything that is stored; what was asked for least is thrown out. Too low: answers are thrown
    /// out while they are wanted. Too high: memory. A reload cannot change it.
    #[schemars(extend("format" = "size", "x-min" = "64KiB", "x-max" = "64GiB"))]
    pub bytes_max: String,
    /// A larger answer is passed through unstored. Too high: few answers fill the store.
    #[schemars(extend("format" = "size", "x-min" = "1KiB", "x-max" = "1GiB"))]
    pub entry_bytes_max: String,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            bytes_max: "64MiB".to_owned(),
            entry_bytes_max: "1MiB".to_owned(),
        }
    }
}

/// Turns the cache on for a route. What the node forbids (RFC 9111) is not stored.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteCache {
    /// How old an answer may get, counted from when its request was sent; never longer than the node
    /// allows, and never longer whatever fails. Too high: clients see old answers.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "24h"))]
    pub ttl_max: String,
    /// So long before its end an answer is fetched anew, while it is asked for; below `ttl_max`. Too
    /// low: an answer that takes longer than this, or whose refresh fails once, is waited for. Too
    /// high: nodes are asked more often.
    /// Left out: 20 s, but at most half of `ttl_max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "duration"))]
    pub refresh_ahead: Option<String>,
}

const REFRESH_AHEAD: Duration = Duration::from_secs(20);

/// The store, as valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValidCache {
    pub(crate) bytes_max: u64,
    pub(crate) entry_bytes_max: usize,
}

/// A route's cache, as valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) ttl_max: Duration,
    pub(crate) refresh_ahead: Duration,
}

impl Cache {
    pub(crate) fn validate(&self, faults: &mut Faults) -> ValidCache {
        let max = faults.size("cache.bytes_max", &self.bytes_max, 64 << 10, 64 << 30);
        let entry = faults.size(
            "cache.entry_bytes_max",
            &self.entry_bytes_max,
            1 << 10,
            1 << 30,
        );
        if entry > max {
            let why =
                "it is more than cache.bytes_max, so that nothing of this size could be stored";
            let remedy = "lower it, or raise cache.bytes_max";
            faults.add("cache.entry_bytes_max", &self.entry_bytes_max, why, remedy);
        }
        ValidCache {
            bytes_max: max,
            entry_bytes_max: entry as usize,
        }
    }
}

impl RouteCache {
    /// `key` is that of the route's `cache`.
    pub(crate) fn validate(&self, key: &str, faults: &mut Faults) -> Rules {
        let (least, day) = (Duration::from_millis(10), Duration::from_secs(86_400));
        let ttl_max = faults.duration(&format!("{key}.ttl_max"), &self.ttl_max, least, day);
        let key = format!("{key}.refresh_ahead");
        let Some(written) = &self.refresh_ahead else {
            return Rules {
                ttl_max,
                refresh_ahead: REFRESH_AHEAD.min(ttl_max / 2),
            };
        };
        let refresh_ahead = faults.duration(&key, written, Duration::ZERO, day);
        if refresh_ahead >= ttl_max {
            let why = "it is not below ttl_max: an answer would be due before it is there";
            faults.add(&key, written, why, "choose less than ttl_max");
        }
        Rules {
            ttl_max,
            refresh_ahead,
        }
    }
}
