//! What children say, and what must not happen to them because of it: a flood, a full disk, a disk
//! that hangs, the end of the supervisor or of a scribe.

mod installation;

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use installation::{Installation, process, signal, until};
use rustix::process::Signal;
use supervisor::ProcessState;
use supervisor::config::{LogFile, Logs, Process, Restart};
use supervisor::processes::{descendants, start_time};

#[test]
fn the_entry_plays_the_part_that_its_arguments_name() {
    installation::play();
}

fn shell(name: &str, script: &str) -> Process {
    process(name, &["sh", "-c", script])
}

/// The scribe of a process, by its command line.
fn scribe(installation: &Installation, name: &str) -> u32 {
    let file = format!("logs/{name}.log");
    until("its scribe runs", || {
        descendants(installation.child.id())
            .into_iter()
            .map(|(pid, _)| pid)
            .find(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).into_owned();
                line.contains("scribe") && line.contains(&file)
            })
    })
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| entry.metadata().unwrap().len()).sum()
}

#[test]
fn a_flood_is_bounded_counted_and_told() {
    let flood = "i=0; while :; do i=$((i+1)); echo this is line number $i of a flood; done";
    let logs = Logs {
        file_bytes_max: 40_000,
        files_max: 3,
        bytes_per_second_max: 10_000,
        ..Logs::default()
    };
    let installation = Installation::prepared(vec![shell("flood", flood)], logs, |_| ());
    until("lines are dropped and that is told", || {
        let status = installation.client().status().ok()?;
        let process = status.process("flood")?;
        (process.log_lines_dropped > 1000).then_some(())
    });
    until("the log says so", || {
        let log = installation.log("flood");
        log.contains("dropped here: it wrote more than")
            .then_some(())
    });
    let process = installation.process("flood");
    assert_eq!(
        (process.state, process.restarts),
        (ProcessState::Healthy, 0)
    );
    let bytes = bytes_in(&installation.file("logs"));
    // Three files, and a block over.
    assert!(bytes <= 3 * 40_000 + 200_000, "{bytes}");
}

#[test]
fn a_full_disk_stops_nobody_and_the_reason_is_known_all_the_same() {
    let script = "for i in 1 2 3 4 5 6 7 8 9; do echo line $i || exit 7; done; echo error: I am done; exit 3";
    let mut talker = shell("talker", script);
    talker.restart = Restart::Never;
    let other = process("other", &["sleep", "1000"]);
    let installation = Installation::prepared(vec![talker, other], Logs::default(), |logs| {
        symlink("/dev/full", logs.join("talker.log")).unwrap();
    });
    until("the supervisor answers", || {
        installation.client().status().ok()
    });
    let status = installation.until_state("talker", ProcessState::Failed);
    assert_eq!(status.last_exit.unwrap(), "exit 3: error: I am done");
    assert_eq!(status.last_lines.len(), 10);
    installation.until_state("other", ProcessState::Healthy);
}

#[test]
fn a_disk_that_hangs_delays_no_child_and_no_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    // Fifty MiB: far more than pipes and queues take.
    let script = format!(
        "yes a line of some length | head -c 50000000; touch {}; echo; echo error: last; exit 3",
        done.display()
    );
    let mut talker = shell("talker", &script);
    talker.restart = Restart::Never;
    let logs = Logs {
        bytes_per_second_max: 1 << 30,
        ..Logs::default()
    };
    let other = process("other", &["sleep", "1000"]);
    let mut installation = Installation::prepared(vec![talker, other], logs, |logs| {
        // A pipe that nobody reads takes 64 KiB and then hangs, as a disk does.
        let made = std::process::Command::new("mkfifo")
            .arg(logs.join("talker.log"))
            .status();
        assert!(made.unwrap().success());
    });
    until("the supervisor answers", || {
        installation.client().status().ok()
    });
    until("the child wrote all of it", || done.exists().then_some(()));
    let status = installation.until_state("talker", ProcessState::Failed);
    assert_eq!(status.last_exit.unwrap(), "exit 3: error: last");
    installation.client().stop(false).unwrap();
    assert_eq!(installation.ended().0, Some(1), "a process failed for good");
}

#[test]
fn the_supervisor_goes_on_when_the_disk_of_its_own_log_hangs() {
    let mut filler = None;
    let mut installation = Installation::prepared(
        vec![process("a", &["sleep", "1000"])],
        Logs::default(),
        |logs| {
            // A pipe that is full already: whoever writes to it himself waits for ever.
            let path = logs.join("supervisor.log");
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(made.unwrap().success());
            let mut options = std::fs::File::options();
            let flag = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            let options = options.read(true).write(true).custom_flags(flag);
            let mut pipe = options.open(path).unwrap();
            while pipe.write_all(&[b'x'; 4096]).is_ok() {}
            filler = Some(pipe);
        },
    );
    until("the supervisor answers", || {
        installation.client().status().ok()
    });
    for round in 1..=2 {
        let pid = installation
            .until_state("a", ProcessState::Healthy)
            .pid
            .unwrap();
        signal(pid, Signal::KILL);
        installation.until_restarted("a", round);
    }
    installation.client().stop(false).unwrap();
    assert_eq!(installation.ended().0, Some(0));
    drop(filler);
}

#[test]
fn the_supervisors_own_log_is_rotated_and_complete() {
    // More files than a supervisor that is starved, and says so, can fill.
    let logs = Logs {
        file_bytes_max: 500,
        files_max: 500,
        ..Logs::default()
    };
    let mut installation =
        Installation::prepared(vec![process("a", &["sleep", "1000"])], logs, |logs| {
            std::fs::write(logs.join("supervisor.log"), "").unwrap();
        });
    until("the supervisor answers", || {
        installation.client().status().ok()
    });
    installation.until_state("a", ProcessState::Healthy);
    let logs = installation.file("logs");
    let read = || -> Vec<String> {
        let entries = std::fs::read_dir(&logs).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let own = paths.filter(|path| path.display().to_string().contains("/supervisor.log"));
        own.filter_map(|path| std::fs::read_to_string(path).ok())
            .collect()
    };
    // However much its scribe takes at once, there is more to say.
    until("it is rotated", || {
        let _ = installation.client().restart("a");
        (read().len() > 1).then_some(())
    });
    installation.client().stop(false).unwrap();
    assert_eq!(installation.ended().0, Some(0));
    for expected in ["\"started\"", "stopping all processes", "\"Stopped\""] {
        // A file that is just being renamed may be missed.
        until(expected, || {
            read().concat().contains(expected).then_some(())
        });
    }
}

/// Numbers, each on a line of its own, as fast as asked for.
fn counter(name: &str, pause: &str) -> Process {
    shell(
        name,
        &format!("i=0; while :; do i=$((i+1)); echo $i; {pause}; done"),
    )
}

fn assert_no_number_is_missing(log: &str) {
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let numbers = whole.lines().map(|line| line.parse::<u64>().unwrap());
    assert!(numbers.eq(1..=whole.lines().count() as u64), "{log}");
}

fn last_number(installation: &Installation, name: &str) -> u64 {
    let log = installation.log(name);
    let line = log.lines().rev().nth(1).unwrap_or_default();
    line.parse().unwrap_or(0)
}

#[test]
fn children_go_on_and_are_written_down_after_the_supervisor_was_killed() {
    let mut installation = Installation::start(vec![counter("counter", ":")]);
    until("it counts", || {
        (last_number(&installation, "counter") > 10).then_some(())
    });
    let counter = installation.process("counter");
    let scribe = scribe(&installation, "counter");
    installation.child.kill().unwrap();
    installation.child.wait().unwrap();
    let before = last_number(&installation, "counter");
    // More than the pipe holds: somebody reads it.
    until("it goes on", || {
        (last_number(&installation, "counter") > before + 100_000).then_some(())
    });
    assert_no_number_is_missing(&installation.log("counter"));
    signal(counter.pid.unwrap(), Signal::KILL);
    until("the scribe ends with its last writer", || {
        start_time(scribe).is_none().then_some(())
    });
}

#[test]
fn a_scribe_that_dies_is_replaced_and_no_line_is_lost() {
    let installation = Installation::start(vec![counter("counter", "sleep 0.001")]);
    for _ in 0..3 {
        let before = last_number(&installation, "counter");
        signal(scribe(&installation, "counter"), Signal::KILL);
        until("another one writes", || {
            (last_number(&installation, "counter") > before + 20).then_some(())
        });
    }
    let process = installation.process("counter");
    assert_eq!(
        (process.state, process.restarts),
        (ProcessState::Healthy, 0)
    );
    // What the dead one had read and not yet written is gone: a scribe writes at once, so a few at most.
    let log = installation.log("counter");
    let count = log.lines().count() as u64;
    assert!(last_number(&installation, "counter") <= count + 10, "{log}");
}

#[test]
fn a_scribe_ends_with_its_child_and_not_by_a_signal_to_all() {
    let mut installation = Installation::start(vec![counter("counter", "sleep 0.01")]);
    let scribe = scribe(&installation, "counter");
    // From before its first line on it ignores them; killed earlier, it would be replaced.
    until("it writes", || {
        (last_number(&installation, "counter") > 0).then_some(())
    });
    for kind in [Signal::TERM, Signal::INT, Signal::HUP] {
        signal(scribe, kind);
    }
    let before = last_number(&installation, "counter");
    until("it still writes", || {
        (last_number(&installation, "counter") > before).then_some(())
    });
    assert!(start_time(scribe).is_some());
    installation.client().stop(false).unwrap();
    assert_eq!(installation.ended().0, Some(0));
    assert_eq!(start_time(scribe), None);
    assert_no_number_is_missing(&installation.log("counter"));
}

#[test]
fn log_files_of_a_childs_own_are_rotated_with_and_without_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // The first opens its file anew on SIGHUP, the second never does.
    let reopens = format!(
        "exec >>{log}; trap 'exec >>{log}; echo reopened' HUP; \
         while :; do echo a line of the first; sleep 0.01; done",
        log = path("first.log").display()
    );
    let stays = format!(
        "exec >>{}; while :; do echo a line of the second; sleep 0.01; done",
        path("second.log").display()
    );
    let own = |name: &str, script: &str, reopen_signal: Option<&str>| Process {
        log_files: vec![LogFile {
            path: path(&format!("{name}.log")),
            reopen_signal: reopen_signal.map(str::to_owned),
        }],
        ..shell(name, script)
    };
    let logs = Logs {
        file_bytes_max: 1000,
        files_max: 2,
        ..Logs::default()
    };
    let processes = vec![
        own("first", &reopens, Some("SIGHUP")),
        own("second", &stays, None),
    ];
    let installation = Installation::prepared(processes, logs, |_| ());
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    until("the first was moved and opened anew", || {
        (read("first.log.1").contains("first") && read("first.log").contains("reopened"))
            .then_some(())
    });
    until("the second was copied and cut", || {
        (read("second.log.1").contains("second") && !read("second.log").is_empty()).then_some(())
    });
    assert_eq!(installation.process("second").restarts, 0);
    assert!(!path("second.log.2").exists());
}

#[test]
fn a_file_of_a_childs_own_is_rotated_with_its_rights_and_not_with_ours() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root has rights that a child has not");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("theirs.log");
    std::fs::write(&theirs, "x".repeat(5000)).unwrap();
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(65_534), Some(65_534)).unwrap();
    let own = own.join("own.log");
    std::fs::write(&own, "x".repeat(5000)).unwrap();
    std::os::unix::fs::chown(&own, Some(65_534), Some(65_534)).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut nobody = process("nobody", &["sleep", "1000"]);
    nobody.user = Some("nobody".to_owned());
    nobody.log_files = [&theirs, &own]
        .map(|path| LogFile {
            path: path.clone(),
            reopen_signal: None,
        })
        .to_vec();
    let logs = Logs {
        file_bytes_max: 1000,
        ..Logs::default()
    };
    let installation = Installation::prepared(vec![nobody], logs, |_| ());
    // They are looked at in their order: the first one was tried before.
    until("its own is cut", || {
        (std::fs::metadata(&own).unwrap().len() == 0).then_some(())
    });
    assert_eq!(std::fs::metadata(&theirs).unwrap().len(), 5000);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    installation.until_state("nobody", ProcessState::Healthy);
}

#[test]
fn a_stopped_process_stays_stopped_until_it_is_started() {
    let installation = Installation::start(vec![
        process("one", &["sleep", "1000"]),
        process("two", &["sleep", "1000"]),
    ]);
    installation.until_state("two", ProcessState::Healthy);
    let pid = installation.until_state("one", ProcessState::Healthy).pid;
    installation.client().stop_process("one", false).unwrap();
    let stopped = installation.until_state("one", ProcessState::Stopped);
    assert_eq!(stopped.reason.as_deref(), Some("stopped by operator"));
    assert_eq!(stopped.pid, None);
    assert_eq!(start_time(pid.unwrap()), None);

    let refused = installation.client().stop_process("two", false);
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("`two` is the last healthy node"), "{why}");
    installation.client().stop_process("two", true).unwrap();
    installation.until_state("two", ProcessState::Stopped);
    // With all of them stopped the supervisor waits for the operator.
    assert_eq!(installation.process("one").state, ProcessState::Stopped);

    installation.client().start_process("one").unwrap();
    let started = installation.until_state("one", ProcessState::Healthy);
    assert_eq!((started.reason, started.pid == pid), (None, false));
    assert_eq!(started.last_restart_reason.as_deref(), Some("operator"));
    // A second time is no harm, and it is kept alive again.
    installation.client().start_process("one").unwrap();
    assert_eq!(installation.process("one").pid, started.pid);
    signal(started.pid.unwrap(), Signal::KILL);
    installation.until_restarted("one", 2);
    let unknown = installation.client().start_process("three").unwrap_err();
    assert!(unknown.to_string().contains("no process `three`"));
}
