//! Processes that believe the machine is theirs alone: one port, one path, no network but their own.

mod installation;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use installation::{Installation, child, free_address, get, probes, process, until};
use rustix::process::geteuid;
use supervisor::config::{Isolation, Mount, Process, Reach, Serve};

/// Each of them listens here.
const FIXED: &str = "127.0.0.1:8080";

#[test]
fn the_entry_plays_the_part_that_its_arguments_name() {
    installation::play();
}

fn may_isolate() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        // Here the launcher is a test, which has several threads, and those may not change users.
        eprintln!("skipped: not root");
    }
    is_root
}

fn isolated(name: &str, listen: &str) -> Process {
    let mut isolated = process(name, &[]);
    isolated.command = child(&["serve", FIXED]);
    isolated.probes = probes(listen);
    isolated.start_first = true;
    isolated.isolation = Some(Isolation {
        serve: Some(Serve {
            listen: listen.to_owned(),
            at: FIXED.to_owned(),
            path: "/ping".to_owned(),
        }),
        ..Isolation::default()
    });
    isolated
}

/// Runs a script inside to its end; what it said.
fn said(script: &str, isolation: Isolation) -> String {
    let mut trial = process("trial", &[]);
    let script = format!("{script}; echo trial is over; sleep 1000");
    trial.command = ["bash", "-c", &script].map(str::to_owned).to_vec();
    trial.isolation = Some(isolation);
    let installation = Installation::start(vec![trial]);
    until("it tells", || {
        Some(installation.log("trial")).filter(|log| log.contains("trial is over"))
    })
}

#[test]
fn two_with_one_fixed_port_serve_side_by_side_and_are_replaced_without_a_gap() {
    if !may_isolate() {
        return;
    }
    let listens = [free_address(), free_address()];
    let all = listens.iter().zip(["a", "b"]);
    let all = all.map(|(listen, name)| isolated(name, listen)).collect();
    let installation = Installation::start(all);
    let before: Vec<u32> = ["a", "b"]
        .map(|name| installation.until_restarted(name, 0).pid.unwrap())
        .to_vec();
    let answers: BTreeSet<String> = listens
        .iter()
        .map(|listen| get(listen, "/ping").unwrap())
        .collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    installation.client().restart("a").unwrap();
    let mut asked = 0;
    let after = until("it is replaced", || {
        get(&listens[0], "/ping").unwrap();
        asked += 1;
        let a = installation.process("a");
        (a.restarts == 1 && a.beside.is_empty()).then_some(a)
    });
    assert_ne!(after.pid, Some(before[0]));
    assert!(asked > 2, "{asked}");
    assert!(!answers.contains(&get(&listens[0], "/ping").unwrap()));
}

#[test]
fn what_stands_elsewhere_is_found_and_nothing_is_changed_outside() {
    if !may_isolate() {
        return;
    }
    let real = tempfile::tempdir().unwrap();
    let source = real.path().join("source");
    std::fs::write(&source, "what it looks for").unwrap();
    std::fs::write(real.path().join("beside"), "what was there").unwrap();
    let folder = real.path().display();
    let log = said(
        &format!("cat {folder}/fixed/deep/place {folder}/beside"),
        Isolation {
            mounts: vec![Mount {
                source,
                target: real.path().join("fixed/deep/place"),
            }],
            ..Isolation::default()
        },
    );
    assert!(log.contains("what it looks for"), "{log}");
    assert!(log.contains("what was there"), "{log}");
    assert!(!real.path().join("fixed").exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(real.path().to_str().unwrap()));
}

#[test]
fn a_folder_that_would_have_to_be_made_in_the_root_is_asked_for() {
    if !may_isolate() {
        return;
    }
    let mut trial = process("trial", &["sleep", "1000"]);
    trial.isolation = Some(Isolation {
        mounts: vec![Mount {
            source: "/etc".into(),
            target: "/no-such-folder-here/etc".into(),
        }],
        ..Isolation::default()
    });
    let mut installation = Installation::spawn(vec![trial]);
    let (code, errors) = installation.ended();
    assert_eq!(code, Some(64), "{errors}");
    let expected = "there is no folder /no-such-folder-here: make it";
    assert!(errors.contains(expected), "{errors}");
    assert!(!Path::new("/no-such-folder-here").exists());
}

#[test]
fn nothing_is_reached_but_what_is_named_and_a_dead_address_fails_at_once() {
    if !may_isolate() {
        return;
    }
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = outside.local_addr().unwrap().to_string();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = outside.accept().unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(b"heard you\n").unwrap();
        line
    });
    let log = said(
        "cat /proc/net/dev; echo > /dev/tcp/192.0.2.1/80; echo > /dev/tcp/127.0.0.1/8081; \
         exec 3<>/dev/tcp/127.0.0.2/5432; echo hello >&3; cat <&3",
        Isolation {
            reach: vec![Reach {
                listen: "127.0.0.2:5432".to_owned(),
                at,
            }],
            ..Isolation::default()
        },
    );
    assert_eq!(&echo.join().unwrap(), b"hello\n");
    assert!(log.contains("heard you"), "{log}");
    assert!(
        log.contains("192.0.2.1/80: Network is unreachable"),
        "{log}"
    );
    assert!(log.contains("127.0.0.1/8081: Connection refused"), "{log}");
    let devices = log
        .lines()
        .filter(|line| line.contains(": ") && line.contains(" 0 "));
    assert_eq!(devices.count(), 1, "{log}");
}
