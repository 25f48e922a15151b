//! Passwords planted wherever one can stand, and everything searched for them: outputs, logs at their
//! most talkative, pages, and the arguments that every user of the machine can read.

use acceptance::http;
use acceptance::signals::wait_until;
use private_postgres::TestServer;

use crate::cli::rig::{Folder, Node, SOON, arguments_of, bingo_with, command};

/// Passwords that open nothing; each source of the real one has these beside it.
const IN_FILE: &str = "canary-config-1f9c";
const IN_PASSWORD_FILE: &str = "canary-password-file-77ab";
const IN_PASSFILE: &str = "canary-passfile-c0de";
const IN_URL: &str = "canary-url-5eed";
const IN_VARIABLE: &str = "canary-variable-ba5e";
const CANARIES: [&str; 5] = [IN_FILE, IN_PASSWORD_FILE, IN_PASSFILE, IN_URL, IN_VARIABLE];

/// What was seen, and by which name.
struct Seen {
    secrets: Vec<String>,
    texts: Vec<(String, String)>,
}

impl Seen {
    fn new(secret: &str) -> Self {
        let canaries = CANARIES.iter().map(|canary| (*canary).to_owned());
        Self {
            secrets: canaries.chain([secret.to_owned()]).collect(),
            texts: Vec::new(),
        }
    }

    fn add(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.texts.push((name.into(), text.into()));
    }

    fn check(&self) {
        for (name, text) in &self.texts {
            for secret in &self.secrets {
                assert!(!text.contains(secret), "{secret} stands in {name}:\n{text}");
            }
        }
    }
}

/// Somebody else may take it before the node does; then the test fails and says so.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A configuration with a password in the file, in `password_file` and in `passfile`.
fn planted(folder: &Folder, port: u16, user: &str) -> String {
    let word = folder.write("word", &format!("{IN_PASSWORD_FILE}\n"));
    let pass = folder.write("pgpass", &format!("*:*:*:*:{IN_PASSFILE}\n"));
    let text = format!(
        "student_email: a@b.c\npostgres_cluster:\n  hosts: [{{address: 127.0.0.1, port: {port}}}]\n  \
         user: {user}\n  password: {IN_FILE}\n  password_file: {word}\n  passfile: {pass}\n  \
         db_name: bingo\n"
    );
    folder.write("config.yaml", &text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_and_a_filling_show_no_password_anywhere() {
    let server = TestServer::start().unwrap();
    let mut seen = Seen::new(server.password());
    let folder = Folder::new("secrets");
    let config = planted(&folder, server.port(), server.user());
    let environment = [("BINGO_POSTGRES_PASSWORD", server.password())];
    let talkative = ["--config", &config, "--log-level", "trace"];

    let small = ["--customers", "50", "--movies", "50", "--sessions", "500"];
    let mut fill = vec!["prepare_db", "--allow-root", "--config", &config];
    fill.extend(small);
    let child = command(&fill, &environment).spawn().unwrap();
    // They are empty for an instant after the start.
    wait_until("prepare_db shows its arguments", SOON, async || {
        arguments_of(child.id()).contains("prepare_db")
    })
    .await
    .unwrap();
    seen.add("the arguments of prepare_db", arguments_of(child.id()));
    let filled = child.wait_with_output().unwrap();
    assert!(filled.status.success(), "{filled:?}");
    for output in [&filled.stdout, &filled.stderr] {
        seen.add("prepare_db", String::from_utf8_lossy(output));
    }

    let log = folder.path("main.log");
    let log_flag = log.display().to_string();
    let admin = format!("127.0.0.1:{}", free_port());
    let mut arguments = vec!["--log-file", &log_flag, "--admin-listen", &admin];
    arguments.extend(talkative);
    let node = Node::start(&arguments, &environment);
    seen.add("the arguments of run_server", node.arguments());
    seen.add("the start-up text", node.greeting.clone());
    for (path, status) in [
        ("/", 200),
        ("/config", 200),
        ("/ready", 200),
        ("/openapi.json", 200),
        ("/docs", 200),
        ("/api/movie/1", 200),
        ("/db_dummy", 200),
        ("/api/movie/x", 400),
    ] {
        let answer = http::get(&format!("{}{path}", node.url)).await.unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        seen.add(path, answer.text());
        if path == "/config" {
            assert!(answer.text().contains("***"), "{}", answer.text());
            assert!(
                answer.text().contains("student_email: a@b.c"),
                "{}",
                answer.text()
            );
        }
    }
    let metrics = http::get(&format!("http://{admin}/metrics")).await.unwrap();
    assert_eq!(metrics.status, 200);
    seen.add("/metrics", metrics.text());
    let (_, stderr) = node.end();
    assert!(
        stderr.lines().count() > 5,
        "every request is logged at debug: {stderr}"
    );
    seen.add("stderr of run_server", stderr);
    seen.add("the log file", std::fs::read_to_string(&log).unwrap());
    seen.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_passwords_and_faulty_files_show_none_either() {
    let server = TestServer::start().unwrap();
    let mut seen = Seen::new(server.password());
    let folder = Folder::new("refused");
    let config = planted(&folder, server.port(), server.user());
    let port = server.port();
    let url = format!("postgresql://bingo:{IN_URL}@127.0.0.1:{port}/bingo");
    let broken_url = format!("postgresql://bingo:{IN_URL}@127.0.0.1:x/bingo");
    let raw_at_url = format!("postgresql://bingo:half@{IN_URL}@127.0.0.1:{port}/bingo");
    let prepare = ["prepare_db", "--allow-root", "--config", &config];
    let current = ["print_current_config", "--config", &config];
    for environment in [
        [].as_slice(),
        [("BINGO_POSTGRES_PASSWORD", IN_VARIABLE)].as_slice(),
        [("BINGO_POSTGRES_URL", url.as_str())].as_slice(),
        [("BINGO_POSTGRES_URL", broken_url.as_str())].as_slice(),
        [("BINGO_POSTGRES_URL", raw_at_url.as_str())].as_slice(),
    ] {
        let refused = bingo_with(&prepare, environment);
        assert_ne!(refused.code, 0, "{environment:?}");
        assert!(refused.stderr.contains("help: "), "{}", refused.stderr);
        seen.add("prepare_db", refused.all());
        let printed = bingo_with(&current, environment);
        if environment.contains(&("BINGO_POSTGRES_URL", raw_at_url.as_str())) {
            assert_eq!(printed.code, 64, "{}", printed.stdout);
            assert!(printed.stderr.contains("%40"), "{}", printed.stderr);
        }
        seen.add("print_current_config", printed.all());
        seen.add("help", bingo_with(&["up", "--help"], environment).all());
        seen.add(
            "help",
            bingo_with(&["run_server", "--help"], environment).all(),
        );
    }
    let node = Node::start(&["--config", &config, "--log-level", "trace"], &[]);
    for path in ["/ready", "/api/movie/1", "/config"] {
        let url = format!("{}{path}", node.url);
        seen.add(path, http::get(&url).await.unwrap().text());
    }
    seen.add("stderr of run_server", node.end().1);
    let parameter = format!("postgresql://bingo@127.0.0.1:{port}/bingo?password={IN_URL}");
    for command in [
        current.as_slice(),
        ["run_server", "--allow-root", "--config", &config].as_slice(),
        prepare.as_slice(),
        ["up", "--detach", "--dir", "/nonexistent"].as_slice(),
        ["doctor", "--dir", "/nonexistent"].as_slice(),
    ] {
        for url in [&url, &parameter] {
            let arguments = [command, &["--postgres-url", url]].concat();
            // A password elsewhere changes nothing: this one was already seen.
            let flag = bingo_with(&arguments, &[("BINGO_POSTGRES_PASSWORD", IN_VARIABLE)]);
            assert_eq!(flag.code, 2, "{command:?}: {}", flag.stderr);
            for part in ["BINGO_POSTGRES_URL", "BINGO_POSTGRES_PASSWORD", "passfile"] {
                assert!(flag.stderr.contains(part), "{part}: {}", flag.stderr);
            }
            seen.add("--postgres-url", flag.all());
        }
    }
    for text in faulty_files() {
        let config = folder.write("faulty.yaml", &text);
        let result = bingo_with(&["print_current_config", "--config", &config], &[]);
        assert_eq!(result.code, 64, "{text}{}", result.stdout);
        seen.add(format!("the faults of {}", text.len()), result.all());
    }
    seen.check();
}

/// Passwords where they belong and where they do not, in files that are refused.
fn faulty_files() -> Vec<String> {
    vec![
        format!("postgres_cluster:\n  pasword: {IN_FILE}\n"),
        format!("postgres_cluster:\n  password: [{IN_FILE}]\n"),
        format!("postgres_cluster:\n  password: {{{IN_FILE}: 1}}\n"),
        format!("postgres_cluster:\n  password: '{IN_FILE}\n"),
        format!("postgres_cluster:\n  password: \"{IN_FILE}\\q\"\n"),
        format!("postgres_cluster:\n  password: {IN_FILE}: x\n"),
        format!("postgres_cluster:\n  password: *{IN_FILE}\n"),
        format!("password: {IN_FILE}\nadmin_token: {IN_FILE}\n"),
        format!("postgres_cluster:\n  hosts:\n  - address: postgres://u:{IN_FILE}@h/db\n"),
        format!("postgres_cluster:\n  hosts: postgres://u:{IN_FILE}@h/db\n"),
        format!("postgres_cluster: postgres://u:{IN_FILE}@h/db\n"),
        format!("postgres_cluster: {{user: 'postgres://u:{IN_FILE}@h/db'}}\n"),
        format!("postgres_cluster: {{db_name: 'postgres://u:{IN_FILE}@h/db'}}\n"),
    ]
}

#[test]
#[should_panic(expected = "stands in a page")]
fn a_password_that_is_shown_is_found() {
    let mut seen = Seen::new("the real one");
    seen.add("a page", format!("password: {IN_FILE}"));
    seen.check();
}
