//! The life of a whole: order of start and stop, sockets, state, control, users, and what is left
//! when the supervisor itself is killed.

mod installation;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use installation::{
    Installation, child, free_address, get, part, probes, process, server, signal, until,
};
use rustix::process::Signal;
use supervisor::config::{Liveness, Probes, Process, Restart, Socket};
use supervisor::processes::{descendants, end_leftovers, is_alive};
use supervisor::{ControlError, ProcessState, Status};

#[test]
fn the_entry_plays_the_part_that_its_arguments_name() {
    installation::play();
}

/// Writes its start and its orderly end into one file.
fn diarist(name: &str, role: &str, signal: &str, after: &[&str], file: &str) -> Process {
    let script = format!(
        "trap 'echo stop {name} >> {file}; exit 0' {signal}; echo start {name} >> {file}; \
         while :; do sleep 0.02; done"
    );
    // Started is not ready: those that wait for it must find its line in the file.
    let ready = format!("grep -q 'start {name}' {file}");
    Process {
        role: role.to_owned(),
        probes: Probes {
            liveness: Some(Liveness {
                command: Some(vec!["sh".into(), "-c".into(), ready]),
                timeout: Duration::from_secs(5),
                ..Liveness::default()
            }),
            ..Probes::default()
        },
        after: after.iter().map(|name| (*name).to_owned()).collect(),
        ..process(name, &["sh", "-c", &script])
    }
}

#[test]
fn processes_start_in_order_and_stop_in_reverse_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("diary");
    let diary = path.to_str().unwrap();
    let mut job = diarist("prepare", "job", "TERM", &["postgres"], diary);
    job.command = vec![
        "sh".into(),
        "-c".into(),
        format!("sleep 0.1; echo done >> {diary}"),
    ];
    job.probes = Probes::default();
    job.restart = Restart::OnFailure;
    let mut installation = Installation::start(vec![
        diarist("gateway", "gateway", "TERM", &["node"], diary),
        diarist("node", "node", "TERM", &["prepare"], diary),
        job,
        diarist("postgres", "postgres", "INT", &[], diary),
    ]);
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    until("the last one starts", || {
        read().contains("start gateway").then_some(())
    });
    installation.client().stop(false).unwrap();
    assert_eq!(installation.ended().0, Some(0));
    assert_eq!(
        read().lines().collect::<Vec<_>>(),
        [
            "start postgres",
            "done",
            "start node",
            "start gateway",
            "stop gateway",
            "stop node",
            "stop postgres"
        ]
    );
    let state = Status::read(&installation.file("state.json")).unwrap();
    assert!(state.stopping);
    assert_eq!(state.process("node").unwrap().state, ProcessState::Stopped);
    assert_eq!(state.process("node").unwrap().pid, None);
    assert_eq!(state.process("prepare").unwrap().state, ProcessState::Done);
    assert!(!installation.file("run/control.sock").exists());
    assert!(matches!(
        installation.client().status(),
        Err(ControlError::NotRunning { .. })
    ));
}

#[test]
fn a_process_that_ignores_its_stop_signal_is_killed_with_all_below_it() {
    let mut deaf = process(
        "deaf",
        &[
            "sh",
            "-c",
            "trap '' TERM; setsid sleep 4006 & sleep 4007; :",
        ],
    );
    deaf.stop.timeout = Duration::from_millis(200);
    let mut installation = Installation::start(vec![deaf]);
    let pid = installation
        .until_state("deaf", ProcessState::Healthy)
        .pid
        .unwrap();
    let below = until("it forked", || {
        Some(descendants(pid)).filter(|all| all.len() == 2)
    });
    let asked = Instant::now();
    signal(installation.child.id(), Signal::TERM);
    assert_eq!(installation.ended().0, Some(0));
    assert!(asked.elapsed() >= Duration::from_millis(200));
    assert!(below.iter().all(|(pid, start)| !is_alive(*pid, *start)));
}

#[test]
fn a_second_signal_ends_all_at_once_and_lets_postgres_quit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("diary");
    let diary = path.to_str().unwrap();
    let mut postgres = diarist("postgres", "postgres", "QUIT", &[], diary);
    postgres.stop.timeout = Duration::from_secs(600);
    let mut deaf = diarist("deaf", "node", "HUP", &["postgres"], diary);
    let script = format!("trap '' TERM; echo start deaf >> {diary}; while :; do sleep 0.02; done");
    deaf.command = vec!["sh".into(), "-c".into(), script];
    deaf.stop.timeout = Duration::from_secs(600);
    let mut installation = Installation::start(vec![postgres, deaf]);
    installation.until_state("deaf", ProcessState::Healthy);
    signal(installation.child.id(), Signal::INT);
    until("it is stopping", || {
        installation.status().stopping.then_some(())
    });
    assert_eq!(
        installation.process("postgres").state,
        ProcessState::Healthy
    );
    signal(installation.child.id(), Signal::INT);
    assert_eq!(installation.ended().0, Some(0));
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains("stop postgres"), "{text}");
}

#[test]
fn no_connection_is_refused_while_the_owner_of_an_inherited_socket_dies() {
    let mut gateway = process("gateway", &[]);
    gateway.command = child(&["inherited"]);
    gateway.sockets = vec![Socket {
        name: "http".to_owned(),
        address: "127.0.0.1:0".to_owned(),
        ..Socket::default()
    }];
    let mut second = gateway.clone();
    second.name = "gateway-2".to_owned();
    let installation = Installation::start(vec![gateway, second]);
    let address = installation
        .until_state("gateway", ProcessState::Healthy)
        .listen
        .unwrap();
    assert_eq!(
        installation.process("gateway-2").listen.as_ref(),
        Some(&address)
    );
    until("it serves", || {
        get(&address, "/").ok().filter(|pid| !pid.is_empty())
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut connections = 0;
            while !stop.load(Ordering::Relaxed) {
                match get(&address, "/") {
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                        panic!("refused after {connections}");
                    }
                    _ => connections += 1,
                }
            }
            connections
        });
        for round in 1..=5 {
            for name in ["gateway", "gateway-2"] {
                let pid = installation.process(name).pid.unwrap();
                signal(pid, Signal::KILL);
            }
            installation.until_restarted("gateway", round);
            installation.until_restarted("gateway-2", round);
        }
        let pids = [
            installation.process("gateway").pid,
            installation.process("gateway-2").pid,
        ];
        until("a successor serves on the same socket", || {
            let pid = get(&address, "/").ok()?.parse().ok();
            pids.contains(&pid).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        assert!(client.join().unwrap() > 0);
    });
    let log = installation.log("gateway");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_busy_port_is_named_and_nothing_is_started() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut gateway = process("gateway", &["sleep", "1000"]);
    gateway.sockets = vec![Socket {
        name: "http".to_owned(),
        address: address.clone(),
        ..Socket::default()
    }];
    let mut installation = Installation::spawn(vec![gateway]);
    let (code, errors) = installation.ended();
    assert_eq!(code, Some(64));
    assert!(
        errors.contains(&format!("listen on {address} for gateway")),
        "{errors}"
    );
    assert!(!installation.file("logs/gateway.log").exists());
}

#[test]
fn the_operator_restarts_one_process_but_not_the_last_healthy_of_several() {
    let addresses = [free_address(), free_address()];
    let mut second = server("node-2", &addresses[1]);
    second.probes.liveness.as_mut().unwrap().fall = 1_000_000;
    let installation = Installation::start(vec![server("node-1", &addresses[0]), second]);
    installation.until_state("node-1", ProcessState::Healthy);
    let pid = installation
        .until_state("node-2", ProcessState::Healthy)
        .pid;
    installation.client().restart("node-1").unwrap();
    let status = installation.until_restarted("node-1", 1);
    assert_eq!(status.last_restart_reason.as_deref(), Some("operator"));
    assert_eq!(installation.process("node-2").pid, pid);

    get(&addresses[1], "/drain").unwrap();
    installation.until_state("node-2", ProcessState::Draining);
    let refused = installation
        .client()
        .restart("node-1")
        .unwrap_err()
        .to_string();
    assert!(refused.contains("last healthy node"), "{refused}");
    let unknown = installation
        .client()
        .restart("nobody")
        .unwrap_err()
        .to_string();
    assert!(
        unknown.contains("there is no process `nobody`"),
        "{unknown}"
    );
}

#[test]
fn the_state_file_tells_what_the_control_socket_tells() {
    let installation = Installation::start(vec![process("a", &["sleep", "1000"])]);
    installation.until_state("a", ProcessState::Healthy);
    let answered = installation.status();
    let written = until("the state is written", || {
        Status::read(&installation.file("state.json"))
            .filter(|state| state.process("a").unwrap().pid.is_some())
    });
    let essence = |status: &Status| {
        let entries = status.processes.iter();
        entries
            .map(|p| (p.name.clone(), p.role.clone(), p.pid, p.start_time, p.state))
            .collect::<Vec<_>>()
    };
    assert_eq!(essence(&written), essence(&answered));
    assert_eq!(
        answered.supervisor().unwrap().pid,
        Some(installation.child.id())
    );
    answered.processes[1]
        .since
        .parse::<jiff::Timestamp>()
        .unwrap();
    let mode = {
        use std::os::unix::fs::PermissionsExt as _;
        let socket = installation.file("run/control.sock");
        std::fs::metadata(socket).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode, 0o600);
}

#[test]
fn a_second_supervisor_in_the_same_folder_is_refused() {
    let mut installation = Installation::start(vec![process("a", &["sleep", "1000"])]);
    let first = installation.status().supervisor().unwrap().pid;
    let config = installation.file("supervisor.yaml");
    let mut second = part(&["supervise", config.to_str().unwrap()]);
    let status = until("the second ends", || second.try_wait().unwrap());
    assert_eq!(status.code(), Some(64));
    assert_eq!(installation.status().supervisor().unwrap().pid, first);
    assert!(installation.child.try_wait().unwrap().is_none());
}

#[test]
fn children_outlive_a_killed_supervisor_until_the_next_start_ends_them() {
    let address = free_address();
    let mut installation = Installation::start(vec![
        server("node", &address),
        process("forks", &["sh", "-c", "setsid sleep 4008 & sleep 4009; :"]),
    ]);
    let before = installation.until_state("node", ProcessState::Healthy);
    let forks = installation.process("forks").pid.unwrap();
    let below = until("it forked", || {
        Some(descendants(forks)).filter(|all| all.len() == 2)
    });
    until("the state is written", || {
        let state = Status::read(&installation.file("state.json"))?;
        (state.process("node")?.state == ProcessState::Healthy).then_some(())
    });
    installation.child.kill().unwrap();
    installation.child.wait().unwrap();
    assert_eq!(get(&address, "/").unwrap(), before.pid.unwrap().to_string());

    let state = Status::read(&installation.file("state.json")).unwrap();
    let ended = end_leftovers(&state, Duration::from_secs(2)).unwrap();
    assert_eq!(ended.len(), 2, "{ended:?}");
    assert!(!is_alive(before.pid.unwrap(), before.start_time.unwrap()));
    assert!(below.iter().all(|(pid, start)| !is_alive(*pid, *start)));

    installation.start_again();
    let after = installation.until_state("node", ProcessState::Healthy);
    assert_ne!(after.pid, before.pid);
}

#[test]
fn leftovers_whose_pid_was_used_again_are_left_alone() {
    let mut stranger = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    let mut status = Status::default();
    status.processes.push(supervisor::ProcessStatus {
        name: "node".to_owned(),
        pid: Some(stranger.id()),
        start_time: Some(1),
        ..Default::default()
    });
    assert_eq!(
        end_leftovers(&status, Duration::from_secs(1)),
        Ok(Vec::new())
    );
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_child_runs_as_its_user_without_groups_and_cannot_gain_privileges() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can drop to another user");
        return;
    }
    let mut dropped = process("dropped", &["sleep", "1000"]);
    dropped.user = Some("nobody".to_owned());
    let installation = Installation::start(vec![dropped]);
    let pid = installation
        .until_state("dropped", ProcessState::Healthy)
        .pid
        .unwrap();
    let status = until("the launcher became the command", || {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        (name.trim() == "sleep").then_some(status)
    });
    let line = |key: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap();
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(line("Uid:"), ["65534"; 4]);
    assert_eq!(line("Gid:"), ["65534"; 4]);
    assert_eq!(line("Groups:"), Vec::<String>::new());
    assert_eq!(line("NoNewPrivs:"), ["1"]);
    assert_eq!(line("CapEff:"), ["0000000000000000"]);
}

#[test]
fn a_child_gets_a_clean_environment_and_no_descriptor_of_ours() {
    let script = "env; echo fds $(ls /proc/self/fd | wc -l); sleep 1000";
    let mut clean = process("clean", &["sh", "-c", script]);
    clean.environment.insert("GIVEN".into(), "yes".into());
    let mut installation = Installation::spawn(vec![clean]);
    let log = until("it tells", || {
        Some(installation.log("clean")).filter(|log| log.contains("fds"))
    });
    assert!(log.contains("GIVEN=yes"), "{log}");
    let mut names: Vec<&str> = log
        .lines()
        .filter_map(|l| Some(l.split_once('=')?.0))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["GIVEN", "HOME", "LANG", "PATH", "PWD"]);
    // stdin, stdout, stderr, and the folder that `ls` reads.
    assert!(log.contains("fds 4"), "{log}");
    assert!(installation.child.try_wait().unwrap().is_none());
}

#[test]
fn one_command_is_kept_alive_without_any_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("starts");
    let script = format!("echo $$ >> {}; exec sleep 1000", path.display());
    let mut supervisor = part(&["command", "sh", "-c", &script]);
    let pids = || -> Vec<u32> {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    let first = until("it starts", || pids().first().copied());
    signal(first, Signal::KILL);
    let second = until("it is back", || pids().get(1).copied());
    signal(supervisor.id(), Signal::TERM);
    let status = until("the supervisor ends", || supervisor.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert_eq!(supervisor::processes::start_time(second), None);
}

#[test]
fn a_probe_at_a_wrong_place_keeps_dependants_waiting() {
    let mut first = process("first", &["sleep", "1000"]);
    first.probes = probes(&free_address());
    let mut second = process("second", &["sleep", "1000"]);
    second.after = vec!["first".to_owned()];
    let installation = Installation::start(vec![first, second]);
    let status = until("a probe failed", || {
        Some(installation.process("first")).filter(|first| first.reason.is_some())
    });
    assert_eq!(status.state, ProcessState::Starting);
    assert!(status.reason.unwrap().contains("refused"));
    let second = installation.process("second");
    assert_eq!((second.state, second.pid), (ProcessState::Starting, None));
    assert_eq!(second.reason.as_deref(), Some("waits for first"));
}
