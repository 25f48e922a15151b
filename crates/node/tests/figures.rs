//! Figures of the longest list on the full data set, side by side with the plain query in the same
//! run (performance.md "The lists"). By hand, for it takes minutes and claims nothing:
//! `cargo nextest run --cargo-profile ci -p node --run-ignored only --no-capture --test figures`

mod fixture;

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fixture::{Node, config, connect, psql, request};
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use private_postgres::{Binaries, TestServer};
use storage::fill::{FillOptions, prepare};

const RUNS: usize = 7;

/// Processor time of this process: the node and, a little, the client that reads it.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn resident_mebibytes(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values[values.len() / 2]
}

const SETTINGS: &str = "SET enable_memoize = off; SET jit = off;";
const QUERY: &str = "SELECT s.id, s.start_time, c.id, c.name, c.surname, c.birthday, c.email, \
    m.id, m.name, m.year, m.duration FROM sessions s \
    JOIN customers c ON c.id = s.customer_id JOIN movies m ON m.id = s.movie_id \
    ORDER BY m.year DESC, m.name, c.id, s.id DESC LIMIT 100000";

/// One reading of the list.
struct Reading {
    first_byte: Duration,
    whole: Duration,
    processor: Duration,
}

async fn read(connection: &mut SendRequest<Full<Bytes>>) -> Reading {
    let before = processor_time();
    let start = Instant::now();
    let ask = request(Method::GET, "/api/session");
    let mut body = connection.send_request(ask).await.unwrap().into_body();
    let mut first = None;
    while let Some(frame) = body.frame().await {
        frame.unwrap();
        first.get_or_insert_with(|| start.elapsed());
    }
    Reading {
        first_byte: first.unwrap(),
        whole: start.elapsed(),
        processor: processor_time() - before,
    }
}

/// The same rows from PostgreSQL to nowhere.
fn plain_query(server: &TestServer) -> Duration {
    let copy = format!("{SETTINGS} COPY ({QUERY}) TO PROGRAM 'cat > /dev/null' (FORMAT binary)");
    let psql = Binaries::find(None).unwrap().program("psql");
    let start = Instant::now();
    let status = Command::new(psql)
        .args(["-XqAt", "-c", &copy, &server.superuser_url()])
        .status()
        .unwrap();
    assert!(status.success());
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures on the full data set, by hand"]
async fn the_longest_list_on_the_full_data_set() {
    let server = TestServer::start().unwrap();
    let config = config(&server);
    let report = prepare(&config.postgres_cluster, &FillOptions::default(), &|_| {})
        .await
        .unwrap();
    println!("filled in {:?}", report.elapsed);
    println!("{}", psql(&server, &format!("{SETTINGS} EXPLAIN {QUERY}")));
    println!("resident before: {} MiB", resident_mebibytes("VmRSS"));

    let node = Node::start(config);
    let mut connection = connect(node.address).await.unwrap();
    read(&mut connection).await;
    let (mut readings, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        plain.push(plain_query(&server));
        readings.push(read(&mut connection).await);
    }
    let median_of =
        |figure: fn(&Reading) -> Duration| median(readings.iter().map(figure).collect());
    println!("medians of {RUNS}:");
    println!("first byte {:?}", median_of(|reading| reading.first_byte));
    println!("whole list {:?}", median_of(|reading| reading.whole));
    println!("processor  {:?}", median_of(|reading| reading.processor));
    println!("plain query {:?}", median(plain));
    println!("resident at most: {} MiB", resident_mebibytes("VmHWM"));
}
