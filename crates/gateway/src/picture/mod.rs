//! The picture of the installation that the page shows: once a second this gateway takes what it
//! counted into the history, asks its peers for theirs, looks at the machine and at what supervisor
//! and nodes say of themselves, and puts it together. Whichever gateway is asked, the picture is the
//! same, three seconds late.
//!
//! Everything in it was seen, and when; what could not be seen is said to be unknown.

mod ask;
pub(crate) mod config;
mod databases;
mod host;
mod own;
mod peers;
mod problems;
pub(crate) mod processes;
mod since;
mod whole;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::events::{self, Told};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::history::{History, View};
use crate::worker::Shared;
use config::Sources;
use databases::Hosts;
use host::{Host, Looker};
use own::{Counter, Own};
use peers::{Known, Report};
use processes::Processes;
use since::Since;

/// A node's metrics are some 100 KiB.
const METRICS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Events that are shown.
const EVENTS_MAX: usize = 200;
/// A look that came later than this left a gap that is none: nobody was served meanwhile, or more in
/// the next second.
const LATE_SECONDS_MAX: u64 = 5;

/// RFC 3339 with milliseconds.
fn text(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// What is known now, for whoever asks.
#[derive(Debug)]
pub(crate) struct Picture {
    /// Differs from that of every other run of a gateway.
    run: String,
    history: Mutex<History>,
    own: Mutex<Own>,
    /// The last picture, made anew each second.
    latest: watch::Sender<Arc<Value>>,
}

impl Picture {
    pub(crate) fn new() -> Self {
        let now = Timestamp::now().as_millisecond();
        let random = (chassis::random::random() * f64::from(u32::MAX)) as u32;
        Self {
            run: format!("{now:x}-{:x}-{random:x}", std::process::id()),
            history: Mutex::new(History::new()),
            own: Mutex::default(),
            latest: watch::Sender::new(Arc::new(Value::Null)),
        }
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last picture and those to come; null before the first.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Value>> {
        self.latest.subscribe()
    }

    /// What a peer gets.
    pub(crate) fn report(&self, after: u64) -> Report {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            gateway: own.clone(),
            told: self.history().own_after(after),
        }
    }

    /// The graphs of so many seconds, those up to `after` left out.
    pub(crate) fn view(&self, span: u64, after: u64) -> View {
        self.history().view(span, after, second(Timestamp::now()))
    }
}

fn second(time: Timestamp) -> u64 {
    u64::try_from(time.as_second()).unwrap_or_default()
}

/// Keeps the picture up to date for ever.
pub(crate) async fn watch(shared: Arc<Shared>, picture: Arc<Picture>) {
    let peers = shared.live().sources.peers.clone();
    peers::adopt(&picture, &peers).await;
    let mut watcher = Watcher::new(shared, picture);
    let mut last = second(Timestamp::now());
    loop {
        let now = Timestamp::now();
        let into = u64::try_from(now.subsec_nanosecond()).unwrap_or_default();
        tokio::time::sleep(Duration::from_nanos(1_000_000_000_u64.saturating_sub(into))).await;
        let now = Timestamp::now();
        // The second that is over.
        let at = second(now).saturating_sub(1);
        watcher.look(now, last, at).await;
        last = at;
    }
}

struct Watcher {
    shared: Arc<Shared>,
    picture: Arc<Picture>,
    counter: Counter,
    peers: Vec<Known>,
    since: Since,
    /// The last event that `since` was told.
    heard: u64,
    looker: Looker,
    databases: BTreeMap<String, Hosts>,
}

impl Watcher {
    fn new(shared: Arc<Shared>, picture: Arc<Picture>) -> Self {
        Self {
            shared,
            picture,
            counter: Counter::default(),
            peers: Vec::new(),
            since: Since::default(),
            heard: 0,
            looker: Looker::default(),
            databases: BTreeMap::new(),
        }
    }

    async fn look(&mut self, now: Timestamp, last: u64, at: u64) {
        let sources = self.shared.live().sources.clone();
        let files = self.read(&sources).await;
        let now = text(now);
        self.since.begin(&now);
        self.hear();
        let name = self.name(&files);
        let called = (self.picture.run.as_str(), name.as_str());
        let own = own::describe(&self.shared, called, files.host.clone(), &mut self.since);
        self.record(last, at, &own.run);
        own.clone_into(
            &mut self
                .picture
                .own
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.peers = peers::known(&sources.peers, std::mem::take(&mut self.peers));
        let asked = peers::ask_all(&self.picture, &mut self.peers, &own.run, &now);
        let processes = files.processes.as_ref().and_then(|read| read.as_ref().ok());
        let (databases, ()) = tokio::join!(databases(processes), asked);
        self.databases = databases;
        let source = own.name.clone();
        let happened = files
            .happened
            .unwrap_or_else(|| self.shared.events.told(EVENTS_MAX, &source));
        let seen = whole::Seen {
            now: &now,
            second: at + 1,
            own: &own,
            peers: &self.peers,
            processes: files.processes.as_ref(),
            databases: databases::shown(&self.databases, &mut self.since),
            quarantine: self.shared.quarantine.list(),
            happened: &happened,
        };
        let whole = {
            let live = self.shared.live();
            let history = self.picture.history();
            whole::put_together(&seen, &history, &live.router)
        };
        self.picture.latest.send_replace(Arc::new(whole));
    }

    fn record(&mut self, last: u64, at: u64, run: &str) {
        let counted = self.counter.take(&self.shared);
        let mut history = self.picture.history();
        let late = at.saturating_sub(last);
        if (2..=LATE_SECONDS_MAX).contains(&late) {
            for missed in last + 1..at {
                history.record(run, missed, &Default::default());
            }
        }
        history.record(run, at, &counted);
    }

    /// Takes in what happened to nodes since the last look.
    fn hear(&mut self) {
        for event in self.shared.events.since(self.heard) {
            self.heard = event.number + 1;
            let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
            let of = |key: &str| data.get(key).and_then(Value::as_str);
            if let (Some(node), Some(at)) = (of("node"), of("time")) {
                let by_operator = (event.kind == "node_set").then_some("set by an operator");
                self.since.tell(node, at, of("reason").or(by_operator));
            }
        }
    }

    fn name(&self, files: &Files) -> String {
        let pid = std::process::id();
        let processes = files.processes.as_ref().and_then(|read| read.as_ref().ok());
        let name = processes.and_then(|processes| processes.name_of(pid));
        name.map_or_else(|| format!("gateway {pid}"), str::to_owned)
    }

    /// Reads what is in files, on a thread that may wait for a disk.
    async fn read(&mut self, sources: &Sources) -> Files {
        let mut looker = std::mem::take(&mut self.looker);
        let live = self.shared.live();
        let folder = live.spool.folder.clone().unwrap_or(PathBuf::from("/tmp"));
        let Sources {
            processes_file,
            events_file,
            ..
        } = sources.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let files = Files {
                host: Some(looker.look(&folder)),
                processes: processes_file.as_deref().map(Processes::read),
                happened: events_file.and_then(|path| {
                    let told = events::latest(&path, EVENTS_MAX).ok();
                    // It is not there, or cannot be written.
                    told.filter(|all| !all.is_empty())
                }),
            };
            (looker, files)
        });
        let (looker, files) = reading.await.unwrap_or_default();
        self.looker = looker;
        files
    }
}

/// What was read from files.
#[derive(Debug, Default)]
struct Files {
    host: Option<Host>,
    /// None: no file is named.
    processes: Option<Result<Processes, String>>,
    /// None: there is no file, or nothing in it.
    happened: Option<Vec<Told>>,
}

/// What every node says of the database hosts; nodes that do not answer are left out.
async fn databases(processes: Option<&Processes>) -> BTreeMap<String, Hosts> {
    let mut asked = JoinSet::new();
    let nodes = processes.map(|processes| processes.metrics_of("node"));
    for (name, authority) in nodes.into_iter().flatten() {
        asked.spawn(async move {
            let path = "/metrics";
            let answer = ask::get(&authority, path, METRICS_BYTES_MAX, ask::TIMEOUT).await;
            let hosts = answer.map(|text| databases::parse(&String::from_utf8_lossy(&text)));
            (name, hosts.unwrap_or_default())
        });
    }
    let mut all = BTreeMap::new();
    while let Some(answered) = asked.join_next().await {
        if let Ok((name, hosts)) = answered {
            all.insert(name, hosts);
        }
    }
    all
}
