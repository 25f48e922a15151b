//! What a child says, from the supervisor's side: a pipe whose other end is read by a scribe, a
//! process of its own (`scribe`). The supervisor holds the reading end too and never reads it: while
//! it lives the pipe cannot break, and a scribe that died is replaced without a lost line. When the
//! supervisor is killed, the scribe goes on.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::backoff::Backoff;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;
use tokio::sync::watch;

use crate::family::{Family, Member};
use crate::launch::{ORDERS, Orders, SCRIBE, Task};
use crate::privileges;
use crate::scribe::{Settings, Told};
use crate::takeover::{Descriptors, Number};

/// Asked for; the kernel gives less to a user with many pipes (pipe(7)). What a child may say while
/// its scribe is being replaced.
const PIPE_BYTES: usize = 256 * 1024;
/// How long the last words of a scribe are waited for: they hold up the restart of its child.
const LAST_WORDS_MAX: Duration = Duration::from_millis(200);
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(20),
    max: Duration::from_secs(5),
};

/// One run's output, being written down.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    told: watch::Receiver<Told>,
    hire: Arc<Hire>,
}

/// A capture for the program that this process becomes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pipe: Number,
    scribe: Option<KeptScribe>,
    dropped_lines: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptScribe {
    pid: u32,
    words: Number,
}

impl Capture {
    /// Starts a scribe; returns the end of the pipe that the child writes to.
    pub(crate) fn start(
        family: &Arc<Family>,
        launcher: &[OsString],
        settings: Settings,
    ) -> io::Result<(Self, io::PipeWriter)> {
        let (pipe, writer) = io::pipe()?;
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES);
        let hire = Hire {
            family: Arc::clone(family),
            launcher: launcher.to_vec(),
            settings,
            pipe: OwnedFd::from(pipe),
            present: Mutex::default(),
        };
        let first = hire.start()?;
        Ok((Self::of(hire, Some(first), 0), writer))
    }

    /// Goes on with the scribe of the program that this process was before.
    pub(crate) fn go_on(
        family: &Arc<Family>,
        launcher: &[OsString],
        settings: Settings,
        kept: Kept,
    ) -> io::Result<Self> {
        let hire = Hire {
            family: Arc::clone(family),
            launcher: launcher.to_vec(),
            settings,
            pipe: kept.pipe.take()?,
            present: Mutex::default(),
        };
        let scribe = kept.scribe.map(|kept| hire.adopt(kept)).transpose()?;
        Ok(Self::of(hire, scribe, kept.dropped_lines))
    }

    fn of(hire: Hire, first: Option<Scribe>, dropped_lines: u64) -> Self {
        let (heard, told) = watch::channel(Told {
            dropped_lines,
            last_lines: None,
        });
        let hire = Arc::new(hire);
        tokio::spawn(Arc::clone(&hire).attend(first, heard));
        Self { told, hire }
    }

    /// What the next program needs to go on with it.
    pub(crate) fn keep(&self, descriptors: &mut Descriptors) -> Kept {
        let present = self.hire.present();
        Kept {
            pipe: descriptors.keep(&self.hire.pipe),
            scribe: present.as_ref().map(|(pid, words)| KeptScribe {
                pid: *pid,
                words: descriptors.keep(words),
            }),
            dropped_lines: self.dropped_lines(),
        }
    }

    /// Lines that were not written down: too many at once, or the disk refused them.
    pub(crate) fn dropped_lines(&self) -> u64 {
        self.told.borrow().dropped_lines
    }

    /// The last lines of a run that has ended; none where its scribe does not tell them in time.
    pub(crate) async fn last_lines(mut self) -> Vec<String> {
        let told = self.told.wait_for(|told| told.last_lines.is_some());
        match tokio::time::timeout(LAST_WORDS_MAX, told).await {
            Ok(Ok(told)) => told.last_lines.clone().unwrap_or_default(),
            _ => Vec::new(),
        }
    }
}

/// What is needed to start a scribe, and again.
#[derive(Debug)]
struct Hire {
    family: Arc<Family>,
    launcher: Vec<OsString>,
    settings: Settings,
    pipe: OwnedFd,
    /// The pid of the scribe that is listened to, and its words: what the next program is given.
    present: Mutex<Option<(u32, OwnedFd)>>,
}

/// A scribe that runs.
struct Scribe {
    pid: u32,
    member: Member,
    words: Receiver,
}

impl Hire {
    fn start(&self) -> io::Result<Scribe> {
        let path = &self.settings.path;
        let orders = Orders {
            task: Task::Scribe(self.settings.clone()),
            confinement: privileges::of_work_on(path),
        };
        let (words, theirs) = io::pipe()?;
        let mut launcher = self.launcher.iter();
        let mut command = Command::new(launcher.next().cloned().unwrap_or_default());
        command
            .args(launcher)
            .arg(SCRIBE)
            .arg(path)
            .env_clear()
            .env(ORDERS, orders.to_text())
            .stdin(self.pipe.try_clone()?)
            .stdout(theirs)
            .stderr(Stdio::null())
            // Ctrl-C of a terminal is for the supervisor alone.
            .process_group(0);
        if let Some((uid, gid)) = path.parent().and_then(stranger) {
            command.gid(gid).uid(uid);
        }
        let (child, pid) = self.family.spawn(&mut command)?;
        self.listened_to(pid, Member::Started(child), OwnedFd::from(words))
    }

    fn adopt(&self, kept: KeptScribe) -> io::Result<Scribe> {
        let words = kept.words.take()?;
        self.listened_to(kept.pid, self.family.adopt(kept.pid), words)
    }

    fn listened_to(&self, pid: u32, member: Member, words: OwnedFd) -> io::Result<Scribe> {
        *self.present() = Some((pid, words.try_clone()?));
        let words = Receiver::from_owned_fd(words)?;
        Ok(Scribe { pid, member, words })
    }

    fn present(&self) -> MutexGuard<'_, Option<(u32, OwnedFd)>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens to the scribe, and replaces it when it ends before its last words.
    async fn attend(self: Arc<Self>, first: Option<Scribe>, heard: watch::Sender<Told>) {
        let mut present = first;
        let mut before = 0;
        for attempt in 0.. {
            let name = self.settings.path.display();
            match present.take() {
                Some(mut scribe) => {
                    let is_done = listen(scribe.words, &heard, before).await;
                    let status = scribe.member.wait().await;
                    *self.present() = None;
                    self.family.forget(scribe.pid);
                    if is_done {
                        return;
                    }
                    tracing::error!(path = %name, ?status, "a scribe ended; another one follows");
                }
                None => tracing::error!(path = %name, "a scribe could not be started"),
            }
            // Nobody waits for its words any more: the child is gone.
            if heard.is_closed() {
                return;
            }
            before = heard.borrow().dropped_lines;
            tokio::time::sleep(BACKOFF.pause(attempt, chassis::random::random())).await;
            present = self.start().ok();
        }
    }
}

/// Takes its words until it ends; true when they were its last.
async fn listen(words: Receiver, heard: &watch::Sender<Told>, before: u64) -> bool {
    let mut lines = BufReader::new(words).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(told) = serde_json::from_str::<Told>(&line) {
            let is_last = told.last_lines.is_some();
            heard.send_replace(Told {
                dropped_lines: told.dropped_lines + before,
                ..told
            });
            if is_last {
                return true;
            }
        }
    }
    false
}

/// The owner of the log folder where we are root and it is somebody else: a scribe of root, without
/// root's capabilities, could not write there.
fn stranger(folder: &Path) -> Option<(u32, u32)> {
    let data = std::fs::metadata(folder).ok()?;
    (rustix::process::geteuid().is_root() && data.uid() != 0).then(|| (data.uid(), data.gid()))
}
