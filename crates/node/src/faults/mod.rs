//! The vendor's faults, on request (contract.md section 5): an installation that claims to survive
//! them must be able to prove it. All of them are in this module, all are off unless asked for, and
//! the rest of the node meets them in four places: at its start (`Faults::start`), before its listener
//! (`Faults::slow_start`), before each request (`Faults::admit`) and in `POST /operation`
//! (`Faults::operation`).
//!
//! - `settings`: what can be asked for, in the configuration and with `--faults`.
//! - `quota`: whom the limit of requests lets through, and when.
//! - `fate`: how long a process lives, and how it dies.
//!
//! The ends are real: the process exits or takes memory, as the vendor's did. Left out: which faults
//! hold on other nodes; each process has its own.

mod fate;
mod quota;
mod settings;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::response::Response;
use chassis::Failure;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use fate::Way;
use quota::Quota;
pub use settings::{FaultNames, FaultSettings, Lifetime};

/// What a sick process answers to everything but `/ping`, whose text has no full stop.
const SICK: &str = "I feel bad.";
const TOO_MANY: &str = "Too many requests";
/// The longest wait for the limit of requests.
const QUOTA_WAIT_MAX: Duration = Duration::from_secs(10);
/// A leak takes memory this often.
const LEAK_STEP: Duration = Duration::from_millis(20);

/// Marks an answer that stands as the vendor gave it, and is no problem of RFC 9457.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verbatim;

/// The faults of this process.
pub(crate) struct Faults {
    settings: FaultSettings,
    quota: Option<Mutex<Quota>>,
    sick: AtomicBool,
    leaking: AtomicBool,
}

impl Faults {
    pub(crate) fn new(settings: &FaultSettings) -> Self {
        Self {
            settings: settings.clone(),
            quota: settings
                .rps_limit
                .map(|limit| Mutex::new(Quota::new(limit))),
            sick: AtomicBool::new(false),
            leaking: AtomicBool::new(false),
        }
    }

    /// Warns of all that is on, before any of it is felt, and lets the lifetime run. Must be called inside a tokio runtime.
    pub(crate) fn start(self: &Arc<Self>) {
        let names = self.settings.names();
        if !names.is_empty() {
            let names = names.join(", ");
            tracing::warn!("faults are on, this process misbehaves on purpose: {names}");
        }
        let Some(lifetime) = self.settings.lifetime else {
            return;
        };
        let draw = if self.settings.lifetime_jitter {
            (chassis::random::random() * f64::from(u32::MAX)) as u64
        } else {
            fate::common_draw(jiff::Timestamp::now().as_second().unsigned_abs())
        };
        let fate = fate::fate(lifetime, draw);
        let faults = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(fate.after).await;
            faults.die(fate.way);
        });
    }

    /// The vendor's slow start: before anything is served, a request to an address that never answers
    /// has to time out. The address is one of our own, so that no packet leaves the machine. Returns
    /// at once where the fault is off. Safe to drop.
    pub(crate) async fn slow_start(&self) -> Result<(), Failure> {
        let Some(limit) = self.settings.slow_start else {
            return Ok(());
        };
        tracing::warn!(
            "the fault slow_start: nothing is served for {}",
            chassis::config::format_duration(limit)
        );
        let failed =
            |error| Failure::run_time("start slowly", error, "turn the fault slow_start off");
        let silent = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(failed)?;
        let address = silent.local_addr().map_err(failed)?;
        let request = async {
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            stream.read(&mut [0]).await
        };
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => answer.map(|_| ()).map_err(failed),
            Err(_) => Ok(()),
        }
    }

    /// Lets a request through, now or later; else the answer in its place.
    ///
    /// The quota spares our own probes: 24 of them a second would take a quarter of the vendor's 100
    /// requests, and what is asked of an installation with this fault is what its clients get.
    pub(crate) async fn admit(&self, path: &str, is_probe: bool) -> Result<(), Box<Response>> {
        if let Some(quota) = &self.quota
            && !is_probe
        {
            let now = Instant::now();
            let wait = quota
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .reserve(now, QUOTA_WAIT_MAX);
            tokio::time::sleep(wait.unwrap_or(QUOTA_WAIT_MAX)).await;
            if wait.is_none() {
                return Err(verbatim(StatusCode::TOO_MANY_REQUESTS, TOO_MANY));
            }
        }
        if self.sick.load(Ordering::Relaxed) {
            return Err(sick(path));
        }
        Ok(())
    }

    /// What `POST /operation` of this value does beside its answer; `Err` is the answer in its place.
    pub(crate) fn operation(&self, value: i64) -> Result<(), Box<Response>> {
        if !self.settings.operation {
            return Ok(());
        }
        match fate::way_of_operation(value) {
            Some(Way::Sick) => {
                self.die(Way::Sick);
                Err(sick(""))
            }
            Some(way) => {
                self.die(way);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Each fault and whether it is on.
    pub(crate) fn each(&self) -> [(&'static str, bool); 4] {
        self.settings.each()
    }

    fn die(&self, way: Way) {
        match way {
            Way::Exit => std::process::exit(0),
            Way::Panic(text) => {
                eprintln!("panic: {text}");
                // Not a panic: that would end one request, and the process has to end.
                std::process::exit(2);
            }
            Way::Leak => self.leak(),
            Way::Sick => self.sick.store(true, Ordering::Relaxed),
        }
    }

    /// Takes memory from now on and really touches it, or the kernel would never give it.
    fn leak(&self) {
        if self.leaking.swap(true, Ordering::Relaxed) {
            return;
        }
        let step = self.settings.leak_rate as f64 * LEAK_STEP.as_secs_f64();
        // A thread of its own, so that it goes on whatever the requests do.
        std::thread::spawn(move || {
            loop {
                // Nobody reads it: without the black box the optimiser leaves it out.
                std::hint::black_box(vec![1_u8; step as usize].leak());
                std::thread::sleep(LEAK_STEP);
            }
        });
    }
}

fn sick(path: &str) -> Box<Response> {
    let text = if path == "/ping" {
        crate::texts::UNHEALTHY
    } else {
        SICK
    };
    verbatim(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// Whether a probe of ours asks.
pub(crate) fn is_probe(headers: &HeaderMap) -> bool {
    headers
        .get(USER_AGENT)
        .is_some_and(|agent| agent == chassis::PROBE_AGENT)
}

fn verbatim(status: StatusCode, text: &'static str) -> Box<Response> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response.extensions_mut().insert(Verbatim);
    Box::new(response)
}
