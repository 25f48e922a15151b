//! The key about a process that believes the machine is its own: paths and ports that it has fixed,
//! networks that it must not wait for.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// File systems and networks of its own (namespaces(7)), so that several of one kind can run beside
/// each other although paths and ports are fixed in them. Its network has a loopback and nothing
/// else: what it asks of any other address fails at once instead of after a minute. A process of ours
/// (`porter`) stands before it and passes on what `serve` and `reach` name; all of it ends with the
/// process. It cannot get sockets (`sockets`). Needs root, or users that may make namespaces; where
/// neither is so, the process does not start.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolation {
    /// Files and folders that stand elsewhere for it. In the order given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Where it serves. Not set: nobody outside reaches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<Serve>,
    /// What it may reach outside. Not set: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reach: Vec<Reach>,
}

/// One file or folder that it finds at another place. Folders that are missing above the target are
/// made for it alone; nothing changes outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The file or folder as it is; absolute; must exist when it starts.
    pub source: PathBuf,
    /// Where it finds it; absolute.
    pub target: PathBuf,
}

/// HTTP/1.1 requests that come to `listen` go to `at`, each connection over one of its own, at most
/// 1024 at once. `listen` opens when `at` answers for the first time, and that counts as
/// `probes.startup.notify`; it closes at once when the process has ended. Asked to end, the answers that are open
/// are finished, 25 s at most, and then the process gets its SIGTERM.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    /// Address outside, `127.0.0.1:8001`. A successor shares it.
    pub listen: String,
    /// Its own address inside, `127.0.0.1:8080`.
    pub at: String,
    /// Asked until it is answered 2xx or 429; then the process is ready.
    #[serde(default = "default_path")]
    pub path: String,
}

/// Connections that it opens to `listen` go to `at`, at most 1024 at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// Address inside, `127.0.0.1:5432`; any of 127.0.0.0/8 will do.
    pub listen: String,
    /// Address outside, `HOST:PORT`; looked up for each connection.
    pub at: String,
}

fn default_path() -> String {
    "/".to_owned()
}
