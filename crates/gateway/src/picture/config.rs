//! What `gateway.yaml` says about the picture of the installation: the other gateways, the files in
//! which other processes tell of themselves, and what each route promises.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::faults::Faults;
use crate::history::latency::BOUNDS;
use crate::history::objective;

/// What a route promises; the page shows how much of it is kept and what is left to fail.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// Of all answers so many may be 5xx. Too low: the page calls for help that nobody needs. Too high:
    /// it is silent while clients suffer.
    #[schemars(range(min = 0, max = 100))]
    pub errors_percent_max: u32,
    /// Answers shall come within this time, to the end of their bodies; a bound that latencies are
    /// counted by, such as 5ms, 10ms, 50ms, 100ms, 250ms, 400ms, 500ms, 1s, 2s, 5s, 10s. Left out:
    /// nothing is promised of the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "duration"))]
    pub within: Option<String>,
    /// Of all answers at least so many within that time; stands beside `within` and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub within_percent_min: Option<u32>,
}

impl Objective {
    pub(crate) fn validate(&self, key: &str, faults: &mut Faults) -> objective::Objective {
        let at = |name: &str| format!("{key}.{name}");
        let errors = ("errors_percent_max", self.errors_percent_max);
        let within = self.within_percent_min;
        let within = within.map(|percent| ("within_percent_min", percent));
        for (name, value) in [Some(errors), within].into_iter().flatten() {
            faults.range(&at(name), value, 0, 100);
        }
        match (&self.within, self.within_percent_min) {
            (Some(_), None) => {
                let why = "it is missing: `within` stands there without it";
                let remedy = "write how many of a hundred answers shall come in that time, like 90";
                faults.add(&at("within_percent_min"), "", why, remedy);
            }
            (None, Some(percent)) => {
                let why = "no time is named that it could be about";
                let remedy = "name one in `within`, or leave this key out";
                faults.add(&at("within_percent_min"), percent, why, remedy);
            }
            _ => {}
        }
        let within = self.within.as_ref().map(|text| {
            let (min, max) = (Duration::from_millis(1), Duration::from_secs(30));
            let within = faults.duration(&at("within"), text, min, max);
            if !BOUNDS.contains(&within.as_secs_f64()) {
                let near = BOUNDS.iter().rfind(|bound| **bound < within.as_secs_f64());
                let near = Duration::from_secs_f64(near.copied().unwrap_or(0.001));
                let near = chassis::config::format_duration(near);
                let why = "latencies are not counted by this bound";
                faults.add(&at("within"), text, why, &format!("write {near}"));
            }
            (
                within,
                f64::from(self.within_percent_min.unwrap_or_default()),
            )
        });
        objective::Objective {
            errors_percent_max: f64::from(self.errors_percent_max),
            within,
        }
    }
}

/// Where the picture comes from, beside this gateway itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sources {
    /// Admin listeners of all gateways, this one perhaps included, like `http://127.0.0.1:9091`.
    pub(crate) peers: Vec<Peer>,
    /// The supervisor's state file.
    pub(crate) processes_file: Option<PathBuf>,
    /// The file to which all processes append what happens.
    pub(crate) events_file: Option<PathBuf>,
}

/// The private admin listener of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// `HOST:PORT`.
    pub(crate) authority: String,
}

impl Sources {
    pub(crate) fn validate(config: &Config, faults: &mut Faults) -> Self {
        let admin = config.admin.as_ref();
        let file = admin.and_then(|admin| admin.processes_file.as_ref());
        if file.is_some_and(String::is_empty) {
            let remedy = "name a file, or leave the key out";
            faults.add("admin.processes_file", "", "it is empty", remedy);
        }
        let peers = config.peers.iter().enumerate().filter_map(|(index, text)| {
            let peer = peer(text);
            if peer.is_none() {
                let remedy = "write the address of its admin listener, like http://10.0.0.2:9090";
                let why = "it is no address that can be asked";
                faults.add(&format!("peers[{index}]"), text, why, remedy);
            }
            peer
        });
        Self {
            peers: peers.collect(),
            processes_file: file.map(PathBuf::from),
            events_file: admin
                .and_then(|admin| admin.events_file.as_ref())
                .map(PathBuf::from),
        }
    }
}

fn peer(text: &str) -> Option<Peer> {
    let uri: Uri = text.parse().ok()?;
    let plain = uri.scheme() == Some(&Scheme::HTTP) && matches!(uri.path(), "" | "/");
    let authority = uri.authority().filter(|_| plain && uri.query().is_none())?;
    let named = !authority.as_str().contains('@');
    authority.port_u16().filter(|_| named)?;
    let authority = authority.to_string();
    Some(Peer { authority })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_the_address_of_an_admin_listener_and_nothing_more() {
        for text in [
            "http://127.0.0.1:1",
            "http://[::1]:9090/",
            "http://b.internal:9090",
        ] {
            assert!(peer(text).is_some(), "{text}");
        }
        for text in [
            "",
            "127.0.0.1:1",
            "https://a:1",
            "http://a",
            "http://a:1/metrics",
            "http://a:1/?x",
            "http://user:secret@a:1",
        ] {
            assert_eq!(peer(text), None, "{text}");
        }
    }

    #[test]
    fn a_promise_of_time_must_be_one_that_is_counted() {
        let mut faults = Faults::default();
        let mut promise = Objective {
            errors_percent_max: 1,
            within: Some("400ms".to_owned()),
            within_percent_min: Some(90),
        };
        promise.validate("o", &mut faults);
        assert!(faults.0.is_empty(), "{:?}", faults.0);
        promise.within = Some("420ms".to_owned());
        promise.errors_percent_max = 101;
        promise.validate("o", &mut faults);
        let keys: Vec<&str> = faults.0.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, ["o.errors_percent_max", "o.within"]);
        assert_eq!(faults.0[1].remedy, "write 400ms");
    }

    #[test]
    fn a_share_without_its_time_and_a_time_without_its_share_are_faults() {
        for (within, share) in [(Some("400ms"), None), (None, Some(90))] {
            let promise = Objective {
                errors_percent_max: 1,
                within: within.map(str::to_owned),
                within_percent_min: share,
            };
            let mut faults = Faults::default();
            promise.validate("o", &mut faults);
            let keys: Vec<&str> = faults.0.iter().map(|fault| fault.key.as_str()).collect();
            assert_eq!(keys, ["o.within_percent_min"]);
        }
    }
}
