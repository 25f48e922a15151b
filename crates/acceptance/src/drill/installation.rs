//! The installation that is drilled, seen as an operator sees it: what `bingo status --json` prints,
//! the files of its folder that are documented, and the admin API. Nothing here knows how it is
//! built, so a drill judges any version of it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use super::scenario::Role;
use crate::error::Error;
use crate::http::{Method, Request, Response};
use crate::signals::{self, Process};

/// The longest wait for one answer of a look.
const LOOK_TIMEOUT: Duration = Duration::from_millis(200);

/// Where it is, and the program to ask.
#[derive(Clone, Debug)]
pub struct Installation {
    /// `bingo` itself.
    pub program: PathBuf,
    pub folder: PathBuf,
}

/// What `bingo status --json` prints (interfaces.md), as far as a drill needs it.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    pub state: String,
    #[serde(default)]
    pub reasons: Vec<String>,
    pub urls: Urls,
    pub processes: Vec<Member>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Urls {
    pub http: Option<String>,
    #[serde(default)]
    pub metrics: Vec<String>,
}

/// One process of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    pub name: String,
    pub role: String,
    pub pid: Option<u32>,
    pub state: String,
    pub listen: Option<String>,
    pub metrics: Option<String>,
}

/// Requests that the gateways refuse, and who said so.
#[derive(Debug, Default)]
pub(super) struct Convicted {
    all: BTreeSet<String>,
    base: String,
}

#[derive(Deserialize)]
struct Quarantine {
    convicted: Vec<Conviction>,
}

#[derive(Deserialize)]
struct Conviction {
    fingerprint: String,
}

impl Status {
    pub fn of(&self, role: Role) -> Vec<Member> {
        let wanted = match role {
            Role::Node => "node",
            Role::Gateway => "gateway",
            Role::Postgres => "postgres",
        };
        let found = self.processes.iter().filter(|one| one.role == wanted);
        found.cloned().collect()
    }
}

impl Member {
    /// The living process, safe to signal.
    pub fn process(&self) -> Option<Process> {
        self.pid.and_then(signals::process)
    }

    /// The file that it runs, where that is still there and may be seen.
    pub(super) fn program(&self) -> Option<PathBuf> {
        let link = format!("/proc/{}/exe", self.pid?);
        std::fs::read_link(link).ok().filter(|path| path.exists())
    }
}

impl Installation {
    /// # Errors
    /// [`Error::Installation`] where it cannot be asked or is not there.
    pub async fn status(&self) -> Result<Status, Error> {
        let output = self.run(&["status", "--json"]).await?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            self.fault("ask for its status", said)
        })
    }

    /// One drill at a time, until the file is dropped.
    pub(super) fn lock(&self) -> Result<std::fs::File, Error> {
        let path = self.folder.join("run/drill.lock");
        let fault = |why: String| self.fault("lock it for this drill", why);
        let file = std::fs::File::create(&path).map_err(|error| {
            let help = match error.kind() {
                ErrorKind::PermissionDenied => "run this as the user who started the installation",
                _ => "is an installation there?",
            };
            fault(format!("{}: {error}; {help}", path.display()))
        })?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(_) => Err(fault("another drill runs".to_owned())),
        }
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// [`Error::Installation`] with its own reasons after `limit`.
    pub async fn ready(&self, limit: Duration) -> Result<Status, Error> {
        let mut last = self.status().await?;
        if last.state == "stopped" {
            let why = "no installation runs there".to_owned();
            return Err(self.fault("ask for its status", why));
        }
        let waited = signals::wait_until("the installation is ready", limit, async || {
            if let Ok(status) = self.status().await {
                last = status;
            }
            last.state == "ready"
        });
        if waited.await.is_err() {
            let why = format!(
                "it is {} after {limit:?}: {}",
                last.state,
                last.reasons.join("; ")
            );
            return Err(self.fault("wait until it is ready", why));
        }
        Ok(last)
    }

    /// Runs a command of bingo's for this folder, which must succeed.
    ///
    /// # Errors
    /// [`Error::Installation`] with what it said.
    pub async fn command(&self, arguments: &[&str]) -> Result<(), Error> {
        let output = self.run(arguments).await?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let why = format!("{}: {}", output.status, said.trim());
        Err(self.fault(&format!("run bingo {}", arguments.join(" ")), why))
    }

    /// Every gateway reads its configuration again.
    ///
    /// # Errors
    /// [`Error::Installation`] where one refuses it.
    pub async fn reload(&self, gateways: &[Member]) -> Result<(), Error> {
        for (gateway, base) in admins(gateways) {
            let url = format!("{base}/api/v1/reload");
            let answer = self.change(Method::POST, &url).await?;
            if !answer.status.is_success() {
                let said = String::from_utf8_lossy(&answer.body).into_owned();
                let why = format!("{} answered {}: {said}", gateway.name, answer.status);
                return Err(self.fault("reload it", why));
            }
        }
        Ok(())
    }

    /// The fingerprints of the requests that are refused now, as the first gateway that answers says.
    pub(super) async fn convicted(&self, gateways: &[Member]) -> Convicted {
        for (_, base) in admins(gateways) {
            let url = format!("{base}/api/v1/quarantine");
            let answer = Request::new(Method::GET, &url).send().await;
            let parsed = answer.map(|answer| serde_json::from_slice::<Quarantine>(&answer.body));
            if let Ok(Ok(quarantine)) = parsed {
                let all = quarantine.convicted.into_iter();
                return Convicted {
                    all: all.map(|one| one.fingerprint).collect(),
                    base,
                };
            }
        }
        Convicted::default()
    }

    /// Lifts the convictions that there were not before; gateways tell each other.
    pub(super) async fn lift_new(
        &self,
        gateways: &[Member],
        before: &Convicted,
    ) -> Result<(), Error> {
        let now = self.convicted(gateways).await;
        for who in now.all.difference(&before.all) {
            let url = format!("{}/api/v1/quarantine/{who}", now.base);
            self.change(Method::DELETE, &url).await?;
        }
        Ok(())
    }

    /// A change by the admin API, with the installation's token.
    async fn change(&self, method: Method, url: &str) -> Result<Response, Error> {
        let token = std::fs::read_to_string(self.folder.join("run/admin.token"))
            .map_err(|error| self.fault("read its admin token", error.to_string()))?;
        let bearer = format!("Bearer {}", token.trim());
        let request = Request::new(method, url).header("authorization", &bearer);
        request.send().await
    }

    /// The faults that a node was started with are in its configuration, which it shows.
    pub async fn has_fault(&self, node: &Member, name: &str) -> bool {
        let Some(listen) = &node.listen else {
            return false;
        };
        let url = format!("http://{listen}/config");
        let Ok(answer) = Request::new(Method::GET, &url).send().await else {
            return false;
        };
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let faults = text.split("\nfaults:").nth(1).unwrap_or_default();
        faults.lines().any(|line| {
            let (key, value) = line.trim().split_once(':').unwrap_or_default();
            key == name && !matches!(value.trim(), "" | "false" | "null")
        })
    }

    pub(super) fn fault(&self, attempted: &str, why: String) -> Error {
        Error::Installation {
            folder: self.folder.clone(),
            attempted: attempted.to_owned(),
            why,
        }
    }

    async fn run(&self, arguments: &[&str]) -> Result<std::process::Output, Error> {
        let (first, rest) = arguments.split_first().unwrap_or((&"status", &[]));
        let mut command = Command::new(&self.program);
        command.arg(first).args(rest).arg("--dir").arg(&self.folder);
        // Ctrl-C is for the drill, which ends it where it has to.
        command.kill_on_drop(true).process_group(0);
        let output = command.output().await;
        output.map_err(|error| {
            self.fault(
                &format!("run {}", self.program.display()),
                error.to_string(),
            )
        })
    }
}

/// Whether this process answers its own probe now. For the database a node is asked, whose answer
/// needs it.
pub(super) async fn answers(member: &Member, nodes: &[Member]) -> bool {
    let url = match member.role.as_str() {
        "node" => member.listen.as_ref().map(|at| format!("http://{at}/ping")),
        "gateway" => member
            .metrics
            .as_deref()
            .and_then(admin_of)
            .map(|base| format!("{base}/health")),
        _ => {
            let listen = nodes.first().and_then(|node| node.listen.as_ref());
            listen.map(|at| format!("http://{at}/ready"))
        }
    };
    let Some(url) = url else {
        return false;
    };
    let request = Request::new(Method::GET, &url)
        .header("user-agent", "bingo-probe")
        .timeout(LOOK_TIMEOUT);
    request
        .send()
        .await
        .is_ok_and(|answer| answer.status.is_success())
}

/// Those that have an admin listener, and where it is.
fn admins(gateways: &[Member]) -> impl Iterator<Item = (&Member, String)> {
    gateways.iter().filter_map(|gateway| {
        let base = gateway.metrics.as_deref().and_then(admin_of)?;
        Some((gateway, base))
    })
}

/// `http://HOST:PORT` of a metrics address.
fn admin_of(metrics: &str) -> Option<String> {
    metrics.strip_suffix("/metrics").map(str::to_owned)
}

/// The folder's `gateway.yaml`, from which gateways run.
pub(super) fn gateway_file(folder: &Path) -> PathBuf {
    folder.join("config/gateway.yaml")
}
