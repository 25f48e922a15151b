//! A stand-in for the vendor's closed binary, with all its traps: fixed paths, silence about what it
//! lacks, a request to a dead address at its start, a port out of a hash, a hundred requests a second,
//! a short life, and four ways to end it. For tests of whoever has to run such a program; it shares no
//! code with ours, so that it cannot share our mistakes. Rows are made up, not read: of the database
//! it asks only whether a PostgreSQL answers. Its flags make its faults short enough for a test.
#![allow(clippy::print_stdout)]

mod faults;
mod http;
mod identity;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use faults::{End, Faults};

const CONFIG: &str = "/opt/bingo/config.yaml";
const DEFAULT_EMAIL: &str = "test@example.com";
const LINE: &str = "--------------------------------------------------";

/// What its flags say.
struct Flags {
    /// How long the request to the dead address waits.
    patience: Duration,
    dead_address: String,
    lifetime: Option<Duration>,
    end: End,
    leak_mib_per_second: usize,
    requests_per_second: u32,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        None => println!("Hello world"),
        Some("version") => println!("20231121T1537"),
        Some("run_server") => run_server(&flags(&arguments[1..])),
        Some(other) => {
            eprintln!("unknown command \"{other}\" for \"bingo\"");
            std::process::exit(1);
        }
    }
}

fn flags(words: &[String]) -> Flags {
    let mut flags = Flags {
        patience: Duration::from_secs(30),
        dead_address: "8.8.8.8:80".to_owned(),
        lifetime: None,
        end: End::Exit,
        leak_mib_per_second: 50,
        requests_per_second: 100,
    };
    for pair in words.chunks(2) {
        let [name, value] = pair else {
            panic!("{} wants a value", pair[0]);
        };
        let number = || value.parse::<u64>().expect("a number");
        match name.as_str() {
            "--patience" => flags.patience = Duration::from_secs(number()),
            "--dead-address" => flags.dead_address.clone_from(value),
            "--lifetime" => flags.lifetime = Some(lifetime(value)),
            "--leak" => flags.leak_mib_per_second = usize::try_from(number()).unwrap(),
            "--rps" => flags.requests_per_second = u32::try_from(number()).unwrap(),
            "--end" => flags.end = End::of_name(value),
            _ => panic!("unknown flag {name}"),
        }
    }
    flags
}

/// Seconds, or `FROM-TO`, between which the clock chooses.
fn lifetime(value: &str) -> Duration {
    let seconds = |text: &str| text.parse::<u64>().expect("a number of seconds");
    let (from, to) = value.split_once('-').unwrap_or((value, value));
    let (from, to) = (seconds(from), seconds(to));
    Duration::from_secs(from + faults::chance() % (to - from + 1))
}

fn run_server(flags: &Flags) {
    refuse_root();
    // Without a word, as the vendor's did.
    let Ok(text) = std::fs::read_to_string(CONFIG) else {
        std::process::exit(1);
    };
    let settings = identity::Settings::of(&text);
    if settings.email == DEFAULT_EMAIL {
        println!("You are using the default student_email");
    }
    let path = format!(
        "/opt/bongo/logs/{}/main.log",
        identity::folder(&settings.email)
    );
    let log = File::options().create(true).append(true).open(&path);
    let log = log.unwrap_or_else(|error| faults::die(&format!("open {path}: {error}")));
    wait_for_database(&settings.database);
    let is_fast = ask_dead_address(flags);
    let port = identity::port(&settings.email);
    let listener = TcpListener::bind(("::", port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
        .unwrap_or_else(|error| faults::die(&format!("listen on {port}: {error}")));
    congratulate(is_fast);
    let faults = Arc::new(Faults::new(
        flags.requests_per_second,
        flags.leak_mib_per_second,
    ));
    if let Some(lifetime) = flags.lifetime {
        let (faults, end) = (Arc::clone(&faults), flags.end);
        std::thread::spawn(move || {
            std::thread::sleep(lifetime);
            faults.end(end);
        });
    }
    let database = Arc::new(settings.database);
    let log = Arc::new(Mutex::new(log));
    for stream in listener.incoming().flatten() {
        let (faults, log, database) =
            (Arc::clone(&faults), Arc::clone(&log), Arc::clone(&database));
        std::thread::spawn(move || http::serve(stream, &faults, &log, &database));
    }
}

fn refuse_root() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = uid.and_then(|ids| ids.split_whitespace().nth(1));
    if effective == Some("0") {
        eprintln!("Didn't your mom teach you not to run anything incomprehensible from root?");
        std::process::exit(1);
    }
}

/// For ever, and without a word.
fn wait_for_database(address: &str) {
    while !answers(address) {
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Whether a PostgreSQL is there: it answers a request for TLS by one letter (protocol, SSLRequest).
pub(crate) fn answers(address: &str) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47])?;
        let mut letter = [0];
        stream.read_exact(&mut letter)?;
        std::io::Result::Ok(letter)
    };
    matches!(ask(), Ok([b'N' | b'S']))
}

/// Whether it came back before it was given up.
fn ask_dead_address(flags: &Flags) -> bool {
    let begun = Instant::now();
    let address = flags.dead_address.to_socket_addrs();
    let address = address.ok().and_then(|mut found| found.next());
    if let Some(address) = address
        && let Ok(mut stream) = TcpStream::connect_timeout(&address, flags.patience)
    {
        // It is no HTTP server: whoever accepts says nothing.
        let _ = stream.set_read_timeout(Some(flags.patience));
        let _ = stream.read(&mut [0]);
    }
    begun.elapsed() < flags.patience
}

fn congratulate(is_fast: bool) {
    if is_fast {
        println!("Congratulations.\nYou were able to figure out why");
        println!("the application is slow to start and fix it.");
        println!("Here's a secret code that confirms that you did it.");
        println!("{LINE}\ncode:         google_dns_is_not_http\n{LINE}");
    }
    println!("My congratulations.\nYou were able to start the server.");
    println!("Here's a secret code that confirms that you did it.");
    println!("{LINE}\ncode:         yoohoo_server_launched\n{LINE}");
}
