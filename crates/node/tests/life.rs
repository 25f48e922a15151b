//! How a node starts, meets trouble and ends.

mod fixture;

use std::time::{Duration, Instant};

use fixture::{Node, config, connect, database, json, psql, request, until, whole};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use node::{Config, Limits};
use storage::{Host, PostgresCluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A cluster where nobody listens.
fn nowhere() -> Config {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    Config {
        postgres_cluster: PostgresCluster {
            hosts: vec![Host::new("127.0.0.1", free.local_addr().unwrap().port())],
            ..PostgresCluster::default()
        },
        drain_delay: Duration::ZERO,
        limits: Limits {
            deadline: Duration::from_millis(300),
            ..Limits::default()
        },
        ..Config::default()
    }
}

#[tokio::test]
async fn a_node_without_a_database_serves_at_once_and_says_what_is_missing() {
    let start = Instant::now();
    let node = Node::start(nowhere());
    assert_eq!(node.get("/ping").await.body, "pong");
    assert!(
        start.elapsed() < Duration::from_millis(100),
        "{:?}",
        start.elapsed()
    );
    for path in ["/ready", "/db_dummy", "/api/movie", "/api/session/1"] {
        let answer = node.get(path).await;
        assert_eq!(answer.problem(503), "database-unavailable");
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(
        node.post("/operation", "{\"operation\":1}").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_node_serves_again_when_its_database_is_back() {
    let mut server = database().await;
    let node = Node::start(Config {
        limits: Limits {
            database_wait: Duration::from_millis(400),
            ..Limits::default()
        },
        ..config(&server)
    });
    assert_eq!(node.get("/api/movie/1").await.status, StatusCode::OK);
    server.stop();
    let asked = Instant::now();
    let answer = node.get("/api/movie/1").await;
    assert_eq!(answer.problem(503), "database-unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    // The limit for the database and not the one for the whole request.
    let waited = asked.elapsed();
    assert!((400..5_000).contains(&waited.as_millis()), "{waited:?}");
    let mut admin = connect(node.admin).await.unwrap();
    let metrics = admin.send_request(request(Method::GET, "/metrics"));
    let metrics = whole(metrics.await.unwrap()).await.body;
    assert!(
        metrics.contains("bingo_limit_hits_total{limit=\"database_wait\"} 1"),
        "{metrics}"
    );
    server.restart().unwrap();
    until(
        async || node.get("/api/movie/1").await,
        |answer| answer.status == StatusCode::OK,
    )
    .await;
    for path in ["/api/session?limit=5", "/db_dummy", "/ready"] {
        assert_eq!(node.get(path).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_database_without_tables_is_not_ready() {
    let server = private_postgres::TestServer::start().unwrap();
    let node = Node::start(config(&server));
    assert_eq!(
        node.get("/ready").await.problem(503),
        "database-not-prepared"
    );
    assert_eq!(
        node.get("/api/movie").await.problem(503),
        "database-not-prepared"
    );
}

#[tokio::test]
async fn the_smaller_of_the_limits_of_time_ends_a_request() {
    let server = database().await;
    let node = Node::start(Config {
        long_dummy_duration: Duration::from_secs(60),
        limits: Limits {
            deadline: Duration::from_millis(150),
            ..Limits::default()
        },
        ..config(&server)
    });
    assert_eq!(node.get("/long_dummy").await.problem(504), "deadline");
    let mut hurried = request(Method::GET, "/db_dummy");
    hurried
        .headers_mut()
        .insert("bingo-timeout-ms", "20".parse().unwrap());
    assert_eq!(node.send(hurried).await.problem(504), "deadline");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let node = Node::start(Config {
        limits: Limits {
            body_timeout: Duration::from_millis(50),
            ..Limits::default()
        },
        ..nowhere()
    });
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let head = "POST /operation HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_list_that_breaks_off_ends_without_its_final_chunk() {
    let mut server = database().await;
    psql(
        &server,
        "INSERT INTO sessions (start_time, customer_id, movie_id) \
         SELECT start_time, customer_id, movie_id FROM sessions, generate_series(1, 19)",
    );
    let node = Node::start(config(&server));
    let mut connection = connect(node.address).await.unwrap();
    let response = connection
        .send_request(request(Method::GET, "/api/session"))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"[{\"id\":"));
    // We read no further, so the list cannot have been sent as a whole.
    server.stop();
    assert!(body.collect().await.is_err());
}

#[tokio::test]
async fn a_client_that_leaves_a_list_frees_its_connection() {
    let server = database().await;
    psql(
        &server,
        "INSERT INTO sessions (start_time, customer_id, movie_id) \
         SELECT start_time, customer_id, movie_id FROM sessions, generate_series(1, 19)",
    );
    let node = Node::start(config(&server));
    // More than there are connections for lists.
    for _ in 0..4 {
        let mut connection = connect(node.address).await.unwrap();
        let response = connection
            .send_request(request(Method::GET, "/api/session"))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    let lists = "SELECT count(*) FROM pg_stat_activity \
                 WHERE application_name = 'bingo/lists' AND state = 'active'";
    until(async || psql(&server, lists), |count| count.trim() == "0").await;
    assert_eq!(node.get("/api/movie?limit=1").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_stops_reading_is_broken_off() {
    let server = database().await;
    psql(
        &server,
        "INSERT INTO sessions (start_time, customer_id, movie_id) \
         SELECT start_time, customer_id, movie_id FROM sessions, generate_series(1, 19)",
    );
    let node = Node::start(Config {
        limits: Limits {
            stall_timeout: Duration::from_millis(100),
            ..Limits::default()
        },
        ..config(&server)
    });
    let mut connection = connect(node.address).await.unwrap();
    let response = connection
        .send_request(request(Method::GET, "/api/session"))
        .await
        .unwrap();
    let lists = "SELECT count(*) FROM pg_stat_activity \
                 WHERE application_name = 'bingo/lists' AND state = 'active'";
    until(async || psql(&server, lists), |count| count.trim() == "0").await;
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_draining_node_tells_its_probes_finishes_its_requests_and_returns() {
    let server = database().await;
    let node = Node::start(Config {
        long_dummy_duration: Duration::from_millis(700),
        ..config(&server)
    });
    let mut idle = connect(node.address).await.unwrap();
    let answer = whole(
        idle.send_request(request(Method::GET, "/ping"))
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(answer.body, "pong");
    let unused = TcpStream::connect(node.address).await.unwrap();
    let mut busy = connect(node.address).await.unwrap();
    let long = tokio::spawn(busy.send_request(request(Method::GET, "/long_dummy")));
    let active = async || {
        let mut admin = connect(node.admin).await.unwrap();
        whole(
            admin
                .send_request(request(Method::GET, "/metrics"))
                .await
                .unwrap(),
        )
        .await
    };
    until(active, |metrics| {
        metrics.body.contains("http_server_active_requests 1")
    })
    .await;

    let start = Instant::now();
    node.shutdown.request();
    let probe = until(
        async || node.get("/ping").await,
        |probe| probe.status != StatusCode::OK,
    )
    .await;
    assert_eq!(probe.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(probe.body, "I feel bad");
    assert_eq!(probe.header("bingo-state"), "draining");
    // Still accepting, but no connection is kept.
    let late = node.post("/operation", "{\"operation\":1}").await;
    assert_eq!(late.status, StatusCode::OK);
    assert_eq!(late.header("connection"), "close");
    assert_eq!(node.get("/ready").await.problem(503), "draining");

    let long = whole(long.await.unwrap().unwrap()).await;
    assert_eq!(long.status, StatusCode::OK);
    assert_eq!(long.header("connection"), "close");
    node.running.await.unwrap().unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(TcpStream::connect(node.address).await.is_err());
    assert!(TcpStream::connect(node.admin).await.is_err());
    drop((idle, unused));
}

#[tokio::test]
async fn a_node_with_an_inherited_listener_stops_accepting_at_once() {
    let node = Node::start_with(
        Config {
            drain_delay: Duration::from_secs(60),
            ..nowhere()
        },
        true,
    );
    assert_eq!(node.get("/ping").await.body, "pong");
    node.shutdown.request();
    tokio::time::timeout(fixture::PATIENCE, node.running)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_is_not_finished_by_the_drain_deadline_is_broken_off() {
    let node = Node::start(Config {
        long_dummy_duration: Duration::from_secs(15),
        drain_deadline: Duration::from_millis(100),
        ..nowhere()
    });
    let mut busy = connect(node.address).await.unwrap();
    let long = tokio::spawn(busy.send_request(request(Method::GET, "/long_dummy")));
    let active = async || {
        let mut admin = connect(node.admin).await.unwrap();
        whole(
            admin
                .send_request(request(Method::GET, "/metrics"))
                .await
                .unwrap(),
        )
        .await
    };
    until(active, |metrics| {
        metrics.body.contains("http_server_active_requests 1")
    })
    .await;
    node.shutdown.request();
    tokio::time::timeout(fixture::PATIENCE, node.running)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(long.await.unwrap().is_err());
}

#[tokio::test]
async fn an_unusable_configuration_fails_at_once_with_its_key() {
    let node = Node::start(Config {
        postgres_cluster: PostgresCluster {
            hosts: Vec::new(),
            ..PostgresCluster::default()
        },
        ..Config::default()
    });
    let failure = node.running.await.unwrap().unwrap_err();
    assert_eq!(failure.exit, chassis::Exit::Configuration);
    assert!(
        failure.to_string().contains("postgres_cluster.hosts"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_keyed_write_outlives_the_node_that_took_it() {
    let server = database().await;
    let (first, second) = (Node::start(config(&server)), Node::start(config(&server)));
    let body = r#"{"start_time":"2021-12-09T16:12:52Z","customer_id":1,"movie_id":1}"#;
    let keyed = || json("/api/session", body, &[("idempotency-key", "k")]);
    let answer = first.send(keyed()).await;
    first.running.abort();
    assert_eq!(second.send(keyed()).await.body, answer.body);
    assert_eq!(
        psql(&server, "SELECT count(*) FROM sessions").trim(),
        "5001"
    );
}
