//! `bingo top` where there is nothing to show or nowhere to show it.

use crate::cli::rig::{Folder, bingo};

#[test]
fn a_folder_without_an_installation_is_named_with_the_remedy() {
    let folder = Folder::new("top");
    let dir = folder.path("none").display().to_string();
    for arguments in [
        ["top", "--dir", &dir].as_slice(),
        ["top", "--dir", &dir, "--once"].as_slice(),
        ["top", "--dir", &dir, "--json"].as_slice(),
    ] {
        let result = bingo(arguments);
        assert_eq!(result.code, 3, "{arguments:?}");
        assert!(result.stderr.contains(&dir), "{}", result.stderr);
        assert!(result.stderr.contains("help: name its folder with --dir"));
    }
}

#[test]
fn an_address_that_cannot_be_asked_is_wrong_usage_and_a_silent_one_is_told() {
    let result = bingo(&["top", "--url", "https://localhost:9090", "--once"]);
    assert_eq!(result.code, 2);
    assert!(result.stderr.contains("no TLS"), "{}", result.stderr);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let result = bingo(&["top", "--url", &format!("http://{address}"), "--once"]);
    assert_eq!((result.code, result.stdout.as_str()), (1, ""));
    assert!(result.stderr.contains(&address), "{}", result.stderr);
}

#[test]
fn without_a_terminal_one_frame_is_the_remedy() {
    let result = bingo(&["top", "--url", "http://127.0.0.1:9"]);
    assert_eq!((result.code, result.stdout.as_str()), (2, ""));
    assert!(
        result.stderr.contains("help: bingo top --once"),
        "{}",
        result.stderr
    );
}
