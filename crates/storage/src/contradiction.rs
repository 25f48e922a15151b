//! What is wrong with a `postgres_cluster` beyond its shape, all of it at once: values that cannot stand
//! together, which can be told from the values alone, and files that cannot be used, which takes a
//! look at them. Connecting makes the same checks again and stops at the first.

use std::collections::HashSet;
use std::path::PathBuf;

use chassis::config::Fault;

use crate::{Error, PostgresCluster, SslMode, tls};

impl PostgresCluster {
    /// Values that cannot stand together. Keys are those of a file whose key `postgres_cluster` this
    /// is. `is_known` says whether the value of a key is what was written: of another nothing is told.
    pub fn contradictions(&self, is_known: &dyn Fn(&str) -> bool) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut seen = HashSet::new();
        let hosts_known = is_known("postgres_cluster.hosts");
        for (i, host) in self.hosts.iter().enumerate().filter(|_| hosts_known) {
            if !seen.insert((host.address.to_lowercase(), host.port)) {
                let key = format!("postgres_cluster.hosts[{i}]");
                let why = "the same server is named twice";
                faults.push(Fault::new(key, host, why, "leave one of the two out"));
            }
        }
        for (name, value) in [("user", &self.user), ("db_name", &self.db_name)] {
            if value.contains("://") {
                let key = format!("postgres_cluster.{name}");
                let help = "write the name alone, or give the URL in BINGO_POSTGRES_URL";
                faults.push(Fault::new(key, value, "it is a URL", help));
            }
        }
        faults
    }

    /// Files that are named, or that `ssl_mode` needs, and cannot be used. Reads them.
    pub fn faults_of_files(&self) -> Vec<Fault> {
        let mut faults = tls::faults(self);
        // The file is the same for every host.
        let password = self.hosts.first().map(|host| self.password(host));
        faults.extend(password.and_then(Result::err));
        faults.iter().map(fault).collect()
    }

    /// What will do, and probably not what was meant.
    pub fn warnings(&self) -> Vec<Fault> {
        if self.ssl_mode != SslMode::Disable {
            return Vec::new();
        }
        let files: [(&str, &Option<PathBuf>); 3] = [
            ("ssl_root_cert", &self.ssl_root_cert),
            ("ssl_cert", &self.ssl_cert),
            ("ssl_key", &self.ssl_key),
        ];
        let unused = |(name, path): (&str, &Option<PathBuf>)| {
            let path = path.as_ref()?;
            Some(Fault::new(
                format!("postgres_cluster.{name}"),
                path.display(),
                "it is not used: ssl_mode is disable, and nothing is encrypted",
                "set ssl_mode to verify-full, or leave this key out",
            ))
        };
        files.into_iter().filter_map(unused).collect()
    }
}

fn fault(error: &Error) -> Fault {
    match error {
        Error::InvalidConfiguration { key, why, remedy } => Fault::new(key, "", why, remedy),
        other => Fault::new("postgres_cluster", "", other, other.remedy()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Host;

    fn keys(faults: &[Fault]) -> Vec<&str> {
        assert!(faults.iter().all(|fault| !fault.remedy.is_empty()));
        faults.iter().map(|fault| fault.key.as_str()).collect()
    }

    #[test]
    fn a_server_named_twice_and_urls_for_names_are_one_fault_each() {
        let cluster = PostgresCluster {
            hosts: vec![
                Host::new("db", 5432),
                Host::new("db", 5433),
                Host::new("DB", 5432),
            ],
            db_name: "postgres://u:canary@h/d".into(),
            ..PostgresCluster::default()
        };
        let faults = cluster.contradictions(&|_| true);
        let expected = ["postgres_cluster.hosts[2]", "postgres_cluster.db_name"];
        assert_eq!(keys(&faults), expected);
        assert!(!format!("{faults:?}").contains("canary"), "{faults:?}");
        let told = cluster.contradictions(&|key| !key.contains("hosts"));
        assert_eq!(keys(&told), expected[1..]);
        let default = PostgresCluster::default();
        assert_eq!(default.contradictions(&|_| true), []);
    }

    #[test]
    fn every_file_that_cannot_be_used_is_a_fault_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("word");
        std::fs::write(&empty, "\n").unwrap();
        let cluster = PostgresCluster {
            ssl_mode: SslMode::VerifyFull,
            ssl_root_cert: Some("/nowhere/root.crt".into()),
            ssl_cert: Some("/nowhere/own.crt".into()),
            ssl_key: Some("/nowhere/own.key".into()),
            password_file: Some(empty),
            ..PostgresCluster::default()
        };
        let faults = cluster.faults_of_files();
        let expected = ["ssl_root_cert", "ssl_cert", "ssl_key", "password_file"];
        assert_eq!(
            keys(&faults),
            expected.map(|name| format!("postgres_cluster.{name}"))
        );
        assert!(faults[3].reason.contains("empty"), "{faults:?}");
        assert_eq!(PostgresCluster::default().faults_of_files(), []);
    }

    #[test]
    fn certificates_that_nothing_uses_are_warned_of() {
        let mut cluster = PostgresCluster {
            ssl_cert: Some("/a".into()),
            ssl_key: Some("/b".into()),
            ..PostgresCluster::default()
        };
        let expected = ["postgres_cluster.ssl_cert", "postgres_cluster.ssl_key"];
        assert_eq!(keys(&cluster.warnings()), expected);
        cluster.ssl_mode = SslMode::Require;
        assert_eq!(cluster.warnings(), []);
    }
}
