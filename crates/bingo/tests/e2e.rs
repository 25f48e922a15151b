//! The whole installation from outside: real processes, a real PostgreSQL, real signals. Each test has
//! a folder, ports and data of its own; a failed one leaves its logs and says where.

mod e2e {
    #[allow(dead_code)] // each test binary uses its part
    pub(crate) mod installation;
    pub(crate) mod processes;
    mod scale;
}

use std::time::{Duration, Instant};

use acceptance::http;
use acceptance::load::{self, Plan};
use acceptance::signals::{self, Signal, wait_until};
use e2e::installation::{Installation, ROWS, Rows};
use e2e::processes;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_goes_from_nothing_to_ready_and_back_to_nothing() {
    let mut installation = Installation::new("whole", Rows::full());
    let status = installation.up(&["--detach"]).await;
    assert_eq!(status["state"], "ready");
    assert_eq!(
        http::get(&installation.url("/ping")).await.unwrap().text(),
        "pong"
    );
    assert_eq!(installation.counts(), Rows::full().counts());
    assert_eq!(installation.keys(), "3 primary, 2 foreign");
    // Who writes the logs owns their folder, and has no right beside that.
    let root_children: Vec<_> = installation
        .children()
        .into_iter()
        .filter(|p| p.uid == 0 && !processes::is_powerless_scribe(p))
        .collect();
    if installation.is_root() {
        assert!(root_children.is_empty(), "{root_children:?}");
    }
    list_in_the_databases_order(&installation).await;
    the_gateways_obey_the_token(&installation, &status).await;
    let pids = installation.pids();
    installation.up(&["--detach"]).await;
    assert_eq!(installation.pids(), pids, "a second up restarts nothing");
    let other = installation.run(&["up", "--detach", "--nodes", "3", "--gateways", "3"]);
    assert_eq!(other.code, 64);
    assert!(
        other
            .stderr
            .contains("--gateways: runs with 2, asked for 3"),
        "{}",
        other.stderr
    );

    installation.down();
    assert_eq!(installation.run(&["status"]).code, 3);
    installation.assert_nothing_runs();
    assert!(signals::port_free(installation.http_address()));
    let begun = Instant::now();
    installation.up(&["--detach"]).await;
    println!("second up: {:?}", begun.elapsed());
    assert_eq!(installation.counts(), Rows::full().counts());
    let purged = installation.run(&["down", "--purge", "--yes"]);
    assert_eq!(purged.code, 0, "{}", purged.stderr);
    assert!(!installation.folder().exists());
}

/// Their account can read it, and nothing changes without it.
async fn the_gateways_obey_the_token(installation: &Installation, status: &serde_json::Value) {
    let file = installation.folder().join("run/admin.token");
    let token = std::fs::read_to_string(file).unwrap();
    let processes = status["processes"].as_array().unwrap().iter();
    for gateway in processes.filter(|process| process["role"] == "gateway") {
        let metrics = gateway["metrics"].as_str().unwrap();
        let url = metrics.replace("/metrics", "/api/v1/reload");
        let ask = |header: String| {
            let request = http::Request::new(http::Method::POST, &url);
            request.header("authorization", &header).send()
        };
        assert_eq!(ask("Bearer x".to_owned()).await.unwrap().status, 401);
        let answer = ask(format!("Bearer {}", token.trim())).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

async fn list_in_the_databases_order(installation: &Installation) {
    let answer = http::get(&installation.url("/api/session")).await.unwrap();
    let list = answer.json().unwrap();
    let ids: Vec<String> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 100_000);
    let expected = installation.sql(
        "SELECT s.id FROM sessions s JOIN movies m ON m.id = s.movie_id \
         ORDER BY m.year DESC, m.name ASC, s.customer_id ASC, s.id DESC LIMIT 100000",
    );
    assert!(
        expected.lines().eq(ids.iter().map(String::as_str)),
        "another order"
    );
    for node in installation.processes_of_role("node") {
        let memory = signals::resident_bytes(node).unwrap();
        assert!(memory < 60 << 20, "a node takes {memory} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_killed_under_load_fail_no_request() {
    let mut installation = Installation::new("kill", ROWS);
    installation.up(&["--detach"]).await;
    let plan = Plan {
        duration: Duration::from_secs(10),
        mix: "movie=30,customer=30,session=30,operation=30"
            .parse()
            .unwrap(),
        ids: ROWS.ids(),
        ..Plan::new(http::Base::parse(&installation.url("")).unwrap())
    };
    let load = tokio::spawn(async move { load::run(&plan, |_| ()).await.unwrap() });
    for name in ["node-1", "node-2"] {
        wait_until("the load runs", SOON, async || {
            installation.requests().await > 100
        })
        .await
        .unwrap();
        installation.kill(name, Signal::Kill);
        let back = installation.wait_restarted(name, 1).await;
        println!("{name} back after {back:?}");
    }
    let report = load.await.unwrap();
    println!("{report}");
    assert_eq!(report.failed, 0, "{report}");
    let status = installation.status();
    for process in status["processes"].as_array().unwrap() {
        if process["role"] == "node" {
            assert_eq!(process["restarts"], 1);
            assert_eq!(process["last_restart_reason"], "signal SIGKILL");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_refuses_no_new_connection() {
    let mut installation = Installation::new("gateway", ROWS);
    installation.up(&["--detach"]).await;
    let url = installation.url("/ping");
    let asking = tokio::spawn(async move {
        let mut broken = 0;
        for _ in 0..600 {
            // Each call is a connection of its own; one that a dying gateway had accepted may break.
            match http::get(&url).await {
                Ok(answer) => assert_eq!(answer.text(), "pong"),
                Err(acceptance::error::Error::Connect { .. }) => panic!("a connection was refused"),
                Err(_) => broken += 1,
            }
        }
        broken
    });
    installation.kill("gateway-1", Signal::Kill);
    installation.wait_restarted("gateway-1", 1).await;
    let broken = asking.await.unwrap();
    assert!(broken <= 2, "{broken} connections broke");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_killed_comes_back_without_a_restart_of_nodes() {
    let mut installation = Installation::new("postgres", ROWS);
    installation.up(&["--detach"]).await;
    let nodes = installation.processes_of_role("node");
    installation.kill("postgres", Signal::Kill);
    installation.wait_restarted("postgres", 1).await;
    let url = installation.url("/api/movie/1");
    wait_until("reads succeed again", SOON, async || {
        http::get(&url)
            .await
            .is_ok_and(|answer| answer.status == 200)
    })
    .await
    .unwrap();
    assert_eq!(installation.processes_of_role("node"), nodes);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigkill_of_the_supervisor_the_next_up_starts_anew() {
    let mut installation = Installation::new("supervisor", ROWS);
    installation.up(&["--detach"]).await;
    let before = installation.pids();
    installation.kill("supervisor", Signal::Kill);
    wait_until("status sees it", SOON, async || {
        installation.status()["state"] == "degraded"
    })
    .await
    .unwrap();
    assert_eq!(
        http::get(&installation.url("/ping")).await.unwrap().text(),
        "pong"
    );
    installation.up(&["--detach"]).await;
    let after = installation.pids();
    assert!(
        after.iter().all(|pid| !before.contains(pid)),
        "{before:?} {after:?}"
    );
    let living = installation.processes();
    assert!(
        before
            .iter()
            .all(|pid| living.iter().all(|p| p.pid != *pid)),
        "an orphan"
    );
    assert_eq!(installation.counts(), ROWS.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_first_up_is_finished_by_the_next() {
    let mut installation = Installation::new("half", ROWS);
    let mut first = installation.spawn(&["up"]);
    wait_until("the filling begins", SOON, async || {
        installation.folder().join("logs/prepare_db.log").exists()
    })
    .await
    .unwrap();
    // The supervisor sees that its foreground is gone and ends everything by itself.
    first.kill().unwrap();
    first.wait().unwrap();
    installation.up(&["--detach"]).await;
    assert_eq!(installation.counts(), ROWS.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupt_ends_a_foreground_installation_and_leaves_nothing() {
    let installation = Installation::new("foreground", Rows::tiny());
    let mut up = installation.spawn(&["up"]);
    wait_until("it is ready", SOON, async || {
        installation.status()["state"] == "ready"
    })
    .await
    .unwrap();
    signals::kill(&signals::process(up.id()).unwrap(), Signal::Interrupt).unwrap();
    let status = up.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    installation.assert_nothing_runs();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ups_at_once_make_one_installation() {
    let installation = Installation::new("twice", Rows::tiny());
    let ups = [
        installation.spawn(&["up", "--detach"]),
        installation.spawn(&["up", "--detach"]),
    ];
    for mut up in ups {
        assert_eq!(up.wait().unwrap().code(), Some(0));
    }
    assert_eq!(installation.status()["state"], "ready");
    let supervisors = installation.processes().into_iter();
    let supervisors = supervisors.filter(|p| p.command_line.contains("supervise"));
    assert_eq!(supervisors.count(), 1);
    assert_eq!(installation.counts(), Rows::tiny().counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_installations_run_side_by_side() {
    let mut one = Installation::new("one", Rows::tiny());
    let mut two = Installation::new("two", Rows::tiny());
    one.up(&["--detach"]).await;
    two.up(&["--detach"]).await;
    one.down();
    assert_eq!(
        http::get(&two.url("/api/movie/1")).await.unwrap().status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_port_names_its_holder_and_the_flag() {
    let installation = Installation::new("busy", Rows::tiny());
    let held = std::net::TcpListener::bind(installation.http_address()).unwrap();
    for command in [["up", "--detach"].as_slice(), ["doctor"].as_slice()] {
        let result = installation.run(command);
        assert_eq!(result.code, 64);
        let text = result.stdout + &result.stderr;
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        assert!(text.contains("--http-port"), "{text}");
    }
    drop(held);
    assert!(!installation.folder().join("postgres").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_closed_to_the_childrens_account_is_named_with_its_remedy() {
    let installation = Installation::new("closed", Rows::tiny());
    if !installation.is_root() {
        return; // Only root starts children as somebody else.
    }
    let closed = installation.close_parent();
    let result = installation.run(&["up", "--detach"]);
    assert_eq!(result.code, 64);
    assert!(
        result.stderr.contains(&closed.display().to_string()),
        "{}",
        result.stderr
    );
    assert!(result.stderr.contains("chmod o+x"), "{}", result.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_somebody_else_is_neither_used_nor_removed() {
    let mut installation = Installation::new("foreign", Rows::tiny());
    let folder = installation.folder();
    std::fs::create_dir_all(folder.join("config")).unwrap();
    let theirs = folder.join("config/supervisor.yaml");
    std::fs::write(&theirs, "theirs").unwrap();
    for command in [
        ["up", "--detach"].as_slice(),
        ["down", "--purge", "--yes"].as_slice(),
    ] {
        let result = installation.run(command);
        assert_eq!(result.code, 64);
        assert!(
            result.stderr.contains("no installation of bingo"),
            "{}",
            result.stderr
        );
        assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
    }
    std::fs::remove_dir_all(&folder).unwrap();

    installation.up(&["--detach"]).await;
    std::fs::write(folder.join("notes.txt"), "mine").unwrap();
    assert_eq!(installation.run(&["down", "--purge", "--yes"]).code, 0);
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_killed_at_its_start_leaves_nothing_that_the_next_up_does_not_end() {
    let mut installation = Installation::new("early", Rows::tiny());
    installation.up(&["--detach"]).await;
    installation.down();
    for milliseconds in [0, 4, 8, 12, 16, 24] {
        let mut supervisor = installation.spawn_supervisor();
        // Not to wait for anything: the instant itself is what varies.
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        installation.up(&["--detach"]).await;
        installation.down();
        installation.assert_nothing_runs();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_passwords_are_made_anew() {
    let mut installation = Installation::new("secrets", Rows::tiny());
    installation.up(&["--detach"]).await;
    installation.down();
    std::fs::remove_dir_all(installation.folder().join("run")).unwrap();
    installation.up(&["--detach"]).await;
    assert_eq!(installation.counts(), Rows::tiny().counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_for_two_purposes_is_refused() {
    let installation = Installation::new("ports", Rows::tiny());
    let port = installation.http_address().port().to_string();
    let result = installation.run(&["doctor", "--json"]);
    assert_eq!(result.code, 0, "{}", result.stdout);
    let result = installation.run_as_given(&["up", "--http-port", &port, "--admin-port", &port]);
    assert_eq!(result.code, 64);
    assert!(
        result.stderr.contains("--admin-port are both"),
        "{}",
        result.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_postgresql_is_named_with_the_command_that_installs_it() {
    let installation = Installation::new("binaries", Rows::tiny());
    let result = installation.run(&["up", "--detach", "--postgres-bin", "/nonexistent"]);
    assert_eq!(result.code, 64);
    assert!(
        result.stderr.contains("apt-get install postgresql"),
        "{}",
        result.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_told_at_once_and_not_held_against_the_next_up() {
    let server = private_postgres::TestServer::start().unwrap();
    let mut installation = Installation::new("login", Rows::tiny());
    let wrong = server.url().replace(server.password(), "not-the-password");
    installation.set_variable("BINGO_POSTGRES_URL", &wrong);
    let result = installation.run(&["up", "--detach"]);
    assert_eq!(result.code, 64, "{}", result.stderr);
    assert!(
        result.stderr.contains("log in to the database"),
        "{}",
        result.stderr
    );
    // It goes before the password of the URL.
    installation.set_variable("BINGO_POSTGRES_PASSWORD", server.password());
    installation.up(&["--detach"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_database_is_filled_and_never_stopped() {
    let server = private_postgres::TestServer::start().unwrap();
    let mut installation = Installation::new("existing", ROWS);
    installation.set_variable("BINGO_POSTGRES_URL", &server.url());
    installation.up(&["--detach"]).await;
    assert_eq!(
        http::get(&installation.url("/api/movie/1"))
            .await
            .unwrap()
            .status,
        200
    );
    let secret = server.password();
    for file in installation.readable_files() {
        assert!(
            !file.text.contains(secret),
            "the password stands in {}",
            file.path.display()
        );
    }
    installation.down();
    assert!(signals::pid_alive(server.pid().unwrap()));
}
