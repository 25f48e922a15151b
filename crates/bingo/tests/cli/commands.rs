//! Each command's own text and exit code (contract.md section 1).

use crate::cli::rig::{Folder, Node, bingo, bingo_with};

const DEFAULT: &str = "\
student_email: test@example.com
postgres_cluster:
  hosts:
  - address: localhost
    port: 5432
  user: postgres
  password: postgres
  db_name: postgres
  ssl_mode: disable
  use_closest_node: false
";

const STARTED: &str = "\
My congratulations.
You were able to start the server.
Here's a secret code that confirms that you did it.
--------------------------------------------------
code:         yoohoo_server_launched
--------------------------------------------------
";

#[test]
fn without_a_command_it_says_hello_world() {
    let result = bingo(&[]);
    assert_eq!((result.code, result.stdout.as_str()), (0, "Hello world\n"));
}

#[test]
fn help_lists_the_vendors_seven_commands_in_all_three_spellings() {
    for spelling in ["help", "--help", "-h"] {
        let result = bingo(&[spelling]);
        assert_eq!(result.code, 0);
        for command in [
            "completion",
            "help",
            "prepare_db",
            "print_current_config",
            "print_default_config",
            "run_server",
            "version",
        ] {
            let listed = |line: &str| line.trim_start().starts_with(command);
            assert!(
                result.stdout.lines().any(listed),
                "{command}: {}",
                result.stdout
            );
        }
    }
}

#[test]
fn version_is_one_line() {
    let result = bingo(&["version"]);
    assert_eq!(result.code, 0);
    assert_eq!(result.stdout, format!("{}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_default_configuration_is_the_vendors_byte_for_byte() {
    let result = bingo(&["print_default_config"]);
    assert_eq!((result.code, result.stdout.as_str()), (0, DEFAULT));
}

#[test]
fn each_of_five_shells_gets_a_script_that_names_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let result = bingo(&["completion", shell]);
        assert_eq!(result.code, 0, "{shell}");
        for word in ["run_server", "print_current_config", "allow-root"] {
            assert!(result.stdout.contains(word), "{shell} lacks {word}");
        }
    }
    let folder = Folder::new("completion");
    let script = folder.write("bingo.bash", &bingo(&["completion", "bash"]).stdout);
    let bash = std::process::Command::new("bash")
        .args(["-n", &script])
        .status();
    assert!(bash.unwrap().success());
    assert_eq!(bingo(&["completion", "tcsh"]).code, 2);
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_to_write_instead() {
    for (arguments, help) in [
        (["frobnicate"].as_slice(), "`bingo --help` says"),
        (["version", "--loud"].as_slice(), "`bingo version --help`"),
        (["completion", "tcsh"].as_slice(), "one of bash, elvish"),
        (["completion"].as_slice(), "write bingo completion <SHELL>"),
        (
            ["run_server", "--lisen", "x"].as_slice(),
            "exists: '--listen'",
        ),
        (
            ["run_server", "--listen", "nowhere"].as_slice(),
            "`bingo run_server --help`",
        ),
        (
            ["run_server", "--log-level", "loud"].as_slice(),
            "`bingo run_server --help`",
        ),
        (
            ["print_current_config", "--student-email", "nobody"].as_slice(),
            "`bingo print_current_config --help`",
        ),
    ] {
        let result = bingo(arguments);
        assert_eq!(result.code, 2, "{arguments:?}: {}", result.stderr);
        let lines: Vec<&str> = result.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{}", result.stderr);
        assert!(
            lines[0].starts_with("error: read the command line: "),
            "{}",
            lines[0]
        );
        assert!(
            lines[1].starts_with("help: ") && lines[1].contains(help),
            "{}",
            lines[1]
        );
    }
}

#[test]
fn wrong_variables_are_a_wrong_environment_and_all_named_in_one_run() {
    let environment = [
        ("BINGO_LISTEN", "nowhere"),
        ("BINGO_FAULTS", "operations"),
        ("BINGO_LOG_LEVEL", "loud"),
        ("BINGO_LOG_FORMAT", "xml"),
        ("BINGO_STUDENT_EMAIL", "nobody"),
        ("BINGO_ADMIN_LISTEN", ""),
    ];
    let folder = Folder::new("variables");
    let empty = folder.write("config.yaml", "");
    let result = bingo_with(&["run_server", "--config", &empty], &environment);
    assert_eq!(result.code, 64, "{}", result.stderr);
    let lines: Vec<&str> = result.stderr.lines().collect();
    assert_eq!(lines.len(), 2 * environment.len(), "{}", result.stderr);
    for (variable, _) in environment {
        let at = lines
            .iter()
            .position(|line| line.starts_with(&format!("error: read {variable}: ")))
            .unwrap_or_else(|| panic!("{variable}: {}", result.stderr));
        let remedy = format!("correct {variable} or unset it");
        assert!(lines[at + 1].ends_with(&remedy), "{}", lines[at + 1]);
    }
    // A flag goes before its variable, whatever stands in that.
    let flag = ["run_server", "--allow-root", "--listen", "x"];
    let result = bingo_with(&flag, &[("BINGO_LISTEN", "y")]);
    assert_eq!(result.code, 2, "{}", result.stderr);
    assert!(!result.stderr.contains("BINGO_LISTEN"), "{}", result.stderr);
}

#[test]
fn root_is_refused_with_the_vendors_words_and_a_remedy() {
    if !rustix::process::geteuid().is_root() {
        return; // Nobody else is refused.
    }
    for command in ["run_server", "prepare_db"] {
        let result = bingo(&[command, "--config", "/nonexistent"]);
        assert_eq!(result.code, 64);
        let words = "Didn't your mom teach you not to run anything incomprehensible from root?";
        assert!(result.stderr.contains(words), "{}", result.stderr);
        assert!(result.stderr.contains("--allow-root"), "{}", result.stderr);
    }
}

#[test]
fn a_missing_configuration_names_its_path_and_the_command_that_writes_one() {
    for command in [
        ["run_server", "--allow-root"].as_slice(),
        ["prepare_db", "--allow-root"].as_slice(),
        ["print_current_config"].as_slice(),
    ] {
        let result = bingo_with(command, &[("BINGO_CONFIG", "/nonexistent/config.yaml")]);
        assert_eq!(result.code, 64);
        for part in [
            "error: read the configuration /nonexistent/config.yaml: No such file",
            "help: write one with `mkdir -p /nonexistent && \
             bingo print_default_config > /nonexistent/config.yaml`",
        ] {
            assert!(result.stderr.contains(part), "{}", result.stderr);
        }
    }
}

#[test]
fn an_unreachable_database_names_each_host_and_each_answer() {
    let folder = Folder::new("unreachable");
    let text = "postgres_cluster:\n  hosts:\n  - {address: 127.0.0.1, port: 1}\n  \
                - {address: /nonexistent, port: 2}\n";
    let config = folder.write("config.yaml", text);
    let result = bingo(&["prepare_db", "--allow-root", "--config", &config]);
    assert_eq!(result.code, 1, "{}", result.stderr);
    for part in [
        "127.0.0.1:1: ",
        "refused",
        "/nonexistent/.s.PGSQL.2: ",
        "No such file",
        "help: check that PostgreSQL runs there",
    ] {
        assert!(result.stderr.contains(part), "{part}: {}", result.stderr);
    }
}

#[test]
fn a_server_without_its_database_says_so_at_once_and_once() {
    let folder = Folder::new("absent");
    let text = "student_email: a@b.c\ndrain_delay: 0s\npostgres_cluster:\n  hosts:\n  \
                - {address: 127.0.0.1, port: 1}\n";
    let config = folder.write("config.yaml", text);
    let log = folder.path("main.log");
    let begun = std::time::Instant::now();
    let node = Node::start(
        &["--config", &config, "--log-file", log.to_str().unwrap()],
        &[],
    );
    let told = || std::fs::read_to_string(&log).unwrap();
    while !told().contains("\"WARN\"") {
        assert!(begun.elapsed().as_secs() < 5, "{}", told());
        std::thread::yield_now();
    }
    let (_, stderr) = node.end();
    let lines: Vec<&str> = stderr.lines().filter(|l| l.contains("WARN")).collect();
    let [line] = lines[..] else {
        panic!("{stderr}");
    };
    for part in ["the database is away", "127.0.0.1:1: ", "refused"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
fn a_server_greets_with_the_vendors_texts_and_one_line_of_ours() {
    let folder = Folder::new("greeting");
    let config = folder.write("config.yaml", DEFAULT);
    let node = Node::start(&["--config", &config, "--log-format", "text"], &[]);
    let ours = node.greeting.lines().last().unwrap();
    assert!(ours.contains(", process "), "{ours}");
    assert!(ours.contains(&format!("configuration {config}")), "{ours}");
    let vendors = node.greeting.strip_suffix(&format!("{ours}\n")).unwrap();
    assert!(vendors.ends_with(STARTED), "{vendors}");
    assert!(vendors.contains("google_dns_is_not_http"), "{vendors}");
    let (code, stderr) = node.end();
    assert_eq!(code, 0);
    let warnings = stderr.matches("You are using the default student_email");
    assert_eq!(warnings.count(), 1, "{stderr}");
}
