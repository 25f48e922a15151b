//! How a gateway lives: one thread per core, each with a runtime, listeners and node connections of
//! its own, because threads that share nothing need no locks (performance.md: 13.9 µs a request
//! against 17.1 on a shared runtime). The calling thread probes nodes, serves the admin listener and
//! waits for the end.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;

use chassis::{Failure, Shutdown};
use tokio::runtime::Runtime;
use tokio::sync::mpsc as async_mpsc;
use tokio::task::LocalSet;

use crate::listener::{self, Kind, Listener, Open};
use crate::picture::Picture;
use crate::reload::Reloader;
use crate::tls::ValidTls;
use crate::valid::Valid;
use crate::worker::{Shared, Worker};
use crate::{admin, mdns, picture, probe, quic};

/// Serves `listeners` until `shutdown`, then stops accepting, finishes what is open within the drain
/// deadline and returns. Blocks; must not be called inside an async task.
///
/// A configuration that was read from a file is read anew when the file's content changes, on SIGHUP
/// and when the admin API asks; see `reload`.
///
/// `listeners` are the public ones, each with what is spoken on it, `quic` the UDP sockets of HTTP/3,
/// `admin` the private ones, which speak plain HTTP/1.1; each inherited or opened by the caller.
/// Fails (exit 1) where the system refuses threads, runtimes or listeners.
#[allow(clippy::needless_pass_by_value)] // A switch is handed over, as to every role's `run`.
pub fn run(
    config: Valid,
    listeners: Vec<Listener>,
    quic: Vec<quic::Listener>,
    admin: Vec<TcpListener>,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let shared = Arc::new(Shared::new(&config));
    let reloader = Arc::new(Reloader::new(Arc::clone(&shared), &config));
    let runtime = runtime().map_err(|error| failed("start the gateway's runtime", error))?;
    // Dropped with `runtime`, at the very end: probes go on while connections drain.
    start_control(&runtime, &shared, &reloader, admin)?;
    start_certificates(&runtime, &shared, &config, &listeners);

    let (started, starts) = mpsc::channel();
    let (ended, mut ends) = async_mpsc::unbounded_channel();
    let mut threads = Vec::new();
    let mut result = Ok(());
    for number in 0..shared.threads {
        let thread = Thread {
            shared: Arc::clone(&shared),
            shutdown: shutdown.clone(),
            started: started.clone(),
            ended: ended.clone(),
        };
        let name = format!("gateway-{number}");
        match duplicate(&listeners).and_then(|own| thread.spawn(name, Work::Tcp(own))) {
            Ok(handle) => threads.push(handle),
            Err(error) => result = Err(failed("start a gateway thread", error)),
        }
    }
    if !quic.is_empty() {
        let thread = Thread {
            shared: Arc::clone(&shared),
            shutdown: shutdown.clone(),
            started: started.clone(),
            ended: ended.clone(),
        };
        match thread.spawn("gateway-quic".to_owned(), Work::Quic(quic)) {
            Ok(handle) => threads.push(handle),
            Err(error) => result = Err(failed("start a gateway thread", error)),
        }
    }
    drop((started, ended, listeners));

    for _ in 0..threads.len() {
        let start = starts
            .recv()
            .map_err(|_| failed("start a gateway thread", "it ended at once"));
        result = result.and(start.and_then(|start| start));
    }
    if result.is_ok() {
        tracing::info!(threads = shared.threads, "gateway serves");
        chassis::notify::ready();
        // A thread that ends unasked has panicked; the others are asked to end then.
        runtime.block_on(async {
            tokio::select! {
                () = shutdown.requested() => {}
                _ = ends.recv() => {}
            }
        });
        chassis::notify::stopping();
    }
    shutdown.request();
    runtime.block_on(async { while ends.recv().await.is_some() {} });
    for thread in threads {
        if thread.join().is_err() {
            result = Err(failed("serve", "a gateway thread panicked"));
        }
    }
    shared.events.flush();
    result
}

fn failed(attempted: &str, why: impl std::fmt::Display) -> Failure {
    Failure::run_time(
        attempted,
        why,
        "look at the log, and at the limits of threads and open files",
    )
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

fn duplicate(listeners: &[Listener]) -> io::Result<Vec<Listener>> {
    listeners
        .iter()
        .map(|listener| {
            Ok(Listener {
                socket: listener.socket.try_clone()?,
                kind: listener.kind.clone(),
            })
        })
        .collect()
}

fn start_control(
    runtime: &Runtime,
    shared: &Arc<Shared>,
    reloader: &Arc<Reloader>,
    admin: Vec<TcpListener>,
) -> Result<(), Failure> {
    let _inside = runtime.enter();
    let picture = Arc::new(Picture::new());
    if !admin.is_empty() {
        runtime.spawn(picture::watch(Arc::clone(shared), Arc::clone(&picture)));
    }
    for listener in admin {
        let listener =
            adopt(listener).map_err(|error| failed("serve the admin listener", error))?;
        let (shared, reloader) = (Arc::clone(shared), Arc::clone(reloader));
        let context = admin::Context::new(shared, reloader, Arc::clone(&picture));
        runtime.spawn(admin::serve(context, listener));
    }
    runtime.spawn(probe::watch_all(Arc::clone(shared)));
    runtime.spawn(Arc::clone(reloader).watch());
    runtime.spawn(crate::wants::watch(Arc::clone(shared)));
    runtime.spawn(crate::lookout::watch(Arc::clone(shared)));
    runtime.spawn(crate::quarantine::share(Arc::clone(shared)));
    Ok(())
}

/// Keeps the certificate fresh, and announces its name where that was asked for.
fn start_certificates(runtime: &Runtime, shared: &Shared, config: &Valid, listeners: &[Listener]) {
    if let Some(certificates) = config.certificates.clone() {
        runtime.spawn(certificates.keep(shared.metrics.certificate.clone()));
    }
    let Some(folder) = config.tls.as_ref().and_then(ValidTls::announces) else {
        return;
    };
    let mut listeners: Vec<&Listener> = listeners.iter().collect();
    // HTTPS first: its port is the one that is announced.
    listeners.sort_by_key(|listener| matches!(listener.kind, Kind::Http));
    let addresses = listeners
        .iter()
        .filter_map(|listener| listener.socket.local_addr().ok())
        .collect();
    runtime.spawn(mdns::announce(folder.to_owned(), addresses));
}

/// Must be called inside a runtime.
fn adopt(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// What a worker thread is born with.
struct Thread {
    shared: Arc<Shared>,
    shutdown: Shutdown,
    started: mpsc::Sender<Result<(), Failure>>,
    /// Dropped when the thread ends, however it ends; nothing else is said.
    ended: async_mpsc::UnboundedSender<()>,
}

/// What a worker thread serves.
enum Work {
    Tcp(Vec<Listener>),
    Quic(Vec<quic::Listener>),
}

/// The same, opened inside the thread's runtime.
enum Opened {
    Tcp(Vec<Open>),
    Quic(Vec<quic::Open>),
}

impl Work {
    /// Must be called inside a runtime.
    fn open(self, shared: &Shared) -> Result<Opened, Failure> {
        match self {
            Self::Tcp(listeners) => {
                let open = listeners.into_iter().map(|listener| {
                    let socket = adopt(listener.socket)?;
                    let kind = listener.kind;
                    Ok(Open { socket, kind })
                });
                let open = open.collect::<io::Result<Vec<_>>>();
                open.map(Opened::Tcp)
                    .map_err(|error| failed("start a gateway thread", error))
            }
            Self::Quic(listeners) => {
                let open = listeners
                    .into_iter()
                    .map(|listener| listener.open(&shared.live().limits));
                open.collect::<Result<Vec<_>, _>>().map(Opened::Quic)
            }
        }
    }
}

impl Thread {
    fn spawn(self, name: String, work: Work) -> io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new()
            .name(name)
            .spawn(move || self.live(work))
    }

    fn live(self, work: Work) {
        let ended = Ended(self.ended);
        let opened = runtime()
            .map_err(|error| failed("start a gateway thread", error))
            .and_then(|runtime| {
                let inside = runtime.enter();
                let opened = work.open(&self.shared)?;
                drop(inside);
                Ok((runtime, opened))
            });
        let (runtime, opened) = match opened {
            Ok(opened) => opened,
            Err(failure) => {
                let _ = self.started.send(Err(failure));
                return;
            }
        };
        let _ = self.started.send(Ok(()));
        drop(self.started);
        let seed = (chassis::random::random() * (1_u64 << 53) as f64) as u64;
        let worker = Rc::new(Worker::new(self.shared, seed));
        let local = LocalSet::new();
        match opened {
            Opened::Tcp(listeners) => {
                local.block_on(&runtime, listener::serve(worker, listeners, self.shutdown));
            }
            Opened::Quic(endpoints) => {
                local.block_on(&runtime, quic::serve(worker, endpoints, self.shutdown));
            }
        }
        drop(ended);
    }
}

/// Says so when its thread ends, on a panic as well.
struct Ended(async_mpsc::UnboundedSender<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        // An error means that nobody waits any more.
        let _ = self.0.send(());
    }
}
