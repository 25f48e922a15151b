//! The process that stands before an isolated one: it makes its namespaces, starts it there, passes
//! connections in and out, and ends with it. One thread lives inside and opens sockets there, for a
//! socket belongs to the network in which it was opened, whoever uses it; the rest lives outside. A
//! pair of connected interfaces instead would need addresses that nobody else on the machine uses,
//! forwarding and its rules for a database elsewhere, and root.
//!
//! It passes HTTP on by requests, not by bytes, so that it can end between two of them. Answers of
//! its own it gives none: when the process breaks a connection, so does the porter.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::SignalKind;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::confine::Confinement;
use crate::isolation::{self, Isolation, Serve};
use crate::launch::{ORDERS, Orders, Task};
use crate::policy::Outcome;
use crate::{probe, processes};

mod pass;

/// The first word in the command line of a porter; then what it puts in other places.
pub const PORTER: &str = "porter";

/// Connections in, and connections out, at once; others wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// How long one question whether it serves may take.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two such questions.
const READY_INTERVAL: Duration = Duration::from_millis(50);
/// How long answers that are open may take when it is to end. Less than the supervisor waits (30 s).
const DRAIN_MAX: Duration = Duration::from_secs(25);
/// After a failure to accept, of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// What a porter is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Charge {
    pub(crate) isolation: Isolation,
    /// What stands before the command, so that it is confined.
    pub(crate) launcher: Vec<String>,
    pub(crate) command: Vec<String>,
}

/// A step that failed.
pub(crate) struct Failed {
    pub(crate) step: String,
    pub(crate) error: io::Error,
    /// Trying again cannot help.
    pub(crate) permanent: bool,
}

/// Does all of it, and then ends this process as the other one ended. Returns only a failure.
pub(crate) fn stand(charge: Charge, confinement: &Confinement) -> Failed {
    match try_stand(charge, confinement) {
        Ok(status) => end_like(status),
        Err(failed) => failed,
    }
}

fn try_stand(charge: Charge, confinement: &Confinement) -> Result<ExitStatus, Failed> {
    let permanent = |step: String, error| Failed {
        step,
        error,
        permanent: true,
    };
    isolation::become_able()
        .map_err(|error| permanent("make a namespace for its user".to_owned(), error))?;
    let own = Confinement {
        capabilities: true,
        identity: confinement.identity.clone(),
        system_calls: true,
        ..Confinement::default()
    };
    let serve = charge.isolation.serve.clone();
    let Inside {
        door,
        child,
        listeners,
    } = go_inside(charge, confinement.clone(), own.clone())
        .map_err(|(step, error)| permanent(step, error))?;
    own.apply()
        .map_err(|(step, error)| permanent(step.to_owned(), error))?;
    let pid = child.id();
    let ended = wait_for(child).map_err(|error| later("wait for it", error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| later("start a runtime", error))?;
    runtime.block_on(attend(serve, door, listeners, pid, ended))
}

fn later(step: &str, error: io::Error) -> Failed {
    Failed {
        step: step.to_owned(),
        error,
        permanent: false,
    }
}

/// What the thread inside gives out.
struct Inside {
    door: Door,
    child: Child,
    /// Where the process may connect to, and where that leads outside.
    listeners: Vec<(StdListener, String)>,
}

/// Opens sockets inside.
#[derive(Clone)]
struct Door(mpsc::Sender<(bool, oneshot::Sender<io::Result<TcpSocket>>)>);

impl Door {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let (reply, socket) = oneshot::channel();
        let gone = || io::Error::other("nobody is inside");
        self.0.send((to.is_ipv6(), reply)).map_err(|_| gone())?;
        let stream = socket.await.map_err(|_| gone())??.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Starts the thread that lives inside, and there the process.
fn go_inside(
    charge: Charge,
    confinement: Confinement,
    own: Confinement,
) -> Result<Inside, (String, io::Error)> {
    let (tell, told) = mpsc::channel();
    let work = move || {
        let (ask, asked) = mpsc::channel();
        let prepared = prepare(&charge, confinement).and_then(|(child, listeners)| {
            own.apply()
                .map_err(|(step, error)| (step.to_owned(), error))?;
            Ok(Inside {
                door: Door(ask),
                child,
                listeners,
            })
        });
        let _ = tell.send(prepared);
        for (is_ipv6, reply) in asked {
            let socket = match is_ipv6 {
                true => TcpSocket::new_v6(),
                false => TcpSocket::new_v4(),
            };
            let _: Result<(), _> = reply.send(socket);
        }
    };
    let failed = |error| ("start a thread".to_owned(), error);
    std::thread::Builder::new()
        .name("inside".to_owned())
        .spawn(work)
        .map_err(failed)?;
    told.recv()
        .unwrap_or_else(|_| Err(failed(io::Error::other("it ended"))))
}

type Listeners = Vec<(StdListener, String)>;

fn prepare(
    charge: &Charge,
    confinement: Confinement,
) -> Result<(Child, Listeners), (String, io::Error)> {
    charge.isolation.enter()?;
    let mut listeners = Vec::new();
    for (listen, at) in &charge.isolation.reach {
        let listener = StdListener::bind(listen)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| (format!("listen on {listen} inside"), error))?;
        listeners.push((listener, at.clone()));
    }
    let orders = Orders {
        task: Task::Command,
        confinement,
    };
    let mut words = charge.launcher.iter().chain(&charge.command);
    let program = words.next().map_or_else(OsString::new, OsString::from);
    let child = Command::new(program)
        .args(words)
        .env(ORDERS, orders.to_text())
        // It is in another network and could not be heard.
        .env_remove("NOTIFY_SOCKET")
        .spawn()
        .map_err(|error| ("start it inside".to_owned(), error))?;
    Ok((child, listeners))
}

fn wait_for(mut child: Child) -> io::Result<oneshot::Receiver<io::Result<ExitStatus>>> {
    let (tell, ended) = oneshot::channel();
    let wait = move || {
        let _: Result<(), _> = tell.send(child.wait());
    };
    std::thread::Builder::new()
        .name("wait".to_owned())
        .spawn(wait)?;
    Ok(ended)
}

async fn attend(
    serve: Option<Serve>,
    door: Door,
    listeners: Listeners,
    pid: u32,
    mut ended: oneshot::Receiver<io::Result<ExitStatus>>,
) -> Result<ExitStatus, Failed> {
    let status = |ended: Result<io::Result<ExitStatus>, _>| {
        let ended = ended.unwrap_or_else(|_| Err(io::Error::other("nobody waits")));
        ended.map_err(|error| later("wait for it", error))
    };
    let out = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for (listener, at) in listeners {
        let listener = TcpListener::from_std(listener);
        let listener = listener.map_err(|error| later("listen inside", error))?;
        tokio::spawn(pass::out(listener, at.into(), Arc::clone(&out)));
    }
    let inward = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (drain, draining) = watch::channel(false);
    let mut serving = tokio::spawn(let_in(serve, door, Arc::clone(&inward), draining));
    let mut term = tokio::signal::unix::signal(SignalKind::terminate())
        .map_err(|error| later("hear signals", error))?;
    tokio::select! {
        how = &mut ended => return status(how),
        failed = &mut serving => {
            return Err(match failed {
                Ok(failed) => failed,
                Err(error) => later("let connections in", io::Error::other(error)),
            });
        }
        _ = term.recv() => {}
    }
    let _: Result<(), _> = drain.send(true);
    // All of them are free when nobody is inside any more, the one who listens included.
    let idle = inward.acquire_many(u32::try_from(CONNECTIONS_MAX).unwrap_or(1));
    tokio::select! {
        how = &mut ended => return status(how),
        _ = tokio::time::timeout(DRAIN_MAX, idle) => {}
    }
    processes::send(pid, Signal::TERM);
    status(ended.await)?;
    Ok(ExitStatus::from_raw(0))
}

/// Listens when the process serves, until it is to end; returns a failure only.
async fn let_in(
    serve: Option<Serve>,
    door: Door,
    open: Arc<Semaphore>,
    mut draining: watch::Receiver<bool>,
) -> Failed {
    let Some(serve) = serve else {
        return std::future::pending().await;
    };
    let place = format!("listen on {}", serve.listen);
    let listening = async {
        until_it_serves(&serve, &door).await;
        let listener = chassis::sockets::listen(serve.listen, true)?;
        TcpListener::from_std(listener)
    };
    let listener = tokio::select! {
        listener = listening => listener,
        _ = draining.changed() => return std::future::pending().await,
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return later(&place, error),
    };
    chassis::notify::ready();
    loop {
        let Ok(permit) = Arc::clone(&open).acquire_owned().await else {
            return std::future::pending().await;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = draining.changed() => {
                drop((listener, permit));
                return std::future::pending().await;
            }
        };
        let Ok((client, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (door, draining) = (door.clone(), draining.clone());
        let at = serve.at;
        tokio::spawn(async move {
            let inner = tokio::time::timeout(pass::CONNECT_MAX, door.connect(at)).await;
            // Without one it closes at once, as a listener that is gone would.
            if let Ok(Ok(inner)) = inner {
                pass::requests(client, inner, draining).await;
            }
            drop(permit);
        });
    }
}

async fn until_it_serves(serve: &Serve, door: &Door) {
    let authority = serve.at.to_string();
    loop {
        let asked = async {
            let stream = door.connect(serve.at).await?;
            probe::exchange(stream, &authority, &serve.path, None).await
        };
        let answer = tokio::time::timeout(READY_TIMEOUT, asked).await;
        if let Ok(Ok(answer)) = answer
            && probe::read_answer(&answer, None) == Outcome::Good
        {
            return;
        }
        tokio::time::sleep(READY_INTERVAL).await;
    }
}

/// Whoever watches this process is to see how the other one ended.
fn end_like(status: ExitStatus) -> ! {
    const AFTER_SIGNAL: i32 = 128;
    if let Some(code) = status.code() {
        std::process::exit(code);
    }
    let number = status.signal().unwrap_or_default();
    if number == Signal::KILL.as_raw() {
        processes::send(std::process::id(), Signal::KILL);
    }
    std::process::exit(AFTER_SIGNAL + number)
}
