//! A server on a free loopback port that misbehaves on purpose, for this crate's own tests: late,
//! wrong, cut short, reset, closed under a keep-alive client. Written on bare sockets and threads,
//! because a decent HTTP library would not let it be this rude.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The running server; dropped, it stops listening.
pub(crate) struct StandIn {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

/// What the server was asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: String,
}

/// What it does with one request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: &'static str,
    headers: String,
    body: String,
    delay: Duration,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    KeepAlive,
    /// Closed after the answer without saying so.
    CloseUnsaid,
    /// Half the body, then closed.
    CutShort,
    /// No answer; the connection is reset.
    Reset,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self {
            status: "200 OK",
            headers: String::new(),
            body: body.into(),
            delay: Duration::ZERO,
            end: End::KeepAlive,
        }
    }

    pub(crate) fn status(mut self, status: &'static str) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub(crate) fn close_unsaid(mut self) -> Self {
        self.end = End::CloseUnsaid;
        self
    }

    pub(crate) fn cut_short(mut self) -> Self {
        self.end = End::CutShort;
        self
    }

    pub(crate) fn reset(mut self) -> Self {
        self.end = End::Reset;
        self
    }
}

impl StandIn {
    pub(crate) fn start(behave: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop, behave) = (Arc::clone(&stopping), Arc::new(behave));
        let listener = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(stream), behave) = (stream, Arc::clone(&behave)) else {
                    continue;
                };
                std::thread::spawn(move || serve(&stream, &*behave));
            }
        });
        Self {
            address,
            stopping,
            listener: Some(listener),
        }
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes the accept, so that it sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn serve(stream: &TcpStream, behave: &(impl Fn(&Asked) -> Answer + ?Sized)) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader) {
        let answer = behave(&asked);
        std::thread::sleep(answer.delay);
        if answer.end == End::Reset {
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
            return;
        }
        let body = answer.body.as_bytes();
        let head = format!(
            "HTTP/1.1 {}\r\ncontent-length: {}\r\nbingo-node: stand-in\r\n{}\r\n",
            answer.status,
            body.len(),
            answer.headers
        );
        let sent = match answer.end {
            End::CutShort => &body[..body.len() / 2],
            _ => body,
        };
        let whole = [head.as_bytes(), sent].concat();
        let mut stream = stream;
        if stream.write_all(&whole).is_err() || answer.end != End::KeepAlive {
            return;
        }
    }
}

/// One request, or none at the end of the connection.
fn read(reader: &mut BufReader<&TcpStream>) -> Option<Asked> {
    let mut first = String::new();
    reader
        .read_line(&mut first)
        .ok()
        .filter(|bytes| *bytes > 0)?;
    let mut body_bytes = 0;
    loop {
        let mut line = String::new();
        reader
            .read_line(&mut line)
            .ok()
            .filter(|bytes| *bytes > 0)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(length) = line.strip_prefix("content-length:") {
            body_bytes = length.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; body_bytes];
    reader.read_exact(&mut body).ok()?;
    let mut words = first.split_whitespace();
    Some(Asked {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        body: String::from_utf8(body).ok()?,
    })
}
