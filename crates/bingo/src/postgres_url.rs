//! A database named by its URL: with `--postgres-url`, or in `BINGO_POSTGRES_URL`. The flag goes before
//! the variable. Only the variable may hold a password: every user of the machine sees the arguments of
//! every process, so one in the flag is refused, whatever the command.
//!
//! The variable is read by hand and not by clap, which cannot tell one from the other.

use chassis::{Exit, Failure};
use storage::PostgresCluster;

const VARIABLE: &str = "BINGO_POSTGRES_URL";
const FLAG: &str = "--postgres-url";

/// A database that replaces the one of a file.
pub(crate) struct PostgresUrl {
    /// As written; in the environment it may hold a password.
    pub(crate) text: String,
    pub(crate) cluster: PostgresCluster,
}

impl PostgresUrl {
    /// The flag's, else the variable's; `None` where neither is given.
    pub(crate) fn given(flag: Option<&str>) -> Result<Option<Self>, Failure> {
        let Some(text) = flag else {
            return match std::env::var(VARIABLE) {
                Ok(text) if !text.is_empty() => Self::parse(VARIABLE, &text).map(Some),
                _ => Ok(None),
            };
        };
        let url = Self::parse(FLAG, text)?;
        match url.cluster.password {
            None => Ok(Some(url)),
            Some(_) => Err(Failure::new(
                Exit::Usage,
                format!("read {FLAG}"),
                "it holds a password, and every user of this machine may see the arguments",
                format!(
                    "give the URL in {VARIABLE}, or the password in BINGO_POSTGRES_PASSWORD, in the \
                     file of ?passfile=PATH or in ~/.pgpass"
                ),
            )),
        }
    }

    /// No message shows the text: it may hold a password.
    fn parse(source: &str, text: &str) -> Result<Self, Failure> {
        let cluster = PostgresCluster::from_url(text).map_err(|error| {
            let why = chassis::failure::chain(&error);
            Failure::configuration(format!("read {source}"), why, error.remedy())
        })?;
        let of_url = |fault: chassis::config::Fault| {
            // The keys are those of a file, and the value may be more than a host.
            let name = fault.key.trim_start_matches("postgres_cluster.");
            let why = format!("{name}: {}", fault.reason);
            Failure::configuration(format!("read {source}"), why, fault.remedy)
        };
        let faults = cluster.contradictions(&|_| true).into_iter().map(of_url);
        if let Some(failure) = Failure::all(faults) {
            return Err(failure);
        }
        Ok(Self {
            text: text.to_owned(),
            cluster,
        })
    }

    /// What the URL says, and of the file what it does not say. A password goes with its user, so the
    /// file's is not used; encryption that the file asks for is not given up in silence.
    pub(crate) fn lay_over(self, file: PostgresCluster) -> PostgresCluster {
        let url = self.cluster;
        PostgresCluster {
            ssl_mode: match self.text.contains("sslmode=") {
                true => url.ssl_mode,
                false => file.ssl_mode,
            },
            ssl_root_cert: url.ssl_root_cert.or(file.ssl_root_cert),
            ssl_cert: url.ssl_cert.or(file.ssl_cert),
            ssl_key: url.ssl_key.or(file.ssl_key),
            prepared_statements: file.prepared_statements,
            use_closest_node: file.use_closest_node,
            max_replica_lag: file.max_replica_lag,
            ..url
        }
    }
}
