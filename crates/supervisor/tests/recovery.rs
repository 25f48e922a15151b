//! What happens to a process that ends, hangs, falls sick or was never able to start.

mod installation;

use std::time::{Duration, Instant};

use installation::{Installation, free_address, get, probes, process, server, signal, until};
use rustix::process::Signal;
use supervisor::ProcessState;
use supervisor::config::{Process, Restart, Socket};
use supervisor::processes::{descendants, is_alive, start_time};

#[test]
fn the_entry_plays_the_part_that_its_arguments_name() {
    installation::play();
}

#[test]
fn a_killed_process_is_back_at_once() {
    let installation = Installation::start(vec![process("a", &["sleep", "1000"])]);
    let first = installation.until_state("a", ProcessState::Healthy);
    let pid = first.pid.unwrap();
    assert_eq!(start_time(pid), first.start_time);
    assert!(first.rss_bytes.unwrap() > 0);
    let killed = Instant::now();
    signal(pid, Signal::KILL);
    let second = installation.until_restarted("a", 1);
    let back = killed.elapsed();
    println!("back after {back:?}");
    // The goal is 0.1 s; the bound leaves room for a machine that runs all tests at once.
    assert!(back < Duration::from_millis(500), "{back:?}");
    assert_ne!(second.pid, first.pid);
    assert_eq!(
        second.last_restart_reason.as_deref(),
        Some("signal SIGKILL")
    );
    assert_eq!(second.last_exit.as_deref(), Some("signal SIGKILL"));
}

#[test]
fn a_process_that_always_fails_is_tried_ever_more_slowly_and_shown_unhealthy() {
    let failing = process("a", &["sh", "-c", "echo no luck; exit 3"]);
    let installation = Installation::start(vec![failing]);
    let started = Instant::now();
    let status = installation.until_state("a", ProcessState::Unhealthy);
    // At once, then at least 50, 100, 200 ms of pause before the fifth end.
    assert!(started.elapsed() > Duration::from_millis(300));
    assert_eq!(status.reason.as_deref(), Some("exit 3: no luck"));
    assert_eq!(status.last_lines, ["no luck"]);
    assert!((3..=5).contains(&status.restarts), "{}", status.restarts);
    until("trying goes on", || {
        (installation.process("a").restarts > 5).then_some(())
    });
}

#[test]
fn exit_64_is_not_tried_again_and_shows_its_reason() {
    let wrong = "echo 'error: read the configuration x: no such file' >&2; \
                 echo 'help: write one' >&2; exit 64";
    let installation = Installation::start(vec![
        process("wrong", &["sh", "-c", wrong]),
        process("right", &["sleep", "1000"]),
    ]);
    let status = installation.until_state("wrong", ProcessState::Failed);
    let reason = "exit 64: error: read the configuration x: no such file";
    assert_eq!(status.reason.as_deref(), Some(reason));
    assert_eq!(status.restarts, 0);
    assert_eq!(status.last_lines.len(), 2);
    assert_eq!(installation.process("right").state, ProcessState::Healthy);
}

#[test]
fn a_supervisor_with_nothing_left_to_run_ends_with_64_and_the_reason() {
    let wrong = process("wrong", &["sh", "-c", "echo error: bad; exit 64"]);
    let (code, errors) = Installation::spawn(vec![wrong]).ended();
    assert_eq!(code, Some(64), "{errors}");
    assert!(errors.contains("exit 64: error: bad"), "{errors}");
}

#[test]
fn a_program_that_does_not_exist_fails_with_and_without_the_launcher() {
    let mut launched = process("launched", &["/no/such/program"]);
    launched.sockets = vec![Socket {
        name: "http".to_owned(),
        address: "127.0.0.1:0".to_owned(),
        ..Socket::default()
    }];
    let plain = process("plain", &["/no/such/program"]);
    let right = process("right", &["sleep", "1000"]);
    let installation = Installation::start(vec![launched, plain, right]);
    for name in ["launched", "plain"] {
        let status = installation.until_state(name, ProcessState::Failed);
        let reason = status.reason.unwrap();
        assert!(reason.contains("start /no/such/program"), "{reason}");
        assert!(reason.contains("No such file"), "{reason}");
    }
}

#[test]
fn a_sick_process_is_replaced_and_its_own_words_are_the_reason() {
    let address = free_address();
    let installation = Installation::start(vec![server("a", &address)]);
    installation.until_state("a", ProcessState::Healthy);
    let fell_sick = Instant::now();
    get(&address, "/sick").unwrap();
    let status = installation.until_restarted("a", 1);
    let back = fell_sick.elapsed();
    println!("back after {back:?}");
    assert!(back < Duration::from_millis(3000), "{back:?}");
    let reason = status.last_restart_reason.unwrap();
    assert_eq!(reason, "probe 500: I feel bad");
}

#[test]
fn a_frozen_process_is_replaced() {
    let address = free_address();
    let installation = Installation::start(vec![server("a", &address)]);
    let pid = installation.until_state("a", ProcessState::Healthy).pid;
    let froze = Instant::now();
    signal(pid.unwrap(), Signal::STOP);
    let status = installation.until_restarted("a", 1);
    let back = froze.elapsed();
    println!("back after {back:?}");
    assert!(back < Duration::from_millis(3000), "{back:?}");
    let reason = status.last_restart_reason.unwrap();
    assert_eq!(reason, "probe timeout: no answer within 200ms");
    assert_ne!(status.pid, pid);
}

#[test]
fn a_draining_process_is_left_alone() {
    let address = free_address();
    let installation = Installation::start(vec![server("a", &address)]);
    installation.until_state("a", ProcessState::Healthy);
    get(&address, "/drain").unwrap();
    let draining = installation.until_state("a", ProcessState::Draining);
    let deadline = Instant::now() + Duration::from_millis(1500);
    until("it is draining for longer than a sick one may live", || {
        let now = installation.process("a");
        assert_eq!((now.state, now.restarts), (ProcessState::Draining, 0));
        assert_eq!(now.since, draining.since);
        (Instant::now() > deadline).then_some(())
    });
}

#[test]
fn a_process_that_never_answers_is_replaced_after_its_startup_time() {
    let mut silent = process("a", &["sleep", "1000"]);
    silent.probes = probes(&free_address());
    silent.probes.startup.timeout = Duration::from_millis(300);
    let installation = Installation::start(vec![silent]);
    let status = until("it is restarted", || {
        Some(installation.process("a")).filter(|status| status.restarts > 0)
    });
    let reason = status.last_restart_reason.unwrap();
    assert!(
        reason.starts_with("probe timeout: not healthy 0.3 s after its start"),
        "{reason}"
    );
    assert!(reason.contains("refused"), "{reason}");
}

#[test]
fn a_command_may_be_the_probe() {
    let folder = tempfile::tempdir().unwrap();
    let installation = {
        let mut probed = process("a", &["sleep", "1000"]);
        probed.probes = probes("127.0.0.1:1");
        let liveness = probed.probes.liveness.as_mut().unwrap();
        liveness.http = None;
        liveness.command = Some(vec!["sh".into(), "-c".into(), "test ! -e \"$FLAG\"".into()]);
        liveness.timeout = Duration::from_secs(2);
        let flag = folder.path().join("flag");
        probed
            .environment
            .insert("FLAG".into(), flag.to_str().unwrap().into());
        let installation = Installation::start(vec![probed]);
        installation.until_state("a", ProcessState::Healthy);
        std::fs::write(&flag, "").unwrap();
        until("it is killed", || {
            (installation.process("a").restarts > 0).then_some(())
        });
        std::fs::remove_file(&flag).unwrap();
        installation
    };
    let status = installation.until_state("a", ProcessState::Healthy);
    let reason = status.last_restart_reason.unwrap();
    assert!(reason.contains("exit status: 1"), "{reason}");
}

#[test]
fn what_a_dead_process_left_behind_dies_with_it() {
    let forks = "sleep 4001 & setsid sleep 4002 & exec sleep 4003";
    let installation = Installation::start(vec![
        process("a", &["sh", "-c", forks]),
        process("b", &["sh", "-c", "setsid sleep 4004 & exec sleep 4005"]),
    ]);
    let first = installation.until_state("a", ProcessState::Healthy);
    let pid = first.pid.unwrap();
    let other = installation.process("b").pid.unwrap();
    let below = until("it forked twice", || {
        Some(descendants(pid)).filter(|below| below.len() == 2)
    });
    let below_other = until("the other forked", || {
        Some(descendants(other)).filter(|below| below.len() == 1)
    });
    signal(pid, Signal::KILL);
    installation.until_restarted("a", 1);
    for (pid, start) in below {
        until("the orphan is gone", || {
            (!is_alive(pid, start)).then_some(())
        });
    }
    let (pid, start) = below_other[0];
    assert!(
        is_alive(pid, start),
        "the other's child is none of its business"
    );
}

#[test]
fn a_job_that_fails_is_tried_again_until_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let counter = folder.path().join("count");
    let script = "echo x >> \"$COUNTER\"; test $(wc -l < \"$COUNTER\") -ge 3";
    let mut job = Process {
        role: "job".to_owned(),
        restart: Restart::OnFailure,
        ..process("job", &["sh", "-c", script])
    };
    let name = "COUNTER".to_owned();
    job.environment
        .insert(name, counter.to_str().unwrap().into());
    let mut node = process("node", &["sleep", "1000"]);
    node.after = vec!["job".to_owned()];
    let installation = Installation::start(vec![node, job]);
    let waiting = installation.process("node");
    assert_eq!(waiting.reason.as_deref(), Some("waits for job"));
    let done = installation.until_state("job", ProcessState::Done);
    assert_eq!(done.restarts, 2);
    installation.until_state("node", ProcessState::Healthy);
}
