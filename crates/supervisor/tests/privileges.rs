//! What a confined child is denied, tried by real processes: each runs once without and once with its
//! confinement, so that a test of something that never works anywhere cannot pass.

mod installation;

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use installation::{Installation, child, process, until};
use rustix::process::geteuid;
use supervisor::config::{Limits, Privileges, SystemCalls};

const NOBODY: u32 = 65_534;

#[test]
fn the_entry_plays_the_part_that_its_arguments_name() {
    installation::play();
}

/// A folder that anybody may write, as far as modes go.
fn open_folder() -> tempfile::TempDir {
    let base = std::env::var_os("BINGO_TEST_DIR").map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::Builder::new()
        .prefix("svp")
        .tempdir_in(base)
        .unwrap();
    let all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path(), all).unwrap();
    folder
}

fn inner(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir(&path).unwrap();
    let all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&path, all).unwrap();
    path
}

/// Runs a child to its end and returns what it said.
fn said_by(command: Vec<String>, user: Option<&str>, privileges: Option<Privileges>) -> String {
    let mut trial = process("trial", &[]);
    trial.command = command;
    trial.user = user.map(str::to_owned);
    trial.privileges = privileges;
    let installation = Installation::start(vec![trial]);
    until("it tells", || {
        Some(installation.log("trial")).filter(|log| log.contains("trial is over"))
    })
}

fn script(text: &str) -> Vec<String> {
    let text = format!("{text}; echo trial is over; sleep 1000");
    ["sh", "-c", &text].map(str::to_owned).to_vec()
}

fn only(writable: &[&Path]) -> Option<Privileges> {
    Some(Privileges {
        writable: Some(writable.iter().map(|path| path.to_path_buf()).collect()),
        ..Privileges::default()
    })
}

fn has_landlock() -> bool {
    use landlock::{
        ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    };
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let rules = rules.handle_access(AccessFs::from_all(ABI::V1));
    rules.and_then(Ruleset::create).is_ok()
}

#[test]
fn a_child_writes_in_its_own_folder_and_nowhere_else() {
    if !has_landlock() {
        println!("skipped: this kernel has no landlock");
        return;
    }
    let folder = open_folder();
    let [own, other] = ["own", "other"].map(|name| inner(folder.path(), name));
    std::fs::write(other.join("there"), "content").unwrap();
    let attempts = format!(
        "echo x > {own}/new && echo own written; mv {own}/new {own}/moved && echo own moved; \
         echo x > {other}/new && echo other written; true > {other}/there && echo other cut; \
         rm {other}/there && echo other removed; cat {other}/there; echo x > /dev/null && echo null written",
        own = own.display(),
        other = other.display()
    );
    let free = said_by(script(&attempts), None, None);
    for done in [
        "own written",
        "own moved",
        "other written",
        "other cut",
        "other removed",
    ] {
        assert!(free.contains(done), "{done}: {free}");
    }
    std::fs::write(other.join("there"), "content").unwrap();
    let confined = said_by(script(&attempts), None, only(&[&own]));
    for done in ["own written", "own moved", "null written", "content"] {
        assert!(confined.contains(done), "{done}: {confined}");
    }
    for denied in ["other written", "other cut", "other removed"] {
        assert!(!confined.contains(denied), "{denied}: {confined}");
    }
    assert!(confined.contains("ermission denied"), "{confined}");
}

#[test]
fn a_child_opens_no_raw_socket_and_makes_no_call_that_no_service_needs() {
    let calls = |privileges| said_by(child(&["tries"]), None, privileges);
    let all = Privileges {
        system_calls: SystemCalls::All,
        ..Privileges::default()
    };
    let confined = calls(Some(Privileges::default()));
    for line in [
        "raw: refused",
        "raw six: refused",
        "packet: refused",
        "trace: refused",
        "namespace: refused",
        "stream: allowed",
        "datagram: allowed",
        "netlink: allowed",
        "thread: allowed",
        "process: allowed",
    ] {
        assert!(confined.contains(line), "{line}\n{confined}");
    }
    // Without capabilities alone a raw socket is refused as well, and tracing is not.
    let uncapped = calls(Some(all));
    assert!(uncapped.contains("raw: refused"), "{uncapped}");
    assert!(uncapped.contains("trace: allowed"), "{uncapped}");
    let free = calls(None);
    assert!(free.contains("trace: allowed"), "{free}");
    if may_open_raw_sockets() {
        assert!(free.contains("raw: allowed"), "{free}");
    }
}

fn may_open_raw_sockets() -> bool {
    let sets = rustix::thread::capabilities(None).unwrap();
    sets.effective
        .contains(rustix::thread::CapabilitySet::NET_RAW)
}

#[test]
fn a_child_gains_nothing_from_a_setuid_program() {
    if !geteuid().is_root() {
        println!("skipped: only root makes a setuid program of root's");
        return;
    }
    let folder = open_folder();
    let program = folder.path().join("whoami");
    let id = ["/usr/bin/id", "/bin/id"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    std::fs::copy(id.unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let command = script(&format!("{} -u", program.display()));
    let mut free = std::process::Command::new(&program);
    let free = {
        use std::os::unix::process::CommandExt as _;
        free.arg("-u").uid(NOBODY).gid(NOBODY).output().unwrap()
    };
    assert_eq!(
        free.stdout, b"0\n",
        "the test's folder lies on a disk that is mounted nosuid"
    );
    let confined = said_by(command, Some("nobody"), Some(Privileges::default()));
    assert!(confined.contains("65534\n"), "{confined}");
}

#[test]
fn a_child_of_root_has_no_capabilities_left() {
    let confined = said_by(
        script("grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status"),
        None,
        Some(Privileges::default()),
    );
    let value = |key: &str| {
        let line = confined.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_default().trim().to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(value(set), "0".repeat(16), "{confined}");
    }
    assert_eq!(
        (value("NoNewPrivs:"), value("Seccomp:")),
        ("1".into(), "2".into())
    );
    if geteuid().is_root() {
        assert_eq!(value("CapBnd:"), "0".repeat(16));
    }
}

#[test]
fn a_child_signals_no_process_but_its_own() {
    if !has_landlock() {
        println!("skipped: this kernel has no landlock");
        return;
    }
    let mut stranger = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    let attempts = format!(
        "kill -0 {} && echo stranger reached; sleep 999 & kill $! && echo own reached",
        stranger.id()
    );
    let free = said_by(script(&attempts), None, None);
    assert!(free.contains("stranger reached"), "{free}");
    let folder = open_folder();
    let confined = said_by(script(&attempts), None, only(&[folder.path()]));
    assert!(confined.contains("own reached"), "{confined}");
    let scoped = kernel_is_at_least(6, 12);
    assert_eq!(confined.contains("stranger reached"), !scoped, "{confined}");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split('.')
        .filter_map(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

#[test]
fn groups_and_limits_are_those_of_the_file() {
    if !geteuid().is_root() {
        println!("skipped: only root gives groups");
        return;
    }
    let privileges = Privileges {
        groups: vec!["adm".to_owned(), "tty".to_owned()],
        limits: Limits {
            open_files: Some(77),
            file_bytes: Some(4096),
            ..Limits::default()
        },
        ..Privileges::default()
    };
    let told = said_by(
        script("echo groups $(id -G); echo user $(id -u); ulimit -n"),
        Some("nobody"),
        Some(privileges),
    );
    assert!(told.contains("user 65534"), "{told}");
    let groups = told.lines().find_map(|line| line.strip_prefix("groups "));
    let mut groups: Vec<&str> = groups.unwrap().split(' ').collect();
    groups.sort_unstable();
    assert_eq!(groups, ["4", "5", "65534"]);
    assert!(told.contains("\n77\n"), "{told}");
}

#[test]
fn a_confined_child_runs_with_its_probe_and_its_own_log_in_its_folder() {
    let folder = open_folder();
    let own = inner(folder.path(), "own");
    if geteuid().is_root() {
        chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let marker = own.join("ready");
    let mut confined = process("confined", &[]);
    confined.command = script(&format!("touch {}", marker.display()));
    confined.user = geteuid().is_root().then(|| "nobody".to_owned());
    confined.privileges = only(&[&own]);
    confined.probes.liveness = Some(supervisor::config::Liveness {
        command: Some(vec![
            "test".into(),
            "-e".into(),
            marker.display().to_string(),
        ]),
        timeout: std::time::Duration::from_secs(5),
        ..Default::default()
    });
    let installation = Installation::start(vec![confined]);
    installation.until_state("confined", supervisor::ProcessState::Healthy);
    let notes = installation.status().notes;
    assert_eq!(notes.is_empty(), has_landlock(), "{notes:?}");
}
