//! The supervisor becomes another program while everything runs: its children, its sockets, its logs
//! and what it knows of them go along; a program that cannot take over changes nothing.

mod installation;

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use installation::{
    Installation, beside, child, free_address, get, probes, process, signal, until,
};
use rustix::process::Signal;
use supervisor::config::{Logs, Process, Socket};
use supervisor::processes::descendants;
use supervisor::{ControlError, ProcessState};

#[test]
fn the_entry_plays_the_part_that_its_arguments_name() {
    installation::play();
}

/// This program at another path, with a byte more.
fn other_program(installation: &Installation) -> PathBuf {
    let path = installation.file("other");
    let mut bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    bytes.push(0);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

fn upgrade(installation: &Installation, program: &Path) {
    installation.client().upgrade(program).unwrap();
    until_it_runs(installation, program);
}

fn until_it_runs(installation: &Installation, program: &Path) {
    let link = format!("/proc/{}/exe", installation.child.id());
    until("the other program runs and answers", || {
        let runs = std::fs::read_link(&link).is_ok_and(|runs| runs == program);
        (runs && installation.client().status().is_ok()).then_some(())
    });
}

fn inherited(name: &str, address: &str) -> Process {
    let mut process = process(name, &[]);
    process.command = child(&["inherited"]);
    process.sockets = vec![Socket {
        name: "web".to_owned(),
        address: address.to_owned(),
        ..Socket::default()
    }];
    process.probes = probes(address);
    process
}

#[test]
fn children_and_sockets_go_along_and_are_kept_alive_by_the_new_program() {
    let (web, node) = (free_address(), free_address());
    let mut crashing = process("crashing", &["sh", "-c", "sleep 1000"]);
    crashing.role = "other".to_owned();
    let installation = Installation::start(vec![
        inherited("gateway", &web),
        beside("node", &node),
        crashing,
    ]);
    for name in ["gateway", "node", "crashing"] {
        installation.until_state(name, ProcessState::Healthy);
    }
    signal(installation.process("crashing").pid.unwrap(), Signal::KILL);
    installation.until_restarted("crashing", 1);
    let before = installation.status();

    let stop = Arc::new(AtomicBool::new(false));
    let clients = {
        let (stop, web) = (Arc::clone(&stop), web.clone());
        std::thread::spawn(move || {
            let mut failed = Vec::new();
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                asked += 1;
                failed.extend(get(&web, "/ping").err().map(|error| error.to_string()));
            }
            (asked, failed)
        })
    };
    let program = other_program(&installation);
    upgrade(&installation, &program);
    let after = installation.status();
    for (old, new) in before.processes.iter().zip(&after.processes).skip(1) {
        assert_eq!((old.pid, &old.name), (new.pid, &new.name));
        assert_eq!(old.start_time, new.start_time);
        assert_eq!((old.restarts, &old.since), (new.restarts, &new.since));
        assert_eq!(old.last_restart_reason, new.last_restart_reason);
        assert_eq!(new.state, ProcessState::Healthy);
    }
    let own = after.supervisor().unwrap();
    assert_eq!((own.restarts, own.pid), (1, Some(installation.child.id())));
    let reason = own.last_restart_reason.as_deref();
    assert_eq!(reason, Some("operator: new program"));
    assert_eq!(before.supervisor().unwrap().metrics, own.metrics);
    for (name, reason) in [("crashing", "signal"), ("supervisor", "operator")] {
        let series = format!("bingo_process_restarts_total{{name=\"{name}\",reason=\"{reason}\"}}");
        assert_eq!(installation.series(&series), Some(1.0), "{series}");
    }

    // It hears of an end that it did not begin, and replaces successor first.
    signal(installation.process("gateway").pid.unwrap(), Signal::KILL);
    let back = installation.until_restarted("gateway", 1);
    assert_eq!(back.last_restart_reason.unwrap(), "signal SIGKILL");
    installation.client().restart("node").unwrap();
    let replaced = installation.until_restarted("node", 1);
    assert_ne!(replaced.pid, before.process("node").unwrap().pid);
    stop.store(true, Ordering::Relaxed);
    let (asked, failed) = clients.join().unwrap();
    // Whose connection the killed gateway had may see it; nobody is refused.
    assert!(asked > 20 && failed.len() <= 1, "{asked} {failed:?}");
    assert!(failed.iter().all(|error| !error.contains("refused")));

    // And once more, by the program that it was at first.
    upgrade(&installation, &std::env::current_exe().unwrap());
    assert_eq!(installation.process("crashing").restarts, 1);
    all_is_told(&installation);
    TcpStream::connect(&web).unwrap();
}

fn all_is_told(installation: &Installation) {
    let events = installation.events();
    for (kind, subject, reason) in [
        ("healthy", "gateway", ""),
        ("exited", "crashing", "signal SIGKILL"),
        ("started", "crashing", "signal SIGKILL"),
        ("upgraded", "supervisor", "version "),
        ("replaced", "node", "operator"),
    ] {
        let is = |told: &&chassis::events::Told| {
            (told.kind.as_str(), told.subject.as_str()) == (kind, subject)
                && told.reason.starts_with(reason)
        };
        assert!(events.iter().any(|told| is(&told)), "{kind} {events:?}");
    }
}

#[test]
fn logs_go_on_in_the_hands_of_the_same_scribes_and_no_line_is_lost() {
    let script = "i=0; while [ ! -e done ]; do i=$((i+1)); echo $i; done; echo error: done; exit 3";
    let mut counter = process("counter", &["sh", "-c", script]);
    counter.restart = supervisor::config::Restart::Never;
    // One file, however much is counted while the machine is busy.
    let logs = Logs {
        bytes_per_second_max: 1 << 30,
        file_bytes_max: 1 << 40,
        ..Logs::default()
    };
    let folder = tempfile::tempdir().unwrap();
    counter.working_folder = Some(folder.path().to_owned());
    let other = process("other", &["sleep", "1000"]);
    let installation = Installation::prepared(vec![counter, other], logs, |logs| {
        std::fs::write(logs.join("supervisor.log"), "").unwrap();
    });
    until("it counts", || {
        (installation.log("counter").lines().count() > 100).then_some(())
    });
    let scribes = || {
        let mut all = descendants(installation.child.id());
        all.retain(|(pid, _)| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("scribe")
        });
        all.sort_unstable();
        all
    };
    let before = scribes();
    assert_eq!(before.len(), 3, "{before:?}");
    upgrade(&installation, &other_program(&installation));
    assert_eq!(scribes(), before);
    let lines = || installation.log("counter").lines().count();
    let now = lines();
    until("it goes on counting", || {
        (lines() > now + 1000).then_some(())
    });
    std::fs::write(folder.path().join("done"), "").unwrap();
    let failed = installation.until_state("counter", ProcessState::Failed);
    assert_eq!(failed.last_exit.unwrap(), "exit 3: error: done");
    let log = installation.log("counter");
    let numbers = log.lines().filter_map(|line| line.parse::<usize>().ok());
    assert!(numbers.eq(1..log.lines().count()), "a line is missing");
    until("its own log goes on", || {
        let log = installation.log("supervisor");
        (log.contains("\"took over\"") && log.contains("exit 3")).then_some(())
    });
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let installation = Installation::start(vec![process("a", &["sleep", "1000"])]);
    let before = installation.until_state("a", ProcessState::Healthy);
    let silent = installation.file("silent");
    std::fs::write(&silent, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    let older = installation.file("older");
    let text = "#!/bin/sh\necho error: it is of version 1, and this reads 7 >&2\nexit 64\n";
    std::fs::write(&older, text).unwrap();
    for path in [&silent, &older] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let refused = |program: &Path| match installation.client().upgrade(program) {
        Err(ControlError::Refused { why }) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(Path::new("/bin/false")).contains("cannot take over: exit status: 1"));
    assert!(refused(&older).contains("and this reads 7"));
    assert!(refused(&silent).contains("it did not answer in time"));
    assert!(refused(Path::new("/nowhere")).contains("No such file"));
    let after = installation.process("a");
    assert_eq!((after.pid, after.restarts), (before.pid, 0));
    assert_eq!(installation.status().supervisor().unwrap().restarts, 0);
}

#[test]
fn it_waits_until_no_replacement_is_half_done_and_a_stop_goes_before() {
    let address = free_address();
    let mut slow = beside("node", &address);
    // Ignored, as by every Rust program: it ends by being killed.
    slow.stop.signal = Some("SIGPIPE".to_owned());
    slow.stop.timeout = std::time::Duration::from_secs(2);
    let mut installation = Installation::start(vec![slow]);
    installation.until_state("node", ProcessState::Healthy);
    let program = other_program(&installation);
    installation.client().restart("node").unwrap();
    until("the old one drains", || {
        let node = installation.process("node");
        (node.restarts == 1 && !node.beside.is_empty()).then_some(())
    });
    let old = installation.process("node").beside.first().unwrap().pid;
    installation.client().upgrade(&program).unwrap();
    until_it_runs(&installation, &program);
    assert_eq!(supervisor::processes::start_time(old), None, "it is gone");
    assert_eq!(installation.process("node").restarts, 1);
    signal(installation.child.id(), Signal::TERM);
    assert_eq!(installation.ended().0, Some(0));
}

#[test]
fn a_child_that_ends_meanwhile_is_restarted_by_who_hears_of_it() {
    let installation = Installation::start(vec![process("a", &["sleep", "1000"])]);
    let programs = [
        other_program(&installation),
        std::env::current_exe().unwrap(),
    ];
    let mut pid = installation.until_state("a", ProcessState::Healthy).pid;
    for round in 0..4 {
        let program = &programs[round % 2];
        installation.client().upgrade(program).unwrap();
        // Before, in or after the exec, as it happens.
        signal(pid.unwrap(), Signal::KILL);
        until_it_runs(&installation, program);
        pid = until("another one runs", || {
            let now = installation.process("a");
            let is_new = now.pid != pid && now.state == ProcessState::Healthy;
            is_new.then_some(now.pid)
        });
    }
    let status = installation.status();
    assert_eq!(status.process("a").unwrap().restarts, 4);
    assert_eq!(status.supervisor().unwrap().restarts, 4);
}
