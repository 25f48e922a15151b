//! `bingo top` and the summary under a foreground `bingo up`, on terminals of their own, over a real
//! installation.

mod e2e {
    #[allow(dead_code)] // each test binary uses its part
    pub(crate) mod installation;
    pub(crate) mod terminal;
}

use std::process::Child;
use std::time::Duration;

use acceptance::signals::{self, Signal, wait_until};
use e2e::installation::{Installation, Rows};
use e2e::terminal::Terminal;

const SOON: Duration = Duration::from_secs(30);
/// The other screen and back, the cursor shown again (xterm's 1049, ECMA-48).
const OTHER_SCREEN: &str = "\x1b[?1049h";
const FIRST_SCREEN: &str = "\x1b[?1049l";
const CURSOR: &str = "\x1b[?25h";

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_is_watched_in_terminals_until_it_ends() {
    let installation = Installation::new("top", Rows::tiny());
    let foreground = Terminal::new(100, 40);
    let mut up = foreground.start(&mut installation.command(&["up"]));
    foreground.shows("ready; try: curl", 1).await;
    foreground.shows("as of ", 2).await;
    foreground.shows("Ctrl-C ends everything", 2).await;
    assert!(foreground.is_as_found(), "Ctrl-C must stay a signal");
    assert!(!foreground.text().contains(OTHER_SCREEN));
    one_frame_as_text_has_each_part(&installation);
    without_a_terminal_the_remedy_is_named(&installation);

    let mut terminal = Terminal::new(80, 24);
    let mut top = terminal.start(&mut installation.command_as_given(&["top"]));
    terminal.shows("as of ", 1).await;
    assert!(terminal.text().starts_with(OTHER_SCREEN));
    assert!(!terminal.is_as_found());
    terminal.press("?");
    terminal.shows("closes", 1).await;
    terminal.press("q");
    assert_ended(&terminal, &mut top);

    let terminal = Terminal::new(80, 24);
    let mut top = terminal.start(&mut installation.command_as_given(&["top"]));
    terminal.shows("as of ", 1).await;
    signals::kill(&signals::process(top.id()).unwrap(), Signal::Terminate).unwrap();
    assert_ended(&terminal, &mut top);

    why_a_node_was_started_again_is_told(&installation).await;
    let mut terminal = Terminal::new(120, 50);
    let mut top = terminal.start(&mut installation.command_as_given(&["top"]));
    terminal.shows("as of ", 1).await;
    signals::kill(&signals::process(up.id()).unwrap(), Signal::Interrupt).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(0));
    installation_is_gone(&installation, &top);
    terminal.shows("Connection lost", 1).await;
    terminal.press("\x03");
    assert_ended(&terminal, &mut top);
}

fn one_frame_as_text_has_each_part(installation: &Installation) {
    let frame = installation.run_as_given(&["top", "--once"]);
    assert_eq!(frame.code, 0, "{}", frame.stderr);
    assert!(!frame.stdout.contains('\x1b'));
    for words in [
        "as of ",
        "requests/s",
        "GET /api/movie/{id}",
        "node-2",
        "gateway-2",
        "prepare_db",
        "primary",
        "Machine",
        "retry budget",
        "Events",
    ] {
        assert!(frame.stdout.contains(words), "{words}: {}", frame.stdout);
    }
    let picture = installation.run_as_given(&["top", "--json"]);
    let picture: serde_json::Value = serde_json::from_str(&picture.stdout).unwrap();
    assert_eq!(picture["nodes"][0]["state"], "healthy");
    let port = installation.status()["urls"]["dashboard"].clone();
    let url = port.as_str().unwrap();
    let other = installation.run_as_given(&["top", "--once", "--url", url]);
    assert!(other.stdout.contains("as of "), "{}", other.stderr);
}

fn without_a_terminal_the_remedy_is_named(installation: &Installation) {
    let refused = installation.run_as_given(&["top"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(refused.stderr.contains("--once"), "{}", refused.stderr);
}

async fn why_a_node_was_started_again_is_told(installation: &Installation) {
    installation.kill("node-1", Signal::Kill);
    installation.wait_restarted("node-1", 1).await;
    wait_until("the frame says why", SOON, async || {
        let frame = installation.run_as_given(&["top", "--once"]);
        let is_told = |line: &str| line.starts_with("node-1") && line.contains("SIGKILL");
        frame.stdout.lines().any(is_told)
    })
    .await
    .unwrap();
}

fn installation_is_gone(installation: &Installation, top: &Child) {
    let left = installation.processes();
    let others = left.iter().filter(|process| process.pid != top.id());
    assert_eq!(others.count(), 0, "{left:?}");
    let frame = installation.run_as_given(&["top", "--once"]);
    assert_eq!(frame.code, 1);
    assert!(
        frame.stderr.contains("it is stopped: bingo up"),
        "{}",
        frame.stderr
    );
}

/// In order, and the terminal is as it was.
fn assert_ended(terminal: &Terminal, top: &mut Child) {
    assert_eq!(top.wait().unwrap().code(), Some(0), "{}", terminal.text());
    assert!(terminal.is_as_found());
    let text = terminal.text();
    let (_, after) = text.rsplit_once(OTHER_SCREEN).unwrap();
    for code in [FIRST_SCREEN, CURSOR] {
        assert!(after.contains(code), "{code:?}: {text}");
    }
}
