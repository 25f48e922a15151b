//! What is wrong with a configuration beyond the shape of its file: values that cannot stand together,
//! files and databases that cannot be used; each told with its remedy, all in one run.

use std::os::unix::fs::PermissionsExt;

use private_postgres::TestServer;

use crate::cli::rig::{Finished, Folder, Node, bingo, bingo_with, wait_for_text};

const SERVE: [&str; 3] = ["run_server", "--allow-root", "--config"];

/// Each part in a message of its own with a remedy below it, and no message more.
fn assert_told(result: &Finished, parts: &[&str]) {
    assert_eq!(result.code, 64, "{}", result.stderr);
    let lines: Vec<&str> = result.stderr.lines().collect();
    assert_eq!(lines.len(), 2 * parts.len(), "{}", result.stderr);
    for part in parts {
        let is_told = |pair: &[&str]| {
            pair[0].starts_with("error: ") && pair[0].contains(part) && pair[1].len() > 7
        };
        assert!(lines.chunks(2).any(is_told), "{part}: {}", result.stderr);
    }
}

#[test]
fn contradictions_unusable_files_and_faults_of_the_shape_come_in_one_run() {
    let folder = Folder::new("contradictions");
    let word = folder.write("word", "");
    let text = format!(
        "student_email: nobody
long_dummy_duration: 10s
limits: {{deadline: 5s}}
listen: 127.0.0.1:8080
admin_listen: 127.0.0.1:8080
postgres_cluster:
  hosts:
  - {{address: db, port: 1}}
  - {{address: db, port: 1}}
  ssl_mode: verify-full
  ssl_root_cert: /nonexistent/root.crt
  ssl_cert: /nonexistent/own.crt
  ssl_key: /nonexistent/own.key
  password_file: {word}
"
    );
    let config = folder.write("config.yaml", &text);
    let of_values = [
        "line 1, student_email: `nobody`: it has no @",
        "line 2, long_dummy_duration: `10s`: limits.deadline is 5s",
        "line 5, admin_listen: `127.0.0.1:8080`: listen is the same",
        "line 9, postgres_cluster.hosts[1]: `db:1`: the same server is named twice",
    ];
    let of_files = [
        "line 11, postgres_cluster.ssl_root_cert: read /nonexistent/root.crt",
        "line 12, postgres_cluster.ssl_cert: read /nonexistent/own.crt",
        "line 13, postgres_cluster.ssl_key: read /nonexistent/own.key",
        "line 14, postgres_cluster.password_file: read",
    ];
    let all = [of_values, of_files].concat();
    let serve = [&SERVE[..], &[&config]].concat();
    assert_told(&bingo(&serve), &all);
    // Whoever prints it need not be able to read the files.
    let print = ["print_current_config", "--config", &config];
    assert_told(&bingo(&print), &of_values);
    // Faulty variables come with all of it.
    let environment = [
        ("BINGO_LISTEN", "x"),
        ("BINGO_POSTGRES_URL", "postgresql://u:canary@h:y/d"),
    ];
    let result = bingo_with(&serve, &environment);
    let with_variables = ["read BINGO_LISTEN: ", "read BINGO_POSTGRES_URL: "];
    assert_told(&result, &[&of_values[..], &with_variables].concat());
    assert!(!result.all().contains("canary"), "{}", result.all());
}

#[test]
fn a_value_that_is_itself_at_fault_contradicts_nothing() {
    let folder = Folder::new("placeholders");
    let text = "long_dummy_duration: 30s\nlimits: {deadline: '60'}\npostgres_cluster:\n  \
                hosts: [{address: a, port: 0}, {address: a}]\n";
    let config = folder.write("config.yaml", text);
    let result = bingo(&["print_current_config", "--config", &config]);
    assert_told(&result, &["limits.deadline: `60`", "hosts[0].port: `0`"]);
}

#[test]
fn a_url_that_names_a_server_twice_is_refused_as_the_variable() {
    let folder = Folder::new("url-twice");
    let config = folder.write("config.yaml", "");
    let url = "postgresql://u@h:1,h:1/d";
    let result = bingo_with(
        &["print_current_config", "--config", &config],
        &[("BINGO_POSTGRES_URL", url)],
    );
    assert_told(
        &result,
        &["read BINGO_POSTGRES_URL: hosts[1]: the same server"],
    );
}

#[test]
fn a_certificate_that_nothing_uses_is_warned_of() {
    let folder = Folder::new("unused");
    let text = "postgres_cluster: {hosts: [{address: 127.0.0.1, port: 1}], ssl_cert: /a}\n";
    let config = folder.write("config.yaml", text);
    let result = bingo(&["prepare_db", "--allow-root", "--config", &config]);
    assert_eq!(result.code, 1, "{}", result.stderr);
    let warning = "warning: postgres_cluster.ssl_cert: `/a`: it is not used";
    assert!(result.stderr.contains(warning), "{}", result.stderr);
    let node = Node::start(&["--config", &config], &[]);
    let (_, stderr) = node.end();
    assert!(
        stderr.contains("ssl_cert: `/a`: it is not used"),
        "{stderr}"
    );
}

#[test]
fn a_file_in_a_folder_that_is_closed_to_us_is_not_to_be_written_anew() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can become somebody who may not.
    }
    let folder = Folder::new("closed");
    let closed = folder.path("closed");
    std::fs::create_dir(&closed).unwrap();
    let config = folder.write("closed/config.yaml", "");
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    let result = folder.bingo_as_nobody(&["run_server", "--config", &config]);
    assert_eq!(result.code, 64, "{}", result.stderr);
    for part in [
        "Permission denied",
        "let this user read it and enter its folders",
    ] {
        assert!(result.stderr.contains(part), "{}", result.stderr);
    }
    assert!(
        !result.stderr.contains("print_default_config"),
        "{}",
        result.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_database_is_told_in_the_log_with_its_remedy() {
    let server = TestServer::start().unwrap();
    let folder = Folder::new("remedies");
    let (port, user) = (server.port(), server.user());
    let environment = [("BINGO_POSTGRES_PASSWORD", server.password())];
    let alive = format!("{{address: 127.0.0.1, port: {port}}}");
    for (name, cluster, remedies) in [
        (
            "database",
            format!("hosts: [{alive}], user: {user}, db_name: nodb"),
            ["createdb"].as_slice(),
        ),
        (
            "user",
            format!("hosts: [{alive}], user: nobody, db_name: bingo"),
            &["correct user and password"],
        ),
        (
            "encryption",
            format!("hosts: [{alive}], user: {user}, db_name: bingo, ssl_mode: require"),
            &["switch ssl on", "prefer or disable"],
        ),
        (
            "beside",
            format!(
                "hosts: [{alive}, {{address: 127.0.0.1, port: 1}}], user: {user}, db_name: bingo"
            ),
            &[
                "127.0.0.1:1: ",
                "the others serve",
                "check that PostgreSQL runs",
            ],
        ),
    ] {
        let config = format!("postgres_cluster: {{{cluster}}}\n");
        let config = folder.write(&format!("{name}.yaml"), &config);
        let log = folder.path(&format!("{name}.log"));
        let log_flag = log.display().to_string();
        let arguments = ["--config", &config, "--log-file", &log_flag];
        let node = Node::start(&arguments, &environment);
        for remedy in remedies {
            wait_for_text(&log, remedy).await;
        }
        drop(node);
    }
}
