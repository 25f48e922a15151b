//! An installation's own certificate authority from outside: who can read what, what is printed for
//! import, and that it stays the same.

mod e2e {
    #[allow(dead_code)] // each test binary uses its part
    pub(crate) mod installation;
}

use std::os::unix::fs::{MetadataExt, PermissionsExt};

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
    let gateway = gateway.filter(|child| child.command_line.contains("gateway"));
    let account = gateway.map(|child| child.uid).next().unwrap();
    for file in std::fs::read_dir(&tls).unwrap().flatten() {
        let metadata = file.metadata().unwrap();
        let name = file.file_name();
        assert_eq!(metadata.uid(), account, "{name:?}");
        let others = metadata.permissions().mode() & 0o077;
        assert!(others == 0 || name == "ca.pem", "{name:?} {others:o}");
    }

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
