//! `bingo inspect` on the stand-in of the vendor's binary (`examples/vendor`): each of its traps is
//! named. What it lacks first hides the next, so it is inspected again and again, each time with one
//! trap less.

mod e2e {
    #[allow(dead_code)] // each test binary uses its part
    pub(crate) mod installation;
}

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use e2e::installation::{Installation, Rows};
use serde_json::Value;

/// Nobody else uses its port, 1407, which is above those of services.
const EMAIL: &str = "bob@example.net";
const PORT: u16 = 1407;
const LOG_FOLDER: &str = "/opt/bongo/logs/261ff6da2b";

/// A server that answers as a PostgreSQL does when it is asked for TLS.
fn database() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 8]);
            let _ = stream.write_all(b"N");
        }
    });
    address
}

/// A listener whose queue is full: who connects waits.
fn dead_address() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&address, std::time::Duration::from_millis(300));
    let waiting = std::iter::repeat_with(connect).take(4).flatten();
    let waiting = waiting.collect();
    (listener, waiting, address)
}

/// Inspects it with an /opt of its own, prepared by a script.
fn findings(installation: &Installation, prepare: &str, flags: &str) -> Value {
    let program = installation.binary().with_file_name("vendor");
    let script = format!(
        "mount -t tmpfs none /opt && {{ {prepare}; }} && exec {} inspect --json --user nobody \
         --time 8s -- {} run_server {flags}",
        installation.binary().display(),
        program.display()
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

#[test]
fn every_trap_of_the_vendors_binary_is_named() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: it takes root");
        return;
    }
    let installation = Installation::new("inspect", Rows::tiny());
    let built = Path::new(env!("CARGO_BIN_EXE_bingo")).with_file_name("examples/vendor");
    std::fs::copy(built, installation.binary().with_file_name("vendor")).unwrap();
    let first = findings(&installation, "true", "");
    assert_eq!(
        first["files"][0]["path"], "/opt/bingo/config.yaml",
        "{first:#}"
    );
    assert_eq!(first["files"][0]["help"], "there is no folder /opt/bingo");
    assert!(
        first["ended"]
            .as_str()
            .unwrap()
            .starts_with("exit status: 1")
    );

    let database = database();
    let config = format!(
        "mkdir /opt/bingo; printf 'student_email: {EMAIL}\\npostgres_cluster:\\n  hosts:\\n  - address: \
         {}\\n    port: {}\\n' > /opt/bingo/config.yaml",
        database.ip(),
        database.port()
    );
    let second = findings(&installation, &config, "");
    let log = format!("{LOG_FOLDER}/main.log");
    assert_eq!(second["files"][0]["path"], log.as_str(), "{second:#}");
    assert_eq!(second["files"][0]["writes"], true);
    let said = second["last_lines"].to_string();
    assert!(said.contains("panic: open"), "{said}");

    let closed = format!("{config}; mkdir -p {LOG_FOLDER}");
    let third = findings(&installation, &closed, "");
    let help = third["files"][0]["help"].as_str().unwrap();
    assert_eq!(
        help,
        format!("{LOG_FOLDER} belongs to user 0 and has mode 0755")
    );

    let (_listener, _waiting, dead) = dead_address();
    let open = format!("{closed}; chmod 777 {LOG_FOLDER}");
    let flags = format!("--dead-address {dead} --patience 3");
    let last = findings(&installation, &open, &flags);
    assert_eq!(last["ended"], Value::Null, "{last:#}");
    assert_eq!(last["ports"], serde_json::json!([PORT]));
    assert_eq!(
        last["unreachable"][0]["address"],
        dead.to_string(),
        "{last:#}"
    );
    assert!(last["unreachable"][0]["waited_seconds"].as_f64().unwrap() > 2.0);
    let answers = last["answers"].to_string();
    assert!(answers.contains(": pong"), "{answers}");
    // It lets a hundred a second through, and bursts of five.
    assert!(answers.contains("60 answers in "), "{answers}");
    let texts = last["texts"].to_string();
    assert!(
        texts.contains("/opt/bingo/config.yaml") && texts.contains("code:"),
        "{texts}"
    );
    assert!(last["memory"][0].as_u64().unwrap() > 0);
}
