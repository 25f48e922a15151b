//! Talking to a running supervisor: one JSON line asks, one JSON line answers, then the connection
//! ends. A Unix socket of mode 0600 is all the authentication there is: whoever may open it may
//! also signal the processes. The client blocks; it is for commands that ask and end.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chassis::Failure;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::change::Change;
use crate::error::ControlError;
use crate::status::Status;

/// An exchange that takes longer is broken off, on both sides.
const EXCHANGE_MAX: Duration = Duration::from_secs(5);
const REQUEST_BYTES_MAX: u64 = 64 * 1024;
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
const CONNECTIONS_MAX: usize = 16;

/// What can be asked: `{"request":"restart","name":"node-1"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    Status,
    /// End everything; in order, or `now` at once. Answered before it is done.
    Stop {
        #[serde(default)]
        now: bool,
    },
    /// Read the configuration anew and carry out what it adds and takes away. Answered when that has
    /// begun.
    Reload,
    /// End one process in order; it stays stopped until it is started by name. `force`: also the last
    /// healthy one of several. Answered before it is done.
    #[serde(rename = "stop_process")]
    StopProcess {
        name: String,
        #[serde(default)]
        force: bool,
    },
    /// Start one process that was stopped, has failed or is done. Answered before it is healthy.
    #[serde(rename = "start_process")]
    StartProcess {
        name: String,
    },
    /// End one process in order and start it again. Answered before it is done.
    Restart {
        name: String,
    },
    /// Become another program, at once or when no replacement is under way. Answered when that
    /// program was asked whether it can.
    Upgrade {
        program: PathBuf,
    },
}

/// What is answered: `{"answer":"done"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "content", rename_all = "lowercase")]
pub enum Answer {
    Status(Status),
    Done,
    Changed(Change),
    Refused(String),
}

/// Asks the supervisor behind one socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn status(&self) -> Result<Status, ControlError> {
        let answer = match self.ask(&Request::Status) {
            // It becomes another program just now: that one has the socket.
            Err(ControlError::NoAnswer { source, .. }) if is_broken_off(&source) => {
                self.ask(&Request::Status)
            }
            answer => answer,
        };
        match answer? {
            Answer::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns when the request is accepted; wait for `status` to say `NotRunning`.
    pub fn stop(&self, now: bool) -> Result<(), ControlError> {
        self.order(&Request::Stop { now })
    }

    /// Returns when the request is accepted.
    pub fn restart(&self, name: &str) -> Result<(), ControlError> {
        self.order(&Request::Restart {
            name: name.to_owned(),
        })
    }

    /// Returns when the request is accepted; wait for its state to be `Stopped`.
    pub fn stop_process(&self, name: &str, force: bool) -> Result<(), ControlError> {
        self.order(&Request::StopProcess {
            name: name.to_owned(),
            force,
        })
    }

    /// Returns when the request is accepted; wait for its state to be `Healthy`.
    pub fn start_process(&self, name: &str) -> Result<(), ControlError> {
        self.order(&Request::StartProcess {
            name: name.to_owned(),
        })
    }

    /// Returns when the new file is accepted: what it adds is being started, what it takes away
    /// stopped. Refused with all its faults otherwise, and then nothing is changed.
    pub fn reload(&self) -> Result<Change, ControlError> {
        match self.ask(&Request::Reload)? {
            Answer::Changed(change) => Ok(change),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns when the other program says that it can take over; wait for it to be what runs.
    pub fn upgrade(&self, program: &Path) -> Result<(), ControlError> {
        self.order(&Request::Upgrade {
            program: program.to_owned(),
        })
    }

    fn order(&self, request: &Request) -> Result<(), ControlError> {
        match self.ask(request)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer, ControlError> {
        let path = || self.path.clone();
        let mut stream =
            BlockingStream::connect(&self.path).map_err(|source| ControlError::NotRunning {
                path: path(),
                source,
            })?;
        let garbled = |source| ControlError::Garbled {
            path: path(),
            source,
        };
        let mut line = serde_json::to_string(request).map_err(garbled)?;
        line.push('\n');
        let answer = exchange(&mut stream, &line).map_err(|source| ControlError::NoAnswer {
            path: path(),
            source,
        })?;
        match serde_json::from_str(&answer).map_err(garbled)? {
            Answer::Refused(why) => Err(ControlError::Refused { why }),
            answer => Ok(answer),
        }
    }
}

fn exchange(stream: &mut BlockingStream, line: &str) -> io::Result<String> {
    stream.set_read_timeout(Some(EXCHANGE_MAX))?;
    stream.set_write_timeout(Some(EXCHANGE_MAX))?;
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

fn is_broken_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn unexpected(answer: &Answer) -> ControlError {
    ControlError::Refused {
        why: format!("it answered something else: {answer:?}"),
    }
}

/// A request and where its answer goes.
pub(crate) type Asked = (Request, oneshot::Sender<Answer>);

/// The listening side; its socket file goes with it.
pub(crate) struct Server {
    listener: UnixListener,
    /// One for each exchange, and one to accept the next.
    permits: Arc<Semaphore>,
    _file: SocketFile,
}

/// A server as seen from beside it.
pub(crate) struct Beside {
    pub(crate) socket: OwnedFd,
    permits: Arc<Semaphore>,
}

impl Beside {
    /// Whether nobody waits for an answer; who connects from now on waits for the next program.
    pub(crate) fn is_idle(&self) -> bool {
        self.permits.available_permits() + 1 >= CONNECTIONS_MAX
    }
}

struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Server {
    /// Opens the socket, in place of one that nobody listens on any more. Exit 64 where another
    /// supervisor answers on it, or the folder cannot be written.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let attempted = format!("open the control socket {}", path.display());
        if BlockingStream::connect(path).is_ok() {
            return Err(Failure::configuration(
                attempted,
                "another supervisor answers on it",
                "stop that one first, or use another folder",
            ));
        }
        Self::bind(path).map_err(|error| {
            let help = "check that the folder exists and can be written";
            Failure::configuration(attempted, error, help)
        })
    }

    /// Goes on with the socket of the program before.
    pub(crate) fn go_on(path: &Path, listener: OwnedFd) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(listener);
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            _file: SocketFile(path.to_owned()),
        })
    }

    /// What the next program goes on with.
    pub(crate) fn beside(&self) -> io::Result<Beside> {
        Ok(Beside {
            socket: self.listener.as_fd().try_clone_to_owned()?,
            permits: Arc::clone(&self.permits),
        })
    }

    fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let server = Self {
            listener,
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            _file: SocketFile(path.to_owned()),
        };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(server)
    }

    /// Serves until it is dropped; each request goes to `asked`.
    pub(crate) async fn serve(self, asked: mpsc::Sender<Asked>) {
        loop {
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let asked = asked.clone();
                    tokio::spawn(async move {
                        // A client that is slow or gone gets no answer; nothing else is lost.
                        let _ = tokio::time::timeout(EXCHANGE_MAX, answer(stream, asked)).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket could not accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn answer(mut stream: UnixStream, asked: mpsc::Sender<Asked>) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    tokio::io::BufReader::new(reader.take(REQUEST_BYTES_MAX))
        .read_line(&mut line)
        .await?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => {
            let (sender, receiver) = oneshot::channel();
            let gone = || io::Error::other("the supervisor ends");
            asked.send((request, sender)).await.map_err(|_| gone())?;
            receiver.await.map_err(|_| gone())?
        }
        Err(error) => Answer::Refused(format!("this is no request: {error}")),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    writer.write_all(&text).await
}
