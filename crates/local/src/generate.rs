//! The configuration files of the processes, generated into `config/`: readable, and what the
//! processes really run on. Values only; the policies of the gateway come from `deploy/gateway.yaml`,
//! which is the file for real machines too.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use chassis::Failure;
use private_postgres::Account;
use serde_json::{Value, json};

use crate::database::Database;
use crate::exec::{self, Exec};
use crate::layout::{Layout, write_file};
use crate::options::Options;

/// `deploy/gateway.yaml`: from the line `probe:` on it holds nothing that differs between machines.
const GATEWAY_EXAMPLE: &str = include_str!("../../../deploy/gateway.yaml");

/// Nodes with the vendor's lifetime die after 20 to 25 minutes, those that started together at once.
const MAX_AGE_OF_MORTALS: &str = "18m";

/// The loopback ports that this installation gave its children.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    pub postgres: u16,
    /// One per node: where it serves.
    pub nodes: Vec<u16>,
    /// One per node: its own metrics.
    pub node_admins: Vec<u16>,
    /// One per gateway: its own metrics and health.
    pub gateway_admins: Vec<u16>,
    /// The supervisor's own metrics; 0 in an installation of before there were any.
    #[serde(default)]
    pub supervisor_metrics: u16,
}

impl Ports {
    /// How many ports an installation needs.
    pub fn count(options: &Options) -> usize {
        2 + 2 * usize::from(options.nodes) + usize::from(options.gateways)
    }

    /// Deals out ports that were chosen; missing ones would leave a list short.
    pub fn deal(options: &Options, chosen: &[u16]) -> Self {
        let mut chosen = chosen.iter().copied();
        let postgres = chosen.next().unwrap_or_default();
        let mut nodes: Vec<u16> = chosen.by_ref().take(options.nodes.into()).collect();
        // The only copy of a program whose port nobody chooses.
        let fixed = options.exec.as_ref().and_then(Exec::fixed_port);
        nodes
            .iter_mut()
            .zip(fixed)
            .for_each(|(port, fixed)| *port = fixed);
        let node_admins = chosen.by_ref().take(options.nodes.into()).collect();
        let gateway_admins = chosen.by_ref().take(options.gateways.into()).collect();
        Self {
            postgres,
            nodes,
            node_admins,
            gateway_admins,
            supervisor_metrics: chosen.next().unwrap_or_default(),
        }
    }
}

/// Everything that the files are made of.
pub(crate) struct Subject<'a> {
    pub layout: &'a Layout,
    pub options: &'a Options,
    pub ports: &'a Ports,
    pub account: &'a Account,
    pub database: &'a Database,
    /// The `bingo` binary that the children run.
    pub binary: &'a Path,
    /// The log file that nodes write beside their stderr, where its folder is there.
    pub node_log: Option<&'a Path>,
}

/// Writes all files.
pub(crate) fn write_all(subject: &Subject<'_>) -> Result<(), Failure> {
    let layout = subject.layout;
    write(&layout.gateway_config(), &gateway(subject))?;
    for number in 1..=subject.options.nodes {
        write_node(subject, number)?;
    }
    write(&layout.supervisor_config(), &yaml(&supervisor(subject))?)
}

/// The files of one node.
pub(crate) fn write_node(subject: &Subject<'_>, number: u16) -> Result<(), Failure> {
    let path = subject.layout.node_config(number);
    write(&path, &yaml(&node(subject, number))?)?;
    match &subject.options.exec {
        Some(exec) => exec::write(subject, exec, number),
        None => Ok(()),
    }
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let text = format!("# Written by `bingo up`; the next one writes it anew.\n{text}");
    write_file(path, 0o644, &text).map_err(|source| {
        crate::error::Error::File {
            path: path.to_owned(),
            source,
        }
        .into()
    })
}

fn yaml(value: &Value) -> Result<String, Failure> {
    chassis::config::to_yaml(value)
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The public addresses on one port; none where the port is turned off.
fn public(options: &Options, port: u16) -> impl Iterator<Item = String> {
    let bind = options.bind.iter().filter(move |_| port != 0);
    bind.map(move |address| SocketAddr::new(*address, port).to_string())
}

/// Metrics, nodes and events are for this machine alone, whatever the service is bound to.
fn admin_address(options: &Options) -> impl Iterator<Item = String> {
    let local = options.bind.iter().copied().find(IpAddr::is_loopback);
    let address = local.unwrap_or(Ipv4Addr::LOCALHOST.into());
    let on = (options.admin_port != 0).then(|| SocketAddr::new(address, options.admin_port));
    on.map(|address| address.to_string()).into_iter()
}

fn gateway(subject: &Subject<'_>) -> String {
    let Subject {
        layout,
        options,
        ports,
        ..
    } = subject;
    let listen: Vec<Value> = public(options, options.http_port)
        .map(|address| json!({ "address": address }))
        .chain(
            public(options, options.https_port)
                .map(|address| json!({ "address": address, "tls": true, "http3": true })),
        )
        .collect();
    let head = json!({
        "listen": listen,
        "admin": {
            "listen": admin_address(options).next(),
            "token_file": layout.admin_token(),
            "state_file": layout.gateways().join("nodes.json"),
            "events_file": layout.events_file(),
            "processes_file": layout.state_file(),
        },
        // One file for all gateways: each finds itself among them.
        "peers": ports.gateway_admins.iter().map(|port| format!("http://{}", loopback(*port)))
            .collect::<Vec<_>>(),
        "tls": {
            "folder": layout.tls(),
            "names": options.certificate_names(),
            "mdns": options.mdns,
        },
        "spool": { "folder": layout.gateways() },
        "nodes": gateway_nodes(ports, options.nodes),
    });
    let policies = GATEWAY_EXAMPLE
        .find("\nprobe:")
        .map_or("", |at| &GATEWAY_EXAMPLE[at..]);
    let policies = match options.exec {
        Some(_) => exec::policies(policies, options.gateways),
        None => policies.to_owned(),
    };
    format!("{}{policies}", yaml(&head).unwrap_or_default())
}

/// The first `count` nodes as gateways know them.
pub(crate) fn gateway_nodes(ports: &Ports, count: u16) -> Vec<Value> {
    (1..=count)
        .zip(&ports.nodes)
        .map(|(number, port)| json!({ "name": format!("node-{number}"), "address": loopback(*port) }))
        .collect()
}

pub(crate) fn node(subject: &Subject<'_>, number: u16) -> Value {
    let index = usize::from(number) - 1;
    let port = |ports: &[u16]| loopback(ports.get(index).copied().unwrap_or_default());
    json!({
        "student_email": subject.options.email,
        "name": format!("node-{number}"),
        "listen": port(&subject.ports.nodes),
        "admin_listen": port(&subject.ports.node_admins),
        "postgres_cluster": subject.database.cluster,
        "events_file": subject.layout.events_file(),
    })
}

fn supervisor(subject: &Subject<'_>) -> Value {
    let layout = subject.layout;
    let mut processes = Vec::new();
    processes.extend(postgres(subject));
    processes.push(prepare_db(subject));
    processes.extend((1..=subject.options.nodes).map(|number| node_process(subject, number)));
    processes.extend((1..=subject.options.gateways).map(|number| gateway_process(subject, number)));
    json!({
        "state_file": layout.state_file(),
        "control_socket": layout.control_socket(),
        "log_folder": layout.logs(),
        "events_file": layout.events_file(),
        "metrics_listen": loopback(subject.ports.supervisor_metrics),
        "processes": processes,
    })
}

fn postgres(subject: &Subject<'_>) -> Option<Value> {
    let server = subject.database.private.as_ref()?;
    let port = subject.ports.postgres;
    let check = server.binaries.folder.join("pg_isready");
    let sockets = &server.sockets;
    let liveness = if check.exists() {
        let port = port.to_string();
        json!({ "command": [check, "-q", "-t", "1", "-h", sockets, "-p", port],
                "interval": "500ms", "timeout": "1500ms", "fall": 2 })
    } else {
        json!({ "tcp": loopback(port), "interval": "500ms", "timeout": "1500ms", "fall": 2 })
    };
    Some(json!({
        "name": "postgres",
        "role": "postgres",
        "command": server.command(),
        "user": user(subject),
        "working_folder": server.data,
        "listen": loopback(port),
        // Crash recovery after a power cut replays up to max_wal_size.
        "probes": { "startup": { "timeout": "10m" }, "liveness": liveness },
        "stop": { "signal": "SIGINT", "timeout": "60s" },
        "privileges": { "writable": [server.data, server.sockets] },
        "restart": "always",
    }))
}

fn prepare_db(subject: &Subject<'_>) -> Value {
    let options = subject.options;
    let rows = |flag: &str, count: u64| [flag.to_owned(), count.to_string()];
    let mut command = vec![
        subject.binary.display().to_string(),
        "prepare_db".to_owned(),
        "--config".to_owned(),
        subject.layout.node_config(1).display().to_string(),
    ];
    command.extend(rows("--customers", options.customers.into()));
    command.extend(rows("--movies", options.movies.into()));
    command.extend(rows("--sessions", options.sessions.into()));
    command.extend(rows("--seed", options.seed));
    let after: &[&str] = if subject.database.private.is_some() {
        &["postgres"]
    } else {
        &[]
    };
    json!({
        "name": "prepare_db",
        "role": "job",
        "command": command,
        "user": user(subject),
        "after": after,
        "privileges": { "writable": [] },
        "restart": "on-failure",
    })
}

pub(crate) fn node_process(subject: &Subject<'_>, number: u16) -> Value {
    if let Some(exec) = &subject.options.exec {
        return exec::process(subject, exec, number);
    }
    let index = usize::from(number) - 1;
    let listen = subject.ports.nodes.get(index).copied().unwrap_or_default();
    let admin = subject
        .ports
        .node_admins
        .get(index)
        .copied()
        .unwrap_or_default();
    let mut command = vec![
        subject.binary.display().to_string(),
        "run_server".to_owned(),
        "--config".to_owned(),
        subject.layout.node_config(number).display().to_string(),
    ];
    let faults = &subject.options.faults;
    if !faults.is_empty() {
        command.push("--faults".to_owned());
        command.push(faults.join(","));
    }
    let ages = faults
        .iter()
        .any(|name| name == "vendor" || name == "lifetime");
    let mortal = ages.then_some(MAX_AGE_OF_MORTALS);
    let max_age = subject.options.max_age.as_deref().or(mortal);
    let log_folder = subject.node_log.and_then(Path::parent);
    let events = subject.layout.events_file();
    let writable = log_folder.into_iter().chain([events.as_path()]);
    let logs = subject
        .node_log
        .map(|path| json!({ "path": path, "reopen_signal": "SIGHUP" }));
    let mut process = json!({
        "name": format!("node-{number}"),
        "role": "node",
        "command": command,
        "user": user(subject),
        "after": ["prepare_db"],
        "privileges": { "writable": Vec::from_iter(writable) },
        "log_files": Vec::from_iter(logs),
        "listen": loopback(listen),
        "metrics": format!("http://{}/metrics", loopback(admin)),
        "probes": {
            "startup": { "timeout": "60s", "notify": true },
            "liveness": { "http": format!("http://{}/ping", loopback(listen)),
                          "interval": "250ms", "timeout": "200ms", "fall": 3 },
        },
        // Idle it takes 15 MiB, each list that is being read at most as much again.
        "memory": { "soft": "256MiB", "hard": "512MiB" },
        "start_first": true,
        // Longer than the node's drain delay and drain deadline together.
        "stop": { "signal": "SIGTERM", "timeout": "30s" },
        "restart": "always",
    });
    if let Some(max_age) = max_age {
        process["max_age"] = max_age.into();
    }
    process
}

fn gateway_process(subject: &Subject<'_>, number: u16) -> Value {
    let options = subject.options;
    let index = usize::from(number) - 1;
    let admin = loopback(
        subject
            .ports
            .gateway_admins
            .get(index)
            .copied()
            .unwrap_or_default(),
    );
    let sockets: Vec<Value> = public(options, options.http_port)
        .map(|address| json!({ "name": "http", "address": address }))
        .chain(
            public(options, options.https_port)
                .map(|address| json!({ "name": "https", "address": address })),
        )
        .chain(
            // One process reads a UDP socket, or the packets of a connection part ways.
            public(options, options.https_port)
                .filter(|_| number == 1)
                .map(|address| json!({ "name": "quic", "address": address, "protocol": "udp" })),
        )
        .chain(admin_address(options).map(|address| json!({ "name": "admin", "address": address })))
        .collect();
    json!({
        "name": format!("gateway-{number}"),
        "role": "gateway",
        "command": [subject.binary, "gateway", "--config", subject.layout.gateway_config(),
                    "--admin-listen", admin, "--name", format!("gateway-{number}")],
        "user": user(subject),
        "sockets": sockets,
        "privileges": { "writable": [subject.layout.tls(), subject.layout.gateways(),
                                      subject.layout.events_file()] },
        "listen": public(options, options.http_port).next(),
        "metrics": format!("http://{admin}/metrics"),
        // Not /health, which fails when all nodes are gone: a new gateway would not bring them back.
        "probes": {
            "startup": { "timeout": "60s", "notify": true },
            "liveness": { "http": format!("http://{admin}/api/v1/status"),
                          "interval": "250ms", "timeout": "200ms", "fall": 3 },
        },
        // Under floods it takes some 200 MiB; what HTTP/3 may hold at worst is 384 MiB.
        "memory": { "soft": "768MiB", "hard": "1536MiB" },
        "start_first": true,
        "stop": { "signal": "SIGTERM", "timeout": "30s" },
        "restart": "always",
    })
}

/// Only root can start a child as somebody else.
pub(crate) fn user(subject: &Subject<'_>) -> Option<String> {
    rustix::process::geteuid()
        .is_root()
        .then(|| subject.account.name.clone())
}
