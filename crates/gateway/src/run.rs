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

use crate::listener::{self, Listener, Open};
use crate::valid::Valid;
use crate::worker::{Shared, Worker};
use crate::{admin, probe};

/// Serves `listeners` until `shutdown`, then stops accepting, finishes what is open within the drain
/// deadline and returns. Blocks; must not be called inside an async task.
///
/// `listeners` are the public ones, each with what is spoken on it, `admin` the private ones, which
/// speak plain HTTP/1.1; each inherited or opened by the caller.
/// Fails (exit 1) where the system refuses threads, runtimes or listeners.
#[allow(clippy::needless_pass_by_value)] // A switch is handed over, as to every role's `run`.
pub fn run(
    config: Valid,
    listeners: Vec<Listener>,
    admin: Vec<TcpListener>,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let shared = Arc::new(Shared::new(&config));
    let runtime = runtime().map_err(|error| failed("start the gateway's runtime", error))?;
    // Dropped with `runtime`, at the very end: probes go on while connections drain.
    start_control(&runtime, &shared, admin)?;

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
        match duplicate(&listeners).and_then(|own| thread.spawn(number, own)) {
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
    admin: Vec<TcpListener>,
) -> Result<(), Failure> {
    let _inside = runtime.enter();
    for listener in admin {
        let listener =
            adopt(listener).map_err(|error| failed("serve the admin listener", error))?;
        runtime.spawn(admin::serve(Arc::clone(shared), listener));
    }
    runtime.spawn(probe::watch_all(Arc::clone(shared)));
    Ok(())
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

impl Thread {
    fn spawn(
        self,
        number: usize,
        listeners: Vec<Listener>,
    ) -> io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new()
            .name(format!("gateway-{number}"))
            .spawn(move || self.live(listeners))
    }

    fn live(self, listeners: Vec<Listener>) {
        let ended = Ended(self.ended);
        let prepared = runtime().and_then(|runtime| {
            let _inside = runtime.enter();
            let open = listeners.into_iter().map(|listener| {
                let socket = adopt(listener.socket)?;
                let kind = listener.kind;
                Ok(Open { socket, kind })
            });
            let open = open.collect::<io::Result<Vec<_>>>()?;
            drop(_inside);
            Ok((runtime, open))
        });
        let (runtime, listeners) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let _ = self
                    .started
                    .send(Err(failed("start a gateway thread", error)));
                return;
            }
        };
        let _ = self.started.send(Ok(()));
        drop(self.started);
        let seed = (chassis::random::random() * (1_u64 << 53) as f64) as u64;
        let worker = Rc::new(Worker::new(self.shared, seed));
        LocalSet::new().block_on(&runtime, listener::serve(worker, listeners, self.shutdown));
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
