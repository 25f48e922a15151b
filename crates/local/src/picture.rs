//! Asks the gateways for the picture that all of them have of the installation (`/api/v1/picture`), as
//! the live page does: whichever answers is asked on, and when it does not any more the next one is.
//! Each look is two requests of its own; a stream would save one connection a second and need another
//! client.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use jiff::Timestamp;
use serde_json::Value;

use crate::ask;
use crate::layout::Layout;
use crate::status::{self, Record, State};

const PICTURE: &str = "/api/v1/picture";
/// What people copy from `bingo status`.
const PAGES: [&str; 3] = ["", "/", "/dashboard"];

/// The gateways that are asked.
#[derive(Debug)]
pub struct Gateways {
    place: Place,
    /// `HOST:PORT` of admin listeners.
    authorities: Vec<String>,
    /// Which of them answered last.
    turn: usize,
}

#[derive(Debug)]
enum Place {
    Installation(Layout),
    Url,
}

/// What a gateway told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    pub picture: Value,
    /// Of the last seconds that were asked for, by second; null where it could not be had.
    pub history: Value,
}

impl Gateways {
    /// Those of an installation on this machine.
    pub fn of(layout: Layout) -> Self {
        Self {
            place: Place::Installation(layout),
            authorities: Vec::new(),
            turn: 0,
        }
    }

    /// The one whose admin listener is at `HOST:PORT`.
    pub fn at(authority: String) -> Self {
        Self {
            place: Place::Url,
            authorities: vec![authority],
            turn: 0,
        }
    }

    /// Asks until one answers; the graphs shall reach back so many seconds. Fails with why none
    /// answers, a line each. Blocks: for seconds where gateways hang.
    pub fn ask(&mut self, seconds: u64) -> Result<Told, Vec<String>> {
        if self.authorities.is_empty() {
            self.find();
        }
        let mut silent = Vec::new();
        for _ in 0..self.authorities.len() {
            let Some(authority) = self.authorities.get(self.turn) else {
                self.turn = 0;
                continue;
            };
            match told(authority, seconds) {
                Ok(told) => return Ok(told),
                Err(error) => silent.push(format!("{authority}: {error}")),
            }
            self.turn = (self.turn + 1) % self.authorities.len();
        }
        if let Place::Installation(layout) = &self.place {
            silent.insert(0, described(layout));
            // It may have been started anew, with other ports.
            self.authorities.clear();
        }
        Err(silent)
    }

    fn find(&mut self) {
        let Place::Installation(layout) = &self.place else {
            return;
        };
        let record = Record::read(layout);
        let ports = record.map(|record| record.ports.gateway_admins);
        let ports = ports.unwrap_or_default().into_iter();
        self.authorities = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        self.turn = 0;
    }
}

/// `HOST:PORT` of an address like `http://HOST:PORT`, that of the page too; else why it is none.
pub fn gateway_authority(url: &str) -> Result<String, String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("it does not begin with http://; admin listeners speak no TLS")?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = authority
        .rsplit_once(':')
        .ok_or("it names no port, like http://127.0.0.1:9090")?;
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    if host.is_empty() || host.contains('@') || !is_port || !PAGES.contains(&path) {
        return Err("it is no address of an admin listener, like http://127.0.0.1:9090".to_owned());
    }
    Ok(authority.to_owned())
}

fn told(authority: &str, seconds: u64) -> io::Result<Told> {
    let picture = get(authority, PICTURE)?;
    let at = picture.get("at").and_then(Value::as_str);
    let at = at.and_then(|at| at.parse::<Timestamp>().ok());
    let history = at.and_then(|at| {
        let after = at.as_second().saturating_sub_unsigned(seconds).max(0);
        let path = format!("/api/v1/history?span=10m&after={after}");
        get(authority, &path).ok()
    });
    Ok(Told {
        picture,
        history: history.unwrap_or_default(),
    })
}

fn get(authority: &str, path: &str) -> io::Result<Value> {
    let mut last = io::Error::other("its name stands for no address");
    for address in authority.to_socket_addrs()? {
        match get_at(address, path) {
            Ok(value) => return Ok(value),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn get_at(address: SocketAddr, path: &str) -> io::Result<Value> {
    let answer = ask::get(address, path)?;
    let value: Result<Value, _> = serde_json::from_str(&answer.body);
    if answer.status != 200 {
        let value = value.unwrap_or_default();
        let detail = value.get("detail").and_then(Value::as_str);
        let detail = detail.unwrap_or("it is no admin listener of a gateway");
        let status = answer.status;
        return Err(io::Error::other(format!("it answers {status}: {detail}")));
    }
    value.map_err(|error| io::Error::other(format!("its answer is not understood: {error}")))
}

/// What there is to say of an installation of which no gateway answers.
fn described(layout: &Layout) -> String {
    let dir = layout.root().display();
    if !layout.is_ours() {
        return format!("there is no installation in {dir}");
    }
    let installation = status::read(layout);
    match installation.state {
        State::Stopped => format!("it is stopped: bingo up --dir {dir} starts it"),
        State::Ready => "the supervisor finds all healthy".to_owned(),
        State::Starting | State::Degraded => installation.reasons.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_address_of_a_listener_or_of_its_page_is_taken_and_no_other() {
        for url in [
            "http://127.0.0.1:9090",
            "http://127.0.0.1:9090/",
            "http://127.0.0.1:9090/dashboard",
        ] {
            assert_eq!(gateway_authority(url).unwrap(), "127.0.0.1:9090", "{url}");
        }
        assert_eq!(gateway_authority("http://[::1]:9").unwrap(), "[::1]:9");
        for url in [
            "",
            "127.0.0.1:9090",
            "https://a:1",
            "http://a",
            "http://:1",
            "http://a:0",
            "http://a:1/metrics",
            "http://user:secret@a:1",
        ] {
            assert!(gateway_authority(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_folder_without_an_installation_is_said_to_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut gateways = Gateways::of(Layout::new(folder.path().join("none")));
        let why = gateways.ask(1).unwrap_err();
        assert_eq!(why.len(), 1);
        assert!(
            why[0].starts_with("there is no installation in "),
            "{why:?}"
        );
    }

    #[test]
    fn when_one_does_not_answer_the_next_is_asked_and_asked_on() {
        let silent = nobody();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let answers = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(stream.unwrap());
            }
        });
        let mut gateways = Gateways {
            place: Place::Url,
            authorities: vec![silent.to_string(), answers.to_string()],
            turn: 0,
        };
        let told = gateways.ask(120).unwrap();
        assert_eq!(told.picture["path"], PICTURE);
        let path = "/api/v1/history?span=10m&after=999999880";
        assert_eq!(told.history["path"], path);
        assert_eq!(gateways.turn, 1);
        assert_eq!(gateways.ask(120), Ok(told));
        let why = Gateways::at(silent.to_string()).ask(1).unwrap_err();
        assert!(why[0].starts_with(&format!("{silent}: ")), "{why:?}");
    }

    /// Where nobody listens.
    fn nobody() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    /// Tells what it was asked for, a second after a thousand millions of them.
    fn answer(stream: TcpStream) -> io::Result<()> {
        let mut head = String::new();
        let mut reader = io::BufReader::new(&stream);
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
        let path = head.split(' ').nth(1).unwrap_or_default();
        let body = format!("{{\"at\": \"2001-09-09T01:46:40.9Z\", \"path\": \"{path}\"}}");
        let length = body.len();
        write!(
            &stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    }
}
