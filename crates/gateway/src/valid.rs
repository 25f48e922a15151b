//! `gateway.yaml` as valid: parsed, in range, consistent. Every fault of a file is told in one run,
//! each with key, value, reason and remedy, because mending a file one message at a time is slow.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis::Failure;
use chassis::config::{Examined, Fault};
use http::{HeaderValue, Method};

use crate::access_log::Terms;
use crate::admin::Hosts;
use crate::cache::config::{Rules, ValidCache};
use crate::config::{Admin, Class, Config, Limits, Listen, Node, Probe, Retry, Route};
use crate::ejection::Thresholds;
use crate::faults::Faults;
use crate::head;
use crate::history::objective::Objective;
use crate::listener::Kind;
use crate::picture::config::Sources;
use crate::quic;
use crate::suspects;
use crate::tls::{Certificates, ValidTls};
use crate::{addresses, admission};

const TLS_REMEDY: &str = "name one in the section tls: a folder, or certificate and key";

/// What a gateway calls itself unless it is told otherwise.
const DEFAULT_NAME: &str = "gateway";

/// A key of the section `admin` that names a file.
type FileKey = fn(&Admin) -> &Option<String>;

/// A configuration that can be run.
#[derive(Clone, Debug)]
pub struct Valid {
    /// Public addresses to listen on, where no listener was handed down.
    pub listen: Vec<ValidListen>,
    /// The admin address, where no listener was handed down.
    pub admin: Option<SocketAddr>,
    /// `None`: one per core.
    pub(crate) threads: Option<usize>,
    /// The file it was read from, which a running gateway goes on looking at.
    pub(crate) source: Option<Source>,
    pub(crate) hosts: Hosts,
    /// Where the token for changes stands.
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) state_file: Option<PathBuf>,
    pub(crate) events_file: Option<PathBuf>,
    /// What this gateway calls itself where it tells of events.
    pub name: String,
    /// Where the page's picture comes from.
    pub(crate) sources: Sources,
    /// `None`: no listener speaks TLS.
    pub(crate) tls: Option<ValidTls>,
    /// Opened by `open_certificates`: who only checks a file opens nothing.
    pub(crate) certificates: Option<Certificates>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) probe: ValidProbe,
    pub(crate) limits: ValidLimits,
    /// By class, in the order of `Class::ALL`.
    pub(crate) admission: [admission::Bounds; Class::ALL.len()],
    pub(crate) cache: ValidCache,
    pub(crate) spool: ValidSpool,
    pub(crate) access_log: Terms,
    pub(crate) expose_node: bool,
    /// What answers over TLS say of HTTP/3 (RFC 7838): nothing where no listener speaks it.
    pub(crate) alt_svc: Option<HeaderValue>,
    pub(crate) routes: Vec<ValidRoute>,
}

impl Valid {
    /// Reads or makes the certificate that `tls` names, once, before listeners are made. Fails with
    /// 64 where files or folder cannot be used.
    pub fn open_certificates(&mut self) -> Result<(), Failure> {
        self.certificates = self.tls.as_ref().map(Certificates::open).transpose()?;
        Ok(())
    }

    /// What an HTTPS listener speaks: HTTP/2 and HTTP/1.1 by ALPN, with the certificate of `tls`.
    pub fn https(&self) -> Result<Kind, Failure> {
        let certificates = self.certificates("HTTPS")?;
        let config = certificates.server_config(&[b"h2", b"http/1.1"]);
        Ok(Kind::Https(config))
    }

    /// HTTP/3 on a UDP socket, with the certificate of `tls`.
    pub fn quic(&self, socket: UdpSocket) -> Result<quic::Listener, Failure> {
        let certificates = self.certificates("HTTP/3")?;
        Ok(quic::Listener {
            socket,
            tls: certificates.server_config(&[b"h3"]),
            reset_key: certificates.quic_reset_key(),
        })
    }

    fn certificates(&self, what: &str) -> Result<&Certificates, Failure> {
        self.certificates.as_ref().ok_or_else(|| {
            let attempted = format!("serve {what}");
            Failure::configuration(attempted, "there is no certificate", TLS_REMEDY)
        })
    }
}

/// One public address and what is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidListen {
    pub address: SocketAddr,
    pub tls: bool,
    /// HTTP/3 over UDP on the same port number.
    pub http3: bool,
}

/// A file as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValidProbe {
    pub(crate) path: String,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) thresholds: Thresholds,
}

#[derive(Clone, Debug)]
pub(crate) struct ValidLimits {
    pub(crate) head_bytes_max: usize,
    pub(crate) fields_max: usize,
    pub(crate) uri_bytes_max: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) client_stall_timeout: Duration,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_client_max: usize,
    pub(crate) tls_handshake_timeout: Duration,
    pub(crate) h2_streams_max: u32,
    pub(crate) h2_resets_max: u32,
    pub(crate) h2_control_frames_max: u32,
    /// Bytes a second.
    pub(crate) body_rate_min: u64,
    pub(crate) upgrade_idle_timeout: Duration,
    pub(crate) h3_streams_max: u32,
    pub(crate) terms: suspects::Terms,
    pub(crate) held_max: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) node_idle_timeout: Duration,
    pub(crate) node_stall_timeout: Duration,
    pub(crate) drain_deadline: Duration,
}

impl ValidLimits {
    pub(crate) fn head(&self) -> head::Bounds {
        head::Bounds {
            bytes_max: self.head_bytes_max,
            uri_bytes_max: self.uri_bytes_max,
            fields_max: self.fields_max,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct ValidSpool {
    pub(crate) folder: Option<PathBuf>,
    pub(crate) bytes_max: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct ValidRoute {
    pub(crate) methods: Vec<Method>,
    pub(crate) path: String,
    pub(crate) deadline: Duration,
    pub(crate) body_bytes_max: u64,
    pub(crate) retry: Retry,
    pub(crate) class: Class,
    pub(crate) hedge: bool,
    pub(crate) spool: bool,
    pub(crate) idempotency_key: bool,
    pub(crate) cache: Option<Rules>,
    pub(crate) objective: Option<Objective>,
}

impl Valid {
    /// Reads and checks a file; the failure (exit 64) names every fault there is.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = read(path)?;
        match Self::parse(&text) {
            Ok(mut valid) => {
                let path = path.to_owned();
                valid.source = Some(Source { path, text });
                Ok(valid)
            }
            Err(faults) => {
                let name = path.display().to_string();
                let nothing = || Failure::configuration(format!("read {name}"), "unknown", "");
                let all = Failure::all(faults.iter().map(|fault| fault.failure(&name)));
                Err(all.unwrap_or_else(nothing))
            }
        }
    }

    /// Checks a file's text; every fault of it, in the order of the lines.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        match Self::examine(text) {
            (Some(valid), examined) if examined.faults.is_empty() => Ok(valid),
            (_, examined) => Err(examined.faults),
        }
    }

    /// Where there are faults, the value is not to be used.
    pub(crate) fn examine(text: &str) -> (Option<Self>, Examined<Config>) {
        let mut examined = chassis::config::examine::<Config>(text);
        let mut faults = Faults::default();
        let config = examined.value.as_ref();
        let valid = config.map(|config| config.check(&mut faults));
        examined.add(faults.0);
        (valid, examined)
    }
}

/// A file's text; it fails with exit 64.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::configuration(
            format!("read the configuration {}", path.display()),
            error,
            "give a file that exists; deploy/gateway.yaml is an example",
        )
    })
}

impl Config {
    /// Checks everything; the failure (exit 64) names every fault there is.
    pub fn validate(&self) -> Result<Valid, Failure> {
        let mut faults = Faults::default();
        let valid = self.check(&mut faults);
        let failure = |fault: &Fault| {
            let attempted = format!("use {}: {}", fault.key, fault.value);
            Failure::configuration(attempted, &fault.reason, &fault.remedy)
        };
        Failure::all(faults.0.iter().map(failure)).map_or(Ok(valid), Err)
    }

    /// Where there are faults, what is returned is not to be used.
    fn check(&self, faults: &mut Faults) -> Valid {
        let listen = self.public_addresses(faults);
        let admin = self.admin.as_ref().and_then(|admin| {
            faults.parsed(
                "admin.listen",
                &admin.listen,
                "write IP:PORT, like 127.0.0.1:9090",
            )
        });
        let tls = self
            .tls
            .as_ref()
            .and_then(|tls| crate::tls::valid(tls, faults));
        addresses::check(self, faults);
        if let Some(threads) = self.threads {
            faults.range("threads", threads, 1, 1024);
        }
        if self.routes.is_empty() {
            faults.add(
                "routes",
                "[]",
                "no request could be answered",
                "name a route",
            );
        }
        if self.default != 404 {
            let why = "a path that no route names can only be answered 404";
            faults.add(
                "default",
                self.default,
                why,
                "write 404, or leave the key out",
            );
        }
        let route = |(index, route)| valid_route(index, route, faults);
        let routes = self.routes.iter().enumerate().map(route).collect();
        Valid {
            listen,
            admin,
            threads: self.threads,
            source: None,
            hosts: Hosts::validate(self, faults),
            token_file: self.file("admin.token_file", |admin| &admin.token_file, faults),
            state_file: self.file("admin.state_file", |admin| &admin.state_file, faults),
            events_file: self.file("admin.events_file", |admin| &admin.events_file, faults),
            name: DEFAULT_NAME.to_owned(),
            sources: Sources::validate(self, faults),
            tls,
            certificates: None,
            nodes: self.nodes.clone(),
            probe: valid_probe(&self.probe, faults),
            limits: valid_limits(&self.limits, faults),
            admission: self.admission.validate(faults),
            cache: self.cache.validate(faults),
            access_log: self.access_log.validate(faults),
            spool: ValidSpool {
                folder: self.spool.folder.as_ref().map(PathBuf::from),
                bytes_max: faults.size("spool.bytes_max", &self.spool.bytes_max, 1 << 20, 1 << 40),
            },
            expose_node: self.expose_node,
            alt_svc: alt_svc(&self.listen, self.advertise_http3),
            routes,
        }
    }

    /// A file of the section `admin`.
    fn file(&self, key: &str, of: FileKey, faults: &mut Faults) -> Option<PathBuf> {
        let path = of(self.admin.as_ref()?).as_ref()?;
        if path.is_empty() {
            let remedy = "name a file, or leave the key out";
            faults.add(key, "", "it is empty", remedy);
        }
        Some(PathBuf::from(path))
    }

    fn public_addresses(&self, faults: &mut Faults) -> Vec<ValidListen> {
        if self.listen.is_empty() {
            faults.add(
                "listen",
                "[]",
                "nobody could connect",
                "name an address, like 127.0.0.1:8080",
            );
        }
        self.listen
            .iter()
            .enumerate()
            .filter_map(|(i, listen)| {
                if listen.tls && self.tls.is_none() {
                    let why = "there is no certificate";
                    faults.add(&format!("listen[{i}].tls"), true, why, TLS_REMEDY);
                }
                valid_listen(i, listen, faults)
            })
            .collect()
    }
}

fn valid_listen(index: usize, listen: &Listen, faults: &mut Faults) -> Option<ValidListen> {
    if listen.http3 && !listen.tls {
        let why = "HTTP/3 is never without TLS";
        let key = format!("listen[{index}].http3");
        faults.add(&key, listen.http3, why, "set tls: true beside it");
    }
    if let Some(port) = listen.advertised_port
        && (!listen.http3 || port == 0)
    {
        let key = format!("listen[{index}].advertised_port");
        let why = "no client could use it";
        faults.add(
            &key,
            port,
            why,
            "set http3: true and a port, or leave it out",
        );
    }
    let remedy = "write IP:PORT, like 127.0.0.1:8080 or [::1]:8080";
    let address = faults.parsed(&format!("listen[{index}].address"), &listen.address, remedy)?;
    Some(ValidListen {
        address,
        tls: listen.tls,
        http3: listen.http3,
    })
}

/// A day is how long clients try HTTP/3 first; a shorter time would send them over TCP each morning.
fn alt_svc(listen: &[Listen], advertise: bool) -> Option<HeaderValue> {
    let mut ports: Vec<u16> = listen
        .iter()
        .filter(|listen| listen.http3)
        .filter_map(|listen| {
            let own = || Some(listen.address.parse::<SocketAddr>().ok()?.port());
            listen.advertised_port.or_else(own)
        })
        .collect();
    ports.dedup();
    if ports.is_empty() {
        return None;
    }
    if !advertise {
        return Some(HeaderValue::from_static("clear"));
    }
    let services: Vec<String> = ports
        .iter()
        .map(|port| format!("h3=\":{port}\"; ma=86400"))
        .collect();
    HeaderValue::try_from(services.join(", ")).ok()
}

fn valid_probe(probe: &Probe, faults: &mut Faults) -> ValidProbe {
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    let least = Duration::from_millis(10);
    faults.path("probe.path", &probe.path);
    faults.range("probe.rise", probe.rise, 1, 100);
    faults.range("probe.fall", probe.fall, 1, 100);
    ValidProbe {
        path: probe.path.clone(),
        interval: faults.duration("probe.interval", &probe.interval, least, minute),
        timeout: faults.duration("probe.timeout", &probe.timeout, least, 10 * second),
        thresholds: Thresholds {
            rise: probe.rise,
            fall: probe.fall,
        },
    }
}

fn valid_limits(limits: &Limits, faults: &mut Faults) -> ValidLimits {
    let (least, second) = (Duration::from_millis(10), Duration::from_secs(1));
    let (minute, hour) = (60 * second, 3600 * second);
    faults.range("limits.fields_max", limits.fields_max, 8, 10_000);
    faults.range(
        "limits.connections_max",
        limits.connections_max,
        1,
        1_000_000,
    );
    faults.range(
        "limits.connections_per_client_max",
        limits.connections_per_client_max,
        1,
        1_000_000,
    );
    faults.range("limits.h2_streams_max", limits.h2_streams_max, 1, 10_000);
    faults.range("limits.h3_streams_max", limits.h3_streams_max, 1, 10_000);
    faults.range("limits.h2_resets_max", limits.h2_resets_max, 1, 100_000);
    let frames = limits.h2_control_frames_max;
    faults.range("limits.h2_control_frames_max", frames, 10, 1_000_000);
    faults.range("limits.held_max", limits.held_max, 0, 1_000_000);
    let head = faults.size(
        "limits.head_bytes_max",
        &limits.head_bytes_max,
        1024,
        1 << 20,
    );
    // hyper refuses a target over 64 KiB less one byte by itself.
    let uri = faults.size("limits.uri_bytes_max", &limits.uri_bytes_max, 64, 65_534);
    let body_rate_min = faults.size("limits.body_rate_min", &limits.body_rate_min, 1, 1 << 20);
    let mut time =
        |key: &str, value, max| faults.duration(&format!("limits.{key}"), value, least, max);
    ValidLimits {
        head_bytes_max: head as usize,
        fields_max: limits.fields_max,
        uri_bytes_max: uri as usize,
        head_timeout: time("head_timeout", &limits.head_timeout, hour),
        client_stall_timeout: time("client_stall_timeout", &limits.client_stall_timeout, hour),
        connections_max: limits.connections_max,
        connections_per_client_max: limits.connections_per_client_max,
        tls_handshake_timeout: time("tls_handshake_timeout", &limits.tls_handshake_timeout, hour),
        h2_streams_max: limits.h2_streams_max,
        h2_resets_max: limits.h2_resets_max,
        h2_control_frames_max: limits.h2_control_frames_max,
        body_rate_min,
        upgrade_idle_timeout: time(
            "upgrade_idle_timeout",
            &limits.upgrade_idle_timeout,
            24 * hour,
        ),
        h3_streams_max: limits.h3_streams_max,
        terms: suspects::Terms {
            suspect_wait: time("suspect_wait", &limits.suspect_wait, minute),
            quarantine: time("quarantine", &limits.quarantine, 24 * hour),
        },
        held_max: limits.held_max,
        connect_timeout: time("connect_timeout", &limits.connect_timeout, minute),
        node_idle_timeout: time("node_idle_timeout", &limits.node_idle_timeout, hour),
        node_stall_timeout: time("node_stall_timeout", &limits.node_stall_timeout, hour),
        drain_deadline: time("drain_deadline", &limits.drain_deadline, hour),
    }
}

fn valid_route(index: usize, route: &Route, faults: &mut Faults) -> ValidRoute {
    let key = |name: &str| format!("routes[{index}].{name}");
    let hour = Duration::from_secs(3600);
    faults.path(&key("path"), &route.path);
    if route.methods.is_empty() {
        faults.add(
            &key("methods"),
            "[]",
            "it matches no request",
            "name a method, like GET",
        );
    }
    let mut methods = Vec::new();
    for text in &route.methods {
        match text.parse::<Method>() {
            Ok(method) if *text == text.to_ascii_uppercase() && method != Method::CONNECT => {
                methods.push(method);
            }
            _ => faults.add(
                &key("methods"),
                text,
                "it is no method that can be routed",
                "write one in capitals, like GET",
            ),
        }
    }
    ValidRoute {
        methods,
        path: route.path.clone(),
        deadline: faults.duration(
            &key("deadline"),
            &route.deadline,
            Duration::from_millis(10),
            hour,
        ),
        body_bytes_max: faults.size(&key("body_bytes_max"), &route.body_bytes_max, 0, 1 << 40),
        retry: route.retry,
        class: route.class,
        hedge: route.hedge,
        spool: route.spool,
        idempotency_key: route.idempotency_key,
        cache: route
            .cache
            .as_ref()
            .map(|cache| cache.validate(&key("cache"), faults)),
        objective: route
            .objective
            .as_ref()
            .map(|objective| objective.validate(&key("objective"), faults)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../deploy/gateway.yaml");

    fn parse(text: &str) -> Config {
        // Without the check against the schema, which names most of these faults before us.
        chassis::config::from_yaml("gateway.yaml", text).unwrap()
    }

    #[test]
    fn the_shipped_file_is_valid() {
        let valid = parse(SHIPPED).validate().unwrap();
        assert_eq!(valid.nodes.len(), 2);
        assert_eq!(valid.probe.interval, Duration::from_millis(100));
    }

    #[test]
    fn the_shipped_file_keeps_what_an_installation_replaces_before_the_line_probe() {
        let top_level = |text: &str| -> Vec<String> {
            text.lines()
                .filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()))
                .filter_map(|line| line.split(':').next().map(str::to_owned))
                .collect()
        };
        let keys = top_level(SHIPPED);
        assert_eq!(keys[..4], ["listen", "admin", "nodes", "probe"]);
        assert!(SHIPPED.lines().any(|line| line.starts_with("probe:")));
    }

    #[test]
    fn every_fault_of_a_file_is_told_in_one_run_with_key_value_and_remedy() {
        let text = "
listen: [{address: nowhere}]
nodes: [{name: a, address: noport}, {name: a, address: '127.0.0.1:1'}]
probe: {interval: 5, path: ping}
limits: {connections_max: 0, head_timeout: 1d}
threads: 0
routes:
- {methods: [get], path: '/a{b}', deadline: 0s, body_bytes_max: 1}
default: 500
";
        let failure = parse(text).validate().unwrap_err();
        let text = failure.to_string();
        for part in [
            "listen[0].address: nowhere",
            "nodes[0].address: noport",
            "nodes[1].name: a",
            "probe.interval: 5",
            "probe.path: ping",
            "limits.connections_max: 0",
            "limits.head_timeout: 1d",
            "threads: 0",
            "routes[0].methods: get",
            "routes[0].path: /a{b}",
            "routes[0].deadline: 0s",
            "routes[0].body_bytes_max: 1",
            "default: 500",
            "help: choose 1 to 1000000",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert_eq!(failure.exit, chassis::Exit::Configuration);
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let text = SHIPPED.replace("expose_node:", "expose_nodes:");
        let failure = chassis::config::parse::<Config>("gateway.yaml", &text).unwrap_err();
        assert!(failure.to_string().contains("expose_nodes"), "{failure}");
    }

    #[test]
    fn a_configuration_reads_back_as_written() {
        let config = parse(SHIPPED);
        assert_eq!(parse(&chassis::config::to_yaml(&config).unwrap()), config);
    }
}
