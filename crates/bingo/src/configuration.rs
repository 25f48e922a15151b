//! The service's configuration: flag before environment before file before default, and
//! `bingo print_current_config`, which shows what comes out of it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;

use chassis::{Exit, Failure};

use crate::output;
use crate::postgres_url::PostgresUrl;

/// Flags of every subcommand that reads the service's configuration.
#[derive(clap::Args)]
pub(crate) struct ConfigurationFile {
    /// Configuration file
    #[arg(
        long,
        env = "BINGO_CONFIG",
        default_value = "/opt/bingo/config.yaml",
        value_name = "PATH"
    )]
    config: PathBuf,
    /// E-mail that gives the port and the log folder [default: student_email in the file]
    #[arg(long, env = "BINGO_STUDENT_EMAIL", value_name = "EMAIL", value_parser = email)]
    student_email: Option<String>,
    /// Database instead of the file's: hosts, user, password, name together. The flag may hold no
    /// password, the variable may; BINGO_POSTGRES_PASSWORD goes before it [env: BINGO_POSTGRES_URL]
    #[arg(long, value_name = "URL")]
    postgres_url: Option<String>,
}

/// What a configuration is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be printed, by anybody: the files that it names need not be readable.
    Show,
    /// To be worked with.
    Run,
}

impl ConfigurationFile {
    /// The file's path, for messages.
    pub(crate) fn path(&self) -> &PathBuf {
        &self.config
    }

    /// Reads the file and lays flags and environment over it. A missing file is an error that names
    /// the command that writes it. Every fault of the file, of the variables, of values that cannot
    /// stand together and, to run, of the files that are named is a message, all in one run.
    pub(crate) fn read(
        &self,
        serving: Option<&Serving>,
        purpose: Purpose,
    ) -> Result<node::Config, Failure> {
        let (url, url_fault) = match PostgresUrl::given(self.postgres_url.as_deref()) {
            Ok(url) => (url, None),
            Err(failure) => (None, Some(failure)),
        };
        let config = std::fs::read_to_string(&self.config)
            .map_err(|error| self.unreadable(&error))
            .and_then(|text| {
                let is_usable = url_fault.is_none();
                self.examine(&text, serving, url, purpose, is_usable)
            });
        match (config, url_fault) {
            (Ok(config), None) => Ok(config),
            (Ok(_), Some(failure)) | (Err(failure), None) => Err(failure),
            (Err(failure), Some(of_url)) => {
                Err(Failure::all([failure, of_url.clone()]).unwrap_or(of_url))
            }
        }
    }

    fn examine(
        &self,
        text: &str,
        serving: Option<&Serving>,
        url: Option<PostgresUrl>,
        purpose: Purpose,
        is_cluster_known: bool,
    ) -> Result<node::Config, Failure> {
        let name = self.config.display().to_string();
        let mut examined = chassis::config::examine::<node::Config>(text);
        let Some(mut config) = examined.value.take() else {
            // It says where in the line.
            return chassis::config::parse(&name, text);
        };
        if let Some(email) = &self.student_email {
            config.student_email.clone_from(email);
        }
        let has_url = url.is_some();
        if let Some(url) = url {
            config.postgres_cluster = url.lay_over(config.postgres_cluster);
        }
        if let Some(serving) = serving {
            serving.lay_over(&mut config);
        }
        let is_known = |key: &str| {
            // What a URL says was looked at with it.
            !(has_url && key.starts_with("postgres_cluster"))
                && examined.faults.iter().all(|one| !one.key.starts_with(key))
        };
        let mut found = config.contradictions(&is_known);
        if purpose == Purpose::Run && is_cluster_known {
            found.extend(config.postgres_cluster.faults_of_files());
        }
        examined.add(found);
        let failures = examined.faults.iter().map(|fault| fault.failure(&name));
        Failure::all(failures).map_or(Ok(config), Err)
    }

    /// Why the file cannot be read, and what to do. One that is there must not be overwritten.
    fn unreadable(&self, error: &std::io::Error) -> Failure {
        let path = self.config.display();
        let what = match error.kind() {
            ErrorKind::NotFound => format!(
                "write one with `{}bingo print_default_config > {path}`",
                self.folder()
            ),
            ErrorKind::PermissionDenied => "let this user read it and enter its folders".to_owned(),
            ErrorKind::IsADirectory => "it is a folder: name the file in it".to_owned(),
            ErrorKind::InvalidData => "write it in UTF-8".to_owned(),
            _ => "make it a file that this user may read".to_owned(),
        };
        Failure::configuration(
            format!("read the configuration {path}"),
            error,
            format!("{what}, or name another with --config"),
        )
    }

    /// What makes the file's folder, where it is missing.
    fn folder(&self) -> String {
        match self.config.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.exists() => {
                format!("mkdir -p {} && ", folder.display())
            }
            _ => String::new(),
        }
    }
}

fn email(text: &str) -> Result<String, String> {
    match chassis::config::email_fault(text) {
        Some((why, help)) => Err(format!("{why}; {help}")),
        None => Ok(text.to_owned()),
    }
}

/// Flags that decide, with the file, how a node serves.
#[derive(clap::Args)]
pub(crate) struct Serving {
    /// Address to serve on [default: all, on the port that student_email gives]
    #[arg(long, env = "BINGO_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Address for /metrics [default: off]
    #[arg(long, env = "BINGO_ADMIN_LISTEN", value_name = "ADDR:PORT")]
    admin_listen: Option<SocketAddr>,
    /// Misbehave as the vendor's binary did: vendor for all faults, or some of rps_limit, slow_start,
    /// lifetime, operation [default: none]
    #[arg(long, env = "BINGO_FAULTS", value_name = "NAME[,NAME]")]
    faults: Option<node::FaultNames>,
}

impl Serving {
    /// Lays the flags over the file.
    fn lay_over(&self, config: &mut node::Config) {
        config.listen = self.listen.or(config.listen);
        config.admin_listen = self.admin_listen.or(config.admin_listen);
        if let Some(faults) = &self.faults {
            config.faults.enable(faults);
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    configuration: ConfigurationFile,
    #[command(flatten)]
    serving: Serving,
}

impl Arguments {
    pub(crate) fn read(&self) -> Result<node::Config, Failure> {
        self.configuration.read(Some(&self.serving), Purpose::Show)
    }
}

pub(crate) fn print_current(arguments: &Arguments) -> Result<Exit, Failure> {
    let config = arguments.read()?;
    output::text(&node::masked_yaml(&config)?)
}

/// Neither serving nor filling needs root, and a fault in either would have all of its rights.
pub(crate) fn refuse_root(attempted: &str, allowed: bool) -> Result<(), Failure> {
    if allowed || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::configuration(
        attempted,
        "Didn't your mom teach you not to run anything incomprehensible from root?",
        "run as another user (`runuser -u nobody -- bingo …`), or give --allow-root",
    ))
}

#[cfg(test)]
mod tests {
    const SECRET: &str = "canary";
    const FILE: &str = "student_email: a@b.c
postgres_cluster:
  hosts: [{address: db, port: 5432}]
  user: u
  password: canary
  ssl_mode: verify-full
  max_replica_lag: 1s
limits: {deadline: 20s, body_bytes_max: 64KiB}
faults: {lifetime: 20m..25m, operation: true}
";

    /// Reads a text; what is told of its faults has remedies and no password.
    fn read(text: &str) -> bool {
        let Err(failure) = chassis::config::parse::<node::Config>("file", text) else {
            return true;
        };
        assert_eq!(failure.exit, chassis::Exit::Configuration);
        for message in &failure.messages {
            assert!(!message.help.is_empty(), "{failure}");
        }
        assert!(!failure.to_string().contains(SECRET), "{text}\n{failure}");
        false
    }

    #[test]
    fn a_file_broken_at_any_one_place_is_read_or_refused_with_remedies_and_without_secrets() {
        assert!(read(FILE));
        let mut refused = 0_u32;
        for at in 0..FILE.len() {
            let (before, after) = FILE.split_at(at);
            let without = after.get(1..).unwrap_or_default();
            for put in [
                "", " ", "\n", ":", "-", "'", "\"", "[", "{", "}", "&a ", "*a", "0", "\t", "ü",
            ] {
                refused += u32::from(!read(&format!("{before}{put}{without}")));
                refused += u32::from(!read(&format!("{before}{put}{after}")));
            }
        }
        assert!(refused > 1_000, "{refused}");
    }

    #[test]
    fn a_file_of_nothing_but_brackets_is_refused() {
        for bracket in ["[", "{a: ", "- "] {
            assert!(!read(&bracket.repeat(50_000)));
        }
    }
}
