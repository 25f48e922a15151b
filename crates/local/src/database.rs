//! Which database an installation uses: a private PostgreSQL that it starts itself, or an existing
//! one that `--postgres-url` names, which is filled or adopted but never stopped or dropped.

use std::path::Path;

use chassis::Failure;
use private_postgres::{Account, Binaries, Cluster, Initialised, Machine, Role};
use serde_json::{Value, json};

use crate::doctor;
use crate::layout::Layout;
use crate::options::{Options, mask_url};
use crate::secrets::{self, Secrets};

/// Connections beside those of the nodes: prepare_db, people with psql, the supervisor's probe.
const CONNECTIONS_BESIDE: u32 = 30;
/// Connections of one node at most, over all its pools.
const CONNECTIONS_PER_NODE: u32 = 40;

/// The database, ready to be written into configuration files.
pub(crate) struct Database {
    /// `None` for an existing database.
    pub private: Option<Cluster>,
    /// The `postgres_cluster` block of the nodes' files (contract.md section 2); no secret in it.
    pub cluster: Value,
    /// For people and scripts; no secret in it.
    pub url: String,
}

impl Database {
    /// The private PostgreSQL on `port`: made if it is not there, its settings written anew.
    pub(crate) fn private(
        layout: &Layout,
        options: &Options,
        account: &Account,
        port: u16,
        secrets: &Secrets,
    ) -> Result<Self, Failure> {
        let attempted = "set up the private PostgreSQL";
        let folder = options.postgres_bin.as_deref().map(Path::new);
        let failed = |error: private_postgres::Error| {
            Failure::configuration(attempted, chassis::failure::chain(&error), error.remedy())
        };
        let cluster = Cluster {
            binaries: Binaries::find(folder).map_err(failed)?,
            data: layout.postgres(),
            sockets: layout.postgres_sockets(),
            port,
            account: account.clone(),
        };
        let role = Role {
            name: "bingo".into(),
            password: secrets.service_password.clone(),
            database: "bingo".into(),
        };
        // Twice, for successors beside the nodes, or for twice as many nodes (`has_room`).
        let connections = CONNECTIONS_BESIDE + 2 * CONNECTIONS_PER_NODE * u32::from(options.nodes);
        let settings = private_postgres::settings(&machine(), connections);
        let made = cluster
            .initialise(&secrets.superuser_password, &role, &settings)
            .map_err(failed)?;
        cluster.clear_stale_pid().map_err(failed)?;
        if made == Initialised::Found && secrets.are_new {
            let superuser = &secrets.superuser_password;
            cluster.set_passwords(superuser, &role).map_err(failed)?;
        }
        secrets::write_pgpass(layout, account, port, secrets)?;
        let block = json!({
            "hosts": [{ "address": "127.0.0.1", "port": port }],
            "user": role.name,
            "password_file": layout.service_password(),
            "db_name": role.database,
            "ssl_mode": "disable",
        });
        Ok(Self {
            private: Some(cluster),
            cluster: block,
            url: private_url(layout, port),
        })
    }

    /// An existing database; its password goes into a file that the nodes read.
    pub(crate) fn existing(
        layout: &Layout,
        account: &Account,
        cluster: Value,
        password: Option<&str>,
        url: &str,
    ) -> Result<Self, Failure> {
        let mut cluster = cluster;
        if let (Some(password), Some(block)) = (password, cluster.as_object_mut()) {
            secrets::write_existing_password(layout, account, password)?;
            block.remove("password");
            block.insert("password_file".into(), json!(layout.existing_password()));
        }
        Ok(Self {
            private: None,
            cluster,
            url: mask_url(url),
        })
    }
}

/// Refuses more nodes than the running private PostgreSQL takes connections for: it was started with
/// a fixed number (PostgreSQL, `max_connections`). An existing database is not ours to ask.
pub(crate) fn has_room(layout: &Layout, nodes: u16) -> Result<(), Failure> {
    let Some(connections) = Cluster::max_connections(&layout.postgres()) else {
        return Ok(());
    };
    let needed = CONNECTIONS_BESIDE + CONNECTIONS_PER_NODE * u32::from(nodes);
    if needed <= connections {
        return Ok(());
    }
    let fit = connections.saturating_sub(CONNECTIONS_BESIDE) / CONNECTIONS_PER_NODE;
    Err(Failure::configuration(
        format!("run {nodes} nodes on the running PostgreSQL"),
        format!(
            "they may open {needed} connections, and it was started for {connections}: \
             {fit} nodes fit while it runs"
        ),
        format!("bingo down, then bingo up --nodes {nodes}: it starts with room for them"),
    ))
}

/// The URL that `status` shows for a private PostgreSQL.
pub(crate) fn private_url(layout: &Layout, port: u16) -> String {
    format!(
        "postgresql://bingo@127.0.0.1:{port}/bingo?passfile={}",
        percent_encoded(&layout.pgpass())
    )
}

/// A path as it may stand in a URL's query (RFC 3986 section 2.1).
fn percent_encoded(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(*byte));
            }
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn machine() -> Machine {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Machine {
        memory_bytes: doctor::memory_bytes().0,
        cores: cores as u32,
    }
}
