//! What can go wrong before a server of our own runs. Each variant says what was attempted on what;
//! `remedy` says what to do. No variant ever holds a password.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("find PostgreSQL {} to {}: {why}; searched {}", crate::OLDEST, crate::NEWEST, .searched.join(", "))]
    NoBinaries { searched: Vec<String>, why: String },

    #[error("look up the account `{name}`: {why}")]
    NoAccount { name: String, why: String },

    #[error("{attempted} {}", .path.display())]
    File {
        attempted: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error("run {program} as {account}: {why}")]
    Program {
        program: String,
        account: String,
        why: String,
    },

    #[error("use the data folder {}: {why}", .path.display())]
    DataFolder {
        path: PathBuf,
        why: String,
        remedy: String,
    },

    #[error("start the server in {}: {why}", .path.display())]
    NotReady { path: PathBuf, why: String },
}

impl Error {
    /// What to do about it; empty where the message says it all.
    pub fn remedy(&self) -> String {
        match self {
            Self::NoBinaries { .. } => "apt-get install postgresql (Debian, Ubuntu), or name the \
                folder that has initdb and postgres in BINGO_POSTGRES_BIN"
                .into(),
            Self::NoAccount { .. } => "name an account that exists".into(),
            Self::Program { account, .. } => {
                format!("see that {account} may read and pass every folder above it")
            }
            Self::DataFolder { remedy, .. } => remedy.clone(),
            Self::File { .. } | Self::NotReady { .. } => String::new(),
        }
    }

    /// For `map_err`: what was attempted on which path.
    pub(crate) fn file(
        attempted: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            attempted,
            path,
            source,
        }
    }
}
