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
use std::sync::Arc;
use std::time::Duration;

use chassis::backoff::Backoff;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::family::Family;
use crate::launch::{ORDERS, Orders, SCRIBE, Task};
use crate::privileges;
use crate::scribe::{Settings, Told};

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
        let (heard, told) = watch::channel(Told::default());
        let hire = Hire {
            family: Arc::clone(family),
            launcher: launcher.to_vec(),
            settings,
            pipe: OwnedFd::from(pipe),
        };
        let first = hire.start()?;
        tokio::spawn(hire.attend(first, heard));
        Ok((Self { told }, writer))
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
struct Hire {
    family: Arc<Family>,
    launcher: Vec<OsString>,
    settings: Settings,
    pipe: OwnedFd,
}

impl Hire {
    fn start(&self) -> io::Result<(Child, u32)> {
        let path = &self.settings.path;
        let orders = Orders {
            task: Task::Scribe(self.settings.clone()),
            confinement: privileges::of_work_on(path),
        };
        let mut words = self.launcher.iter();
        let mut command = Command::new(words.next().cloned().unwrap_or_default());
        command
            .args(words)
            .arg(SCRIBE)
            .arg(path)
            .env_clear()
            .env(ORDERS, orders.to_text())
            .stdin(self.pipe.try_clone()?)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C of a terminal is for the supervisor alone.
            .process_group(0);
        if let Some((uid, gid)) = path.parent().and_then(stranger) {
            command.gid(gid).uid(uid);
        }
        self.family.spawn(&mut command)
    }

    /// Listens to the scribe, and replaces it when it ends before its last words.
    async fn attend(self, first: (Child, u32), heard: watch::Sender<Told>) {
        let mut present = Some(first);
        let mut before = 0;
        for attempt in 0.. {
            let name = self.settings.path.display();
            match present.take() {
                Some((mut child, pid)) => {
                    let is_done = listen(&mut child, &heard, before).await;
                    let status = child.wait().await;
                    self.family.forget(pid);
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
async fn listen(child: &mut Child, heard: &watch::Sender<Told>, before: u64) -> bool {
    let Some(words) = child.stdout.take() else {
        return false;
    };
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
