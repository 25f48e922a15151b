//! libpq's six words of `sslmode`, against a real server with certificates made for the test.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use private_postgres::TestServer;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use storage::deadline::until;
use storage::{Host, PostgresCluster, SslMode, Storage};
use tokio_postgres::NoTls;

/// Long enough for a handshake on a busy machine; what fails for good waits as long.
const DEADLINE: Duration = Duration::from_millis(1500);

/// A server whose certificate, signed by our own authority, is for `localhost` alone.
struct Fixture {
    server: TestServer,
    folder: tempfile::TempDir,
    authority: Issuer<'static, KeyPair>,
}

impl Fixture {
    /// `access`: lines of pg_hba.conf for the service's role.
    fn start(access: &str) -> Self {
        let (authority, authority_pem) = authority();
        let mut server = TestServer::start().unwrap();
        let (certificate, key) = certificate(&authority, "localhost", "server");
        server.write("server.crt", &certificate).unwrap();
        server.write("server.key", &key).unwrap();
        server.write("clients.crt", &authority_pem).unwrap();
        for (name, value) in [("ssl", "on"), ("ssl_ca_file", "clients.crt")] {
            server.set(name, value);
        }
        let superuser = "host all postgres 127.0.0.1/32 scram-sha-256\n";
        server
            .write("pg_hba.conf", &format!("{superuser}{access}\n"))
            .unwrap();
        server.restart().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("root.pem"), authority_pem).unwrap();
        Self {
            server,
            folder,
            authority,
        }
    }

    fn cluster(&self, ssl_mode: SslMode, address: &str) -> PostgresCluster {
        PostgresCluster {
            hosts: vec![Host::new(address, self.server.port())],
            ssl_mode,
            ssl_root_cert: matches!(ssl_mode, SslMode::VerifyCa | SslMode::VerifyFull)
                .then(|| self.path("root.pem")),
            ..PostgresCluster::from_url(&self.server.url()).unwrap()
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Whether the connection is encrypted, or why there is none.
    async fn connected(&self, cluster: &PostgresCluster) -> Result<bool, String> {
        let storage = Storage::open(cluster).map_err(|error| error.to_string())?;
        until(Instant::now() + DEADLINE, storage.pause())
            .await
            .map_err(|error| error.to_string())?;
        let url = self.server.superuser_url();
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let sql = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                   WHERE application_name = 'bingo/db_dummy'";
        Ok(client.query_one(sql, &[]).await.unwrap().get(0))
    }
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "test authority");
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// A certificate and its key.
fn certificate(authority: &Issuer<'_, KeyPair>, name: &str, common: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, common);
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn write(path: &Path, text: &str) -> PathBuf {
    std::fs::write(path, text).unwrap();
    path.to_owned()
}

#[tokio::test]
async fn a_server_that_demands_encryption_gets_it_in_every_mode_but_disable() {
    let fixture = Fixture::start("hostssl all bingo 127.0.0.1/32 scram-sha-256");
    let refused = fixture.cluster(SslMode::Disable, "127.0.0.1");
    let why = fixture.connected(&refused).await.unwrap_err();
    assert!(why.contains("no encryption"), "{why}");
    for mode in [
        SslMode::Allow,
        SslMode::Prefer,
        SslMode::Require,
        SslMode::VerifyCa,
    ] {
        let cluster = fixture.cluster(mode, "127.0.0.1");
        assert_eq!(fixture.connected(&cluster).await, Ok(true), "{mode:?}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_encryption_is_reached_where_the_mode_allows_it() {
    let fixture = Fixture::start("hostnossl all bingo 127.0.0.1/32 scram-sha-256");
    for mode in [SslMode::Disable, SslMode::Allow, SslMode::Prefer] {
        let cluster = fixture.cluster(mode, "127.0.0.1");
        assert_eq!(fixture.connected(&cluster).await, Ok(false), "{mode:?}");
    }
    let cluster = fixture.cluster(SslMode::Require, "127.0.0.1");
    assert!(fixture.connected(&cluster).await.is_err());
}

#[tokio::test]
async fn the_chain_and_the_name_are_checked_where_the_mode_says_so() {
    let fixture = Fixture::start("hostssl all bingo 127.0.0.1/32 scram-sha-256");
    let full = fixture.cluster(SslMode::VerifyFull, "localhost");
    assert_eq!(fixture.connected(&full).await, Ok(true));
    // The certificate is for another name.
    let other = fixture.cluster(SslMode::VerifyFull, "127.0.0.1");
    let why = fixture.connected(&other).await.unwrap_err();
    assert!(why.contains("certificate"), "{why}");
    // Another authority's.
    let stranger = write(&fixture.path("stranger.pem"), &authority().1);
    for mode in [SslMode::VerifyCa, SslMode::VerifyFull, SslMode::Require] {
        let cluster = PostgresCluster {
            ssl_root_cert: Some(stranger.clone()),
            ..fixture.cluster(mode, "localhost")
        };
        let why = fixture.connected(&cluster).await.unwrap_err();
        assert!(why.contains("certificate"), "{mode:?}: {why}");
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_where_it_is_the_root_itself() {
    let mut fixture = Fixture::start("hostssl all bingo 127.0.0.1/32 scram-sha-256");
    // As PostgreSQL's own instructions make one: it is an authority's (18.9.5).
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    fixture.server.write("server.crt", &certificate).unwrap();
    let key = key.serialize_pem();
    fixture.server.write("server.key", &key).unwrap();
    fixture.server.restart().unwrap();
    write(&fixture.path("root.pem"), &certificate);
    let full = fixture.cluster(SslMode::VerifyFull, "localhost");
    assert_eq!(fixture.connected(&full).await, Ok(true));
    let chain = fixture.cluster(SslMode::VerifyCa, "127.0.0.1");
    assert_eq!(fixture.connected(&chain).await, Ok(true));
    let other_name = fixture.cluster(SslMode::VerifyFull, "127.0.0.1");
    assert!(fixture.connected(&other_name).await.is_err());
}

#[tokio::test]
async fn a_client_proves_itself_with_its_certificate() {
    let fixture = Fixture::start("hostssl all bingo 127.0.0.1/32 cert");
    let without = fixture.cluster(SslMode::Require, "127.0.0.1");
    assert!(fixture.connected(&without).await.is_err());
    let (certificate, key) = certificate(&fixture.authority, "bingo", "bingo");
    let with = PostgresCluster {
        ssl_cert: Some(write(&fixture.path("client.crt"), &certificate)),
        ssl_key: Some(write(&fixture.path("client.key"), &key)),
        password: None,
        ..without
    };
    assert_eq!(fixture.connected(&with).await, Ok(true));
}
