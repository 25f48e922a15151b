//! Other processes as the kernel shows them (proc(5)): when one started, how much memory it holds,
//! which ones it started; and ending those that a crashed supervisor left behind. A pid alone names
//! nothing, since the kernel uses it again: a process is a pid together with its start time.
//! Everything here blocks for microseconds only, except `end_leftovers`.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::status::{ProcessStatus, SUPERVISOR, Status, Stray};

/// How often `end_leftovers` looks whether a process is gone.
const LOOK: Duration = Duration::from_millis(10);
/// How long a killed process may take to vanish.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Of a tree, the children of so many processes are looked for.
const TREE_MAX: usize = 256;

/// What /proc/PID/stat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) zombie: bool,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) start_time: u64,
}

/// When a process started, in clock ticks since boot. None where there is no such process.
pub fn start_time(pid: u32) -> Option<u64> {
    stat(pid).map(|stat| stat.start_time)
}

/// Whether that very process runs; a zombie does not.
pub fn is_alive(pid: u32, start_time: u64) -> bool {
    stat(pid).is_some_and(|stat| !stat.zombie && stat.start_time == start_time)
}

/// Resident memory in bytes. None where there is no such process.
pub fn rss_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Resident memory of a process and all below it; pages that they share count for each. None where
/// there is no such process. Costs as many small reads as it has threads.
pub(crate) fn tree_bytes(pid: u32) -> Option<u64> {
    let first = rss_bytes(pid)?;
    let below = tree(pid).into_iter().skip(1);
    let below: u64 = below.filter_map(rss_bytes).sum();
    Some(first.saturating_add(below))
}

/// Memory in bytes, of each page the share that falls to this process among all that have it (`Pss` of
/// /proc/PID/smaps_rollup). None where it is not for us to know. The kernel walks all its pages for it:
/// milliseconds for a process of gigabytes, so this is for whoever asks seldom.
pub(crate) fn share_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// A process, and then those below it, in no order; no more than some hundreds.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut looks = 0;
    while let Some(parent) = all.get(looks).copied().filter(|_| looks < TREE_MAX) {
        looks += 1;
        all.extend(children_of(parent).unwrap_or_default());
    }
    all
}

/// The children that its threads started (proc(5), /proc/PID/task/TID/children); None where the kernel
/// keeps no such list, or a thread ended while we read.
fn children_of(pid: u32) -> Option<Vec<u32>> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut children = Vec::new();
    for thread in threads.flatten() {
        let list = std::fs::read_to_string(thread.path().join("children")).ok()?;
        let pids = list.split_ascii_whitespace();
        children.extend(pids.filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Some(children)
}

/// Every process below `pid`, with its start time, in no order. Reads all of /proc once.
pub fn descendants(pid: u32) -> Vec<(u32, u64)> {
    let all: Vec<(u32, Stat)> = all()
        .filter_map(|pid| stat(pid).map(|stat| (pid, stat)))
        .collect();
    let mut found: Vec<(u32, u64)> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for (child, stat) in all.iter().filter(|(_, stat)| stat.parent == parent) {
            parents.push(*child);
            found.push((*child, stat.start_time));
        }
    }
    found
}

/// SIGKILL to the process, its group, and everything that it started, in whatever group or session
/// (each PostgreSQL backend is in one of its own). The caller answers for the pid's identity.
pub fn kill_tree(pid: u32) {
    let below = descendants(pid);
    kill_group(pid);
    for (pid, start_time) in below {
        if is_alive(pid, start_time) {
            send(pid, Signal::KILL);
        }
    }
}

/// SIGKILL to every member of a process group; nothing where there is none.
pub(crate) fn kill_group(group: u32) {
    if let Some(group) = to_pid(group) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// Sends a signal; nothing where there is no such process.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = to_pid(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Our own children, zombies and adopted orphans among them.
pub(crate) fn own_children() -> Vec<u32> {
    let own = std::process::id();
    if let Some(children) = children_of(own) {
        return children;
    }
    // A kernel without that list (CONFIG_PROC_CHILDREN), or a thread ended while we read.
    all()
        .filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == own))
        .collect()
}

/// Every process of a status as an entry of its own, those beside others too: successors, and
/// predecessors that drain.
fn all_of(status: &Status) -> Vec<ProcessStatus> {
    let mut all = Vec::new();
    for process in &status.processes {
        all.push(process.clone());
        all.extend(process.beside.iter().map(|beside| ProcessStatus {
            pid: Some(beside.pid),
            start_time: Some(beside.start_time),
            state: beside.state,
            beside: Vec::new(),
            ..process.clone()
        }));
    }
    all
}

/// Ends what a crashed installation left running: each recorded process that is still the same one.
/// First the supervisor, at once, since it would restart the others; then the others in reverse
/// order of their start, neighbours of one role together: the stop signal, `patience` to obey,
/// then SIGKILL for the whole tree; at last what they had detached. Blocks. Returns the names of those that were ended, or the
/// names of those that would not end.
pub fn end_leftovers(status: &Status, patience: Duration) -> Result<Vec<String>, Vec<String>> {
    let all = all_of(status);
    let mut left: Vec<&ProcessStatus> = all.iter().filter(|p| runs(p)).collect();
    let mut ended: Vec<String> = Vec::new();
    if let Some(at) = left.iter().position(|process| process.role == SUPERVISOR) {
        let supervisor = left.remove(at);
        if let Some(pid) = supervisor.pid {
            send(pid, Signal::KILL);
        }
        wait_gone(&[supervisor], KILL_PATIENCE);
        ended.push(supervisor.name.clone());
    }
    while let Some(last) = left.last() {
        let role = last.role.clone();
        let first = left
            .iter()
            .rposition(|process| process.role != role)
            .map_or(0, |at| at + 1);
        let together = left.split_off(first);
        end(&together, patience);
        ended.extend(together.iter().map(|process| process.name.clone()));
    }
    end_strays(&status.strays);
    let stubborn: Vec<String> = all
        .iter()
        .filter(|process| runs(process))
        .map(|process| process.name.clone())
        .collect();
    if stubborn.is_empty() {
        Ok(ended)
    } else {
        Err(stubborn)
    }
}

/// What was detached from its parents answers to nobody: it is killed with all below it.
fn end_strays(strays: &[Stray]) {
    let deadline = Instant::now() + KILL_PATIENCE;
    let alive = |stray: &&Stray| is_alive(stray.pid, stray.start_time);
    for stray in strays.iter().filter(alive) {
        kill_tree(stray.pid);
    }
    while strays.iter().any(|stray| alive(&stray)) && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
}

fn end(processes: &[&ProcessStatus], patience: Duration) {
    let below: Vec<(u32, u64)> = processes
        .iter()
        .filter_map(|process| process.pid)
        .flat_map(descendants)
        .collect();
    for process in processes {
        if let Some(pid) = process.pid {
            let signal = signal_of_name(&process.stop_signal).unwrap_or(Signal::TERM);
            send(pid, signal);
        }
    }
    wait_gone(processes, patience);
    for process in processes.iter().filter(|process| runs(process)) {
        if let Some(pid) = process.pid {
            kill_tree(pid);
        }
    }
    wait_gone(processes, KILL_PATIENCE);
    // What they started and did not end themselves.
    let deadline = Instant::now() + KILL_PATIENCE;
    for (pid, start_time) in below {
        while is_alive(pid, start_time) && Instant::now() < deadline {
            send(pid, Signal::KILL);
            std::thread::sleep(LOOK);
        }
    }
}

fn wait_gone(processes: &[&ProcessStatus], patience: Duration) {
    let deadline = Instant::now() + patience;
    while processes.iter().any(|process| runs(process)) && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
}

fn runs(process: &ProcessStatus) -> bool {
    match (process.pid, process.start_time) {
        (Some(pid), Some(start_time)) => is_alive(pid, start_time),
        _ => false,
    }
}

pub(crate) fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse(&text)
}

/// The command's name stands in parentheses and may hold any character, so fields are counted from
/// the last parenthesis on: state is field 3, start time field 22.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let start_time = fields.nth(16)?.parse().ok()?;
    Some(Stat {
        zombie: matches!(state, "Z" | "X"),
        parent,
        group,
        start_time,
    })
}

fn all() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

pub(crate) fn to_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

const SIGNALS: [(&str, Signal); 14] = [
    ("SIGTERM", Signal::TERM),
    ("SIGINT", Signal::INT),
    ("SIGQUIT", Signal::QUIT),
    ("SIGKILL", Signal::KILL),
    ("SIGHUP", Signal::HUP),
    ("SIGUSR1", Signal::USR1),
    ("SIGUSR2", Signal::USR2),
    ("SIGABRT", Signal::ABORT),
    ("SIGSEGV", Signal::SEGV),
    ("SIGBUS", Signal::BUS),
    ("SIGILL", Signal::ILL),
    ("SIGFPE", Signal::FPE),
    ("SIGPIPE", Signal::PIPE),
    ("SIGALRM", Signal::ALARM),
];

pub(crate) fn signal_of_name(name: &str) -> Option<Signal> {
    SIGNALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, signal)| *signal)
}

/// `SIGKILL`; `SIG` and the number for one without a name here.
pub(crate) fn name_of_signal(number: i32) -> String {
    SIGNALS
        .iter()
        .find(|(_, signal)| signal.as_raw() == number)
        .map_or_else(|| format!("SIG{number}"), |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_full_of_parentheses_is_no_trap() {
        let text = "42 (a) Z (b) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 9 9";
        let expected = Stat {
            zombie: false,
            parent: 7,
            group: 8,
            start_time: 123_456,
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn a_process_is_known_by_pid_and_start_time_together() {
        let pid = std::process::id();
        let start_time = start_time(pid).unwrap();
        assert!(is_alive(pid, start_time));
        assert!(!is_alive(pid, start_time + 1));
        assert!(rss_bytes(pid).unwrap() > 100_000);
    }

    #[test]
    fn children_are_found_and_killed_with_all_below_them() {
        use std::os::unix::process::CommandExt as _;
        let mut child = std::process::Command::new("sh")
            .args(["-c", "setsid sleep 1000 & sleep 1000; true"])
            .process_group(0)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while descendants(child.id()).len() < 2 {
            assert!(Instant::now() < deadline, "the shell starts both");
            std::thread::sleep(LOOK);
        }
        assert!(own_children().contains(&child.id()));
        let below = descendants(child.id());
        let (first, others) = tree(child.id())
            .split_first()
            .map(|(a, b)| (*a, b.len()))
            .unwrap();
        assert_eq!((first, others), (child.id(), below.len()));
        assert!(tree_bytes(child.id()).unwrap() > rss_bytes(child.id()).unwrap());
        kill_tree(child.id());
        child.wait().unwrap();
        while below.iter().any(|(pid, start)| is_alive(*pid, *start)) {
            assert!(Instant::now() < deadline, "all below it end");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn signals_have_their_names() {
        assert_eq!(name_of_signal(9), "SIGKILL");
        assert_eq!(signal_of_name("SIGINT"), Some(Signal::INT));
        assert_eq!(signal_of_name("TERM"), None);
    }
}
