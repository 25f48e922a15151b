//! By which names the admin listener may be asked for. A stranger's page, open in a browser on this
//! machine, can have its own name resolve to our address (DNS rebinding): to the browser we are that
//! page's own server then, and it may read what we answer. Its name, which stands in `Host`, gives it
//! away. So whoever comes in over a loopback address must ask for an address, for localhost, or for a
//! name of the configuration.
//!
//! On other addresses any name is taken unless `admin.hosts` says which: containers and clusters ask by
//! names that only their network knows, and a scrape that fails there is worse. Pure.

use std::net::IpAddr;

use http::uri::Authority;
use http::{Request, StatusCode, Uri, header};

use super::{Answer, problem};
use crate::config::Config;
use crate::faults::Faults;

/// So much of a strange name is repeated to whoever sent it.
const SHOWN_CHARACTERS: usize = 100;

/// The names that are ours, beside addresses and localhost.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Hosts {
    /// In lower case.
    known: Vec<String>,
    /// `admin.hosts` stands in the file: nothing else is taken on any address.
    listed: bool,
}

impl Hosts {
    pub(crate) fn validate(config: &Config, faults: &mut Faults) -> Self {
        let listed = config.admin.as_ref().and_then(|admin| admin.hosts.as_ref());
        for (index, name) in listed.into_iter().flatten().enumerate() {
            if !crate::tls::is_server_name(name) || name.starts_with("*.") {
                let why = "it is neither a DNS name nor an IP address";
                let remedy = "write a name without a port, like gateway.internal";
                faults.add(&format!("admin.hosts[{index}]"), name, why, remedy);
            }
        }
        let peers = config.peers.iter();
        let peers = peers.filter_map(|url| url.parse::<Uri>().ok()?.host().map(str::to_owned));
        let served = config.tls.as_ref().and_then(|tls| tls.names.as_ref());
        let named = [listed, served].into_iter().flatten().flatten().cloned();
        Self {
            known: peers
                .chain(named)
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            listed: listed.is_some(),
        }
    }

    /// The answer to a request that asks for a stranger; `None`: it asks for us. `is_loopback`: the
    /// address that it came to.
    pub(super) fn refusal<B>(&self, request: &Request<B>, is_loopback: bool) -> Option<Answer> {
        if !is_loopback && !self.listed {
            return None;
        }
        let target = request.uri().authority().map(Authority::as_str);
        let fields = request.headers().get_all(header::HOST).iter();
        let fields = fields.map(|host| host.to_str().unwrap_or_default());
        // Without any it is no browser's.
        let mut asked = target.into_iter().chain(fields);
        let stranger = asked.find(|host| !self.has(host))?;
        let shown: String = stranger.chars().take(SHOWN_CHARACTERS).collect();
        let detail = format!(
            "{shown:?} is none of this listener's names: ask for its address or for localhost, or add the \
             name to admin.hosts"
        );
        let status = StatusCode::MISDIRECTED_REQUEST;
        Some(problem(status, "misdirected-request", &detail))
    }

    /// Whether a value of `Host` (RFC 9110 section 7.2) names us.
    fn has(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else {
            return false;
        };
        let name = authority.host();
        let bare = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if bare.unwrap_or(name).parse::<IpAddr>().is_ok() {
            return true;
        }
        // RFC 6761 section 6.3: these never leave the machine.
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost") || self.known.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(rest: &str) -> Result<Hosts, Vec<String>> {
        let text = format!(
            "listen: []\nnodes: []\nroutes: []\npeers: ['http://Peer.internal:9090']\n\
             tls: {{folder: /x, names: [shop.example]}}\nadmin: {{listen: '127.0.0.1:1'{rest}}}\n"
        );
        let config: Config = chassis::config::from_yaml("test", &text).unwrap();
        let mut faults = Faults::default();
        let hosts = Hosts::validate(&config, &mut faults);
        match faults.0.is_empty() {
            true => Ok(hosts),
            false => Err(faults.0.into_iter().map(|fault| fault.key).collect()),
        }
    }

    #[test]
    fn addresses_localhost_and_names_of_the_configuration_are_ours() {
        let hosts = hosts(", hosts: [ops.example, prom_1]").unwrap();
        for host in [
            "127.0.0.1:9090",
            "10.1.2.3",
            "[::1]:9090",
            "[::1]",
            "localhost:1",
            "LOCALHOST",
            "localhost.",
            "bingo.localhost:9090",
            "peer.internal:9090",
            "shop.example",
            "Ops.Example:80",
            "prom_1:9090",
        ] {
            assert!(hosts.has(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "x.shop.example",
            "a b",
            "[::1",
        ] {
            assert!(!hosts.has(host), "{host}");
        }
    }

    #[test]
    fn a_strange_name_is_refused_on_loopback_and_everywhere_once_names_are_listed() {
        let request = |host: &str, target: &str| {
            let request = Request::get(target).header("host", host);
            request.body(()).unwrap()
        };
        let evil = request("evil.example", "/health");
        let (open, listed) = (hosts("").unwrap(), hosts(", hosts: []").unwrap());
        assert!(open.refusal(&evil, false).is_none());
        for (hosts, is_loopback) in [(&open, true), (&listed, true), (&listed, false)] {
            let refused = hosts.refusal(&evil, is_loopback).unwrap();
            assert_eq!(refused.status(), StatusCode::MISDIRECTED_REQUEST);
            let good = request("localhost", "/health");
            assert!(hosts.refusal(&good, is_loopback).is_none());
        }
        let twice = request("localhost", "http://evil.example/health");
        assert!(open.refusal(&twice, true).is_some());
        let nameless = Request::get("/health").body(()).unwrap();
        assert!(open.refusal(&nameless, true).is_none());
    }

    #[test]
    fn a_name_with_a_port_or_a_star_is_a_fault() {
        let faults = hosts(", hosts: [good.example, 'a:1', '*.example.org', '']");
        assert_eq!(
            faults.unwrap_err(),
            ["admin.hosts[1]", "admin.hosts[2]", "admin.hosts[3]"]
        );
    }
}
