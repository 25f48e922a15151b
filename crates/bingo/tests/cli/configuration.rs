//! Faulty configuration files, and what goes before what.

use crate::cli::rig::{Folder, bingo, bingo_with};

#[test]
fn six_faults_are_six_messages_in_one_run_with_exit_64() {
    let folder = Folder::new("faults");
    let text = "\
student_email: nobody
postgres_cluster:
  hosts:
  - address: localhost
    port: 70000
  usr: postgres
  password: [canary]
  ssl_mode: requier
limits:
  deadline: '20'
";
    let config = folder.write("config.yaml", text);
    for command in [
        ["print_current_config"].as_slice(),
        ["prepare_db", "--allow-root"].as_slice(),
        ["run_server", "--allow-root"].as_slice(),
    ] {
        let result = bingo_with(command, &[("BINGO_CONFIG", config.as_str())]);
        assert_eq!(result.code, 64);
        assert_eq!(result.stdout, "");
        let lines: Vec<&str> = result.stderr.lines().collect();
        let expected = [
            (
                "line 1, student_email: `nobody`: it has no @",
                "name@example.com",
            ),
            (
                "line 5, postgres_cluster.hosts[0].port: `70000`: it is above 65535",
                "1 to 65535",
            ),
            (
                "line 6, postgres_cluster.usr: there is no such key",
                "`user`",
            ),
            (
                "line 7, postgres_cluster.password: `***`: it is a list",
                "one value",
            ),
            (
                "line 8, postgres_cluster.ssl_mode: `requier`: there is no such word",
                "`require`",
            ),
            (
                "line 10, limits.deadline: `20`: it has no unit",
                "like 250ms",
            ),
        ];
        assert_eq!(lines.len(), 2 * expected.len(), "{}", result.stderr);
        for (pair, (error, help)) in lines.chunks(2).zip(expected) {
            assert!(
                pair[0].starts_with(&format!("error: read {config} {error}")),
                "{pair:?}"
            );
            assert!(
                pair[1].starts_with("help: ") && pair[1].contains(help),
                "{pair:?}"
            );
        }
    }
}

#[test]
fn broken_yaml_is_one_message_with_line_and_column() {
    let folder = Folder::new("broken");
    let config = folder.write("config.yaml", "student_email: a@b.c\npostgres_cluster: [\n");
    let result = bingo(&["print_current_config", "--config", &config]);
    assert_eq!(result.code, 64);
    assert_eq!(
        result.stderr.matches("error: ").count(),
        1,
        "{}",
        result.stderr
    );
    let start = format!("error: parse {config} at line 2, column 19: ");
    assert!(result.stderr.starts_with(&start), "{}", result.stderr);
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
    let folder = Folder::new("precedence");
    let empty = folder.write("empty.yaml", "");
    let text = "student_email: file@example.com\nlisten: 127.0.0.1:1\n\
                postgres_cluster: {user: file, password: canary, ssl_mode: require, max_replica_lag: 7s}\n";
    let config = folder.write("config.yaml", text);
    let shown = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut all = vec!["print_current_config"];
        all.extend(arguments);
        let result = bingo_with(&all, environment);
        assert_eq!(result.code, 0, "{}", result.stderr);
        result.stdout
    };
    let environment = [
        ("BINGO_CONFIG", config.as_str()),
        ("BINGO_STUDENT_EMAIL", "environment@example.com"),
        ("BINGO_LISTEN", "127.0.0.1:2"),
        (
            "BINGO_POSTGRES_URL",
            "postgresql://environment@db:6000/films",
        ),
    ];
    let flags = [
        "--student-email",
        "flag@example.com",
        "--listen",
        "127.0.0.1:3",
        "--postgres-url",
        "postgresql://flag@db/films",
    ];
    let default = shown(&["--config", &empty], &[]);
    assert!(
        default.contains("student_email: test@example.com"),
        "{default}"
    );
    assert!(!default.contains("\nlisten:"), "{default}");
    let file = shown(&[], &environment[..1]);
    for part in [
        "file@example.com",
        "listen: 127.0.0.1:1",
        "user: file",
        "max_replica_lag: 7s",
    ] {
        assert!(file.contains(part), "{file}");
    }
    let laid_over = shown(&[], &environment);
    for part in [
        "environment@example.com",
        "listen: 127.0.0.1:2",
        "user: environment",
        "port: 6000",
        "ssl_mode: require",
        "max_replica_lag: 7s",
    ] {
        assert!(laid_over.contains(part), "{laid_over}");
    }
    assert!(!laid_over.contains("password"), "{laid_over}");
    let flagged = shown(&flags, &environment);
    for part in [
        "flag@example.com",
        "listen: 127.0.0.1:3",
        "user: flag",
        "port: 5432",
    ] {
        assert!(flagged.contains(part), "{flagged}");
    }
}

#[test]
fn what_is_printed_as_current_is_a_configuration_again() {
    let folder = Folder::new("again");
    let default = folder.write("default.yaml", &bingo(&["print_default_config"]).stdout);
    let first = bingo(&["print_current_config", "--config", &default]);
    let written = folder.write("current.yaml", &first.stdout);
    let second = bingo(&["print_current_config", "--config", &written]);
    assert_eq!(second.stdout, first.stdout);
}

#[test]
fn a_faulty_gateway_file_is_told_whole() {
    let folder = Folder::new("gateway");
    let text = "\
listen: [{adress: '127.0.0.1:1'}]
nodes: []
probe: {rise: two, path: ping}
routs: []
";
    let config = folder.write("gateway.yaml", text);
    let result = bingo(&["gateway", "--check", &config]);
    assert_eq!(result.code, 64);
    for part in [
        "line 1, listen[0].adress: there is no such key",
        "line 2, nodes: `a list`: the list has too few entries",
        "line 3, probe.rise: `two`: it is no whole number",
        "line 3, probe.path: `ping`: it is no path",
        "line 4, routs: there is no such key",
        "routes: it is missing",
    ] {
        assert!(result.stderr.contains(part), "{part}: {}", result.stderr);
    }
    let result = bingo(&["gateway", "--check", &config, "--json"]);
    assert_eq!((result.code, result.stderr.as_str()), (64, ""));
    let found: serde_json::Value = serde_json::from_str(&result.stdout).unwrap();
    assert_eq!(found["faults"].as_array().unwrap().len(), 7, "{found}");
}

#[test]
fn a_gateway_file_without_faults_is_warned_of_its_risks() {
    let folder = Folder::new("risks");
    let text = "\
listen: [{address: '127.0.0.1:1'}]
admin: {listen: '127.0.0.1:2'}
nodes: [{name: a, address: '127.0.0.1:3'}]
limits: {connections_max: 10}
routes:
- {methods: [POST], path: /a, retry: always, class: write}
";
    let config = folder.write("gateway.yaml", text);
    let result = bingo(&["gateway", "--check", &config]);
    assert_eq!((result.code, result.stderr.as_str()), (0, ""));
    let lines: Vec<&str> = result.stdout.lines().collect();
    for (line, key) in [(0, "admin.token_file:"), (2, "line 3, nodes: `a`")] {
        let expected = format!("warning: {config} {key}");
        assert!(lines[line].starts_with(&expected), "{lines:?}");
        assert!(lines[line + 1].starts_with("help: "), "{lines:?}");
    }
    assert!(
        lines[4].contains("line 6, routes[0].retry: `always`"),
        "{lines:?}"
    );
    assert_eq!(lines.last(), Some(&format!("{config}: no faults").as_str()));
    let result = bingo(&["gateway", "--check", &config, "--json"]);
    let found: serde_json::Value = serde_json::from_str(&result.stdout).unwrap();
    assert_eq!(
        (result.code, found["warnings"].as_array().unwrap().len()),
        (0, 3)
    );
}
