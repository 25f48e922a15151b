//! The certificate of every listener, TCP and QUIC alike. One pointer holds what handshakes use; a
//! renewal or a change of files swaps it, so new handshakes see the new certificate everywhere and
//! connections that are open do not notice. `decision` says when, `source` from where, `authority`
//! issues, `served` checks, `tickets` lets clients resume, `folder` keeps it all.
//!
//! TLS 1.2 and 1.3 with the suites that Mozilla's "intermediate" list names (Server Side TLS 5.7) and
//! the key exchange X25519MLKEM768 first, which a later quantum computer does not open. Left out:
//! several certificates by name (SNI), client certificates, 0-RTT (a request in it can be replayed).

mod authority;
mod decision;
mod folder;
mod served;
#[cfg(test)]
mod session;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod tickets;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use chassis::Failure;
use chassis::config::Fault;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use decision::Seconds;
pub(crate) use folder::Folder;
use served::Served;
pub use settings::is_server_name;
pub(crate) use settings::{MDNS_NAME, ValidTls, valid};
use source::Source;
use tickets::Tickets;

/// How often files and folder are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const RESET_KEY_FILE: &str = "quic.key";
const RESET_KEY_BYTES: usize = 64;

/// What is wrong with the files that a configuration names; what an authority lacks it makes.
pub(crate) fn faults(tls: &ValidTls) -> Vec<Fault> {
    let ValidTls::Files { certificate, key } = tls else {
        return Vec::new();
    };
    let found = source::faults(certificate, key, &provider(), unix_now());
    let told = found.into_iter().map(|fault| {
        let (name, path) = match fault.of_key {
            true => ("tls.key", key),
            false => ("tls.certificate", certificate),
        };
        Fault::new(name, path.display(), fault.why, fault.remedy)
    });
    told.collect()
}

/// Private keys that others may read, with the key of the configuration that names them. A group may
/// where an operator has put the file; in our own folder nobody is meant to.
pub(crate) fn open_keys(tls: &ValidTls) -> Vec<(&'static str, PathBuf)> {
    match tls {
        ValidTls::Files { key, .. } => {
            let open = folder::is_open_to(key, 0o007);
            open.then(|| ("tls.key", key.clone())).into_iter().collect()
        }
        ValidTls::Authority { folder, .. } => source::SECRET_FILES
            .iter()
            .map(|name| folder.join(name))
            .filter(|path| folder::is_open_to(path, 0o077))
            .map(|path| ("tls.folder", path))
            .collect(),
    }
}

/// Cheap to clone: all clones are one.
#[derive(Clone)]
pub(crate) struct Certificates {
    shared: Arc<Shared>,
    /// Without an ALPN protocol; every other one is this and its own.
    base: Arc<ServerConfig>,
    reset_key: [u8; RESET_KEY_BYTES],
}

struct Shared {
    served: ArcSwap<Served>,
    tickets: Arc<Tickets>,
    keeping: Mutex<Keeping>,
}

/// What only the one who looks needs.
struct Keeping {
    source: Source,
    /// The fault that stands, and whether it was told.
    fault: Option<(String, bool)>,
    ticket_fault: bool,
    /// When the end of a certificate from files was last warned of.
    warned: Option<Seconds>,
}

impl Certificates {
    /// Reads or makes everything. Fails with 64 where files or folder cannot be used.
    pub(crate) fn open(tls: &ValidTls) -> Result<Self, Failure> {
        Self::open_at(tls, unix_now())
    }

    fn open_at(tls: &ValidTls, now: Seconds) -> Result<Self, Failure> {
        let provider = Arc::new(provider());
        let mut source = Source::new(tls.clone(), Arc::clone(&provider));
        let served = source.open(now)?;
        let folder = source.folder();
        let tickets = Arc::new(Tickets::open(folder.as_ref(), now)?);
        let shared = Arc::new(Shared {
            served: ArcSwap::from_pointee(served),
            tickets: Arc::clone(&tickets),
            keeping: Mutex::new(Keeping {
                source,
                fault: None,
                ticket_fault: false,
                warned: None,
            }),
        });
        let mut base = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| Failure::run_time("prepare TLS", error, "report this"))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shared) as Arc<dyn ResolvesServerCert>);
        base.ticketer = tickets;
        // What a server remembers, its neighbour does not know; tickets everybody opens.
        base.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            shared,
            base: Arc::new(base),
            reset_key: reset_key(folder.as_ref())?,
        })
    }

    /// What a listener speaks TLS with; `alpn` in the order of preference (RFC 7301). All follow the
    /// one swap.
    pub(crate) fn server_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.base);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// The key of stateless resets (RFC 9000 10.3): the same after a restart, so that clients of a
    /// process that is gone learn it at once.
    pub(crate) fn quic_reset_key(&self) -> [u8; RESET_KEY_BYTES] {
        self.reset_key
    }

    /// Renews and reloads for ever, about once a second, off the runtime's own threads.
    pub(crate) async fn keep(self, metrics: CertificateMetrics) {
        loop {
            let (shared, seen) = (Arc::clone(&self.shared), metrics.clone());
            let looked = tokio::task::spawn_blocking(move || shared.look(unix_now(), &seen)).await;
            if let Err(error) = looked {
                tracing::error!(%error, "the certificate was not looked at");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

impl Shared {
    /// One look at files or folder. On any fault what is served stays; the fault is told once, and
    /// only when it stands for two looks: whoever replaces two files does so one after the other.
    fn look(&self, now: Seconds, metrics: &CertificateMetrics) {
        let mut keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let keeping = &mut *keeping;
        let current = self.served.load_full();
        match keeping.source.look(&current, now) {
            Ok(None) => keeping.fault = None,
            Ok(Some(served)) => {
                keeping.fault = None;
                self.served.store(Arc::new(served));
                metrics.reloaded("swapped");
                tracing::info!("new handshakes use another certificate");
            }
            Err(failure) => {
                let text = failure.to_string();
                let (stands, told) = match &keeping.fault {
                    Some((before, told)) => (*before == text, *before == text && *told),
                    None => (false, false),
                };
                if stands && !told {
                    metrics.reloaded("failed");
                    tracing::error!(fault = text, "the certificate is kept as it is");
                }
                keeping.fault = Some((text, stands));
            }
        }
        let folder = keeping.source.folder();
        let kept = self.tickets.look(folder.as_ref(), now);
        if let Err(failure) = &kept
            && !keeping.ticket_fault
        {
            tracing::warn!(fault = %failure, "session tickets are this process's own for now");
        }
        keeping.ticket_fault = kept.is_err();
        let validity = self.served.load().validity;
        metrics
            .not_after
            .get_or_create(&NO_LABELS)
            .set(validity.not_after);
        if keeping.source.is_of_files() && validity.is_to_be_warned_of(now, keeping.warned) {
            keeping.warned = Some(now);
            let days = (validity.not_after - now).div_euclid(decision::DAY);
            tracing::warn!(days, "the certificate ends soon; replace the files in tls");
        }
    }
}

impl ResolvesServerCert for Shared {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.served.load().key))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

/// Mozilla's intermediate list, as far as rustls has it: no finite-field Diffie-Hellman.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..default_provider()
    }
}

fn reset_key(folder: Option<&Folder>) -> Result<[u8; RESET_KEY_BYTES], Failure> {
    let Some(folder) = folder else {
        return random();
    };
    let _lock = folder.lock()?;
    let kept = folder.read(RESET_KEY_FILE)?.unwrap_or_default();
    if let Ok(key) = kept.try_into() {
        return Ok(key);
    }
    let key = random()?;
    folder.write(RESET_KEY_FILE, 0o600, &key)?;
    Ok(key)
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| {
        let why = "the random source of the system failed";
        Failure::run_time("make a key", why, "start it again")
    })?;
    Ok(bytes)
}

fn unix_now() -> Seconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        Seconds::try_from(since.as_secs()).unwrap_or(Seconds::MAX)
    })
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// A family, and not a gauge alone, so that no certificate is not one that ended in 1970.
type NoLabels = [(&'static str, &'static str); 0];
const NO_LABELS: NoLabels = [];

/// What is shown of the certificate; nothing where there is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct CertificateMetrics {
    not_after: Family<NoLabels, Gauge>,
    reloads: Family<ResultLabels, Counter>,
}

impl CertificateMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "bingo_certificate_not_after_seconds",
            "When the certificate that is served ends, in seconds since 1970",
            metrics.not_after.clone(),
        );
        registry.register(
            "bingo_certificate_reloads",
            "Times that the certificate was swapped, or that a new one could not be used (failed)",
            metrics.reloads.clone(),
        );
        for result in ["swapped", "failed"] {
            drop(metrics.reloads.get_or_create(&ResultLabels { result }));
        }
        metrics
    }

    /// For the reference page.
    pub(crate) fn example(&self) {
        self.not_after.get_or_create(&NO_LABELS).set(0);
    }

    fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&ResultLabels { result }).inc();
    }
}
