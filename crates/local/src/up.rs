//! `bingo up`: checks the machine, makes what is missing, starts the supervisor and waits until the
//! whole is ready. The supervisor is a process of its own in every case, so there is one way in
//! which an installation lives; in the foreground this process only watches it and ends it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chassis::{Exit, Failure, Shutdown};
use private_postgres::Account;
use serde_json::Value;

use crate::database::Database;
use crate::doctor;
use crate::down;
use crate::generate::{self, Ports};
use crate::layout::{Layout, write_file};
use crate::options::Options;
use crate::restart::Waiting;
use crate::status::{self, Record};
use crate::watch::{self, Watch};
use crate::{account, ports, scale, secrets};

/// How long a new supervisor may take to answer on its socket.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
const CONTROL_POLL: Duration = Duration::from_millis(10);

/// One call of `bingo up`.
pub struct Request {
    pub layout: Layout,
    pub options: Options,
    /// For `--postgres-url`: the `postgres_cluster` block and the password apart from it.
    pub existing: Option<Existing>,
    /// The log file that nodes write beside their stderr, where its folder is there.
    pub node_log: Option<PathBuf>,
    pub detach: bool,
    /// How long to wait until the whole is ready.
    pub timeout: Duration,
    pub json: bool,
    /// What is shown of it in the foreground, when it is ready; none where there is no terminal.
    pub summary: Option<Summary>,
}

/// Shows an installation until the function that it is given says that it does not go on.
pub type Summary = fn(&Layout, &mut dyn FnMut() -> bool);

/// An existing database.
pub struct Existing {
    pub cluster: Value,
    pub password: Option<String>,
    pub url: String,
}

/// Runs the command to its end: ready and detached, or, in the foreground, stopped again.
/// `shutdown` is the operator's Ctrl-C. Failures: 64 for a wrong environment, 1 when it does not
/// get ready, 130 when interrupted before that.
pub fn run(request: &Request, shutdown: &Shutdown) -> Result<Exit, Failure> {
    let layout = &request.layout;
    let watch = Watch {
        layout,
        timeout: request.timeout,
        json: request.json,
    };
    if is_running(request)? {
        return join(request, &watch, shutdown);
    }
    let Some(mut supervisor) = start(request)? else {
        // Another `up` was faster: what it started is watched like any running installation.
        is_running(request)?;
        return join(request, &watch, shutdown);
    };
    match watch.until_ready(shutdown, Some(&mut supervisor)) {
        Ok(_) if request.detach => Ok(Exit::Done),
        Ok(_) => {
            watch.live(shutdown, &mut supervisor, request.summary);
            finish(layout, shutdown, request.json)?;
            Ok(Exit::Done)
        }
        // Out of time only: what was begun may still get ready, and `status` tells.
        Err(watch::NotReady::TimedOut(failure)) if request.detach => Err(failure),
        Err(watch::NotReady::TimedOut(failure) | watch::NotReady::Failed(failure)) => {
            finish(layout, shutdown, request.json)?;
            Err(failure)
        }
        Err(watch::NotReady::Interrupted) => {
            finish(layout, shutdown, request.json)?;
            Ok(Exit::Interrupted)
        }
    }
}

/// Over what runs already: the program of this call for every node and gateway, as many nodes as are
/// asked for, and then ready.
fn join(request: &Request, watch: &Watch<'_>, shutdown: &Shutdown) -> Result<Exit, Failure> {
    let Request {
        layout,
        options,
        timeout,
        json,
        ..
    } = request;
    upgrade(request)?;
    scale::to(layout, options, *timeout, *json, shutdown)?;
    watch.until_ready(shutdown, None)?;
    Ok(Exit::Done)
}

fn upgrade(request: &Request) -> Result<(), Failure> {
    let _lock = down::lock(&request.layout);
    let Ok(binary) = std::env::current_exe() else {
        return Ok(()); // It was removed, so it can be nobody's program.
    };
    let waiting = Waiting {
        layout: &request.layout,
        timeout: request.timeout,
    };
    waiting.upgrade(&binary, |name| {
        if !request.json {
            eprintln!("{name} runs {} now", binary.display());
        }
    })
}

fn finish(layout: &Layout, shutdown: &Shutdown, json: bool) -> Result<(), Failure> {
    if !json && shutdown.is_requested() {
        eprintln!("stopping; Ctrl-C again ends everything at once");
    }
    down::stop(layout, &|| shutdown.is_requested_at_once())
}

/// Over a running installation: nothing to start when the flags are the same, the number of nodes
/// apart; a refusal that names the differences otherwise. False when nothing runs.
fn is_running(request: &Request) -> Result<bool, Failure> {
    let client = supervisor::control::Client::new(request.layout.control_socket());
    let status = match client.status() {
        Ok(status) => status,
        Err(error) if status::is_forbidden(&error) => {
            return Err(status::forbidden(&request.layout));
        }
        Err(_) => return Ok(false),
    };
    if status.stopping {
        // It is about to end, say because its foreground was killed: wait, then start anew.
        down::stop(&request.layout, &|| false)?;
        return Ok(false);
    }
    let Some(record) = Record::read(&request.layout) else {
        return Ok(false);
    };
    let asked = Options {
        nodes: record.options.nodes,
        ..request.options.clone()
    };
    let differences = record.options.differences(&asked);
    if differences.is_empty() {
        return Ok(true);
    }
    Err(Failure::configuration(
        format!(
            "start the installation in {}",
            request.layout.root().display()
        ),
        format!(
            "it runs already with other flags: {}",
            differences.join("; ")
        ),
        "give the same flags, or `bingo down` first",
    ))
}

/// Everything up to the start of the supervisor, which it returns; `None` when another `up` started
/// one meanwhile.
fn start(request: &Request) -> Result<Option<Child>, Failure> {
    let Request {
        layout, options, ..
    } = request;
    let _lock = down::lock(layout);
    if is_supervised(layout) {
        return Ok(None);
    }
    let account = account::of(options.user.as_deref())?;
    preflight(request)?;
    let is_new = !layout.root().is_dir();
    layout
        .create(&account)
        .map_err(|error| unusable(layout, &error))?;
    // Until now the folder above was locked; who comes from now on looks at this one.
    let _new_lock = is_new.then(|| down::lock(layout));
    down::end_leftovers(layout)?;
    // What an earlier run said of itself must not be taken for this one's word.
    match std::fs::remove_file(layout.state_file()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(unusable(layout, &error));
        }
        _ => {}
    }
    let binary = std::env::current_exe().map_err(|error| {
        Failure::run_time(
            "find the path of this program",
            error,
            "start it by its full path",
        )
    })?;
    configure(request, &account, &binary)?;
    let mut supervisor = spawn(layout, &binary, request.detach)?;
    wait_for_control(layout, &mut supervisor);
    Ok(Some(supervisor))
}

/// Whether a supervisor answers in this folder.
fn is_supervised(layout: &Layout) -> bool {
    let client = supervisor::control::Client::new(layout.control_socket());
    client.status().is_ok()
}

/// Waits until the supervisor answers or is gone: the lock is held until then, so that no other `up`
/// or `down` takes the folder for one in which nothing runs.
fn wait_for_control(layout: &Layout, supervisor: &mut Child) {
    let deadline = Instant::now() + CONTROL_TIMEOUT;
    while !is_supervised(layout)
        && matches!(supervisor.try_wait(), Ok(None))
        && Instant::now() < deadline
    {
        std::thread::sleep(CONTROL_POLL);
    }
}

/// Refuses what the doctor refuses. A crashed installation may hold its ports still: it is ended
/// first, then looked at again.
fn preflight(request: &Request) -> Result<(), Failure> {
    let subject = doctor::Subject {
        layout: &request.layout,
        options: &request.options,
        running: false,
    };
    let mut checks = doctor::examine(&subject);
    if doctor::refusal(&checks).is_some() && request.layout.state_file().exists() {
        down::end_leftovers(&request.layout)?;
        checks = doctor::examine(&subject);
    }
    if let Some(failure) = doctor::refusal(&checks) {
        return Err(failure);
    }
    warn(&checks, request.json);
    Ok(())
}

/// Makes the database's folder and secrets if they are missing, and writes every file anew.
fn configure(request: &Request, account: &Account, binary: &Path) -> Result<(), Failure> {
    let Request {
        layout, options, ..
    } = request;
    let taken = [options.http_port, options.https_port, options.admin_port];
    let chosen = ports::choose(layout.root(), Ports::count(options), &taken)?;
    let ports = Ports::deal(options, &chosen);
    let database = database(request, account, ports.postgres)?;
    generate::write_all(&generate::Subject {
        layout,
        options,
        ports: &ports,
        account,
        database: &database,
        binary,
        node_log: request.node_log.as_deref(),
    })?;
    let record = Record {
        options: options.clone(),
        ports,
        postgres_url: database.url,
        node_log: request.node_log.clone(),
    };
    let text = chassis::config::to_yaml(&record)?;
    write_file(&layout.installation(), 0o644, &text).map_err(|error| unusable(layout, &error))
}

fn database(request: &Request, account: &Account, port: u16) -> Result<Database, Failure> {
    let layout = &request.layout;
    let secrets = secrets::prepare(layout, account)?;
    if let Some(existing) = &request.existing {
        let Existing {
            cluster,
            password,
            url,
        } = existing;
        return Database::existing(layout, account, cluster.clone(), password.as_deref(), url);
    }
    if !request.json && !layout.postgres().exists() {
        eprintln!(
            "making a private PostgreSQL in {}",
            layout.postgres().display()
        );
    }
    Database::private(layout, &request.options, account, port, &secrets)
}

fn warn(checks: &[doctor::Check], json: bool) {
    for check in checks
        .iter()
        .filter(|check| check.state == doctor::State::Warning)
    {
        if !json {
            eprintln!(
                "warning: {}: {} ({})",
                check.name, check.found, check.remedy
            );
        }
    }
}

/// Starts the supervisor in a session of its own. In the foreground it holds the other end of a
/// pipe, so that it ends everything even when this process is killed.
fn spawn(layout: &Layout, binary: &Path, detach: bool) -> Result<Child, Failure> {
    let attempted = "start the supervisor";
    let failed = |error: io::Error| Failure::run_time(attempted, error, "bingo doctor");
    let path = layout.logs().join("supervisor.log");
    let log = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(failed)?;
    let mut command = Command::new(binary);
    command
        .args(["supervise", "--new-session", "--config"])
        .arg(layout.supervisor_config())
        .current_dir(layout.root())
        .stdin(if detach {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log);
    if !detach {
        command.arg("--until-stdin-closes");
    }
    command.spawn().map_err(failed)
}

fn unusable(layout: &Layout, error: &io::Error) -> Failure {
    Failure::configuration(
        format!("write in {}", layout.root().display()),
        error,
        "make it writable for this user, or choose another with --dir",
    )
}
