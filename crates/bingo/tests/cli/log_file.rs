//! The log file of a running node: appended to, opened anew on SIGHUP after a rename.

use acceptance::http;
use acceptance::signals::Signal;

use crate::cli::rig::{Folder, Node, bingo, wait_for_text};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rename_and_sighup_a_running_node_writes_to_a_new_file() {
    let folder = Folder::new("rotation");
    let config = folder.write("config.yaml", "student_email: a@b.c\n");
    let log = folder.path("main.log");
    std::fs::write(&log, "what was there\n").unwrap();
    let log_flag = log.display().to_string();
    let arguments = [
        "--config",
        &config,
        "--log-file",
        &log_flag,
        "--log-level",
        "debug",
    ];
    let node = Node::start(&arguments, &[]);
    let ask = async || {
        http::get(&format!("{}/api/nothing", node.url))
            .await
            .unwrap()
    };
    assert_eq!(ask().await.status, 404);
    wait_for_text(&log, "404").await;
    let rotated = folder.path("main.log.1");
    std::fs::rename(&log, &rotated).unwrap();
    node.signal(Signal::HangUp);
    wait_for_text(&log, "reopened").await;
    let before = std::fs::read_to_string(&rotated).unwrap();
    assert!(before.starts_with("what was there\n"), "{before}");
    ask().await;
    wait_for_text(&log, "404").await;
    assert_eq!(std::fs::read_to_string(&rotated).unwrap(), before);
    let (code, _) = node.end();
    assert_eq!(code, 0, "SIGHUP must not end a node");
}

#[test]
fn a_log_file_in_a_missing_folder_is_refused_with_its_remedy() {
    let folder = Folder::new("nolog");
    let config = folder.write("config.yaml", "");
    let log = folder.path("missing/main.log").display().to_string();
    let result = bingo(&[
        "run_server",
        "--allow-root",
        "--config",
        &config,
        "--log-file",
        &log,
    ]);
    assert_eq!(result.code, 64);
    let missing = folder.path("missing").display().to_string();
    for part in [
        format!("error: open the log file {log}: its folder {missing} does not exist"),
        format!("help: create it: mkdir -p {missing}"),
    ] {
        assert!(result.stderr.contains(&part), "{}", result.stderr);
    }
}

#[test]
fn without_the_right_to_write_the_folder_is_named_with_its_owner() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can become somebody who may not.
    }
    let folder = Folder::new("owner");
    let config = folder.write("config.yaml", "");
    let log = folder.path("main.log").display().to_string();
    let arguments = ["run_server", "--config", &config, "--log-file", &log];
    let result = folder.bingo_as_nobody(&arguments);
    assert_eq!(result.code, 64, "{}", result.stderr);
    for part in [
        "belongs to root with mode 0755, and this process runs as nobody",
        "chown nobody",
    ] {
        assert!(result.stderr.contains(part), "{}", result.stderr);
    }

    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&config, closed).unwrap();
    let result = folder.bingo_as_nobody(&["run_server", "--config", &config]);
    assert_eq!(result.code, 64);
    assert!(
        result.stderr.contains("Permission denied"),
        "{}",
        result.stderr
    );
    assert!(
        result.stderr.contains("help: let this user read it"),
        "{}",
        result.stderr
    );
}
