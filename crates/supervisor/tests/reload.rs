//! A new configuration while everything runs: what it adds is started, what it takes away is stopped,
//! what stays does not notice; and with any fault nothing changes at all.

mod installation;

use std::net::TcpStream;
use std::time::Duration;

use installation::{Installation, child, free_address, get, process, server, signal, until};
use rustix::process::Signal;
use supervisor::config::{Liveness, Probes, Process, Socket};
use supervisor::processes::is_alive;
use supervisor::{ControlError, ProcessState};

#[test]
fn the_entry_plays_the_part_that_its_arguments_name() {
    installation::play();
}

/// One that runs, waits for others, and writes its orderly end into a file. Healthy is it when its
/// trap is set: a stop before that would end it without a word.
fn worker(name: &str, after: &[&str], file: &str) -> Process {
    let script = format!(
        "trap 'echo {name} >> {file}; exit 0' TERM; touch {file}.{name}; \
         while :; do sleep 0.02; done"
    );
    let liveness = Liveness {
        command: Some(vec!["test".into(), "-e".into(), format!("{file}.{name}")]),
        timeout: Duration::from_secs(5),
        ..Liveness::default()
    };
    Process {
        probes: Probes {
            liveness: Some(liveness),
            ..Probes::default()
        },
        after: after.iter().map(|name| (*name).to_owned()).collect(),
        ..process(name, &["sh", "-c", &script])
    }
}

fn web(name: &str, address: &str) -> Process {
    let mut web = process(name, &[]);
    web.command = child(&["inherited"]);
    web.sockets = vec![Socket {
        name: "http".to_owned(),
        address: address.to_owned(),
        ..Socket::default()
    }];
    web
}

fn refusal(result: Result<supervisor::Change, ControlError>) -> String {
    match result {
        Err(ControlError::Refused { why }) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn processes_are_added_and_taken_away_in_order_and_the_others_keep_their_pids() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ends");
    let ends = path.to_str().unwrap();
    let address = free_address();
    let first = server("node-1", &address);
    let installation = Installation::start(vec![
        first.clone(),
        worker("below", &[], ends),
        worker("above", &["below"], ends),
    ]);
    let kept = installation.until_state("node-1", ProcessState::Healthy);
    installation.until_state("above", ProcessState::Healthy);

    let second = server("node-2", &free_address());
    let mut third = process("third", &["sleep", "1000"]);
    third.after = vec!["node-2".to_owned()];
    installation.write(vec![third, first.clone(), second]);
    let change = installation.client().reload().unwrap();
    assert_eq!(change.added, ["third", "node-2"]);
    assert_eq!(change.removed, ["below", "above"]);
    installation.until_state("third", ProcessState::Healthy);
    until("those taken away are gone", || {
        (installation.names() == ["third", "node-1", "node-2"]).then_some(())
    });
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written.lines().collect::<Vec<_>>(), ["above", "below"]);
    let now = installation.process("node-1");
    assert_eq!((now.pid, now.restarts), (kept.pid, 0));
    assert_eq!(get(&address, "/").unwrap(), kept.pid.unwrap().to_string());
    let node_2 = installation.process("node-2");
    assert_eq!(node_2.state, ProcessState::Healthy);

    // What was added is kept alive like the rest.
    signal(node_2.pid.unwrap(), Signal::KILL);
    installation.until_restarted("node-2", 1);
    installation.write(vec![first]);
    assert_eq!(installation.client().reload().unwrap().added.len(), 0);
    until("one is left", || {
        (installation.names() == ["node-1"]).then_some(())
    });
    assert_eq!(installation.process("node-1").pid, kept.pid);
}

#[test]
fn with_any_fault_nothing_changes_and_all_faults_are_told() {
    let installation = Installation::start(vec![process("a", &["sleep", "1000"])]);
    let pid = installation.until_state("a", ProcessState::Healthy).pid;
    let added = process("b", &["sleep", "1000"]);
    let mut faulty = added.clone();
    faulty.after = vec!["nobody".to_owned()];
    faulty.stop.signal = Some("TERM".to_owned());
    installation.write(vec![faulty]);
    let why = refusal(installation.client().reload());
    assert!(why.contains("there is no process `nobody`"), "{why}");
    assert!(why.contains("`TERM` is no signal"), "{why}");

    std::fs::write(installation.file("supervisor.yaml"), "processes: {").unwrap();
    refusal(installation.client().reload());

    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    installation.write(vec![
        web("web", &address),
        web("free", "127.0.0.1:0"),
        added.clone(),
    ]);
    let why = refusal(installation.client().reload());
    assert!(
        why.contains(&format!("listen on {address} for web")),
        "{why}"
    );

    let mut other = process("a", &["sleep", "1001"]);
    other.role = "job".to_owned();
    other.restart = supervisor::config::Restart::Never;
    installation.write(vec![other, added]);
    let why = refusal(installation.client().reload());
    assert!(
        why.contains("processes: a: other than the running ones: role"),
        "{why}"
    );
    assert_eq!(installation.names(), ["a"]);
    assert_eq!(installation.process("a").pid, pid);
}

#[test]
fn hang_up_reads_the_file_anew_and_a_fault_stops_nothing() {
    let first = process("a", &["sleep", "1000"]);
    let installation = Installation::start(vec![first.clone()]);
    let pid = installation.until_state("a", ProcessState::Healthy).pid;
    installation.write(Vec::new());
    signal(installation.child.id(), Signal::HUP);
    installation.write(vec![first, process("b", &["sleep", "1000"])]);
    signal(installation.child.id(), Signal::HUP);
    until("b is there", || {
        installation.status().process("b").is_some().then_some(())
    });
    installation.until_state("b", ProcessState::Healthy);
    assert_eq!(installation.process("a").pid, pid);
}

#[test]
fn sockets_come_and_go_with_those_who_name_them() {
    let addresses = [free_address(), free_address(), free_address()];
    let [kept, left, came] = addresses.each_ref().map(String::as_str);
    let installation = Installation::start(vec![web("kept", kept), web("left", left)]);
    let serves = |address: &str| until("it serves", || get(address, "/").ok()?.parse::<u32>().ok());
    let (pid, gone) = (serves(kept), serves(left));
    let gone = (gone, installation.process("left").start_time.unwrap());
    installation.write(vec![web("kept", kept), web("came", came), web("too", kept)]);
    installation.client().reload().unwrap();
    assert_eq!(serves(came), installation.process("came").pid.unwrap());
    until("its process is gone", || {
        (!is_alive(gone.0, gone.1)).then_some(())
    });
    assert_eq!(
        TcpStream::connect(left).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    assert_eq!(installation.process("kept").pid, Some(pid));
    // The listener that both name is one: the second serves when the first is gone.
    let too = installation.until_state("too", ProcessState::Healthy).pid;
    signal(pid, Signal::STOP);
    let pids = until("the second serves", || {
        let answer = get(kept, "/").ok()?.parse::<u32>().ok()?;
        (Some(answer) == too).then_some(answer)
    });
    signal(pid, Signal::CONT);
    assert_ne!(pids, pid);
}
