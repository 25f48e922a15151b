//! Its HTTP: one thread for a connection, kept alive, bodies by Content-Length alone.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::answers;
use crate::faults::{End, Faults};

const BODY_BYTES_MAX: usize = 64 * 1024;
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

struct Asked {
    method: String,
    path: String,
    body: String,
    closes: bool,
}

type Answer = (u16, &'static str, String);

pub(crate) fn serve(stream: TcpStream, faults: &Faults, log: &Mutex<File>, database: &str) {
    let Ok(mut out) = stream.try_clone() else {
        return;
    };
    let mut input = BufReader::new(stream);
    while let Ok(Some(asked)) = read(&mut input) {
        let _ = writeln!(log.lock().unwrap(), "{} {}", asked.method, asked.path);
        let (status, kind, body) = answer(&asked, faults, database);
        let created = body
            .strip_prefix("{\"id\":")
            .filter(|_| status == 201)
            .and_then(|rest| rest.split_once(','));
        let location = created.map_or_else(String::new, |(id, _)| {
            format!("Location: /api/session/{id}\r\n")
        });
        let head = format!(
            "HTTP/1.1 {status} Whatever\r\nContent-Type: {kind}\r\n{location}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let sent = out.write_all(format!("{head}{body}").as_bytes());
        if sent.is_err() || asked.closes {
            return;
        }
    }
}

fn read(input: &mut impl BufRead) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (method, path) = (word(), word());
    let (mut length, mut closes) = (0, false);
    loop {
        let mut field = String::new();
        input.read_line(&mut field)?;
        let field = field.trim().to_ascii_lowercase();
        if field.is_empty() {
            break;
        }
        if let Some(value) = field.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        closes |= field.starts_with("connection:") && field.contains("close");
    }
    let mut body = vec![0; length.min(BODY_BYTES_MAX)];
    input.read_exact(&mut body)?;
    Ok(Some(Asked {
        method,
        path,
        body: String::from_utf8_lossy(&body).into_owned(),
        closes,
    }))
}

fn answer(asked: &Asked, faults: &Faults, database: &str) -> Answer {
    if !faults.is_admitted() {
        return (429, TEXT, "Too many requests".to_owned());
    }
    let text = |text: &str| (200, TEXT, text.to_owned());
    if faults.is_bad() {
        let says = if asked.path == "/ping" {
            "I feel bad"
        } else {
            "I feel bad."
        };
        return (500, TEXT, says.to_owned());
    }
    let now = || {
        (
            200,
            JSON,
            format!("{{\"host\":\"{}\",\"time\":\"{}\"}}", host(), seconds()),
        )
    };
    let path = asked.path.split('?').next().unwrap_or_default();
    match (asked.method.as_str(), path) {
        ("GET", "/") => text("Hi. Accept my congratulations. You were able to launch this app.\n"),
        ("GET", "/ping") => text("pong"),
        ("POST", "/operation") => operate(&asked.body, faults),
        ("GET", "/long_dummy") => {
            std::thread::sleep(Duration::from_secs(1));
            now()
        }
        ("GET", "/db_dummy") if answers(database) => {
            std::thread::sleep(Duration::from_millis(100));
            now()
        }
        ("GET", "/db_dummy") => (500, TEXT, "no database".to_owned()),
        ("GET", "/api/movie" | "/api/customer" | "/api/session") => {
            (200, JSON, format!("[{},{}]", row("2"), row("1")))
        }
        ("POST", "/api/session") => (201, JSON, stored(&asked.body)),
        (method, path) => one(method, path),
    }
}

fn one(method: &str, path: &str) -> Answer {
    let missing = (404, TEXT, "404 page not found".to_owned());
    let Some((kind, id)) = path
        .strip_prefix("/api/")
        .and_then(|rest| rest.split_once('/'))
    else {
        return missing;
    };
    let is_known = ["movie", "customer", "session"].contains(&kind);
    match (method, id.parse::<u64>()) {
        ("GET", Ok(_)) if is_known => (200, JSON, row(id)),
        ("DELETE", Ok(_)) if kind == "session" => (204, JSON, String::new()),
        _ => missing,
    }
}

fn row(id: &str) -> String {
    format!("{{\"id\":{id}}}")
}

/// What came, under an id of its own.
fn stored(body: &str) -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    format!("{{\"id\":{id},{}", body.trim_start_matches('{'))
}

/// Bits 32 to 35 of the number choose what happens to this process.
fn operate(body: &str, faults: &Faults) -> Answer {
    let digits: String = body.chars().filter(char::is_ascii_digit).collect();
    let Ok(number) = digits.parse::<u64>() else {
        return (400, TEXT, "no number".to_owned());
    };
    match (number >> 32) & 0xf {
        3 => faults.end(End::Leak),
        4 => faults.end(End::Panic),
        5 => {
            faults.end(End::Bad);
            return (500, TEXT, "I feel bad.".to_owned());
        }
        _ => {}
    }
    let answer = format!("{{\"operation\":{number},\"host\":\"{}\"}}", host());
    (200, JSON, answer)
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", name.trim(), std::process::id())
}

fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
