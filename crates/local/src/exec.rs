//! `bingo up --exec`: the vendor's binary as the nodes. It has a configuration file, a folder of logs
//! and a port that nobody can change, so each copy gets a place of its own (`isolation` in
//! `supervisor.yaml`), in which they are free. Where this machine does not let us make such places one
//! copy can run, with the real paths and port, and `up` says so. Left out: its `prepare_db`; ours fills
//! the same tables, with keys, in seconds.

use std::path::{Path, PathBuf};

use chassis::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::generate::Subject;
use crate::layout::{own, write_file};

/// Where the binary looks for its configuration.
const CONFIG: &str = "/opt/bingo/config.yaml";
/// Its log file, in the folder that the e-mail gives.
const LOG_NAME: &str = "main.log";
/// It lives for 20 to 25 minutes.
const MAX_AGE: &str = "18m";
const HEADER: &str = "# Written by `bingo up --exec`; the next one writes it anew.\n";

/// The program that was given, and what the e-mail makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Program, with its full path, and arguments.
    pub command: Vec<String>,
    /// The port on which it listens.
    pub port: u16,
    /// Where it writes its log, with its full path.
    pub log_folder: PathBuf,
    /// Why its copies cannot be isolated here; `None` where they can.
    pub obstacle: Option<String>,
}

impl Exec {
    /// Splits the text into words, with quotes as in a shell and nothing else of it, finds the program
    /// and asks this machine whether it lets us isolate. Failure: 64.
    pub fn new(text: &str, port: u16, log_folder: PathBuf) -> Result<Self, Failure> {
        let attempted = format!("run the nodes by `{text}`");
        let wrong = |why: &str, help: &str| Failure::configuration(&attempted, why, help);
        let help = "write it like --exec '/opt/bingo/bingo run_server'";
        let mut command = words(text).ok_or_else(|| wrong("a quote is not closed", help))?;
        let Some(program) = command.first_mut() else {
            return Err(wrong("it names no program", help));
        };
        let path = find(program).ok_or_else(|| {
            let why = format!("there is no program {program}");
            wrong(&why, "name it by its full path")
        })?;
        *program = path.display().to_string();
        let obstacle = match std::env::current_exe() {
            Ok(own) => supervisor::cannot_isolate(&own),
            Err(error) => Some(error.to_string()),
        };
        Ok(Self {
            command,
            port,
            log_folder,
            obstacle,
        })
    }

    pub(crate) fn program(&self) -> &Path {
        Path::new(self.command.first().map_or("", String::as_str))
    }

    /// The port of the only copy, where copies cannot be isolated.
    pub(crate) fn fixed_port(&self) -> Option<u16> {
        self.obstacle.as_ref().map(|_| self.port)
    }

    /// What people are told about the lack of isolation; `None` where there is no lack.
    pub(crate) fn loss(&self) -> Option<String> {
        let why = self.obstacle.as_ref()?;
        Some(format!(
            "the copies of {} cannot be kept apart ({why}); its paths and its port {} are fixed, so \
             one copy can run, with {CONFIG} and {} of this machine, slow to start where a network \
             does not answer, and replaced after a gap",
            self.program().display(),
            self.port,
            self.log_folder.display()
        ))
    }
}

/// Writes what one copy looks for.
pub(crate) fn write(subject: &Subject<'_>, exec: &Exec, number: u16) -> Result<(), Failure> {
    let place = Place::of(subject, exec, number);
    let text = format!("{HEADER}{}", config(subject, exec)?);
    if exec.obstacle.is_some() {
        refuse_others_file(&place.config)?;
    }
    let made = |path: &Path, result: std::io::Result<()>| {
        result.map_err(|error| {
            Failure::configuration(
                format!("write {}", path.display()),
                error,
                "make its folder writable for this user, or start as root",
            )
        })
    };
    let folder = || {
        if let Some(folder) = place.config.parent() {
            crate::layout::folder(folder, 0o755)?;
        }
        write_file(&place.config, 0o600, &text)?;
        own(&place.config, subject.account)
    };
    made(&place.config, folder())?;
    let logs = crate::layout::folder(&place.log_folder, 0o755)
        .and_then(|()| own(&place.log_folder, subject.account));
    made(&place.log_folder, logs)
}

/// The supervisor's entry of one copy.
pub(crate) fn process(subject: &Subject<'_>, exec: &Exec, number: u16) -> Value {
    let place = Place::of(subject, exec, number);
    let port = subject.ports.nodes.get(usize::from(number) - 1);
    let outside = format!("127.0.0.1:{}", port.copied().unwrap_or_default());
    let max_age = subject.options.max_age.as_deref().unwrap_or(MAX_AGE);
    let mut process = json!({
        "name": format!("node-{number}"),
        "role": "node",
        "command": exec.command,
        "user": crate::generate::user(subject),
        "after": ["prepare_db"],
        "privileges": { "writable": [exec.log_folder] },
        "log_files": [{ "path": place.log_folder.join(LOG_NAME) }],
        "listen": outside,
        "probes": {
            // It may wait 30 s for an address that does not answer, before it listens.
            "startup": { "timeout": "90s" },
            // Each probe takes one of its hundred requests a second. A request over them waits for up
            // to ten seconds and is then answered 429: busy, not sick.
            "liveness": { "http": format!("http://{outside}/ping"),
                          "interval": "1s", "timeout": "11s", "fall": 2 },
        },
        // It leaks 50 MiB a second when it leaks.
        "memory": { "soft": "512MiB", "hard": "1024MiB" },
        "max_age": max_age,
        "stop": { "signal": "SIGTERM", "timeout": "30s" },
        "restart": "always",
    });
    if exec.obstacle.is_none() {
        let reach = hosts(subject)
            .into_iter()
            .map(|host| json!({ "listen": host.inside.join(":"), "at": host.outside }));
        process["isolation"] = json!({
            "mounts": [
                { "source": place.config, "target": CONFIG },
                { "source": place.log_folder, "target": exec.log_folder },
            ],
            "serve": { "listen": outside, "at": format!("127.0.0.1:{}", exec.port),
                       "path": "/ping" },
            "reach": Vec::from_iter(reach),
        });
        process["start_first"] = json!(true);
    }
    process
}

/// The gateway's policies as such a binary needs them: it knows no Idempotency-Key, so that a write
/// sent again would be done twice, and probes take of its requests.
pub(crate) fn policies(text: &str, gateways: u16) -> String {
    let every = 250 * u32::from(gateways);
    text.replacen("  interval: 100ms", &format!("  interval: {every}ms"), 1)
        .replacen("  timeout: 200ms", "  timeout: 500ms", 1)
        .replace(
            "retry: safe, class: write, idempotency_key: true",
            "retry: never, class: write",
        )
}

/// The files of one copy, outside.
struct Place {
    config: PathBuf,
    log_folder: PathBuf,
}

impl Place {
    fn of(subject: &Subject<'_>, exec: &Exec, number: u16) -> Self {
        if exec.obstacle.is_some() {
            return Self {
                config: PathBuf::from(CONFIG),
                log_folder: exec.log_folder.clone(),
            };
        }
        Self {
            config: subject.layout.exec_config(number),
            log_folder: subject.layout.exec_logs(number),
        }
    }
}

/// One server of the database: as the copy names it, and where it is.
struct Host {
    inside: [String; 2],
    outside: String,
}

/// Each has an address of its own inside: two servers may have one port.
fn hosts(subject: &Subject<'_>) -> Vec<Host> {
    let hosts = subject.database.cluster.get("hosts");
    let hosts = hosts.and_then(Value::as_array).into_iter().flatten();
    let host = |(host, number): (&Value, u8)| {
        let address = host.get("address").and_then(Value::as_str);
        let address = address.unwrap_or("localhost");
        let port = host.get("port").and_then(Value::as_u64).unwrap_or(5432);
        let outside = match address.contains(':') {
            true => format!("[{address}]:{port}"),
            false => format!("{address}:{port}"),
        };
        Host {
            inside: [format!("127.0.0.{number}"), port.to_string()],
            outside,
        }
    };
    hosts.zip(1..).map(host).collect()
}

/// The file in the vendor's form (contract.md section 2), with the password in it, as it wants.
fn config(subject: &Subject<'_>, exec: &Exec) -> Result<String, Failure> {
    let cluster = &subject.database.cluster;
    let text = |key: &str| cluster.get(key).and_then(Value::as_str).map(str::to_owned);
    let password = match text("password_file") {
        Some(path) => std::fs::read_to_string(&path).map_err(|error| {
            let attempted = format!("read the password of the database in {path}");
            Failure::configuration(attempted, error, "run as root or as its owner")
        })?,
        None => text("password").unwrap_or_default(),
    };
    let servers: Vec<Value> = match exec.obstacle {
        Some(_) => cluster
            .get("hosts")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default(),
        None => hosts(subject)
            .into_iter()
            .map(
                |Host {
                     inside: [address, port],
                     ..
                 }| {
                    json!({ "address": address, "port": port.parse::<u16>().unwrap_or(5432) })
                },
            )
            .collect(),
    };
    chassis::config::to_yaml(&json!({
        "student_email": subject.options.email,
        "postgres_cluster": {
            "hosts": servers,
            "user": text("user"),
            "password": password.trim_end_matches('\n'),
            "db_name": text("db_name"),
            "ssl_mode": text("ssl_mode").unwrap_or("disable".to_owned()),
            "use_closest_node": cluster.get("use_closest_node").cloned().unwrap_or(json!(false)),
        },
    }))
}

/// Where copies cannot be isolated the real file would be written over.
fn refuse_others_file(path: &Path) -> Result<(), Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.starts_with(HEADER) => Err(Failure::configuration(
            format!("write {}", path.display()),
            "a file is there already that `bingo up --exec` did not write",
            format!("move it away: mv {0} {0}.old", path.display()),
        )),
        _ => Ok(()),
    }
}

/// By its path, or in the folders of PATH.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        let path = std::path::absolute(program).ok()?;
        return path.is_file().then_some(path);
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// None where a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in text.chars() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_at_blanks_outside_of_quotes() {
        let split = |text: &str| words(text).map(|words| words.join("|"));
        assert_eq!(split(" /a/b  run_server "), Some("/a/b|run_server".into()));
        assert_eq!(
            split("'/a b/c' --x=\"1 2\" ''"),
            Some("/a b/c|--x=1 2|".into())
        );
        assert_eq!(split("'/a"), None);
        assert_eq!(split(""), Some(String::new()));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let failure = Exec::new("/no/such run_server", 1, "/x".into()).unwrap_err();
        assert_eq!(failure.exit, chassis::Exit::Configuration);
        assert!(failure.to_string().contains("there is no program /no/such"));
    }

    #[test]
    fn the_gateway_sends_no_write_again_and_probes_rarely() {
        let text = include_str!("../../../deploy/gateway.yaml");
        let policies = policies(text, 2);
        assert!(policies.contains("\n  interval: 500ms "), "{policies}");
        assert!(policies.contains("\n  timeout: 500ms "), "{policies}");
        assert!(!policies.contains("idempotency_key: true"));
        assert_eq!(policies.matches("retry: never, class: write").count(), 2);
    }
}
