//! Through PgBouncer in transaction mode, where consecutive statements reach different sessions of the
//! server. Needs apt's pgbouncer, which `make test` installs where it may; where there is none the tests
//! pass without having tested anything, and `.ci/prepare` warns of that.

mod queries_fixture;

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use private_postgres::{Account, TestServer};
use queries_fixture::{Fixture, PATIENCE, session};
use storage::fill::{FillOptions, prepare};
use storage::{Created, Host, IdempotencyKey, PostgresCluster, Role, Storage};

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// Ended when dropped.
struct Bouncer {
    port: u16,
    child: Child,
    folder: tempfile::TempDir,
}

impl Bouncer {
    /// In front of the server; `None` where there is no PgBouncer. Few sessions, so that they change
    /// hands all the time.
    fn start(server: &TestServer) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            eprintln!("SKIPPED: {PROGRAM} is not installed: sudo apt-get install pgbouncer");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let open = PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let ini = format!(
            "[databases]\nbingo = host=127.0.0.1 port={} user={} password={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n\
             server_login_retry = 0.1\n",
            server.port(),
            server.user(),
            server.password()
        );
        let path = folder.path().join("pgbouncer.ini");
        std::fs::write(&path, ini).unwrap();
        let child = launch(&path);
        Some(Self {
            port,
            child,
            folder,
        })
    }

    fn restart(&mut self) {
        self.end();
        self.child = launch(&self.folder.path().join("pgbouncer.ini"));
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.end();
    }
}

/// In the foreground, as somebody who is not root.
fn launch(ini: &Path) -> Child {
    let account = Account::unprivileged_default().unwrap();
    let mut command = Command::new(PROGRAM);
    command.arg(ini).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    if account.must_switch() {
        command.uid(account.uid).gid(account.gid);
    }
    command.spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_lists_and_writes_go_through_and_survive_its_restart() {
    let fixture = Fixture::start().await;
    let Some(mut bouncer) = Bouncer::start(&fixture.server) else {
        return;
    };
    let cluster = PostgresCluster {
        hosts: vec![Host::new("127.0.0.1", bouncer.port)],
        ..PostgresCluster::from_url(&fixture.server.url()).unwrap()
    };
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", bouncer.port)).is_err() {
        assert!(Instant::now() < deadline);
    }
    // Its lock would be anybody's.
    let refused = prepare(&cluster, &FillOptions::default(), &|_| {}).await;
    assert!(refused.unwrap_err().remedy().contains("server itself"));
    // Two, as two nodes would be: their statements must not meet.
    let nodes = [
        Storage::open(&cluster).unwrap(),
        Storage::open(&cluster).unwrap(),
    ];
    for round in 0..2 {
        let work = (0..40).map(|i| {
            let storage = nodes[i % 2].clone();
            tokio::spawn(async move { everything(&storage, &format!("{round}-{i}")).await })
        });
        for task in work.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        bouncer.restart();
    }
    let sessions = fixture.number("SELECT count(*) FROM sessions").await;
    assert_eq!(sessions, 5000 + 80);
    let deadline = Instant::now() + PATIENCE;
    while nodes[0].observed().hosts[0].role != Role::Primary {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let prepared = "SELECT count(*) FROM pg_stat_activity \
                    WHERE application_name LIKE 'bingo/%' AND query LIKE 'SET %'";
    assert_eq!(fixture.number(prepared).await, 0);
}

/// One of each, and each with the right answer.
async fn everything(storage: &Storage, key: &str) {
    let movie = storage.movie(7).await.unwrap().unwrap();
    assert_eq!(movie.view().unwrap().id, 7);
    let customer = storage.customer(9).await.unwrap().unwrap();
    assert_eq!(customer.view().unwrap().id, 9);
    let mut list = storage.sessions(20).await.unwrap();
    let mut rows = 0;
    while list.next().await.unwrap().is_some() {
        rows += 1;
    }
    assert_eq!(rows, 20);
    storage.pause().await.unwrap();
    let key = Some(IdempotencyKey {
        key,
        request_hash: b"h",
    });
    let first = storage.create_session(session(), key).await.unwrap();
    assert!(matches!(first, Created::Stored { .. }));
    assert_eq!(storage.create_session(session(), key).await.unwrap(), first);
}
