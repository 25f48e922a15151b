//! `gateway.yaml` as written: quantities and words are still text, so that `validate` can report
//! every fault in one run instead of stopping at the first that does not parse.
//! Only the keys that this gateway obeys exist; an unknown key is refused.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::access_log::AccessLog;
pub use crate::admission::config::Admission;
pub use crate::cache::config::{Cache, RouteCache};
pub use crate::picture::config::Objective;

/// The whole file (interfaces.md "gateway.yaml").
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Public addresses. They are opened by the caller, or handed down by the supervisor.
    #[schemars(length(min = 1))]
    pub listen: Vec<Listen>,
    /// Where metrics, health, status and the admin API are served; left out: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// Admin listeners of all gateways of this service, like `http://10.0.0.2:9090`; this one may stand
    /// among them. Each asks the others every second, so that the page is the same whichever answers.
    /// Left out: each shows what it served itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub peers: Vec<String>,
    /// The certificate of the listeners that speak TLS; left out: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// At least one.
    #[schemars(length(min = 1))]
    pub nodes: Vec<Node>,
    #[serde(default)]
    pub probe: Probe,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub admission: Admission,
    #[serde(default)]
    pub cache: Cache,
    /// Where the answers of routes with `spool` wait for their clients.
    #[serde(default)]
    pub spool: Spool,
    /// Which requests have a line in the log.
    #[serde(default)]
    pub access_log: AccessLog,
    /// Worker threads; left out: one per core. Fewer leave cores idle, more add switching.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<usize>,
    /// Whether answers name the node they came from (`Bingo-Node`).
    #[serde(default = "yes")]
    pub expose_node: bool,
    /// Whether answers over TLS tell clients of HTTP/3 (`Alt-Svc`), where a listener speaks it. Off:
    /// clients are told to forget it, and come over TCP.
    #[serde(default = "yes")]
    pub advertise_http3: bool,
    /// Policies by method and path; the first match wins.
    #[schemars(length(min = 1))]
    pub routes: Vec<Route>,
    /// The status for a path that no route names; 404 is the only one there is.
    #[serde(default = "not_found")]
    #[schemars(range(min = 404, max = 404))]
    pub default: u16,
}

fn yes() -> bool {
    true
}

fn not_found() -> u16 {
    404
}

/// One public address and what is spoken there: HTTP/1.1 and HTTP/2, without TLS unless asked for.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// `IP:PORT`, like `127.0.0.1:8080` or `[::1]:8080`.
    #[schemars(extend("format" = "socket-address"))]
    pub address: String,
    /// HTTPS, with HTTP/2 and HTTP/1.1 by ALPN. Off: HTTP/1.1, and HTTP/2 with prior knowledge.
    #[serde(default)]
    pub tls: bool,
    /// HTTP/3 beside it, over UDP on the same port number; only with `tls`.
    #[serde(default)]
    pub http3: bool,
    /// The UDP port that clients are told of, where it is another one than they reach the process by
    /// (a forwarded port); left out: the port of `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub advertised_port: Option<u16>,
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// `IP:PORT`, like `127.0.0.1:9090`.
    #[schemars(extend("format" = "socket-address"))]
    pub listen: String,
    /// Names by which it may be asked for (`Host`), without ports, beside addresses, localhost and the
    /// names in `peers` and `tls.names`; all others are answered 421, so that no page in a browser can
    /// read it under a name of its own. Left out: strange names are refused where they come in over a
    /// loopback address, and taken elsewhere. Too few: a scrape or a proxy that uses another name fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// A file that holds the token which changes over the admin API must bring (`Authorization:
    /// Bearer …`). It is read at each change, so a new token needs no restart; nobody but the
    /// gateway's account should be able to read it. Left out: no change is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub token_file: Option<String>,
    /// A file in which gateways keep what operators want of nodes, in a folder that they can write to:
    /// all that share it agree, and remember after a restart. Left out: each has to be told, and
    /// forgets with its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub state_file: Option<String>,
    /// A file to which a line of JSON is appended for each thing that happens: nodes ejected and back,
    /// suspects and convictions, reloads. All processes of an installation share it, and its supervisor
    /// keeps it small; where nobody does, it stops at 16 MiB. Left out: events are forgotten with the
    /// gateway's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub events_file: Option<String>,
    /// The supervisor's state file, for the page: what runs, since when, and why it last restarted.
    /// Read only. Left out: the page says that it knows of no processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub processes_file: Option<String>,
}

/// Where the certificate comes from: an own authority (`folder`), or files (`certificate`, `key`).
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Folder of an own certificate authority, made in it once; `ca.pem` is for import. Gateways that
    /// share it serve one certificate and resume each other's sessions. Must be writable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// DNS names and IP addresses in the authority's certificates; left out: localhost, 127.0.0.1,
    /// ::1. Too few: clients refuse. One that the authority may not speak for costs a new authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
    /// PEM file with the server's certificate and those above it; read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// PEM file with the private key of `certificate`: PKCS#8, SEC1 or PKCS#1, no passphrase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Announces `bingo.local` to the local network (RFC 6762), for the addresses that are listened
    /// on, and puts it into the certificate. One of the gateways that share the folder announces.
    pub mdns: bool,
}

/// A name for metrics and `Bingo-Node`, and `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Unique; lower-case letters, digits, `-`.
    pub name: String,
    /// `HOST:PORT`.
    pub address: String,
}

/// How nodes are watched.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// What is asked for; 200 is good, anything else bad.
    pub path: String,
    /// Too high: a dead node is noticed late. Too low: probes are load.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "1m"))]
    pub interval: String,
    /// Too low: a busy node looks dead. Too high: a hung one is noticed late.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "10s"))]
    pub timeout: String,
    /// Good probes in a row that bring a node back.
    #[schemars(range(min = 1, max = 100))]
    pub rise: u32,
    /// Bad probes in a row that take a node out.
    #[schemars(range(min = 1, max = 100))]
    pub fall: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            path: "/ping".to_owned(),
            interval: "100ms".to_owned(),
            timeout: "200ms".to_owned(),
            rise: 2,
            fall: 1,
        }
    }
}

/// What one gateway takes upon itself at most.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// A request's head; over it 431. Too low refuses cookies, too high lets strangers use memory.
    #[schemars(extend("format" = "size", "x-min" = "1KiB", "x-max" = "1MiB"))]
    pub head_bytes_max: String,
    /// Header fields of a request; over it 431.
    #[schemars(range(min = 8, max = 10_000))]
    pub fields_max: usize,
    /// A request's target, with the host where it names one; over it 414.
    #[schemars(extend("format" = "size", "x-min" = "64B", "x-max" = "65534B"))]
    pub uri_bytes_max: String,
    /// Time for a request's head, over it 408; and for an idle client connection, over it the connection
    /// closes.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "1h"))]
    pub head_timeout: String,
    /// A client that takes no 16 KiB of its answer, or the rest, in so long is given up. Too low: people
    /// on bad lines get no large answer. Too high: whoever reads slowly holds what is kept for it.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "1h"))]
    pub client_stall_timeout: String,
    /// Client connections at once; over it none is accepted until one closes.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: usize,
    /// Client connections of one address at once (of one /64 with IPv6); over it new ones are closed.
    /// Too low: people behind one NAT lock each other out. Too high: one client takes all there are.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_client_max: usize,
    /// Time for a TLS handshake; over it the connection closes. Too low refuses far clients, too high
    /// lets silent ones hold connections.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "1h"))]
    pub tls_handshake_timeout: String,
    /// Requests at once on one connection of HTTP/2; more wait at the client. Too low slows browsers
    /// down, too high lets one connection keep many nodes busy.
    #[schemars(range(min = 1, max = 10_000))]
    pub h2_streams_max: u32,
    /// Resets of streams at once on one connection of HTTP/2, beyond those of every second request; a
    /// tenth of it comes back each second; over it the connection is closed. Too low closes on users
    /// who click fast, too high lets rapid reset cost nodes work.
    #[schemars(range(min = 1, max = 100_000))]
    pub h2_resets_max: u32,
    /// Frames without a request at once on one connection of HTTP/2 (PING, SETTINGS, PRIORITY,
    /// WINDOW_UPDATE), beyond one for each KiB answered; a tenth of it comes back each second; over it
    /// the connection is closed. Too low closes on busy clients, too high lets floods cost time.
    #[schemars(range(min = 10, max = 1_000_000))]
    pub h2_control_frames_max: u32,
    /// A floor on how fast a request's body comes, in bytes a second, after a grace of 5 s; below it
    /// 408. Too low lets slow senders hold connections, too high refuses people on bad lines.
    #[schemars(extend("format" = "size", "x-min" = "1B", "x-max" = "1MiB"))]
    pub body_rate_min: String,
    /// An upgraded connection (WebSocket) on which nothing moves for so long is closed.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "24h"))]
    pub upgrade_idle_timeout: String,
    /// The same for a connection of HTTP/3.
    #[schemars(range(min = 1, max = 10_000))]
    pub h3_streams_max: u32,
    /// Suspects (requests that a node was lost with) wait so long for that node, writes until three
    /// seconds of their time are left; then they go to another, one at a time. Too low: a poisonous one may reach a second node. Too
    /// high: with nodes that start slowly, or not at all, they wait.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "1m"))]
    pub suspect_wait: String,
    /// A request that was lost with two nodes is refused (422) for so long. Too low: each end of it costs
    /// a restart more. Too high: a mended node goes on without it until somebody lifts it.
    #[schemars(extend("format" = "duration", "x-min" = "1s", "x-max" = "24h"))]
    pub quarantine: String,
    /// Requests that wait for a node to come back; over it 503.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub held_max: usize,
    /// Time to connect to a node. Too low makes a busy node look dead.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "1m"))]
    pub connect_timeout: String,
    /// An idle connection to a node is closed after this; keep it below the node's own.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "1h"))]
    pub node_idle_timeout: String,
    /// Silence of a node in the middle of an answer; over it the answer is broken off.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "1h"))]
    pub node_stall_timeout: String,
    /// Time to finish what is open when the process is asked to end.
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "1h"))]
    pub drain_deadline: String,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: "16KiB".to_owned(),
            fields_max: 100,
            uri_bytes_max: "8KiB".to_owned(),
            head_timeout: "30s".to_owned(),
            client_stall_timeout: "30s".to_owned(),
            connections_max: 10_000,
            connections_per_client_max: 2_000,
            tls_handshake_timeout: "10s".to_owned(),
            h2_streams_max: 100,
            h2_resets_max: 100,
            h2_control_frames_max: 1_000,
            body_rate_min: "100B".to_owned(),
            upgrade_idle_timeout: "60s".to_owned(),
            h3_streams_max: 100,
            suspect_wait: "2s".to_owned(),
            quarantine: "10m".to_owned(),
            held_max: 1_000,
            connect_timeout: "1s".to_owned(),
            node_idle_timeout: "10s".to_owned(),
            node_stall_timeout: "20s".to_owned(),
            drain_deadline: "25s".to_owned(),
        }
    }
}

/// Answers that are taken in before their clients get them: 1 MiB of each in memory, the rest in a
/// file without a name.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// Folder of the files, which the gateway must be able to write to; left out: that of the system's
    /// temporary files.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub folder: Option<String>,
    /// All spools together, in memory and in files; an answer that finds no room streams. Too low:
    /// a node that is lost in mid-answer is seen. Too high: the disk fills up.
    #[schemars(extend("format" = "size", "x-min" = "1MiB", "x-max" = "1TiB"))]
    pub bytes_max: String,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            folder: None,
            bytes_max: "1GiB".to_owned(),
        }
    }
}

/// The policy of some methods on one path.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// HEAD comes with GET.
    pub methods: Vec<String>,
    /// `/a/{b}/c`: a segment in braces stands for any one segment.
    pub path: String,
    /// Time for a whole request, retries and waiting included.
    #[serde(default = "deadline")]
    #[schemars(extend("format" = "duration", "x-min" = "10ms", "x-max" = "1h"))]
    pub deadline: String,
    /// A request's body; over it 413.
    #[serde(default = "body_bytes_max")]
    #[schemars(extend("format" = "size"))]
    pub body_bytes_max: String,
    #[serde(default)]
    pub retry: Retry,
    #[serde(default)]
    pub class: Class,
    /// A GET or HEAD that waits longer for its answer's head than nearly all do is sent to another node
    /// as well; the first answer counts. Off: a hung node costs its requests the time of a probe.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hedge: bool,
    /// An answer of 200 is taken in to its end before the client gets its head, so that a node that is
    /// lost in mid-answer is unseen. Its price is the first byte.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spool: bool,
    /// A write without an `Idempotency-Key` gets one, so that it can be sent again. Only where nodes
    /// honour it: otherwise a repeated write has effect twice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotency_key: bool,
    /// Left out: nothing of this route is ever stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<RouteCache>,
    /// What is promised of it, for the page; left out: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
}

fn deadline() -> String {
    "20s".to_owned()
}

fn body_bytes_max() -> String {
    "64KiB".to_owned()
}

/// Which requests may be sent again after a node may have seen them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retry {
    Never,
    /// GET, HEAD, and writes with an `Idempotency-Key`.
    #[default]
    Safe,
    Always,
}

/// Requests of one kind share a latency estimate and the bounds of `admission`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Class {
    #[default]
    Point = 0,
    List = 1,
    Slow = 2,
    Write = 3,
}

impl Class {
    /// Every class with its name.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Point, "point"),
        (Self::List, "list"),
        (Self::Slow, "slow"),
        (Self::Write, "write"),
    ];
}
