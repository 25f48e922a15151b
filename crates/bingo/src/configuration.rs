//! The service's configuration: flag before environment before file before default, and
//! `bingo print_current_config`, which shows what comes out of it.

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

impl ConfigurationFile {
    /// The file's path, for messages.
    pub(crate) fn path(&self) -> &PathBuf {
        &self.config
    }

    /// Reads the file and lays flags and environment over it. A missing file is an error that names
    /// the command that writes it; a faulty one has a message for each fault.
    pub(crate) fn read(&self) -> Result<node::Config, Failure> {
        let mut config: node::Config = chassis::config::read(&self.config, &self.help())?;
        if let Some(email) = &self.student_email {
            config.student_email.clone_from(email);
        }
        if let Some(url) = PostgresUrl::given(self.postgres_url.as_deref())? {
            config.postgres_cluster = url.lay_over(config.postgres_cluster);
        }
        Ok(config)
    }

    /// What to do when the file cannot be read. An unreadable one must not be overwritten.
    fn help(&self) -> String {
        let path = self.config.display();
        match self.config.exists() {
            true => "let this user read it, or name another with --config".to_owned(),
            false => format!(
                "write one with `{}bingo print_default_config > {path}`, or name another with --config",
                self.folder()
            ),
        }
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
    pub(crate) fn lay_over(&self, config: &mut node::Config) {
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

pub(crate) fn print_current(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut config = arguments.configuration.read()?;
    arguments.serving.lay_over(&mut config);
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
