//! Replacing a process by choice: for its memory, its age, or because the operator wants it; behind a
//! successor where it can stand beside it, and after a gap where it cannot.

mod installation;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use installation::{
    Installation, beside, child, free_address, get, process, server, signal, until,
};
use rustix::process::Signal;
use supervisor::ProcessState;
use supervisor::config::{Liveness, Memory};
use supervisor::processes::is_alive;

const MIB: u64 = 1 << 20;

#[test]
fn the_entry_plays_the_part_that_its_arguments_name() {
    installation::play();
}

/// Asks `address` all the time while `act` runs; how often, and how often in vain.
fn under_load(address: &str, act: impl FnOnce()) -> (usize, usize) {
    let (stop, failed) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                asked += 1;
                let answered = get(address, "/ping").is_ok_and(|body| !body.is_empty());
                failed.fetch_add(usize::from(!answered), Ordering::Relaxed);
            }
            asked
        });
        // A failed assertion inside must not leave the other thread at work for ever.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        stop.store(true, Ordering::Relaxed);
        let asked = asking.join().unwrap();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        (asked, failed.load(Ordering::Relaxed))
    })
}

#[test]
fn a_successor_is_up_before_the_old_one_ends_and_no_request_fails() {
    let address = free_address();
    let installation = Installation::start(vec![beside("only", &address)]);
    let first = installation.until_state("only", ProcessState::Healthy);
    assert_eq!(first.replaced, "successor first");
    let (asked, failed) = under_load(&address, || {
        for round in 1..=5 {
            let before = installation.process("only").pid;
            installation.client().restart("only").unwrap();
            let after = until("it was replaced", || {
                let now = installation.process("only");
                // Whatever happens, one that is healthy serves.
                assert_eq!(now.state, ProcessState::Healthy, "{now:?}");
                (now.restarts == round && now.beside.is_empty()).then_some(now)
            });
            assert_ne!(after.pid, before);
            assert_eq!(after.last_restart_reason.as_deref(), Some("operator"));
        }
    });
    println!("{asked} requests, {failed} failed");
    assert!(asked > 50, "{asked}");
    assert_eq!(failed, 0);
    assert!(!is_alive(first.pid.unwrap(), first.start_time.unwrap()));
}

#[test]
fn one_that_leaks_is_replaced_at_its_soft_limit_again_and_again_and_no_request_fails() {
    let address = free_address();
    let mut leaks = beside("leaks", &address);
    leaks.memory = Some(Memory {
        soft: 96 * MIB,
        hard: 400 * MIB,
    });
    let installation = Installation::start(vec![leaks]);
    installation.until_state("leaks", ProcessState::Healthy);
    let (asked, failed) = under_load(&address, || {
        for round in 1..=3 {
            get(&address, "/leak/60").unwrap();
            let now = until("it was replaced", || {
                Some(installation.process("leaks")).filter(|now| now.restarts == round)
            });
            let reason = now.last_restart_reason.unwrap();
            assert!(reason.starts_with("memory soft: "), "{reason}");
            until("the old one is gone", || {
                installation
                    .process("leaks")
                    .beside
                    .is_empty()
                    .then_some(())
            });
        }
    });
    println!("{asked} requests, {failed} failed");
    assert_eq!(failed, 0);
    let memory = installation.process("leaks").memory.unwrap();
    assert_eq!(
        (memory.soft_bytes, memory.hard_bytes),
        (96 * MIB, 400 * MIB)
    );
}

#[test]
fn one_over_its_hard_limit_is_killed_alone() {
    let addresses = [free_address(), free_address()];
    let limited = |name: &str, address: &String| {
        let mut limited = server(name, address);
        limited.memory = Some(Memory {
            // So near to each other that no look falls between them.
            soft: 200 * MIB - 1,
            hard: 200 * MIB,
        });
        limited
    };
    let installation = Installation::start(vec![
        limited("eats", &addresses[0]),
        limited("fasts", &addresses[1]),
    ]);
    installation.until_state("eats", ProcessState::Healthy);
    let other = installation.until_state("fasts", ProcessState::Healthy).pid;
    get(&addresses[0], "/take/300").unwrap();
    let eats = installation.until_restarted("eats", 1);
    let reason = eats.last_restart_reason.unwrap();
    assert!(reason.starts_with("memory hard: "), "{reason}");
    assert!(reason.contains(" of 200 MiB"), "{reason}");
    let fasts = installation.process("fasts");
    assert_eq!((fasts.pid, fasts.restarts), (other, 0));
    let watched_by = fasts.memory.unwrap().watched_by;
    println!("watched by {watched_by}");
    assert!(watched_by.ends_with("reading 10 times a second"));

    // Where the kernel keeps the limit, nothing of that stays behind.
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.split_once(":memory:"));
    let groups = own.map(|(_, path)| {
        let name = format!("bingo-{}", installation.child.id());
        std::path::Path::new("/sys/fs/cgroup/memory")
            .join(path.trim_start_matches('/'))
            .join(name)
    });
    let is_kept = watched_by.contains("version 1");
    assert!(!is_kept || groups.as_ref().is_some_and(|groups| groups.is_dir()));
    drop(installation);
    assert!(!is_kept || groups.is_some_and(|groups| !groups.exists()));
}

#[test]
fn the_memory_of_what_a_process_started_counts_as_its_own() {
    let script = "sh -c 'x=$(head -c 150000000 /dev/zero | tr \"\\\\0\" x); sleep 1000'; :";
    let mut parent = process("parent", &["sh", "-c", script]);
    parent.memory = Some(Memory {
        soft: 60 * MIB,
        hard: 100 * MIB,
    });
    let installation = Installation::start(vec![parent]);
    let reason = until("it was killed", || {
        installation.process("parent").last_restart_reason
    });
    assert!(reason.starts_with("memory "), "{reason}");
}

#[test]
fn old_processes_are_replaced_one_at_a_time() {
    let addresses = [free_address(), free_address()];
    let aging = |name: &str, address: &String| {
        let mut aging = beside(name, address);
        aging.max_age = Some(Duration::from_millis(600));
        aging
    };
    let installation = Installation::start(vec![
        aging("node-1", &addresses[0]),
        aging("node-2", &addresses[1]),
    ]);
    until("both were replaced twice", || {
        let status = installation.status();
        let nodes: Vec<_> = ["node-1", "node-2"]
            .iter()
            .map(|name| status.process(name).unwrap())
            .collect();
        let starting = |node: &&&supervisor::ProcessStatus| {
            let mut beside = node.beside.iter();
            beside.any(|beside| beside.state == ProcessState::Starting)
        };
        assert!(nodes.iter().filter(starting).count() < 2, "both at once");
        nodes.iter().all(|node| node.restarts >= 2).then_some(())
    });
    for name in ["node-1", "node-2"] {
        let reason = installation.process(name).last_restart_reason.unwrap();
        assert!(reason.starts_with("age: "), "{reason}");
    }
}

#[test]
fn with_a_port_of_its_own_for_each_run_a_successor_needs_no_shared_one() {
    let mut moves = server("moves", "127.0.0.1:{port}");
    moves.start_first = true;
    moves.listen = Some("127.0.0.1:{port}".to_owned());
    let installation = Installation::start(vec![moves]);
    let before = installation.until_state("moves", ProcessState::Healthy);
    let answered = |status: &supervisor::ProcessStatus| {
        let address = status.listen.clone().unwrap();
        (get(&address, "/").unwrap(), status.pid.unwrap().to_string())
    };
    let (answer, pid) = answered(&before);
    assert_eq!(answer, pid);
    installation.client().restart("moves").unwrap();
    let after = installation.until_restarted("moves", 1);
    assert_ne!(after.listen, before.listen);
    let (answer, pid) = answered(&after);
    assert_eq!(answer, pid);
}

#[test]
fn a_successor_that_fails_leaves_the_old_one_in_place_and_says_so() {
    let address = free_address();
    let folder = tempfile::tempdir().unwrap();
    let started = folder.path().join("started");
    let mut once = beside("once", &address);
    once.command = child(&["once", started.to_str().unwrap(), &address]);
    let installation = Installation::start(vec![once]);
    let before = installation.until_state("once", ProcessState::Healthy);
    let (_, failed) = under_load(&address, || {
        installation.client().restart("once").unwrap();
        let reason = until("it says so", || installation.process("once").reason);
        assert!(
            reason.starts_with("its successor failed: exit "),
            "{reason}"
        );
        assert!(reason.contains("not a second time"), "{reason}");
    });
    assert_eq!(failed, 0);
    let now = installation.process("once");
    assert_eq!((now.pid, now.restarts), (before.pid, 0));
    assert_eq!(now.state, ProcessState::Healthy);
}

#[test]
fn a_fixed_port_costs_a_gap_that_is_stated() {
    let address = free_address();
    let installation = Installation::start(vec![server("fixed", &address)]);
    let fixed = installation.until_state("fixed", ProcessState::Healthy);
    assert_eq!(fixed.replaced, "after a gap");
    assert_eq!(fixed.last_gap_milliseconds, None);
    installation.client().restart("fixed").unwrap();
    let gap = until("it is back and its gap is known", || {
        installation.process("fixed").last_gap_milliseconds
    });
    println!("a gap of {gap} ms");
    assert_eq!(installation.process("fixed").restarts, 1);
}

#[test]
fn a_process_that_dies_while_its_successor_starts_is_followed_by_it_at_once() {
    let address = free_address();
    let mut slow = beside("slow", &address);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    // The second start waits until the file is gone.
    let serve = slow.command.join(" ");
    let script = format!(
        "if [ -s {path} ]; then while [ -e {path} ]; do sleep 0.02; done; fi; \
         echo x > {path}; exec {serve}"
    );
    slow.command = vec!["sh".to_owned(), "-c".to_owned(), script];
    let installation = Installation::start(vec![slow]);
    let before = installation.until_state("slow", ProcessState::Healthy);
    installation.client().restart("slow").unwrap();
    let successor = until("the successor starts", || {
        installation
            .process("slow")
            .beside
            .first()
            .map(|beside| beside.pid)
    });
    signal(before.pid.unwrap(), Signal::KILL);
    let now = until("the successor stands in its place", || {
        Some(installation.process("slow")).filter(|now| now.pid == Some(successor))
    });
    assert_eq!(now.restarts, 1);
    assert_eq!(now.last_restart_reason.as_deref(), Some("signal SIGKILL"));
    std::fs::remove_file(&path).unwrap();
    let now = installation.until_state("slow", ProcessState::Healthy);
    assert_eq!(now.pid, Some(successor));
}

#[test]
fn what_was_due_while_the_supervisor_stood_still_does_not_count() {
    let address = free_address();
    let mut late = server("late", &address);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let script = format!(
        "while [ -e {path} ]; do sleep 0.02; done; exec {}",
        late.command.join(" ")
    );
    late.command = vec!["sh".to_owned(), "-c".to_owned(), script];
    late.probes.startup.timeout = Duration::from_millis(1500);
    late.probes.liveness = Some(Liveness {
        fall: 1,
        ..late.probes.liveness.unwrap()
    });
    let installation = Installation::start(vec![late]);
    let supervisor = installation.child.id();
    installation.until_state("late", ProcessState::Starting);
    signal(supervisor, Signal::STOP);
    // Not to wait for anything: that time passes is the point.
    std::thread::sleep(Duration::from_secs(2));
    std::fs::remove_file(&path).unwrap();
    until("it serves", || {
        get(&address, "/").ok().filter(|body| !body.is_empty())
    });
    signal(supervisor, Signal::CONT);
    let late = installation.until_state("late", ProcessState::Healthy);
    assert_eq!(late.restarts, 0, "{late:?}");
}

#[test]
fn a_changed_entry_is_taken_over_by_a_successor_and_by_one_only_that_gets_healthy() {
    let address = free_address();
    let first = beside("node", &address);
    let installation = Installation::start(vec![first.clone()]);
    let before = installation.until_state("node", ProcessState::Healthy);
    let mut better = first.clone();
    better
        .environment
        .insert("BETTER".to_owned(), "yes".to_owned());
    let mut broken = better.clone();
    broken.command = vec!["sh".to_owned(), "-c".to_owned(), "exit 7".to_owned()];
    let (_, failed) = under_load(&address, || {
        installation.write(vec![broken.clone()]);
        assert_eq!(installation.client().reload().unwrap().changed, ["node"]);
        let reason = until("the broken one is given up", || {
            installation.process("node").reason
        });
        assert_eq!(reason, "its successor failed: exit 7");
        assert_eq!(installation.process("node").pid, before.pid);
        // Given up, it is not what runs: the same file is a change again.
        assert_eq!(installation.client().reload().unwrap().changed, ["node"]);

        installation.write(vec![better.clone()]);
        until("the better one is asked for", || {
            let changed = installation.client().reload().unwrap().changed;
            (changed == ["node"]).then_some(())
        });
        installation.until_restarted("node", 1);
    });
    assert_eq!(failed, 0);
    let after = installation.process("node");
    let reason = after.last_restart_reason.unwrap();
    assert_eq!(reason, "operator: new configuration");
    let environment = std::fs::read(format!("/proc/{}/environ", after.pid.unwrap())).unwrap();
    assert!(String::from_utf8_lossy(&environment).contains("BETTER=yes"));
    assert_eq!(installation.client().reload().unwrap().changed, [""; 0]);
}

#[test]
fn a_changed_entry_repairs_what_had_failed_for_good() {
    let fails = process("fails", &["sh", "-c", "exit 64"]);
    let installation = Installation::start(vec![fails, process("other", &["sleep", "1000"])]);
    installation.until_state("fails", ProcessState::Failed);
    let mended = process("fails", &["sleep", "1000"]);
    installation.write(vec![mended, process("other", &["sleep", "1000"])]);
    installation.client().reload().unwrap();
    installation.until_state("fails", ProcessState::Healthy);
}
