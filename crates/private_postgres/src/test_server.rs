//! A whole PostgreSQL server for one test, in a fraction of a second: a data folder is made once per
//! machine and version, and each server runs on a copy of it.
//!
//! It is no place for data (fsync is off). A test that is killed cannot clean up, so a watcher, a
//! shell whose stdin is a pipe from this process, ends the server and removes the folder when the
//! pipe breaks.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::Making;
use crate::{Account, Binaries, Cluster, Error, Role, program};

const USER: &str = "bingo";
const PASSWORD: &str = "bingo-test";
pub(crate) const SUPERUSER_PASSWORD: &str = "postgres-test";

/// Count up when the template is made in another way.
const TEMPLATE_RECIPE: u32 = 3;

const READY_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);
/// Somebody else may take a free port between our looking and the server's binding.
const PORT_TRIES: u32 = 5;

/// Ended, and its folder removed, when dropped.
pub struct TestServer {
    pub(crate) cluster: Cluster,
    folder: tempfile::TempDir,
    /// Beside those of every test.
    settings: Vec<(String, String)>,
    server: Option<Child>,
    watcher: Child,
}

impl TestServer {
    /// A running server with the role `bingo` and its empty database `bingo`, below `BINGO_TEST_DIR`
    /// (default: the system's temporary folder).
    pub fn start() -> Result<Self, Error> {
        Self::start_on(|base, cluster| {
            let template = template(base, &cluster.binaries, &cluster.account)?;
            copy(&template, &cluster.data, &cluster.account)
        })
    }

    /// A running server on the data folder that `make` makes.
    pub(crate) fn start_on(
        make: impl FnOnce(&Path, &Cluster) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let base =
            std::env::var_os("BINGO_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        fs::create_dir_all(&base).map_err(Error::file("create", &base))?;
        let account = Account::unprivileged_default()?;
        let folder = private_folder(&base, &account)?;
        let path = folder.path().to_owned();
        let cluster = Cluster {
            binaries: Binaries::find(None)?,
            data: path.join("data"),
            sockets: path.clone(),
            port: 0,
            account,
        };
        make(&base, &cluster)?;
        let watcher = watch(&cluster, &path)?;
        let mut server = Self {
            cluster,
            folder,
            settings: Vec::new(),
            server: None,
            watcher,
        };
        server.launch_on_a_free_port()?;
        Ok(server)
    }

    /// For the role `bingo`, with its password.
    pub fn url(&self) -> String {
        format!(
            "postgresql://{USER}:{PASSWORD}@127.0.0.1:{}/bingo",
            self.port()
        )
    }

    /// For the superuser `postgres`, with its password, on the same database.
    pub fn superuser_url(&self) -> String {
        format!(
            "postgresql://postgres:{SUPERUSER_PASSWORD}@127.0.0.1:{}/bingo",
            self.port()
        )
    }

    pub fn port(&self) -> u16 {
        self.cluster.port
    }

    pub fn user(&self) -> &'static str {
        USER
    }

    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Of the server's first process; `None` while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A setting that holds from the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.into(), value.into()));
    }

    /// Writes a file of the data folder, which the server alone may read.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.cluster.data.join(name);
        self.cluster.write(&path, text)?;
        Ok(path)
    }

    /// Sends a signal to the server's first process: `Signal::STOP` freezes it (not its backends).
    pub fn kill(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it in order, open connections included; nothing listens on the port afterwards.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// Stops it if it runs, and starts it on the same port and data.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop();
        // Backends of a killed server hold its memory for a moment, and PostgreSQL then refuses.
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            match self.launch() {
                Err(_) if Instant::now() < deadline => std::thread::sleep(POLL),
                result => return result,
            }
        }
    }

    fn launch_on_a_free_port(&mut self) -> Result<(), Error> {
        let mut last = None;
        for _ in 0..PORT_TRIES {
            self.cluster.port = free_port()?;
            match self.launch() {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| self.not_ready("no free port")))
    }

    fn launch(&mut self) -> Result<(), Error> {
        let mut settings = test_settings();
        settings.extend(self.settings.iter().cloned());
        self.cluster.configure(&settings)?;
        let log_path = self.folder.path().join("log");
        let fault = |error| Error::file("open", &log_path)(error);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(fault)?;
        let argv = self.cluster.command();
        let (name, arguments) = argv
            .split_first()
            .ok_or_else(|| self.not_ready("no command"))?;
        let mut command =
            program::command(Path::new(name), &self.cluster.account, self.folder.path());
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(fault)?)
            .stderr(log)
            .process_group(0); // a Ctrl-C is for the tests; the server ends with its test
        let child = command
            .spawn()
            .map_err(|error| self.not_ready(&error.to_string()))?;
        self.server = Some(child);
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + READY_LIMIT;
        while !self.cluster.is_ready() {
            let ended = self
                .server
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                self.server = None;
                return Err(self.not_ready(&format!("{status}: {}", self.log())));
            }
            if Instant::now() > deadline {
                self.end(Signal::QUIT);
                return Err(self.not_ready(&format!("not ready in time: {}", self.log())));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Sends the signal, then waits, then kills.
    fn end(&mut self, signal: Signal) {
        self.kill(signal);
        self.thaw(); // a frozen one could not obey
        let Some(mut child) = self.server.take() else {
            return;
        };
        let deadline = Instant::now() + STOP_LIMIT;
        while let Ok(None) = child.try_wait() {
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
            }
            std::thread::sleep(POLL);
        }
    }

    fn not_ready(&self, why: &str) -> Error {
        Error::NotReady {
            path: self.cluster.data.clone(),
            why: why.into(),
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // First the watcher, which would otherwise signal a pid that is no longer ours.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
        self.end(Signal::QUIT);
        // Backends may write their last file while we remove: once more, then TempDir's own try.
        let _ = fs::remove_dir_all(self.folder.path());
    }
}

/// Small, quick and forgetful.
fn test_settings() -> Vec<(String, String)> {
    let all = [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("synchronous_commit", "off"),
        ("shared_buffers", "32MB"),
        ("max_connections", "100"),
        ("min_wal_size", "5MB"),
        ("max_wal_size", "256MB"),
        ("jit", "off"),
        ("log_line_prefix", "%m [%p] %q%a "),
    ];
    all.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

/// The finished template's data folder; made by the first caller while the others wait.
fn template(base: &Path, binaries: &Binaries, account: &Account) -> Result<PathBuf, Error> {
    let folder = base.join(template_name(binaries, account));
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::file("create", &folder)(error));
        }
        _ => give(&folder, account)?,
    }
    let lock = fs::File::open(&folder).map_err(Error::file("open", &folder))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| Error::file("lock", &folder)(error.into()))?;
    let cluster = Cluster {
        binaries: binaries.clone(),
        data: folder.join("data"),
        sockets: folder.clone(),
        port: 1,
        account: account.clone(),
    };
    let making = Making {
        wal_segment_mebibytes: Some(1),
        unsynced: true,
        without_spare_databases: true,
    };
    let service = Role {
        name: USER.into(),
        password: PASSWORD.into(),
        database: "bingo".into(),
    };
    cluster.make(SUPERUSER_PASSWORD, &service, &[], making)?;
    Ok(cluster.data)
}

/// `bingo-postgres-template-15-<hash of everything that makes templates differ>`.
fn template_name(binaries: &Binaries, account: &Account) -> String {
    let text = format!(
        "{} {} {TEMPLATE_RECIPE}",
        binaries.version_text, account.uid
    );
    // FNV-1a: it must be the same in every process, which the standard hasher does not promise.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("bingo-postgres-template-{}-{hash:016x}", binaries.version)
}

fn private_folder(base: &Path, account: &Account) -> Result<tempfile::TempDir, Error> {
    let folder = tempfile::Builder::new()
        .prefix("bingo-postgres-")
        .tempdir_in(base);
    let folder = folder.map_err(Error::file("create a folder in", base))?;
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711))
        .map_err(Error::file("open up", folder.path()))?;
    give(folder.path(), account)?;
    Ok(folder)
}

fn give(path: &Path, account: &Account) -> Result<(), Error> {
    match account.must_switch() {
        false => Ok(()),
        true => std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
            .map_err(Error::file("change the owner of", path)),
    }
}

fn copy(from: &Path, to: &Path, account: &Account) -> Result<(), Error> {
    let folder = from.parent().unwrap_or(from);
    let mut cp = program::command(Path::new("cp"), account, folder);
    cp.args(["-a", "--reflink=auto"]).arg(from).arg(to);
    program::run(cp, account, "")
}

/// Waits for our end in any form, then ends the server and removes its folder.
fn watch(cluster: &Cluster, folder: &Path) -> Result<Child, Error> {
    const SCRIPT: &str = "cat >/dev/null
        pid=$(head -n 1 \"$0/data/postmaster.pid\") && kill -QUIT $pid && kill -CONT $pid
        for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 $pid 2>/dev/null && sleep 0.2; done
        kill -KILL $pid 2>/dev/null
        rm -rf \"$0\"";
    let mut shell: Command =
        program::command(Path::new("/bin/sh"), &cluster.account, Path::new("/"));
    shell
        .arg("-c")
        .arg(SCRIPT)
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(Error::file("watch", folder))
}

fn free_port() -> Result<u16, Error> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    Ok(bound
        .map_err(Error::file("bind a port for", "127.0.0.1"))?
        .port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn answers(server: &TestServer) -> bool {
        TcpStream::connect(("127.0.0.1", server.port())).is_ok()
    }

    #[test]
    fn a_server_answers_restarts_and_leaves_nothing_behind() {
        let mut server = TestServer::start().unwrap();
        let folder = server.folder.path().to_owned();
        let first = server.pid();
        assert!(answers(&server), "{}", server.log());
        server.stop();
        assert!(!answers(&server));
        assert_eq!(server.pid(), None);
        server.restart().unwrap();
        assert!(answers(&server));
        assert_ne!(server.pid(), first);
        server.kill(Signal::STOP);
        let pid = server.pid().unwrap();
        drop(server);
        assert!(!folder.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn two_servers_share_nothing_and_start_quickly() {
        let one = TestServer::start().unwrap();
        let started = Instant::now();
        let two = TestServer::start().unwrap();
        println!("started in {:?}", started.elapsed());
        assert_ne!(one.port(), two.port());
        assert!(one.url().contains(&one.port().to_string()));
        assert!(answers(&one) && answers(&two));
    }

    #[test]
    fn the_watcher_ends_a_server_whose_test_was_killed() {
        let mut server = TestServer::start().unwrap();
        let folder = server.folder.path().to_owned();
        // What the kernel does for a killed process.
        drop(server.watcher.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(10);
        while folder.exists() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        assert!(!folder.exists());
        let child = server.server.as_mut().unwrap();
        assert!(child.wait().is_ok());
    }
}
