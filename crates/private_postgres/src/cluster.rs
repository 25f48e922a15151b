//! A server of our own: its data folder, made once, and the command that serves it.
//!
//! The folder is made whole under another name and then renamed, so that `data` either does not exist
//! or is finished, whenever we are killed; a finished one is never made again and nothing in it but
//! `bingo.conf` is written. Roles and passwords are made by `postgres --single`, which reads SQL from
//! stdin: no password stands in an argument list and no half-secured server ever listens.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use crate::program::{command, run};
use crate::roles::{password_statements, role_statements};
use crate::{Account, Binaries, Error, Role, postmaster};

/// Present in every data folder that we finished.
const MARKER: &str = "bingo.initialised";
const SETTINGS_FILE: &str = "bingo.conf";

/// Of a Unix socket's address (unix(7)), its final zero left out.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Everyone proves a password, on the socket too; nobody comes from outside this machine. Replication
/// takes a role that may replicate, which the service's may not.
const ACCESS: &str = "# Written once by bingo.
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
host replication all ::1/128 scram-sha-256
";

/// Where a server of our own lives and who runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub binaries: Binaries,
    /// The data folder; its parent exists and `account` may pass it.
    pub data: PathBuf,
    /// The folder of the Unix socket.
    pub sockets: PathBuf,
    /// On 127.0.0.1.
    pub port: u16,
    pub account: Account,
}

/// What `Cluster::initialise` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initialised {
    /// A new data folder with its roles and database.
    Created,
    /// A finished one was there and was left alone.
    Found,
}

/// What tests want otherwise than an installation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Making {
    /// Small segments make a small folder.
    pub wal_segment_mebibytes: Option<u32>,
    /// Leaves the files to the kernel instead of waiting for the disk.
    pub unsynced: bool,
    /// Without the databases that a test does not use, half of the files.
    pub without_spare_databases: bool,
}

impl Cluster {
    /// Makes the data folder if there is none, and writes `bingo.conf` in any case. The superuser is
    /// `postgres`. Safe to call again after a kill at any moment, but not by two processes at once.
    pub fn initialise(
        &self,
        superuser_password: &str,
        service: &Role,
        settings: &[(String, String)],
    ) -> Result<Initialised, Error> {
        self.make(superuser_password, service, settings, Making::default())
    }

    /// Writes the address, the port and these settings to `bingo.conf`; they hold from the next start.
    pub fn configure(&self, settings: &[(String, String)]) -> Result<(), Error> {
        let path = self.data.join(SETTINGS_FILE);
        self.write(&path, &self.settings_text(settings)?)
    }

    /// How many clients the server in this data folder takes, as `configure` wrote it. None where it
    /// wrote nothing.
    pub fn max_connections(data: &Path) -> Option<u32> {
        let text = fs::read_to_string(data.join(SETTINGS_FILE)).ok()?;
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix("max_connections = '"))?;
        value.trim_end_matches('\'').parse().ok()
    }

    /// The server in the foreground. It logs to stderr and runs in any folder.
    pub fn command(&self) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        vec![
            text(&self.binaries.program("postgres")),
            "-D".into(),
            text(&self.data),
        ]
    }

    /// True once the server takes connections. It reads a file and never waits.
    pub fn is_ready(&self) -> bool {
        postmaster::is_ready(&self.data) && self.running_pid().is_some()
    }

    /// The pid of the server that serves the data folder now.
    pub fn running_pid(&self) -> Option<i32> {
        postmaster::recorded_pid(&self.data).filter(|pid| postmaster::serves(*pid, &self.data))
    }

    /// The pid in `postmaster.pid` when no server of this folder has it. PostgreSQL replaces such a
    /// file itself, save where another process of its user has taken the number over.
    pub fn stale_pid(&self) -> Option<i32> {
        postmaster::recorded_pid(&self.data).filter(|pid| !postmaster::serves(*pid, &self.data))
    }

    /// Removes a stale `postmaster.pid` and returns its pid. Refused while a process still works in the
    /// data folder: two servers over one folder would destroy it.
    pub fn clear_stale_pid(&self) -> Result<Option<i32>, Error> {
        let Some(pid) = self.stale_pid() else {
            return Ok(None);
        };
        if postmaster::is_inhabited(&self.data) {
            return Err(self.unusable(
                "processes of an ended server still work in it",
                "wait until they have ended, or end them",
            ));
        }
        let path = self.data.join("postmaster.pid");
        fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        Ok(Some(pid))
    }

    pub(crate) fn make(
        &self,
        superuser_password: &str,
        service: &Role,
        settings: &[(String, String)],
        making: Making,
    ) -> Result<Initialised, Error> {
        self.check_socket_path()?;
        self.make_sockets_folder()?;
        if self.is_finished()? {
            self.configure(settings)?;
            return Ok(Initialised::Found);
        }
        self.remove_unfinished();
        let new = Self {
            data: self
                .data
                .with_file_name(self.unfinished_name(std::process::id())),
            ..self.clone()
        };
        new.create_folder(&new.data, 0o700)?;
        new.run_initdb(making)?;
        new.create_roles(superuser_password, service, making)?;
        new.write(&new.data.join("pg_hba.conf"), ACCESS)?;
        new.include_settings()?;
        new.configure(settings)?;
        new.write(&new.data.join(MARKER), &new.binaries.version_text)?;
        if !making.unsynced {
            new.sync()?;
        }
        fs::rename(&new.data, &self.data).map_err(Error::file("make", &self.data))?;
        if let Some(parent) = self.data.parent() {
            let synced = fs::File::open(parent).and_then(|folder| folder.sync_all());
            synced.map_err(Error::file("sync", parent))?;
        }
        Ok(Initialised::Created)
    }

    /// True for a folder of ours; an error for one that is not, or is of another version.
    fn is_finished(&self) -> Result<bool, Error> {
        let Ok(version) = fs::read_to_string(self.data.join("PG_VERSION")) else {
            // An absent or empty folder gives way to the rename; anything else was not made by us.
            let mut entries = fs::read_dir(&self.data).into_iter().flatten();
            return match entries.next() {
                None => Ok(false),
                Some(_) => Err(self.unusable("it holds other files", "name an empty folder")),
            };
        };
        if !self.data.join(MARKER).exists() {
            return Err(self.unusable("it was not made by bingo", "name an empty folder"));
        }
        let installed = self.binaries.version.to_string();
        if version.trim() != installed {
            return Err(self.unusable(
                &format!(
                    "PostgreSQL {} made it, {installed} is installed",
                    version.trim()
                ),
                "install that version, or move the folder away",
            ));
        }
        Ok(true)
    }

    fn unusable(&self, why: &str, remedy: &str) -> Error {
        Error::DataFolder {
            path: self.data.clone(),
            why: why.into(),
            remedy: remedy.into(),
        }
    }

    fn check_socket_path(&self) -> Result<(), Error> {
        let path = self.sockets.join(format!(".s.PGSQL.{}", self.port));
        match path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            true => Ok(()),
            false => Err(Error::DataFolder {
                path,
                why: format!("a socket's path is at most {SOCKET_PATH_BYTES_MAX} bytes long"),
                remedy: "name a folder with a shorter path".into(),
            }),
        }
    }

    fn make_sockets_folder(&self) -> Result<(), Error> {
        match self.sockets.is_dir() {
            true => Ok(()),
            false => self.create_folder(&self.sockets, 0o755),
        }
    }

    fn create_folder(&self, path: &Path, mode: u32) -> Result<(), Error> {
        let created = fs::DirBuilder::new().mode(mode).create(path);
        created.map_err(Error::file("create", path))?;
        self.give(path)
    }

    /// Makes the account the owner, where we are root.
    fn give(&self, path: &Path) -> Result<(), Error> {
        if !self.account.must_switch() {
            return Ok(());
        }
        chown(path, Some(self.account.uid), Some(self.account.gid))
            .map_err(Error::file("change the owner of", path))
    }

    /// Writes a file whole or not at all. The file is new, so a link planted there is not followed.
    pub(crate) fn write(&self, path: &Path, text: &str) -> Result<(), Error> {
        let fault = |error| Error::file("write", path)(error);
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let _ = fs::remove_file(&new);
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(0o600).open(&new);
        std::io::Write::write_all(&mut opened.map_err(fault)?, text.as_bytes()).map_err(fault)?;
        self.give(&new)?;
        fs::rename(&new, path).map_err(fault)
    }

    /// `data.new-1234`, beside `data`.
    fn unfinished_name(&self, pid: u32) -> String {
        let name = self.data.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}.new-{pid}")
    }

    /// Removes what processes that were killed in `make` have left. A failure is no fault: the folder
    /// has a name of its own and is only in the way of the disk.
    fn remove_unfinished(&self) {
        let prefix = self.unfinished_name(0);
        let prefix = prefix.trim_end_matches('0');
        let parent = self.data.parent().map(fs::read_dir);
        for entry in parent.into_iter().flatten().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(pid) = name
                .strip_prefix(prefix)
                .and_then(|pid| pid.parse::<u32>().ok())
            else {
                continue;
            };
            let is_alive = pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists();
            if !is_alive {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn run_initdb(&self, making: Making) -> Result<(), Error> {
        let initdb = |locale: &str| {
            let mut program = command(&self.binaries.program("initdb"), &self.account, &self.data);
            program.arg("-D").arg(&self.data).args([
                "--username=postgres",
                "--encoding=UTF8",
                "--lc-messages=C",
                "--auth=trust", // until `ACCESS` replaces it, before any server listens
                "--no-instructions",
                "--no-sync", // `sync` does it, once and for everything
            ]);
            program.arg(format!("--locale={locale}"));
            if let Some(mebibytes) = making.wal_segment_mebibytes {
                program.arg(format!("--wal-segsize={mebibytes}"));
            }
            run(program, &self.account, "")
        };
        // Machines without C.UTF-8 have C, which sorts the same way.
        initdb("C.UTF-8").or_else(|error| initdb("C").map_err(|_| error))
    }

    fn create_roles(
        &self,
        superuser_password: &str,
        service: &Role,
        making: Making,
    ) -> Result<(), Error> {
        let mut sql = role_statements(self.binaries.version, superuser_password, service)?;
        if making.without_spare_databases {
            sql += "UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'\n\
                DROP DATABASE template0\nDROP DATABASE postgres\n";
        }
        self.run_single("template1", &sql)
    }

    /// Gives the superuser and the service's role these passwords, where the files that held the old
    /// ones were lost. The server must not run.
    pub fn set_passwords(&self, superuser_password: &str, service: &Role) -> Result<(), Error> {
        let sql = password_statements(superuser_password, service)?;
        self.run_single("template1", &sql)
    }

    /// Statements from stdin in single-user mode: no password in an argument list, no listener.
    fn run_single(&self, database: &str, sql: &str) -> Result<(), Error> {
        let mut program = command(
            &self.binaries.program("postgres"),
            &self.account,
            &self.data,
        );
        program.arg("--single").arg("-D").arg(&self.data);
        for setting in [
            "exit_on_error=on",
            "fsync=off",
            // A failed statement must not be logged with its password.
            "log_min_error_statement=panic",
        ] {
            program.args(["-c", setting]);
        }
        program.arg(database);
        run(program, &self.account, sql)
    }

    fn include_settings(&self) -> Result<(), Error> {
        let path = self.data.join("postgresql.conf");
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let line = format!("include_if_exists = '{SETTINGS_FILE}'");
        self.write(
            &path,
            &format!("{text}\n# Written by bingo at every start; the last word.\n{line}\n"),
        )
    }

    fn settings_text(&self, settings: &[(String, String)]) -> Result<String, Error> {
        let own = [
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", absolute(&self.sockets)?),
            ("log_destination", "stderr".to_owned()),
            ("logging_collector", "off".to_owned()),
        ];
        let own = own
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let mut text = String::from("# Written by bingo at every start. Changes here are lost.\n");
        for (name, value) in own.chain(settings.iter().cloned()) {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        Ok(text)
    }

    /// Waits until all files of the new folder are on the disk.
    fn sync(&self) -> Result<(), Error> {
        let mut program = command(&self.binaries.program("initdb"), &self.account, &self.data);
        program.arg("--sync-only").arg("-D").arg(&self.data);
        run(program, &self.account, "")
    }
}

fn absolute(path: &Path) -> Result<String, Error> {
    let absolute = std::path::absolute(path).map_err(Error::file("find", path))?;
    Ok(absolute.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A folder that an unprivileged account may pass.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::Builder::new()
            .prefix("bingo-cluster-")
            .tempdir()
            .unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
        folder
    }

    fn cluster(folder: &Path) -> Cluster {
        let account = Account::unprivileged_default().unwrap();
        Cluster {
            binaries: Binaries::find(None).unwrap(),
            data: folder.join("data"),
            sockets: folder.join("run"),
            port: 5999,
            account,
        }
    }

    fn parent_for(cluster: &Cluster, folder: &Path) {
        cluster.give(folder).unwrap();
    }

    fn service() -> Role {
        Role {
            name: "bingo".into(),
            password: "it's".into(),
            database: "bingo".into(),
        }
    }

    #[test]
    fn a_folder_is_made_once_and_what_a_killed_process_left_is_cleaned() {
        let folder = folder();
        let cluster = cluster(folder.path());
        parent_for(&cluster, folder.path());
        // No process has this pid: it is above the kernel's limit.
        let left = folder.path().join("data.new-99999999");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("PG_VERSION"), "15").unwrap();
        let settings = |value: &str| {
            let all = [("work_mem", value), ("max_connections", "77")];
            all.map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let made = cluster
            .initialise("secret", &service(), &settings("4MB"))
            .unwrap();
        assert_eq!(made, Initialised::Created);
        assert!(!left.exists());
        let mode = fs::metadata(&cluster.data).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let file = cluster.data.join("global/pg_control");
        let before = fs::metadata(&file).unwrap().modified().unwrap();
        let again = cluster
            .initialise("other", &service(), &settings("8MB"))
            .unwrap();
        assert_eq!(again, Initialised::Found);
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
        let conf = fs::read_to_string(cluster.data.join("bingo.conf")).unwrap();
        assert!(
            conf.contains("work_mem = '8MB'") && conf.contains("port = '5999'"),
            "{conf}"
        );
        assert_eq!(Cluster::max_connections(&cluster.data), Some(77));
        assert_eq!(Cluster::max_connections(folder.path()), None);
        assert_eq!((cluster.running_pid(), cluster.stale_pid()), (None, None));
        assert!(!cluster.is_ready());
    }

    #[test]
    fn a_folder_that_is_not_ours_is_refused_and_stays() {
        let folder = folder();
        let cluster = cluster(folder.path());
        fs::create_dir(&cluster.data).unwrap();
        fs::write(cluster.data.join("precious"), "x").unwrap();
        let error = cluster.initialise("s", &service(), &[]).unwrap_err();
        assert!(error.to_string().contains("other files"), "{error}");
        fs::write(cluster.data.join("PG_VERSION"), "15\n").unwrap();
        let error = cluster.initialise("s", &service(), &[]).unwrap_err();
        assert!(error.to_string().contains("not made by bingo"), "{error}");
        fs::write(cluster.data.join(MARKER), "").unwrap();
        fs::write(cluster.data.join("PG_VERSION"), "9\n").unwrap();
        let error = cluster.initialise("s", &service(), &[]).unwrap_err();
        assert!(
            error.to_string().contains("PostgreSQL 9 made it"),
            "{error}"
        );
        assert!(cluster.data.join("precious").exists());
    }

    #[test]
    fn a_pid_file_of_nobody_is_stale_and_cleared() {
        let folder = folder();
        let cluster = cluster(folder.path());
        fs::create_dir(&cluster.data).unwrap();
        fs::write(cluster.data.join("postmaster.pid"), "99999999\n").unwrap();
        assert_eq!(cluster.stale_pid(), Some(99_999_999));
        assert_eq!(cluster.clear_stale_pid().unwrap(), Some(99_999_999));
        assert_eq!(cluster.clear_stale_pid().unwrap(), None);
    }

    #[test]
    fn a_socket_path_that_the_kernel_would_refuse_is_named_at_once() {
        let folder = folder();
        let mut cluster = cluster(folder.path());
        cluster.sockets = folder.path().join("long".repeat(30));
        let error = cluster.initialise("s", &service(), &[]).unwrap_err();
        assert!(error.remedy().contains("shorter"), "{error}");
    }
}
