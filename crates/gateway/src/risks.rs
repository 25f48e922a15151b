//! What a valid configuration may still do to whoever runs it: values that are in range, and most
//! likely not meant. `bingo gateway --check` tells them; nothing is refused for them. Pure but for
//! `Surroundings::look`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis::Failure;
use chassis::config::{Fault, format_duration};
use http::Method;

use crate::config::{Class, Retry};
use crate::picture::processes::Processes;
use crate::router::{Match, Router};
use crate::valid::{Valid, ValidRoute};

/// Over this a hung node is noticed so late that clients see it.
const NOTICED_MAX: Duration = Duration::from_secs(2);
const FALL_MAX: u32 = 3;
/// Most clients and load balancers have given up by then.
const DEADLINE_MAX: Duration = Duration::from_secs(60);
/// For silence of a client: longer is an invitation to hold connections open.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// The supervisor that `bingo up` starts waits 30 s before it kills.
const DRAIN_MAX: Duration = Duration::from_secs(28);
/// Files that are open whatever the connections: sockets, logs, runtimes.
const OTHER_FILES: u64 = 100;

/// What a check found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// With any of them the file is refused.
    pub faults: Vec<Fault>,
    /// Risky values; only of a file without faults.
    pub warnings: Vec<Fault>,
}

impl Report {
    /// Checks a file. Fails (exit 64) only where it cannot be read.
    pub fn of(path: &Path) -> Result<Self, Failure> {
        let text = crate::valid::read(path)?;
        let (valid, mut examined) = Valid::examine(&text);
        // The files of a certificate are looked at whatever else is wrong: one run tells all.
        if let Some(tls) = valid.as_ref().and_then(|valid| valid.tls.as_ref()) {
            examined.add(crate::tls::faults(tls));
        }
        let mut warnings = Vec::new();
        if let Some(valid) = valid.filter(|_| examined.faults.is_empty()) {
            warnings = risks(&valid, &Surroundings::look(&valid));
            for warning in &mut warnings {
                warning.line = examined.line(&warning.key);
            }
        }
        Ok(Self {
            faults: examined.faults,
            warnings,
        })
    }
}

/// What the configuration meets on this machine.
#[derive(Clone, Debug)]
struct Surroundings {
    /// The limit of open files; `None`: there is none.
    open_files: Option<u64>,
    /// Why the token's file is none that should be used, and the remedy.
    token: Option<(String, String)>,
    /// Files of other keys of `admin` that cannot be used.
    unusable: Vec<Fault>,
    /// Private keys that others may read: whose key in the configuration, which file.
    open_keys: Vec<(&'static str, PathBuf)>,
}

impl Surroundings {
    fn look(valid: &Valid) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            open_files: limit.maximum,
            token: valid.token_file.as_deref().and_then(token),
            unusable: unusable(valid),
            open_keys: valid
                .tls
                .as_ref()
                .map(crate::tls::open_keys)
                .unwrap_or_default(),
        }
    }
}

fn token(path: &Path) -> Option<(String, String)> {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(error) => {
            let remedy = format!("(umask 077; openssl rand -hex 24 > {shown})");
            Some((format!("it cannot be looked at: {error}"), remedy))
        }
        Ok(file) if file.permissions().mode() & 0o077 != 0 => {
            let reason =
                "others than its owner may use the file: whoever reads it may take nodes out";
            Some((reason.to_owned(), format!("chmod 600 {shown}")))
        }
        Ok(_) => None,
    }
}

fn unusable(valid: &Valid) -> Vec<Fault> {
    let events = valid.events_file.as_deref();
    let events = events.and_then(|path| {
        let reason = unwritable(path)?;
        let remedy = "name a file in a folder that the gateway may write to; until then its events \
                      end with it";
        Some(Fault::new(
            "admin.events_file",
            path.display(),
            reason,
            remedy,
        ))
    });
    let processes = valid.sources.processes_file.as_deref();
    let processes = processes.and_then(|path| {
        let why = Processes::read(path).err()?;
        let reason = format!("it cannot be read: {why}");
        let remedy =
            "name the supervisor's state file; until it is there the page knows of no processes";
        Some(Fault::new(
            "admin.processes_file",
            path.display(),
            reason,
            remedy,
        ))
    });
    events.into_iter().chain(processes).collect()
}

/// Why nothing could be appended to a file, which need not be there yet. Changes nothing.
fn unwritable(path: &Path) -> Option<String> {
    match std::fs::OpenOptions::new().append(true).open(path) {
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| *folder != Path::new(""));
            let folder = folder.unwrap_or(Path::new("."));
            let error = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).err()?;
            let error = std::io::Error::from(error);
            Some(format!(
                "it cannot be made in {}: {error}",
                folder.display()
            ))
        }
        Err(error) => Some(format!("it cannot be written: {error}")),
    }
}

fn risks(valid: &Valid, around: &Surroundings) -> Vec<Fault> {
    let mut risks = Vec::new();
    reach(valid, around, &mut risks);
    nodes(valid, &mut risks);
    limits(valid, around, &mut risks);
    for (number, one) in valid.routes.iter().enumerate() {
        route(valid, number, one, &mut risks);
    }
    risks
}

/// Who can see and change what.
fn reach(valid: &Valid, around: &Surroundings, risks: &mut Vec<Fault>) {
    if let Some(admin) = valid.admin {
        if !admin.ip().is_loopback() {
            let reason = "whoever reaches this address reads metrics, nodes and events";
            let remedy = "listen on 127.0.0.1, or keep strangers off with a firewall";
            risks.push(Fault::new("admin.listen", admin, reason, remedy));
        }
        let key = "admin.token_file";
        match (&valid.token_file, &around.token) {
            (None, _) => {
                let reason = "it is missing: no node can be drained and no reload be asked for";
                let remedy = "name a file that holds a token";
                risks.push(Fault::new(key, "", reason, remedy));
            }
            (Some(path), Some((reason, remedy))) => {
                risks.push(Fault::new(key, path.display(), reason, remedy));
            }
            (Some(_), None) => {}
        }
    }
    risks.extend(around.unusable.iter().cloned());
    for (key, path) in &around.open_keys {
        let path = path.display();
        let reason = "others may read this private key: whoever does can be this service";
        let remedy = format!("chmod 600 {path}, and have a new one made if it is too late");
        risks.push(Fault::new(*key, path, reason, remedy));
    }
    let mut addresses = valid.listen.iter().map(|listen| listen.address);
    let public = addresses.find(|at| !at.ip().is_loopback());
    if let Some(public) = public.filter(|_| valid.expose_node) {
        let reason = format!("answers tell the names of nodes to whoever reaches {public}");
        let remedy = "write false, unless clients are to know";
        risks.push(Fault::new("expose_node", true, reason, remedy));
    }
}

fn nodes(valid: &Valid, risks: &mut Vec<Fault>) {
    if let [only] = valid.nodes.as_slice() {
        let reason = "with one node, each of its failures is one of the service";
        let remedy = "name a second node";
        risks.push(Fault::new("nodes", &only.name, reason, remedy));
    }
    for (number, node) in valid.nodes.iter().enumerate() {
        let earlier = valid.nodes.get(..number).unwrap_or_default();
        if let Some(same) = earlier.iter().find(|same| same.address == node.address) {
            let reason = format!("{} is the same one: its failure is that of both", same.name);
            let key = format!("nodes[{number}].address");
            let remedy = "give each node its own address, or name it once";
            risks.push(Fault::new(key, &node.address, reason, remedy));
        }
    }
    let probe = &valid.probe;
    let noticed = (probe.timeout + probe.interval) * probe.thresholds.fall;
    if noticed > NOTICED_MAX {
        let timeout = format_duration(probe.timeout);
        let reason = format!(
            "a hung node is noticed only after {}: fall × (timeout + interval)",
            format_duration(noticed)
        );
        let remedy = "lower timeout, interval or fall; 200ms, 100ms and 1 do for most";
        risks.push(Fault::new("probe.timeout", timeout, reason, remedy));
    }
    let fall = probe.thresholds.fall;
    if fall > FALL_MAX {
        let reason = format!("a node that fails its probe is kept for {fall} probes");
        let remedy = format!("choose 1 to {FALL_MAX}");
        risks.push(Fault::new("probe.fall", fall, reason, remedy));
    }
}

fn limits(valid: &Valid, around: &Surroundings, risks: &mut Vec<Fault>) {
    let limits = &valid.limits;
    let files = limits.connections_max as u64 * 2 + OTHER_FILES;
    if let Some(most) = around.open_files.filter(|most| *most < files) {
        let reason = format!(
            "this many connections and those to nodes need {files} open files, and here {most} are \
             allowed"
        );
        let remedy = format!("ulimit -n {files} (LimitNOFILE= in a unit), or choose fewer");
        let key = "limits.connections_max";
        risks.push(Fault::new(key, limits.connections_max, reason, remedy));
    }
    for (key, time) in [
        ("limits.head_timeout", limits.head_timeout),
        ("limits.client_stall_timeout", limits.client_stall_timeout),
    ] {
        if time > SILENCE_MAX {
            let reason = "clients that do nothing may hold all connections for so long";
            let remedy = format!("choose {} or less", format_duration(SILENCE_MAX));
            risks.push(Fault::new(key, format_duration(time), reason, remedy));
        }
    }
    if limits.drain_deadline > DRAIN_MAX {
        let shown = format_duration(limits.drain_deadline);
        let reason =
            "the supervisor's configuration as shipped kills after 30s, in the middle of it";
        let remedy = format!("choose {} or less", format_duration(DRAIN_MAX));
        risks.push(Fault::new("limits.drain_deadline", shown, reason, remedy));
    }
    if limits.held_max == 0 {
        let reason = "while all nodes restart, requests fail instead of waiting";
        let remedy = "allow as many as a second brings";
        risks.push(Fault::new("limits.held_max", 0, reason, remedy));
    }
}

fn route(valid: &Valid, number: usize, route: &ValidRoute, risks: &mut Vec<Fault>) {
    let key = |name: &str| format!("routes[{number}].{name}");
    let deadline = format_duration(route.deadline);
    if route.deadline > DEADLINE_MAX {
        let reason = "most clients have gone by then, and the nodes go on working for them";
        let remedy = format!("choose {} or less", format_duration(DEADLINE_MAX));
        risks.push(Fault::new(key("deadline"), &deadline, reason, remedy));
    }
    if route.deadline <= valid.limits.connect_timeout {
        let reason = "one node that cannot be reached takes all of a request's time";
        let remedy = "choose more, or less for limits.connect_timeout";
        risks.push(Fault::new(key("deadline"), &deadline, reason, remedy));
    }
    if route.class == Class::Write && route.retry == Retry::Always {
        let reason = "a write whose node broke is sent again, and may then be done twice";
        let remedy = "write safe: only what has an Idempotency-Key is sent again";
        risks.push(Fault::new(key("retry"), "always", reason, remedy));
    }
    if route.cache.is_some() && !route.methods.contains(&Method::GET) {
        let reason = "nothing is ever stored: only answers to GET are";
        let remedy = "name GET among the methods, or leave the key out";
        risks.push(Fault::new(key("cache"), "", reason, remedy));
    }
    let earlier = Router::new(valid.routes.get(..number).unwrap_or_default());
    let taken = |method: &Method| matches!(earlier.find(method, &route.path), Match::Route(_));
    if route.methods.iter().all(taken) {
        let reason = "earlier routes take all of it: the first match wins";
        let remedy = "move it up, or remove it";
        risks.push(Fault::new(key("path"), &route.path, reason, remedy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../deploy/gateway.yaml");

    fn around() -> Surroundings {
        Surroundings {
            open_files: Some(1 << 20),
            token: None,
            unusable: Vec::new(),
            open_keys: Vec::new(),
        }
    }

    fn keys(text: &str, around: &Surroundings) -> Vec<String> {
        let valid = Valid::parse(text).unwrap();
        let risks = risks(&valid, around);
        for risk in &risks {
            assert!(
                !risk.reason.is_empty() && !risk.remedy.is_empty(),
                "{risk:?}"
            );
        }
        risks.into_iter().map(|risk| risk.key).collect()
    }

    #[test]
    fn the_shipped_file_is_without_risk() {
        assert_eq!(keys(SHIPPED, &around()), [""; 0]);
    }

    #[test]
    fn each_risky_value_is_told_and_its_neighbour_is_not() {
        for (from, to, key) in [
            ("timeout: 200ms", "timeout: 2s", "probe.timeout"),
            ("  fall: 1", "  fall: 4", "probe.fall"),
            (
                "head_timeout: 30s",
                "head_timeout: 5m",
                "limits.head_timeout",
            ),
            (
                "drain_deadline: 25s",
                "drain_deadline: 60s",
                "limits.drain_deadline",
            ),
            ("held_max: 1000", "held_max: 0", "limits.held_max"),
            (
                "path: /config, deadline: 20s",
                "path: /config, deadline: 2m",
                "routes[3].deadline",
            ),
            (
                "path: /config, deadline: 20s",
                "path: /config, deadline: 1s",
                "routes[3].deadline",
            ),
            ("path: /config,", "path: /ping,", "routes[3].path"),
            (
                "retry: safe, class: write",
                "retry: always, class: write",
                "routes[15].retry",
            ),
            ("127.0.0.1:9090", "0.0.0.0:9090", "admin.listen"),
            ("127.0.0.1:8002", "127.0.0.1:8001", "nodes[1].address"),
            (
                "methods: [GET], path: /long_dummy",
                "methods: [POST], path: /long_dummy",
                "routes[8].cache",
            ),
            ("127.0.0.1:8080", "'[::]:8080'", "expose_node"),
        ] {
            let text = SHIPPED.replacen(from, to, 1);
            assert_ne!(text, SHIPPED, "{from}");
            assert_eq!(keys(&text, &around()), [key], "{to}");
        }
        let one = SHIPPED.replace("  - name: node-2\n    address: 127.0.0.1:8002\n", "");
        assert_eq!(keys(&one, &around()), ["nodes"]);
        let quiet = SHIPPED.replace("127.0.0.1:8080", "'[::]:8080'");
        let quiet = quiet.replace("expose_node: true", "expose_node: false");
        assert_eq!(keys(&quiet, &around()), [""; 0]);
    }

    #[test]
    fn a_machine_that_cannot_carry_the_configuration_is_told() {
        let few = Surroundings {
            open_files: Some(1024),
            ..around()
        };
        assert_eq!(keys(SHIPPED, &few), ["limits.connections_max"]);
    }

    #[test]
    fn a_private_key_that_others_may_read_is_told() {
        let open = Surroundings {
            open_keys: vec![("tls.key", PathBuf::from("/x"))],
            ..around()
        };
        assert_eq!(keys(SHIPPED, &open), ["tls.key"]);
    }

    #[test]
    fn the_files_of_a_certificate_are_looked_at_beside_everything_else() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        std::fs::write(path("cert"), made.cert.pem()).unwrap();
        std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("other"), other.serialize_pem()).unwrap();
        let faults = |certificate: &str, key: &str| -> Vec<String> {
            let (certificate, key) = (path(certificate), path(key));
            let (certificate, key) = (certificate.display(), key.display());
            let tls = format!("tls: {{certificate: {certificate}, key: {key}}}\n{SHIPPED}");
            let file = path("gateway.yaml");
            std::fs::write(&file, tls.replace("held_max: 1000", "held_max: -1")).unwrap();
            let faults = Report::of(&file).unwrap().faults;
            assert!(
                faults.iter().all(|fault| fault.line.is_some()),
                "{faults:?}"
            );
            faults.into_iter().map(|fault| fault.key).collect()
        };
        for (certificate, key, expected) in [
            ("cert", "key", &["limits.held_max"][..]),
            (
                "none",
                "gone",
                &["tls.certificate", "tls.key", "limits.held_max"],
            ),
            ("cert", "other", &["tls.key", "limits.held_max"]),
            ("key", "key", &["tls.certificate", "limits.held_max"]),
        ] {
            assert_eq!(faults(certificate, key), expected, "{certificate} {key}");
        }
    }

    #[test]
    fn a_file_of_events_or_processes_that_cannot_be_used_is_told() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name).display().to_string();
        std::fs::write(path("text"), "none of ours").unwrap();
        std::fs::write(path("state"), "{\"processes\":[]}").unwrap();
        let warned = |events: &str, processes: &str| -> Vec<String> {
            let files = format!(
                "admin:\n  events_file: {}\n  processes_file: {}\n",
                path(events),
                path(processes)
            );
            let text = SHIPPED.replacen("admin:\n", &files, 1);
            let warned = unusable(&Valid::parse(&text).unwrap());
            warned.into_iter().map(|fault| fault.key).collect()
        };
        let (events, processes) = ("admin.events_file", "admin.processes_file");
        assert_eq!(warned("text", "state"), [""; 0]);
        assert_eq!(warned("new", "state"), [""; 0]);
        assert!(!place.path().join("new").exists(), "looking makes nothing");
        assert_eq!(warned("gone/new", "gone"), [events, processes]);
        assert_eq!(warned("text/new", "text"), [events, processes]);
        assert_eq!(warned(".", "state"), [events]);
    }

    #[test]
    fn a_token_that_is_missing_or_that_others_may_read_is_told() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(token(&path).unwrap().1.contains("umask 077"));
        std::fs::write(&path, "x").unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(0o644);
        assert!(token(&path).unwrap().1.starts_with("chmod 600"));
        mode(0o600);
        assert_eq!(token(&path), None);
        let without = SHIPPED
            .lines()
            .filter(|line| !line.contains("token_file"))
            .fold(String::new(), |text, line| text + line + "\n");
        assert_eq!(keys(&without, &around()), ["admin.token_file"]);
    }
}
