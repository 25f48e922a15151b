//! The supervisor at work: one task that owns every process, carries out what `policy` says, and
//! shows the outcome. Tasks beside it wait for exits and probe; they report through one bounded
//! channel, each report marked with the run it belongs to, so that a late word about a dead process
//! is never taken for one about its successor.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chassis::Failure;
use chassis::events::Events;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use crate::Config;
use crate::control::{self, Answer, Asked, Request, Server};
use crate::family::Family;
use crate::groups::Groups;
use crate::metrics::{self, Board};
use crate::order;
use crate::own_output::OwnOutput;
use crate::plan::{self, Plan};
use crate::policy::turns::Wish;
use crate::policy::{self, Ended, Event, Machine, Moment, Round};
use crate::slot::{Place, Slot, now_text};
use crate::sockets::Sockets;
use crate::spawn::{self, Spawner};
use crate::status::{ProcessState, SUPERVISOR, StateFile, Status};
use crate::switches::Switches;
use crate::takeover::Takeover;

use reload::{Reader, Reading};
use rotation::Rotation;

mod operator;
mod reload;
mod replace;
mod rotation;
mod runs;
mod shown;
mod upgrade;

/// Reports that may wait; a full channel makes probers wait, and they say so (`late`).
const REPORTS_MAX: usize = 1024;
const REQUESTS_MAX: usize = 16;
/// How often logs are measured and orphans looked after.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often memory and age are looked at, and whether we were late ourselves.
const PULSE_INTERVAL: Duration = Duration::from_millis(100);
/// Where we come so much too late to what is due, we stood still: frozen, or starved of the processor.
const LATE: Duration = Duration::from_millis(100);
/// How long the end of the supervisor, or of its program, waits for the disk that takes its events.
const FLUSH_MAX: Duration = Duration::from_millis(500);
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"));
/// Where nothing is due, the loop wakes this often anyway.
const NEVER: Duration = Duration::from_secs(3600);

/// What a supervisor begins with.
#[derive(Debug)]
pub enum Start {
    Anew(Config),
    /// It was another program before, which left this.
    Takeover(Box<Takeover>),
}

/// How this program is started as something else.
#[derive(Clone, Debug)]
pub struct Program {
    /// What stands before a command that needs `launch::launch`: for our binary
    /// `/proc/self/exe launch --`.
    pub launcher: Vec<OsString>,
    /// The arguments of a supervisor that goes on with this one's work; it is given one of the flags
    /// in `takeover` besides. None: it cannot become another program.
    pub again: Option<Vec<OsString>>,
}

/// Runs everything in a configuration until it is stopped, or until nothing is left that runs or will
/// run.
///
/// `file` is where the configuration was read, to be read again on a reload or SIGHUP; None for one
/// command, which SIGHUP stops.
///
/// Owns the whole process: it becomes the subreaper and kills, at its end, every child of this
/// process, so nothing else in it may start any.
///
/// Fails with exit 64 when the configuration is wrong, a port is busy or a file cannot be written;
/// when nothing was stopped and a process failed for good, with its reason; and with exit 1 when a
/// process could not be ended.
pub async fn run(
    start: Start,
    file: Option<PathBuf>,
    switches: Switches,
    program: Program,
) -> Result<(), Failure> {
    let (mut supervisor, server) = begin(start, switches, program)?;
    let config = supervisor.config.clone();
    let (asked, requests) = mpsc::channel(REQUESTS_MAX);
    let server = server.map(|server| tokio::spawn(server.serve(asked.clone())));
    if let Some(path) = config.state_file {
        let status = supervisor.status(true);
        let failed = |error| {
            let attempted = format!("write the state to {}", path.display());
            let help = "check that the folder exists and can be written";
            Failure::configuration(attempted, error, help)
        };
        supervisor.state_file = Some(StateFile::open(path.clone(), status).map_err(failed)?);
    }
    let readings = file.map(|file| {
        let (reader, readings) = Reader::start(file);
        supervisor.reader = Some(reader);
        readings
    });
    if supervisor.own_output.is_none() {
        supervisor.own_output = OwnOutput::hand_over(&supervisor.spawner);
    }
    supervisor.work(requests, readings).await;
    if let Some(own) = supervisor.own_output.take() {
        own.take_back();
    }
    let orphans = supervisor.spawner.family.sweep_all().await;
    supervisor.show();
    if let Some(groups) = &supervisor.groups {
        groups.leave();
    }
    supervisor.events.tell("stopped", SUPERVISOR, "");
    supervisor.events.flush(FLUSH_MAX);
    if let Some(file) = supervisor.state_file.take() {
        file.close().await;
    }
    if let Some(server) = server {
        server.abort();
        let _ = server.await;
    }
    supervisor.verdict(orphans)
}

fn begin(
    start: Start,
    switches: Switches,
    program: Program,
) -> Result<(Supervisor, Option<Server>), Failure> {
    let (config, mut takeover) = match start {
        Start::Anew(config) => (config, None),
        Start::Takeover(takeover) => (takeover.config.clone(), Some(*takeover)),
    };
    config.validate()?;
    let failed = |error: std::io::Error| {
        let help = "`bingo down` and `bingo up`";
        Failure::run_time("go on with open sockets", error, help)
    };
    // First of all: where another supervisor runs already, that is what must be said.
    let control = takeover
        .as_mut()
        .and_then(|takeover| takeover.control.take());
    let server = match (config.control_socket.as_deref(), control) {
        (Some(path), Some(socket)) => {
            let socket = socket.take().map_err(failed)?;
            Some(Server::go_on(path, socket).map_err(failed)?)
        }
        (Some(path), None) => Some(Server::open(path)?),
        (None, _) => None,
    };
    let sockets = takeover
        .as_mut()
        .map(|takeover| std::mem::take(&mut takeover.sockets));
    let sockets = Sockets::go_on(sockets.unwrap_or_default()).map_err(failed)?;
    let mut supervisor = Supervisor::open(&config, sockets, switches, program)?;
    let metrics = takeover
        .as_mut()
        .and_then(|takeover| takeover.metrics.take());
    supervisor.serve_metrics(metrics)?;
    let control = server.as_ref().map(Server::beside).transpose();
    supervisor.control = control.map_err(failed)?;
    match takeover {
        Some(takeover) => supervisor.go_on(takeover),
        None => supervisor.events.tell("started", SUPERVISOR, VERSION),
    }
    Ok((supervisor, server))
}

struct Supervisor {
    /// What the slots were made of.
    config: Config,
    reader: Option<Reader>,
    slots: Vec<Slot>,
    /// Counts the starts of all: a number names one run of one process.
    runs: u64,
    after: Vec<Vec<usize>>,
    spawner: Spawner,
    /// See `Program`.
    again: Option<Vec<OsString>>,
    /// The program that this process becomes as soon as nothing is half done.
    next_program: Option<PathBuf>,
    /// How many programs this process was before.
    upgrades: u32,
    /// The control socket and where our own output goes, for the next program.
    control: Option<control::Beside>,
    own_output: Option<OwnOutput>,
    switches: Switches,
    stopping: bool,
    at_once: bool,
    origin: Instant,
    since: String,
    reports: mpsc::Sender<Report>,
    inbox: Option<mpsc::Receiver<Report>>,
    state_file: Option<StateFile>,
    events: Events,
    /// Where memory is limited by the kernel; looked for when it is first needed.
    groups: Option<Groups>,
    board: Board,
    metrics: Option<metrics::Server>,
    shown: Status,
    rotation: Rotation,
    notes: Vec<String>,
    ports: replace::Ports,
    /// When this task last did something.
    beat: Instant,
}

struct Report {
    run: u64,
    news: News,
}

enum News {
    Exited(Ended, Vec<String>),
    Probed(Round),
    Ready,
    Checked(upgrade::Checked),
}

impl Supervisor {
    fn open(
        config: &Config,
        mut sockets: Sockets,
        switches: Switches,
        program: Program,
    ) -> Result<Self, Failure> {
        let plan = Plan::new(config)?;
        if let Some(folder) = &config.log_folder {
            let mut builder = std::fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o750).create(folder);
            made.map_err(|error| {
                let attempted = format!("make the log folder {}", folder.display());
                Failure::configuration(attempted, error, "make it, or name another one")
            })?;
        }
        spawn::close_on_exec();
        let family = Family::found().map_err(|error| {
            let attempted = "become the parent of orphans (PR_SET_CHILD_SUBREAPER)";
            Failure::configuration(attempted, error, "use Linux 3.4 or newer")
        })?;
        sockets.open(&plan)?;
        let spawner = Spawner {
            family: Arc::new(family),
            launcher: program.launcher,
            log_folder: config.log_folder.clone(),
            logs: config.logs.clone(),
            sockets,
        };
        let notes = shown::notes_for(&plan);
        let events = config.events_file.as_ref();
        let events = events.map(|path| Events::keeping_file(path, SUPERVISOR));
        let since = now_text();
        let (reports, inbox) = mpsc::channel(REPORTS_MAX);
        let after = plan::positions(&plan.processes.iter().collect::<Vec<_>>());
        let processes = plan.processes.into_iter();
        let slots = processes.map(|process| Slot::new(process, &since));
        Ok(Self {
            config: config.clone(),
            reader: None,
            slots: slots.collect(),
            runs: 0,
            after,
            spawner,
            again: program.again,
            next_program: None,
            upgrades: 0,
            control: None,
            own_output: None,
            switches,
            stopping: false,
            at_once: false,
            origin: Instant::now(),
            since,
            reports,
            inbox: Some(inbox),
            state_file: None,
            events: events.unwrap_or_default(),
            groups: None,
            board: Board::default(),
            metrics: None,
            shown: Status::default(),
            rotation: Rotation::default(),
            notes,
            ports: replace::Ports::default(),
            beat: Instant::now(),
        })
    }

    /// Returns when nothing runs and nothing will.
    async fn work(
        &mut self,
        mut requests: mpsc::Receiver<Asked>,
        readings: Option<mpsc::Receiver<Reading>>,
    ) {
        // Of a channel without a sender nothing ever comes.
        let mut readings = readings.unwrap_or_else(|| mpsc::channel(1).1);
        let Some(mut inbox) = self.inbox.take() else {
            return;
        };
        let switches = self.switches.clone();
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pulse = tokio::time::interval(PULSE_INTERVAL);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.settle();
            self.show();
            if self.is_over() {
                return;
            }
            self.become_next_program();
            let wake = self.slots.iter().flat_map(Slot::machines);
            let wake = wake.filter_map(Machine::wake_at);
            let wake = self.origin + wake.min().unwrap_or_else(|| self.now() + NEVER);
            self.stood_still();
            tokio::select! {
                Some(report) = inbox.recv() => self.take(report),
                () = tokio::time::sleep_until(wake) => if !self.stood_still() {
                    self.tell_all(&Event::Wake);
                },
                _ = pulse.tick() => if !self.stood_still() {
                    self.measure();
                },
                () = switches.now.requested(), if !self.at_once => self.close(true),
                () = switches.stop.requested(), if !self.stopping => self.close(false),
                Some((request, answer)) = requests.recv() => self.answer(request, answer),
                Some(reading) = readings.recv() => self.take_over(reading),
                () = switches.hang_up.notified() => {
                    if self.reader.is_some() {
                        self.reload(None);
                    } else {
                        switches.stop.request();
                    }
                }
                _ = look.tick() => self.look().await,
            }
        }
    }

    fn now(&self) -> Moment {
        self.origin.elapsed()
    }

    /// Whether this task did nothing for longer than it ever waits, so that what was due meanwhile says
    /// nothing of the processes; all are told. Asked before anything that is due is done.
    fn stood_still(&mut self) -> bool {
        let now = Instant::now();
        let still = now.saturating_duration_since(self.beat);
        self.beat = now;
        if still <= PULSE_INTERVAL + LATE {
            return false;
        }
        tracing::warn!(?still, "stood still; what was due meanwhile does not count");
        self.tell_all(&Event::Stalled(still));
        true
    }

    fn tell_all(&mut self, event: &Event) {
        for index in 0..self.slots.len() {
            for place in [Place::Present, Place::Successor, Place::Departing] {
                self.feed_to(index, place, event.clone());
            }
        }
    }

    /// Starts what may start, and stops what may stop, until neither changes anything.
    fn settle(&mut self) {
        let flags = |slots: &[Slot], flag: fn(&Machine) -> bool| -> Vec<bool> {
            slots.iter().map(|slot| flag(&slot.machine)).collect()
        };
        loop {
            self.advance();
            let waiting = flags(&self.slots, Machine::is_waiting);
            let there = flags(&self.slots, Machine::is_there);
            let mut next: Vec<(usize, Event)> = order::startable(&self.after, &waiting, &there)
                .into_iter()
                .map(|index| (index, Event::Release))
                .collect();
            if self.stopping {
                next.clear();
            }
            next.extend(
                self.stoppable()
                    .into_iter()
                    .map(|index| (index, Event::Stop)),
            );
            if next.is_empty() {
                return self.forget();
            }
            for (index, event) in next {
                self.feed(index, event);
            }
        }
    }

    fn is_over(&self) -> bool {
        // What still waits after `settle` waits for something that will never be there. What the
        // operator stopped waits for the operator.
        let is_held = |slot: &Slot| slot.is_held() && !self.stopping;
        self.slots
            .iter()
            .all(|slot| (slot.is_over() || slot.machine.is_waiting()) && !is_held(slot))
    }

    fn close(&mut self, at_once: bool) {
        tracing::info!(at_once, "stopping all processes");
        if !self.stopping {
            self.events.tell("stopping", SUPERVISOR, "");
        }
        self.stopping = true;
        self.at_once |= at_once;
        self.spawner.sockets.close();
        for index in 0..self.slots.len() {
            self.close_slot(index, at_once);
        }
    }

    fn take(&mut self, report: Report) {
        if let News::Checked(checked) = report.news {
            return self.checked(checked);
        }
        let mut all = self.slots.iter().enumerate();
        let found = all.find_map(|(index, slot)| Some((index, slot.place_of(report.run)?)));
        let Some((index, place)) = found else {
            return;
        };
        match report.news {
            News::Probed(round) if self.is_void(index, place, &round) => {}
            News::Probed(round) => self.feed_to(index, place, Event::Probed(round)),
            News::Checked(_) => {}
            News::Ready => self.feed_to(index, place, Event::Ready),
            News::Exited(ended, lines) => self.exited(index, place, ended, lines),
        }
    }

    fn answer(&mut self, request: Request, waits: oneshot::Sender<Answer>) {
        let answer = match request {
            Request::Status => Answer::Status(self.status(true)),
            Request::Stop { now } => {
                self.switches.stop.request();
                if now {
                    self.switches.now.request();
                }
                Answer::Done
            }
            Request::Restart { name } => self.restart(&name),
            Request::StopProcess { name, force } => self.stop_process(&name, force),
            Request::StartProcess { name } => self.start_process(&name),
            Request::Reload => return self.reload(Some(waits)),
            Request::Upgrade { program } => return self.check_program(program, waits),
        };
        // A client that is gone needs no answer.
        let _ = waits.send(answer);
    }

    fn restart(&mut self, name: &str) -> Answer {
        let at = self.slots.iter().position(|slot| slot.process.name == name);
        let Some((at, slot)) = at.and_then(|at| Some((at, self.slots.get(at)?))) else {
            return Answer::Refused(format!("there is no process `{name}`"));
        };
        if self.stopping {
            return Answer::Refused("everything is being stopped".to_owned());
        }
        let peers: Vec<ProcessState> = self
            .slots
            .iter()
            .filter(|peer| peer.process.role == slot.process.role && peer.process.name != name)
            .map(|peer| peer.machine.state())
            .collect();
        let may_go = policy::may_end_by_choice(slot.machine.state(), &peers);
        if !slot.process.start_first && !may_go {
            let role = &slot.process.role;
            return Answer::Refused(format!(
                "`{name}` is the last healthy {role}; restart the others first"
            ));
        }
        if slot.machine.is_running() {
            self.wish(at, Wish::Operator("operator".to_owned()));
        } else {
            self.feed(at, Event::Restart("operator".to_owned()));
        }
        Answer::Done
    }
}
