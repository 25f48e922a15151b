//! The whole of it over real handshakes: clients that verify strictly, gateways that share a folder,
//! files that change and break. Time is given, except where a future keeps itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use rcgen::{CertificateParams, KeyPair};
use rustls::HandshakeKind;

use super::decision::{CERTIFICATE_LIFETIME, DAY};
use super::session::{Session, client, versions};
use super::settings::Name;
use super::*;

fn authority(folder: &Path) -> ValidTls {
    named(folder, &["localhost"])
}

fn named(folder: &Path, names: &[&str]) -> ValidTls {
    ValidTls::Authority {
        folder: folder.to_owned(),
        names: names
            .iter()
            .map(|text| Name::parse(text).unwrap())
            .collect(),
        mdns: false,
    }
}

fn files(folder: &Path) -> ValidTls {
    ValidTls::Files {
        certificate: folder.join("chain.pem"),
        key: folder.join("key.pem"),
    }
}

/// A self-signed certificate for `localhost` in the folder; returns its PEM text.
fn write_files(folder: &Path, change: impl FnOnce(&mut CertificateParams)) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    change(&mut params);
    let pem = params.self_signed(&key).unwrap().pem();
    fs::write(folder.join("chain.pem"), &pem).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    pem
}

fn served(certificates: &Certificates) -> Vec<u8> {
    certificates.shared.served.load().key.cert[0].to_vec()
}

fn look(certificates: &Certificates, now: Seconds) -> CertificateMetrics {
    let metrics = CertificateMetrics::default();
    certificates.shared.look(now, &metrics);
    metrics
}

fn count(metrics: &CertificateMetrics, result: &'static str) -> u64 {
    metrics
        .reloads
        .get_or_create(&ResultLabels { result })
        .get()
}

#[test]
fn a_strict_client_that_imported_the_authority_is_served_with_tls_1_2_and_1_3() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::open(&authority(folder.path())).unwrap();
    let pem = fs::read(folder.path().join("ca.pem")).unwrap();
    let server = certificates.server_config(&[b"h2", b"http/1.1"]);
    assert_eq!(
        server.alpn_protocols,
        [b"h2".to_vec(), b"http/1.1".to_vec()]
    );
    let session = Session::open(&server, &versions(&pem, &[&rustls::version::TLS13])).unwrap();
    let group = session.client.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
    session.close();
    Session::open(&server, &versions(&pem, &[&rustls::version::TLS12]))
        .unwrap()
        .close();
    let other = tempfile::tempdir().unwrap();
    let stranger = Certificates::open(&authority(other.path())).unwrap();
    let refused = Session::open(&stranger.server_config(&[]), &client(&pem));
    assert!(refused.err().unwrap().contains("invalid peer certificate"));
}

#[test]
fn keys_are_for_their_owner_alone_and_the_authority_is_for_all() {
    let folder = tempfile::tempdir().unwrap();
    Certificates::open(&authority(folder.path())).unwrap();
    let mut modes: Vec<(String, u32)> = fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| {
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            (file.file_name().into_string().unwrap(), mode)
        })
        .collect();
    modes.sort();
    let expected = [
        ("ca.key", 0o600),
        ("ca.pem", 0o644),
        ("quic.key", 0o600),
        ("server.pem", 0o600),
        ("ticket.keys", 0o600),
    ];
    assert_eq!(modes, expected.map(|(name, mode)| (name.to_owned(), mode)));
}

#[test]
fn gateways_that_start_at_once_on_one_folder_serve_one_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let tls = authority(folder.path());
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let tls = tls.clone();
            std::thread::spawn(move || Certificates::open(&tls).unwrap())
        })
        .collect();
    let gateways: Vec<Certificates> = starts.into_iter().map(|t| t.join().unwrap()).collect();
    for gateway in &gateways {
        assert_eq!(served(gateway), served(&gateways[0]));
        assert_eq!(gateway.quic_reset_key(), gateways[0].quic_reset_key());
    }
    // The next start finds it all.
    let again = Certificates::open(&tls).unwrap();
    assert_eq!(served(&again), served(&gateways[0]));
}

#[test]
fn a_renewal_reaches_new_handshakes_of_every_gateway_and_no_open_connection() {
    let folder = tempfile::tempdir().unwrap();
    let tls = authority(folder.path());
    let now = unix_now();
    let [one, two] = [(); 2].map(|()| Certificates::open_at(&tls, now).unwrap());
    let pem = fs::read(folder.path().join("ca.pem")).unwrap();
    let [tcp, other] = [one.server_config(&[b"h2"]), two.server_config(&[b"h3"])];
    let mut old = Session::open(&tcp, &client(&pem)).unwrap();

    look(&one, now + 59 * DAY);
    assert_eq!(served(&one), old.certificate().to_vec());
    // The clients' clock is the real one: as far back as the renewed certificate is good.
    let metrics = look(&one, now + 61 * DAY);
    assert_eq!(count(&metrics, "swapped"), 1);
    let not_after = metrics.not_after.get_or_create(&NO_LABELS).get();
    assert_eq!(not_after, now + 61 * DAY + CERTIFICATE_LIFETIME);
    assert_ne!(served(&one), old.certificate().to_vec());
    assert_eq!(served(&two), old.certificate().to_vec());
    look(&two, now + 61 * DAY);
    assert_eq!(served(&two), served(&one));
    old.echo().unwrap();
    old.close();
    // The clock comes back: renewed again, and clients of today are served.
    look(&one, now);
    let session = Session::open(&tcp, &client(&pem)).unwrap();
    assert_eq!(session.certificate().to_vec(), served(&one));
    session.close();
    look(&two, now);
    let session = Session::open(&other, &client(&pem)).unwrap();
    assert_eq!(session.certificate().to_vec(), served(&one));
    session.close();
    let kept = fs::read(folder.path().join("ca.pem")).unwrap();
    assert_eq!(kept, pem, "the authority stays");
}

#[test]
fn other_names_cost_a_certificate_and_only_strange_ones_an_authority() {
    let folder = tempfile::tempdir().unwrap();
    let pem = || fs::read(folder.path().join("ca.pem")).unwrap();
    let first = Certificates::open(&authority(folder.path())).unwrap();
    let imported = pem();
    let more = named(folder.path(), &["localhost", "bingo.local", "::1"]);
    let second = Certificates::open(&more).unwrap();
    assert_ne!(served(&first), served(&second));
    assert_eq!(pem(), imported);
    // A gateway with other names keeps its own certificate; nobody renews in turns.
    look(&first, unix_now());
    look(&second, unix_now());
    assert_ne!(served(&first), served(&second));
    let settled = fs::read(folder.path().join("server.pem")).unwrap();
    look(&first, unix_now());
    assert_eq!(fs::read(folder.path().join("server.pem")).unwrap(), settled);

    let strange = Certificates::open(&named(folder.path(), &["example.org"])).unwrap();
    let second_authority = pem();
    assert_ne!(second_authority, imported);
    let session = Session::open(&strange.server_config(&[]), &client(&pem()));
    let refused = session.err().unwrap();
    assert!(refused.contains("not valid for name"), "{refused}");
    // A gateway that runs follows the authority in the folder, where that may speak for its names,
    look(&first, unix_now());
    let config = first.server_config(&[]);
    Session::open(&config, &client(&second_authority))
        .unwrap()
        .close();
    // and keeps what it has where not.
    Certificates::open(&named(folder.path(), &["example.net"])).unwrap();
    let kept = served(&strange);
    let told: u64 = (0..3)
        .map(|_| count(&look(&strange, unix_now()), "failed"))
        .sum();
    assert_eq!((served(&strange), told), (kept, 1));
    // Names that nothing can speak for cost no import either.
    let imported = pem();
    let impossible = ValidTls::Authority {
        folder: folder.path().to_owned(),
        names: [Name::Dns("*.local".to_owned())].into(),
        mdns: false,
    };
    let failure = Certificates::open(&impossible).err().unwrap();
    assert_eq!(failure.exit, chassis::Exit::Configuration);
    assert_eq!(pem(), imported);
}

#[test]
fn broken_files_of_a_folder_are_made_anew_at_a_start_and_survived_while_running() {
    let folder = tempfile::tempdir().unwrap();
    let tls = authority(folder.path());
    let running = Certificates::open(&tls).unwrap();
    let now = unix_now();
    for name in ["ca.key", "ca.pem", "server.pem", "ticket.keys", "quic.key"] {
        let path = folder.path().join(name);
        let whole = fs::read(&path).unwrap();
        for broken in [&b""[..], &whole[..whole.len() / 2], b"\xff\xfe"] {
            let kept = served(&running);
            fs::write(&path, broken).unwrap();
            look(&running, now);
            assert_eq!(served(&running), kept, "{name}");
            let started = Certificates::open(&tls).unwrap();
            let pem = fs::read(folder.path().join("ca.pem")).unwrap();
            let config = started.server_config(&[]);
            Session::open(&config, &client(&pem)).unwrap().close();
            look(&running, now);
            assert_eq!(served(&running), served(&started), "{name}");
        }
    }
    fs::remove_dir_all(folder.path()).unwrap();
    let kept = served(&running);
    look(&running, now);
    let metrics = look(&running, now);
    assert_eq!((served(&running), count(&metrics, "failed")), (kept, 1));
    assert_eq!(count(&look(&running, now), "failed"), 0, "told once");
}

#[test]
fn changed_files_are_served_and_broken_ones_keep_the_old() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_files(folder.path(), |_| ());
    let tls = files(folder.path());
    let certificates = Certificates::open(&tls).unwrap();
    let server = certificates.server_config(&[]);
    let mut old = Session::open(&server, &client(first.as_bytes())).unwrap();
    let now = unix_now();
    assert_eq!(count(&look(&certificates, now), "swapped"), 0);

    // One file after the other: for a moment they do not belong together, and nothing is told.
    let key = fs::read(folder.path().join("key.pem")).unwrap();
    let second = write_files(folder.path(), |_| ());
    let new_key = fs::read(folder.path().join("key.pem")).unwrap();
    fs::write(folder.path().join("key.pem"), key).unwrap();
    let metrics = look(&certificates, now);
    assert_eq!(
        (count(&metrics, "swapped"), count(&metrics, "failed")),
        (0, 0)
    );
    fs::write(folder.path().join("key.pem"), new_key).unwrap();
    assert_eq!(count(&look(&certificates, now), "swapped"), 1);
    Session::open(&server, &client(second.as_bytes()))
        .unwrap()
        .close();
    old.echo().unwrap();
    old.close();

    for broken in ["", "rubbish", &second[..second.len() / 2]] {
        fs::write(folder.path().join("chain.pem"), broken).unwrap();
        let told: u64 = (0..5)
            .map(|_| count(&look(&certificates, now), "failed"))
            .sum();
        assert_eq!(told, 1, "a fault is told once: {broken:?}");
        fs::write(folder.path().join("chain.pem"), &second).unwrap();
        look(&certificates, now);
        Session::open(&server, &client(second.as_bytes()))
            .unwrap()
            .close();
    }
    fs::remove_file(folder.path().join("chain.pem")).unwrap();
    look(&certificates, now);
    Session::open(&server, &client(second.as_bytes()))
        .unwrap()
        .close();
}

#[test]
fn files_that_cannot_be_served_are_refused_at_the_start_with_key_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).unwrap();
    let refused = || {
        let failure = Certificates::open(&files(folder.path())).err().unwrap();
        assert_eq!(failure.exit, chassis::Exit::Configuration);
        failure.to_string()
    };
    assert!(refused().contains("use tls.certificate"));
    let good = write_files(folder.path(), |_| ());
    let key = fs::read(folder.path().join("key.pem")).unwrap();
    put(
        "key.pem",
        KeyPair::generate().unwrap().serialize_pem().as_bytes(),
    );
    assert!(refused().contains("belongs to another certificate"));
    put("key.pem", good.as_bytes());
    assert!(refused().contains("no private key"));
    put("key.pem", &key);
    put("chain.pem", &key);
    assert!(refused().contains("no certificate"));
    write_files(folder.path(), |params| params.subject_alt_names.clear());
    assert!(refused().contains("subjectAltName"));
    write_files(folder.path(), |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    assert!(refused().contains("it has expired"));
    write_files(folder.path(), |params| {
        params.not_before = rcgen::date_time_ymd(3000, 1, 1);
    });
    assert!(refused().contains("not valid yet"));
    assert!(refused().contains("help: "));
}

#[test]
fn keys_of_every_common_kind_are_read() {
    // Made with openssl: `ecparam -genkey`, `req -x509`, `rsa -traditional`, `pkcs8 -topk8`.
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &str| {
        let status = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder.path())
            .output();
        status.is_ok_and(|output| output.status.success())
    };
    let self_signed =
        "req -x509 -nodes -subj /CN=x -addext subjectAltName=DNS:localhost -days 9 -out chain.pem";
    if !run(&format!("{self_signed} -newkey rsa:2048 -keyout pkcs8.pem")) {
        return; // No openssl here.
    }
    let opened = |key: &str| {
        fs::copy(folder.path().join(key), folder.path().join("key.pem")).unwrap();
        Certificates::open(&files(folder.path())).map(drop)
    };
    opened("pkcs8.pem").unwrap();
    assert!(run("rsa -traditional -in pkcs8.pem -out pkcs1.pem"));
    let text = fs::read_to_string(folder.path().join("pkcs1.pem")).unwrap();
    assert!(text.contains("BEGIN RSA PRIVATE KEY"));
    opened("pkcs1.pem").unwrap();
    assert!(run("ecparam -name prime256v1 -genkey -noout -out sec1.pem"));
    assert!(run(&format!("{self_signed} -key sec1.pem")));
    let text = fs::read_to_string(folder.path().join("sec1.pem")).unwrap();
    assert!(text.contains("BEGIN EC PRIVATE KEY"));
    opened("sec1.pem").unwrap();
}

#[test]
fn a_client_resumes_on_another_thread_another_gateway_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let tls = authority(folder.path());
    let one = Certificates::open(&tls).unwrap();
    let pem = fs::read(folder.path().join("ca.pem")).unwrap();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = versions(&pem, &[version]);
        let first = Session::open(&one.server_config(&[]), &client).unwrap();
        assert_ne!(first.close(), HandshakeKind::Resumed);
        let again = Session::open(&one.server_config(&[]), &client).unwrap();
        assert_eq!(again.close(), HandshakeKind::Resumed);
        let two = Certificates::open(&tls).unwrap();
        let there = Session::open(&two.server_config(&[]), &client).unwrap();
        assert_eq!(there.close(), HandshakeKind::Resumed, "{version:?}");
    }
    let of_files = tempfile::tempdir().unwrap();
    let pem = write_files(of_files.path(), |_| ());
    let certificates = Certificates::open(&files(of_files.path())).unwrap();
    let client = client(pem.as_bytes());
    Session::open(&certificates.server_config(&[]), &client)
        .unwrap()
        .close();
    let again = Session::open(&certificates.server_config(&[]), &client).unwrap();
    assert_eq!(again.close(), HandshakeKind::Resumed);
}

#[test]
fn a_certificate_from_files_is_warned_of_near_its_end_and_an_own_one_never() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path(), |_| ());
    let certificates = Certificates::open(&files(folder.path())).unwrap();
    let end = certificates.shared.served.load().validity.not_after;
    let warned = |certificates: &Certificates| certificates.shared.keeping.lock().unwrap().warned;
    look(&certificates, end - 15 * DAY);
    assert_eq!(warned(&certificates), None);
    look(&certificates, end - 13 * DAY);
    assert_eq!(warned(&certificates), Some(end - 13 * DAY));
    let own = tempfile::tempdir().unwrap();
    let certificates = Certificates::open(&authority(own.path())).unwrap();
    look(&certificates, unix_now() + 59 * DAY);
    assert_eq!(warned(&certificates), None);
}

#[test]
fn openssl_verifies_the_certificate_by_its_strictest_rules() {
    let folder = tempfile::tempdir().unwrap();
    let tls = named(
        folder.path(),
        &["localhost", "127.0.0.1", "::1", "example.org"],
    );
    Certificates::open(&tls).unwrap();
    for name in [
        "-verify_hostname=localhost",
        "-verify_ip=::1",
        "-verify_hostname=example.org",
    ] {
        let (option, value) = name.split_once('=').unwrap();
        let output = std::process::Command::new("openssl")
            .args([
                "verify",
                "-x509_strict",
                "-purpose",
                "sslserver",
                "-CAfile",
                "ca.pem",
            ])
            .args([option, value, "server.pem"])
            .current_dir(folder.path())
            .output();
        let Ok(output) = output else {
            return; // No openssl here.
        };
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_running_gateway_sees_changed_files_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path(), |_| ());
    let certificates = Certificates::open(&files(folder.path())).unwrap();
    let before = served(&certificates);
    let keeping = tokio::spawn(certificates.clone().keep(CertificateMetrics::default()));
    write_files(folder.path(), |_| ());
    let deadline = Instant::now() + Duration::from_secs(20);
    while served(&certificates) == before {
        assert!(Instant::now() < deadline, "the files were not read again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    keeping.abort();
}
