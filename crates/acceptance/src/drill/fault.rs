//! Makes one fault happen, tells when it was over, and leaves how to take it back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::installation::{Installation, Member, Status, answers};
use super::proxy::Proxy;
use super::scenario::{Fault, Mode, Role, SignalName};
use super::undo::{Left, Undo, replace_in_gateway_file};
use crate::error::Error;
use crate::http::{Method, Request};
use crate::signals::{self, Process, Signal, kill, wait_until};

/// The longest wait for what was broken to be well again.
const PATIENCE: Duration = Duration::from_secs(60);
/// A full volume is filled in pieces of this size.
const FILL_BYTES: usize = 1024 * 1024;
/// A volume of logs larger than this is not filled.
const FILL_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A fault that happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inflicted {
    pub(super) at: Instant,
    /// When it was taken back, or all answered again.
    pub(super) over: Instant,
    /// Whether `over` is when a process came back.
    pub(super) is_return: bool,
    /// Of several poisons at once: how many there were, and how many are refused now.
    pub(super) poisons: Option<Poisons>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Poisons {
    pub(super) sent: usize,
    pub(super) refused: usize,
}

/// One drill's means of breaking things.
pub(super) struct Breaker<'a> {
    pub(super) installation: &'a Installation,
    pub(super) fault: &'a Fault,
    pub(super) undo: Arc<Undo>,
    pub(super) http: String,
    pub(super) proxy: Option<Proxy>,
    turn: usize,
}

impl<'a> Breaker<'a> {
    /// Prepares the fault: a proxy is put before the first node.
    ///
    /// # Errors
    /// Those of the installation, and where no port is to be had.
    pub(super) async fn prepare(
        installation: &'a Installation,
        fault: &'a Fault,
        status: &Status,
    ) -> Result<Self, Error> {
        let undo = Arc::new(Undo::default());
        let proxy = match fault {
            Fault::Proxy { .. } => Some(put_between(installation, status, &undo).await?),
            _ => None,
        };
        Ok(Self {
            installation,
            fault,
            undo,
            http: status.urls.http.clone().unwrap_or_default(),
            proxy,
            turn: 0,
        })
    }

    /// What the installation lacks for this fault, if anything.
    pub(super) async fn lacking(
        installation: &Installation,
        fault: &Fault,
        status: &Status,
    ) -> Option<String> {
        let nodes = status.of(Role::Node);
        let needs_fault = match fault {
            Fault::Poison { .. } | Fault::Poisons { .. } => "operation",
            Fault::Overload { .. } => "rps_limit",
            Fault::FullLogs { .. } => return log_volume_is_small(&installation.folder).err(),
            Fault::Signal { role, .. } if status.of(*role).is_empty() => {
                return Some("no process of that role is its own".to_owned());
            }
            _ => return None,
        };
        let node = nodes.first()?;
        (!installation.has_fault(node, needs_fault).await)
            .then(|| format!("its nodes were not started with --faults {needs_fault}"))
    }

    /// Breaks something and waits until it is well again, at most a minute.
    ///
    /// # Errors
    /// Where it could not be broken, or a command failed.
    pub(super) async fn inflict(&mut self) -> Result<Inflicted, Error> {
        self.turn += 1;
        let status = self.installation.status().await?;
        let begun = Instant::now();
        match self.fault {
            Fault::Signal {
                role,
                signal,
                lasts_ms,
            } => return self.signal(&status, *role, *signal, *lasts_ms).await,
            Fault::Poison { bits } => {
                let poison = self.operation(0, *bits);
                return self.poison(&status, &[poison]).await;
            }
            Fault::Poisons { bits, clients } => {
                let numbers = bits.iter().enumerate();
                let all: Vec<u64> = numbers
                    .map(|(at, bits)| self.operation(at, *bits))
                    .collect();
                let sent: Vec<u64> = (0..*clients).flat_map(|_| all.iter().copied()).collect();
                let mut inflicted = self.poison(&status, &sent).await?;
                inflicted.poisons = Some(self.refused(&all).await);
                return Ok(inflicted);
            }
            Fault::Proxy { mode, lasts_ms } => {
                if let Some(proxy) = &self.proxy {
                    proxy.set(*mode);
                    tokio::time::sleep(Duration::from_millis(*lasts_ms)).await;
                    proxy.set(Mode::Pass);
                }
            }
            Fault::Command { arguments } => {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                self.installation.command(&arguments).await?;
            }
            Fault::Reload { times } => {
                for _ in 0..*times {
                    self.installation.reload(&status.of(Role::Gateway)).await?;
                }
            }
            Fault::Upgrade => self.upgrade(&status).await?,
            Fault::FullLogs { lasts_ms } => {
                self.fill_logs()?;
                tokio::time::sleep(Duration::from_millis(*lasts_ms)).await;
                self.undo.run();
            }
            Fault::Clock {
                jump_seconds,
                lasts_ms,
            } => {
                set_clock(*jump_seconds)?;
                let back = -jump_seconds;
                self.undo.push(move || {
                    let _ = set_clock(back);
                });
                tokio::time::sleep(Duration::from_millis(*lasts_ms)).await;
                self.undo.run();
            }
            // Load of its own, run beforehand.
            Fault::Overload { .. } => {}
        }
        Ok(Inflicted {
            at: begun,
            over: Instant::now(),
            is_return: false,
            poisons: None,
        })
    }

    async fn signal(
        &mut self,
        status: &Status,
        role: Role,
        signal: SignalName,
        lasts_ms: u64,
    ) -> Result<Inflicted, Error> {
        let members = status.of(role);
        let member = members.get(self.turn % members.len().max(1));
        let found = member.and_then(|member| Some((member, member.process()?)));
        let Some((member, process)) = found else {
            let why = "no process of that role runs".to_owned();
            return Err(self.installation.fault("send a signal", why));
        };
        let at = Instant::now();
        match signal {
            SignalName::Kill => kill(&process, Signal::Kill)?,
            SignalName::Stop => {
                let tree: Vec<Process> = std::iter::once(process.clone())
                    .chain(signals::descendants_of(process.pid))
                    .collect();
                let frozen = tree.clone();
                self.undo.push(move || thaw(&frozen));
                for one in &tree {
                    // One that has just ended by itself needs no signal.
                    let _ = kill(one, Signal::Stop);
                }
            }
        }
        let nodes = status.of(Role::Node);
        if lasts_ms > 0 {
            // Until it is thawed, or was replaced before that.
            let limit = Duration::from_millis(lasts_ms);
            let gone = async || !signals::alive(&process) && answers(member, &nodes).await;
            let _ = wait_until("it was replaced", limit, gone).await;
            self.undo.run();
        }
        let is_other = || signal == SignalName::Stop || !signals::alive(&process);
        let back = async || is_other() && answers(member, &nodes).await;
        wait_until("the broken process is back", PATIENCE, back).await?;
        Ok(Inflicted {
            at,
            over: Instant::now(),
            is_return: true,
            poisons: None,
        })
    }

    /// Each its own value: the same poison twice would be known the second time.
    fn operation(&self, number: usize, bits: u64) -> u64 {
        let turn = (self.turn as u64) << 8;
        let drawn = (u64::from(std::process::id()) << 16) | turn | number as u64;
        (bits << 32) | (drawn & 0xFFFF_FFFF)
    }

    fn ask(&self, operation: u64) -> Request {
        let request = Request::new(Method::POST, &format!("{}/operation", self.http));
        request.json(&serde_json::json!({ "operation": operation }))
    }

    /// Whichever nodes get them: one of those that ran is gone, and all answer.
    async fn poison(&mut self, status: &Status, sent: &[u64]) -> Result<Inflicted, Error> {
        let nodes = status.of(Role::Node);
        let before: Vec<Process> = nodes.iter().filter_map(Member::process).collect();
        let at = Instant::now();
        // What they are answered is no matter: they are the only ones that may fail.
        let mut asked = tokio::task::JoinSet::new();
        for operation in sent {
            asked.spawn(self.ask(*operation).timeout(PATIENCE).send());
        }
        wait_until("the poisoned node was replaced", PATIENCE, async || {
            before.iter().any(|process| !signals::alive(process))
        })
        .await?;
        // Only then no node can be broken by them any more.
        asked.join_all().await;
        wait_until("all nodes answer again", PATIENCE, async || {
            for node in &nodes {
                if !answers(node, &nodes).await {
                    return false;
                }
            }
            true
        })
        .await?;
        Ok(Inflicted {
            at,
            over: Instant::now(),
            is_return: true,
            poisons: None,
        })
    }

    /// Sends each once more: 422 says that it is known.
    async fn refused(&self, all: &[u64]) -> Poisons {
        let mut refused = 0;
        for operation in all {
            let answer = self.ask(*operation).send().await;
            refused += usize::from(answer.is_ok_and(|answer| answer.status.as_u16() == 422));
        }
        Poisons {
            sent: all.len(),
            refused,
        }
    }

    /// Each runs its own program under another name, one byte longer, and then the program again.
    async fn upgrade(&self, status: &Status) -> Result<(), Error> {
        let failed = |error: std::io::Error| {
            self.installation
                .fault("copy the program", error.to_string())
        };
        let members: Vec<(Member, PathBuf)> = [Role::Node, Role::Gateway]
            .into_iter()
            .flat_map(|role| status.of(role))
            .map(|member| {
                let own = member.program();
                (
                    member,
                    own.unwrap_or_else(|| self.installation.program.clone()),
                )
            })
            .collect();
        let mut copies: BTreeMap<&Path, PathBuf> = BTreeMap::new();
        for (_, program) in &members {
            let number = copies.len();
            copies.entry(program).or_insert_with(|| {
                let own = std::process::id();
                program.with_file_name(format!("bingo-drill-{own}-{}-{number}", self.turn))
            });
        }
        let usual = members.iter();
        let left = Left::Programs {
            copies: copies.values().cloned().collect(),
            usual: usual
                .map(|(member, program)| (member.name.clone(), program.clone()))
                .collect(),
        };
        self.undo.leave(self.installation, &left)?;
        for (program, copy) in &copies {
            copy_longer(program, copy).map_err(failed)?;
        }
        for (member, program) in &members {
            let copy = copies.get(program.as_path()).unwrap_or(program);
            self.replace(member, copy).await?;
        }
        for (member, program) in &members {
            self.replace(member, program).await?;
        }
        for copy in copies.values() {
            std::fs::remove_file(copy).map_err(failed)?;
        }
        self.undo.run();
        Ok(())
    }

    async fn replace(&self, member: &Member, program: &Path) -> Result<(), Error> {
        let program = program.to_string_lossy();
        let arguments = ["restart", &member.name, "--binary", &program];
        self.installation.command(&arguments).await
    }

    fn fill_logs(&self) -> Result<(), Error> {
        use std::io::Write;
        let logs = self.installation.folder.join("logs");
        let fault = |why: String| self.installation.fault("fill the volume of its logs", why);
        // Looked at again: it may have been unmounted meanwhile, and this would fill the machine's disk.
        log_volume_is_small(&self.installation.folder).map_err(fault)?;
        let path = logs.join(".drill-fills-this-volume");
        self.undo
            .leave(self.installation, &Left::File(path.clone()))?;
        let mut file = std::fs::File::create(&path).map_err(|error| fault(error.to_string()))?;
        let mut piece = vec![0; FILL_BYTES];
        // Smaller and smaller pieces, until not even a byte has room.
        while !piece.is_empty() {
            if file.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        Ok(())
    }
}

fn copy_longer(program: &Path, copy: &Path) -> std::io::Result<()> {
    let mut bytes = std::fs::read(program)?;
    bytes.push(0);
    std::fs::write(copy, bytes)?;
    std::fs::set_permissions(copy, std::fs::metadata(program)?.permissions())
}

/// Puts a proxy before the first node and waits until it was taken up.
async fn put_between(
    installation: &Installation,
    status: &Status,
    undo: &Undo,
) -> Result<Proxy, Error> {
    let nodes = status.of(Role::Node);
    let listen = nodes.first().and_then(|node| node.listen.clone());
    let fault = |why: String| installation.fault("put a proxy before a node", why);
    let listen = listen.ok_or_else(|| fault("it has no node".to_owned()))?;
    let address = listen
        .parse()
        .map_err(|_| fault(format!("{listen} is no address")))?;
    let proxy = Proxy::start(address)
        .await
        .map_err(|error| fault(error.to_string()))?;
    let through = proxy.address().to_string();
    let left = Left::Address {
        usual: listen.clone(),
        now: through.clone(),
    };
    undo.leave(installation, &left)?;
    match replace_in_gateway_file(&installation.folder, &listen, &through) {
        Ok(true) => {}
        Ok(false) => return Err(fault(format!("no node is at {listen} in its gateway.yaml"))),
        Err(error) => return Err(fault(error.to_string())),
    }
    installation.reload(&status.of(Role::Gateway)).await?;
    Ok(proxy)
}

fn thaw(processes: &[Process]) {
    for one in processes {
        // Those that were killed meanwhile need none.
        let _ = kill(one, Signal::Continue);
    }
}

fn set_clock(seconds: i64) -> Result<(), Error> {
    use rustix::time::{ClockId, clock_gettime, clock_settime};
    let mut now = clock_gettime(ClockId::Realtime);
    now.tv_sec += seconds;
    clock_settime(ClockId::Realtime, now).map_err(|error| Error::Clock(error.to_string()))
}

/// Only such a volume is filled.
fn log_volume_is_small(folder: &Path) -> Result<(), String> {
    let logs = folder.join("logs");
    let device = |path: &Path| rustix::fs::stat(path).ok().map(|seen| seen.st_dev);
    let seen = rustix::fs::statvfs(&logs).map_err(|error| error.to_string())?;
    let is_small = seen.f_bavail * seen.f_frsize <= FILL_BYTES_MAX;
    if is_small && device(folder) != device(&logs) {
        return Ok(());
    }
    Err("its logs/ is no small volume of its own".to_owned())
}
