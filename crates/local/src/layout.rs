//! Where everything of one installation lies: all of it under one folder, nothing outside.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use private_postgres::Account;

const MARKER_TEXT: &str = "Made by `bingo up`; `bingo down --purge` removes what it made here.\n";

/// The folder of one installation (`--dir`).
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// `root` must be absolute: the children run in other working folders.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Data folder of the private PostgreSQL.
    pub fn postgres(&self) -> PathBuf {
        self.root.join("postgres")
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What happened, told by every process and kept small by the supervisor.
    pub fn events_file(&self) -> PathBuf {
        self.logs().join("events.jsonl")
    }

    pub fn config(&self) -> PathBuf {
        self.root.join("config")
    }

    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Where gateways write: answers that wait for clients, in files without names, and what operators
    /// want of nodes.
    pub fn gateways(&self) -> PathBuf {
        self.run().join("gateways")
    }

    /// Where the gateways keep certificate authority, certificate and ticket keys.
    pub fn tls(&self) -> PathBuf {
        self.root.join("tls")
    }

    /// The authority's certificate, for import; the first gateway to start makes it.
    pub fn ca_certificate(&self) -> PathBuf {
        self.tls().join("ca.pem")
    }

    /// Folder of PostgreSQL's Unix socket, writable for the children's account.
    pub fn postgres_sockets(&self) -> PathBuf {
        self.run().join("postgres")
    }

    pub fn state_file(&self) -> PathBuf {
        self.run().join("state.json")
    }

    pub fn control_socket(&self) -> PathBuf {
        self.run().join("supervisor.sock")
    }

    /// For people: libpq's password file, named in `postgres_url`.
    pub fn pgpass(&self) -> PathBuf {
        self.run().join("pgpass")
    }

    /// The service role's password alone, for the nodes.
    pub fn service_password(&self) -> PathBuf {
        self.run().join("postgres.password")
    }

    /// The password of an existing database, for the nodes.
    pub fn existing_password(&self) -> PathBuf {
        self.run().join("existing.password")
    }

    /// The superuser's password; only the account that started the installation reads it.
    pub fn superuser_password(&self) -> PathBuf {
        self.run().join("postgres.superuser")
    }

    pub fn admin_token(&self) -> PathBuf {
        self.run().join("admin.token")
    }

    pub fn installation(&self) -> PathBuf {
        self.config().join("installation.yaml")
    }

    pub fn supervisor_config(&self) -> PathBuf {
        self.config().join("supervisor.yaml")
    }

    pub fn gateway_config(&self) -> PathBuf {
        self.config().join("gateway.yaml")
    }

    /// What the copy of a program that is not ours looks for; it holds a password.
    pub fn exec_config(&self, number: u16) -> PathBuf {
        self.run().join(format!("exec/node-{number}.yaml"))
    }

    /// Where such a copy writes its own log.
    pub fn exec_logs(&self, number: u16) -> PathBuf {
        self.logs().join(format!("exec/node-{number}"))
    }

    pub fn node_config(&self, number: u16) -> PathBuf {
        self.config().join(format!("node-{number}.yaml"))
    }

    /// The mark of a folder that `up` made: nothing else is ever adopted or removed.
    fn marker(&self) -> PathBuf {
        self.root.join(".bingo-installation")
    }

    /// Whether the folder is an installation of ours.
    pub fn is_ours(&self) -> bool {
        self.marker().is_file()
    }

    /// Whether the folder holds something and is not ours.
    pub fn is_foreign(&self) -> bool {
        let holds = std::fs::read_dir(&self.root).is_ok_and(|mut entries| entries.next().is_some());
        holds && !self.is_ours()
    }

    /// What `up` makes inside the root; nothing else in it is ours.
    pub fn parts(&self) -> [PathBuf; 6] {
        [
            self.postgres(),
            self.logs(),
            self.config(),
            self.run(),
            self.tls(),
            self.marker(),
        ]
    }

    /// The paths of Unix sockets; each must fit into `sockaddr_un` (unix(7): 108 bytes).
    pub fn sockets(&self) -> [PathBuf; 2] {
        [
            self.control_socket(),
            self.postgres_sockets().join(".s.PGSQL.65535.lock"),
        ]
    }

    /// Makes the folders that are missing. The root is 0711 (its contents cannot be listed by
    /// others, but the children's account passes through it).
    pub fn create(&self, account: &Account) -> io::Result<()> {
        folder(&self.root, 0o711)?;
        write_file(&self.marker(), 0o644, MARKER_TEXT)?;
        folder(&self.logs(), 0o755)?;
        // The folder is not theirs, so nobody can put a link in its place.
        let events = self.events_file();
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true).open(&events)?;
        std::fs::set_permissions(&events, std::fs::Permissions::from_mode(0o644))?;
        own(&events, account)?;
        folder(&self.config(), 0o755)?;
        folder(&self.run(), 0o711)?;
        folder(&self.postgres_sockets(), 0o711)?;
        own(&self.postgres_sockets(), account)?;
        folder(&self.gateways(), 0o700)?;
        own(&self.gateways(), account)?;
        // Its keys are 0600 each; the authority's certificate is for everybody.
        folder(&self.tls(), 0o755)?;
        own(&self.tls(), account)
    }
}

/// Makes a folder and those above it that are missing. Modes given to mkdir(2) are cut by the umask,
/// a strict one of which would lock the children out: they are set again.
pub(crate) fn folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        folder(parent, 0o755)?;
    }
    std::fs::create_dir(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Gives a file or folder to the children's account; nothing to do unless we are root.
pub(crate) fn own(path: &Path, account: &Account) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(account.uid), Some(account.gid))?;
    }
    Ok(())
}

/// Writes a file whole or not at all, with the given mode; the old content stays on any error.
pub(crate) fn write_file(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let written = (|| {
        // Removed first: `mode` counts only for a file that is created.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))?;
        std::fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_with_its_mode_and_leaves_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_file(&path, 0o600, "one").unwrap();
        write_file(&path, 0o600, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
