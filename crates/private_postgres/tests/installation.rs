//! A server with an installation's settings, on machines from one GiB up: PostgreSQL takes every one of
//! them and becomes ready, and its pid file tells so.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use private_postgres::{Account, Binaries, Cluster, Initialised, Machine, Role, Signal, settings};

const LIMIT: Duration = Duration::from_secs(20);

fn cluster(folder: &tempfile::TempDir) -> Cluster {
    let account = Account::unprivileged_default().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
    if account.must_switch() {
        chown(folder.path(), Some(account.uid), Some(account.gid)).unwrap();
    }
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    Cluster {
        binaries: Binaries::find(None).unwrap(),
        data: folder.path().join("data"),
        sockets: folder.path().join("run"),
        port,
        account,
    }
}

fn start(cluster: &Cluster, folder: &tempfile::TempDir) -> Child {
    let argv = cluster.command();
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(folder.path().join("log")).unwrap());
    if cluster.account.must_switch() {
        command.uid(cluster.account.uid).gid(cluster.account.gid);
    }
    command.spawn().unwrap()
}

/// Polls until the condition holds.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn a_server_with_the_settings_of_any_machine_becomes_ready_and_stops_in_order() {
    let folder = tempfile::Builder::new()
        .prefix("bingo-installation-")
        .tempdir()
        .unwrap();
    let cluster = cluster(&folder);
    let service = Role {
        name: "bingo".into(),
        password: "secret".into(),
        database: "bingo".into(),
    };
    let mut expected = Initialised::Created;
    for (memory_gib, cores) in [(1, 1), (24, 2), (512, 64)] {
        let machine = Machine {
            memory_bytes: memory_gib << 30,
            cores,
        };
        let made = cluster
            .initialise("super", &service, &settings(&machine, 100))
            .unwrap();
        assert_eq!(made, expected);
        expected = Initialised::Found;
        assert!(!cluster.is_ready());
        let mut server = start(&cluster, &folder);
        let log = || std::fs::read_to_string(folder.path().join("log")).unwrap();
        wait_for("ready", || cluster.is_ready() || log().contains("FATAL"));
        assert!(cluster.is_ready(), "{}", log());
        assert_eq!(cluster.running_pid(), Some(server.id().cast_signed()));
        assert_eq!(cluster.stale_pid(), None);
        assert!(
            folder
                .path()
                .join("run")
                .join(format!(".s.PGSQL.{}", cluster.port))
                .exists()
        );
        signal(&server, Signal::INT);
        assert!(server.wait().unwrap().success(), "{}", log());
        assert_eq!(cluster.running_pid(), None);
    }
}

#[test]
fn the_pid_file_of_a_killed_server_is_stale_and_the_next_server_replaces_it() {
    let folder = tempfile::Builder::new()
        .prefix("bingo-installation-")
        .tempdir()
        .unwrap();
    let cluster = cluster(&folder);
    let service = Role {
        name: "bingo".into(),
        password: "secret".into(),
        database: "bingo".into(),
    };
    let machine = Machine {
        memory_bytes: 1 << 30,
        cores: 1,
    };
    cluster
        .initialise("super", &service, &settings(&machine, 20))
        .unwrap();
    let mut server = start(&cluster, &folder);
    wait_for("ready", || cluster.is_ready());
    let pid = server.id().cast_signed();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(!cluster.is_ready());
    assert_eq!(cluster.stale_pid(), Some(pid));
    // Its children end by themselves; until then the file must not be removed.
    wait_for("cleared", || cluster.clear_stale_pid().is_ok());
    assert_eq!(cluster.stale_pid(), None);
    let mut again = start(&cluster, &folder);
    wait_for("ready again", || cluster.is_ready());
    signal(&again, Signal::INT);
    assert!(again.wait().unwrap().success());
}
