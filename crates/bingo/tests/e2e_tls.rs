//! An installation's own certificate authority from outside: who can read what, what is printed for
//! import, and that it stays the same.

mod e2e {
    #[allow(dead_code)] // each test binary uses its part
    pub(crate) mod installation;
}

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use e2e::installation::{Installation, Rows};

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_has_an_authority_that_is_printed_for_import_and_stays() {
    let mut installation = Installation::new("authority", Rows::tiny());
    let none = installation.run(&["gateway", "ca"]);
    assert_eq!(none.code, 64);
    assert!(
        none.stderr.contains("`bingo up` makes it"),
        "{}",
        none.stderr
    );

    let status = installation
        .up(&["--detach", "--domain", "bingo.example"])
        .await;
    let tls = installation.folder().join("tls");
    let path = status["ca_certificate"].as_str().unwrap();
    assert_eq!(path, tls.join("ca.pem").to_str().unwrap());
    let printed = installation.run(&["gateway", "ca"]).stdout;
    assert_eq!(printed, std::fs::read_to_string(path).unwrap());
    assert!(printed.starts_with("-----BEGIN CERTIFICATE-----"));
    let http = status["urls"]["http"].as_str().unwrap();
    assert!(http.starts_with("http://bingo.example:"), "{http}");

    let gateway = installation.children().into_iter();
    let gateway = gateway.filter(|child| child.command_line.contains("gateway --config"));
    let account = gateway.map(|child| child.uid).next().unwrap();
    for file in std::fs::read_dir(&tls).unwrap().flatten() {
        let metadata = file.metadata().unwrap();
        let name = file.file_name();
        assert_eq!(metadata.uid(), account, "{name:?}");
        let others = metadata.permissions().mode() & 0o077;
        assert!(others == 0 || name == "ca.pem", "{name:?} {others:o}");
    }

    let https = status["urls"]["https"].as_str().unwrap();
    verified_by_curl(https, path);
    // One gateway reads the UDP socket, both tell of it.
    let supervisor = installation.folder().join("config/supervisor.yaml");
    let supervisor = std::fs::read_to_string(supervisor).unwrap();
    let port = https.rsplit_once(':').unwrap().1;
    let sockets = supervisor.matches("protocol: udp").count();
    let held = std::net::UdpSocket::bind(format!("127.0.0.1:{port}"));
    assert!(sockets > 0 && held.is_err(), "{supervisor}");

    let other = installation.run(&["up", "--detach", "--mdns"]);
    assert_eq!(other.code, 64);
    for difference in [
        "--domain: runs with",
        "--mdns: runs with false, asked for true",
    ] {
        assert!(other.stderr.contains(difference), "{}", other.stderr);
    }
    installation.down();
    let again = installation.up(&["--detach", "--mdns"]).await;
    assert_eq!(again["ca_certificate"].as_str().unwrap(), path);
    assert_eq!(installation.run(&["gateway", "ca"]).stdout, printed);
}

/// Over HTTP/2 and HTTP/1.1, by a client that trusts the authority and nothing else.
fn verified_by_curl(https: &str, authority: &str) {
    let port = https.rsplit_once(':').unwrap().1;
    for (version, spoken) in [("--http2", "2"), ("--http1.1", "1.1")] {
        for host in ["bingo.example", "localhost", "127.0.0.1"] {
            let output = Command::new("curl")
                .args(["--silent", "--show-error", "--noproxy", "*", version])
                .args(["--cacert", authority, "--write-out", " %{http_version}"])
                .args(["--resolve", &format!("bingo.example:{port}:127.0.0.1")])
                .arg(format!("https://{host}:{port}/ping"))
                .output();
            let Ok(output) = output else {
                return; // No curl here.
            };
            let told = String::from_utf8_lossy(&output.stderr);
            let answer = String::from_utf8_lossy(&output.stdout);
            assert_eq!(answer, format!("pong {spoken}"), "{host}: {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mdns_on_loopback_addresses_is_warned_of_before_anything_starts() {
    let installation = Installation::new("mdns", Rows::tiny());
    let result = installation.run(&["doctor", "--mdns"]);
    assert_eq!(result.code, 0, "{}", result.stdout);
    assert!(
        result.stdout.contains("bingo.local is not announced"),
        "{}",
        result.stdout
    );
    let wrong = installation.run(&["doctor", "--domain", "not a name"]);
    assert_eq!(wrong.code, 2);
}
