//! Children that detach others (double fork, a session of their own): these end with the whole, even
//! where the supervisor was killed in between.

mod installation;

use std::time::Duration;

use installation::{Installation, process, signal, until};
use rustix::process::Signal;
use supervisor::processes::{end_leftovers, is_alive, start_time};
use supervisor::{ProcessState, Status};

#[test]
fn the_entry_plays_the_part_that_its_arguments_name() {
    installation::play();
}

/// A supervisor, and a daemon that a living child of it has detached: pid and start time.
fn with_daemon() -> (Installation, tempfile::TempDir, (u32, u64)) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    // The first fork ends at once; the second leads a session and belongs to nobody.
    let script = format!(
        "(setsid sh -c 'echo $$ > {}; exec sleep 4012' &); sleep 4013; :",
        file.display()
    );
    let installation = Installation::start(vec![process("forks", &["sh", "-c", &script])]);
    let pid = until("the daemon runs", || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.trim().parse::<u32>().ok()
    });
    let daemon = (pid, start_time(pid).unwrap());
    until("the supervisor knows it", || {
        let strays = installation.client().status().ok()?.strays;
        strays
            .iter()
            .any(|stray| (stray.pid, stray.start_time) == daemon)
            .then_some(())
    });
    (installation, folder, daemon)
}

#[test]
fn a_detached_daemon_lives_through_a_restart_and_ends_with_the_supervisor() {
    let (mut installation, _folder, (pid, start)) = with_daemon();
    let parent = installation.process("forks").pid.unwrap();
    let uptime = || installation.status().supervisor().unwrap().uptime_seconds;
    let known = uptime();
    // What appeared with the death of a process dies with it: it must have been seen twice before.
    until("the supervisor looked again", || {
        (uptime() >= known.map(|seconds| seconds + 3)).then_some(())
    });
    signal(parent, Signal::KILL);
    installation.until_restarted("forks", 1);
    assert!(is_alive(pid, start), "it was there before its parent died");
    installation.client().stop(false).unwrap();
    assert_eq!(installation.ended().0, Some(0));
    assert!(!is_alive(pid, start));
}

#[test]
fn a_detached_daemon_of_a_killed_supervisor_is_ended_as_a_leftover() {
    let (mut installation, _folder, (pid, start)) = with_daemon();
    let path = installation.file("state.json");
    until("the state names it", || {
        let state = Status::read(&path)?;
        (state.strays.iter().any(|stray| stray.pid == pid)
            && state.process("forks")?.state == ProcessState::Healthy)
            .then_some(())
    });
    installation.child.kill().unwrap();
    installation.child.wait().unwrap();
    assert!(is_alive(pid, start));
    let state = Status::read(&path).unwrap();
    end_leftovers(&state, Duration::from_secs(2)).unwrap();
    assert!(!is_alive(pid, start));
}
