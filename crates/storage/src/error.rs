//! What can go wrong between us and PostgreSQL, typed by whose fault it is: the configuration's, the
//! server's, or the statement's. The SQLSTATE decides once, here, whether a thing may be tried again
//! and what its remedy is, so that no caller compares error texts.
//! Source of the codes: PostgreSQL appendix A, "Error Codes".

use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;

/// A failed piece of work on the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No host of the cluster answered as a writable server.
    #[error("no host of the cluster took the connection: {}", List(.attempts))]
    Unreachable { attempts: Vec<Attempt> },

    /// The server went away, refuses for now, or is no longer the primary. Nothing is wrong with the
    /// statement; it may or may not have been run.
    #[error("{attempted}: the database is unavailable")]
    Unavailable {
        attempted: String,
        #[source]
        source: tokio_postgres::Error,
    },

    /// The server ran the statement and refused it.
    #[error("{attempted}")]
    Query {
        attempted: String,
        #[source]
        source: tokio_postgres::Error,
    },

    /// No answer within our own limit.
    #[error("{attempted}: no answer within {}", chassis::config::format_duration(*.after))]
    Deadline { attempted: String, after: Duration },

    /// The server stopped answering while it was asked, and was given up. The statement may or may
    /// not have been run.
    #[error("{attempted}: {host} does not answer any more")]
    Silent { attempted: String, host: String },

    /// A setting cannot be used as it is.
    #[error("{key}: {why}")]
    InvalidConfiguration {
        key: String,
        why: String,
        remedy: String,
    },

    /// The database holds something that we must not touch.
    #[error("{attempted}: {why}")]
    Refused {
        attempted: String,
        why: String,
        remedy: String,
    },
}

/// One host that was asked, and what it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// `address:port`, or the folder of a Unix socket.
    pub host: String,
    pub answer: String,
    /// What to do about it; empty where nothing better is known than what to do about all hosts.
    pub remedy: String,
}

impl Attempt {
    /// The host failed in this way.
    pub(crate) fn failed(host: String, error: &Error) -> Self {
        Self {
            host,
            answer: chassis::failure::chain(error),
            remedy: error.remedy(),
        }
    }

    /// The host answered, and takes no writes.
    pub(crate) fn in_recovery(host: String) -> Self {
        Self {
            host,
            answer: "is in recovery, so it takes no writes".to_owned(),
            remedy: remedy_of(&SqlState::READ_ONLY_SQL_TRANSACTION).to_owned(),
        }
    }
}

impl Error {
    /// Sorts a driver error into `Unavailable` or `Query`; `attempted` reads like "fill movies".
    pub fn query(attempted: impl Into<String>, source: tokio_postgres::Error) -> Self {
        let attempted = attempted.into();
        if loses_host(&source) {
            Self::Unavailable { attempted, source }
        } else {
            Self::Query { attempted, source }
        }
    }

    /// A setting that cannot be used: its key, why, and what to write instead.
    pub fn configuration(
        key: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::InvalidConfiguration {
            key: key.into(),
            why: why.into(),
            remedy: remedy.into(),
        }
    }

    /// True if the same work may succeed later or on another server without anybody changing it.
    /// It says nothing of whether the work took effect.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Query { .. } => self.code().is_some_and(|code| {
                *code == SqlState::T_R_SERIALIZATION_FAILURE
                    || *code == SqlState::T_R_DEADLOCK_DETECTED
                    || *code == SqlState::LOCK_NOT_AVAILABLE
            }),
            _ => self.is_unavailable(),
        }
    }

    /// True where nothing is wrong with what was asked: the database is away, or too busy, or holds
    /// a lock that we did not get in time. It says nothing of whether the work took effect.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Unavailable { .. }
            | Self::Deadline { .. }
            | Self::Silent { .. } => true,
            Self::Query { .. } => self.code() == Some(&SqlState::LOCK_NOT_AVAILABLE),
            Self::InvalidConfiguration { .. } | Self::Refused { .. } => false,
        }
    }

    /// The SQLSTATE, where a server sent one.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Query { source, .. } | Self::Unavailable { source, .. } => source.code(),
            _ => None,
        }
    }

    /// Whether a server refused the login for good: the wrong user, password or database (PostgreSQL
    /// appendix A, class 28 and 3D000). Trying again cannot help.
    pub(crate) fn is_refusal(&self) -> bool {
        self.code()
            .is_some_and(|code| code.code().starts_with("28") || code.code() == "3D000")
    }

    /// Every host refused the login.
    pub(crate) fn refused_login(attempts: &[Attempt]) -> Self {
        Self::Refused {
            attempted: "log in to the database".into(),
            why: List(attempts).to_string(),
            remedy: "correct user, password and db_name in the configuration or URL; a missing \
                database is made with createdb"
                .into(),
        }
    }

    /// What to do about it; empty where there is nothing better than trying again.
    pub fn remedy(&self) -> String {
        match self {
            Self::InvalidConfiguration { remedy, .. } | Self::Refused { remedy, .. } => {
                remedy.clone()
            }
            Self::Unreachable { attempts } => remedy_of_all(attempts),
            Self::Query { source, .. } | Self::Unavailable { source, .. } => match source.code() {
                Some(code) => remedy_of(code).into(),
                None => remedy_of_tls(source).into(),
            },
            Self::Deadline { .. } | Self::Silent { .. } => String::new(),
        }
    }
}

/// A connection that is gone, and the codes after which a host's connections are worth nothing and
/// the roles of the hosts must be looked at anew (stack.md, trap 8).
pub(crate) fn loses_host(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => {
            // Connection exceptions; the server is going down, or did, or is not up yet.
            code.code().starts_with("08")
                || code.code().starts_with("57P")
                || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
                || *code == SqlState::READ_ONLY_SQL_TRANSACTION
                || *code == SqlState::TOO_MANY_CONNECTIONS
        }
        // Without a code there are only broken connections and mistakes of ours; see `is_closed`.
        None => error.is_closed() || source_is_io(error),
    }
}

fn source_is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

/// Each remedy once, in the order of the hosts.
fn remedy_of_all(attempts: &[Attempt]) -> String {
    const GENERAL: &str =
        "check that PostgreSQL runs there, and postgres_cluster in the configuration";
    let mut remedies: Vec<&str> = Vec::new();
    for attempt in attempts {
        let remedy = match attempt.remedy.as_str() {
            "" => GENERAL,
            remedy => remedy,
        };
        if !remedies.contains(&remedy) {
            remedies.push(remedy);
        }
    }
    match remedies.is_empty() {
        true => GENERAL.to_owned(),
        false => remedies.join("; "),
    }
}

/// The driver gives a failed handshake neither a code nor a type of its own, only these words.
fn remedy_of_tls(error: &tokio_postgres::Error) -> &'static str {
    let words = chassis::failure::chain(error);
    if words.contains("server does not support TLS") {
        return "switch ssl on in the server's configuration, or set postgres_cluster.ssl_mode to \
                prefer or disable";
    }
    match words.contains("TLS handshake") {
        true => {
            "check ssl_mode, ssl_root_cert and the host's name against the server's certificate"
        }
        false => "",
    }
}

fn remedy_of(code: &SqlState) -> &'static str {
    match *code {
        SqlState::DISK_FULL => {
            "the server's disk is full: free space there and run the command again, it goes on \
             where it stopped"
        }
        SqlState::INSUFFICIENT_PRIVILEGE => {
            "let this user create tables: GRANT CREATE, USAGE ON SCHEMA public TO it, or make it \
             the owner of the database"
        }
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "correct user and password (BINGO_POSTGRES_PASSWORD, password_file, password)"
        }
        SqlState::INVALID_CATALOG_NAME => {
            "correct postgres_cluster.db_name, or make the database with createdb"
        }
        SqlState::UNDEFINED_TABLE => "fill the database first: bingo prepare_db",
        SqlState::TOO_MANY_CONNECTIONS => "raise max_connections of the server",
        SqlState::READ_ONLY_SQL_TRANSACTION => "name the primary among postgres_cluster.hosts",
        _ => "",
    }
}

/// `host: answer; host: answer`.
struct List<'a>(&'a [Attempt]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, attempt) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", attempt.host, attempt.answer)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_cluster_names_each_host_and_its_answer() {
        let attempt = |host: &str, answer: &str| Attempt {
            host: host.into(),
            answer: answer.into(),
            remedy: String::new(),
        };
        let error = Error::Unreachable {
            attempts: vec![
                attempt("a:5432", "connection refused"),
                attempt("b:1", "in recovery"),
            ],
        };
        assert_eq!(
            error.to_string(),
            "no host of the cluster took the connection: a:5432: connection refused; b:1: in recovery"
        );
        assert!(error.is_retryable());
    }

    #[test]
    fn the_remedies_of_hosts_are_told_once_each() {
        let attempt = |remedy: &str| Attempt {
            host: "h".into(),
            answer: "no".into(),
            remedy: remedy.into(),
        };
        let attempts = vec![attempt("a"), attempt(""), attempt("a")];
        let remedy = Error::Unreachable { attempts }.remedy();
        assert!(remedy.starts_with("a; check that"), "{remedy}");
    }

    #[test]
    fn a_wrong_setting_is_never_worth_a_retry() {
        let error = Error::configuration("ssl_mode", "no TLS yet", "write disable");
        assert!(!error.is_retryable());
        assert_eq!(error.to_string(), "ssl_mode: no TLS yet");
        assert_eq!(error.remedy(), "write disable");
    }
}
