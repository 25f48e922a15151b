//! Each route of contract.md section 3, asked over a real socket, over a real database.

mod fixture;

use fixture::{Node, config, database, json, psql, request};
use http::{Method, StatusCode};
use private_postgres::TestServer;
use serde_json::json as value;

async fn start() -> (TestServer, Node) {
    let server = database().await;
    let node = Node::start(config(&server));
    (server, node)
}

#[tokio::test]
async fn every_answer_has_the_common_headers() {
    let (_server, node) = start().await;
    for path in [
        "/",
        "/ping",
        "/api/movie/1",
        "/api/movie",
        "/nowhere",
        "/api/movie/x",
    ] {
        let answer = node.get(path).await;
        assert!(answer.header("date").ends_with(" GMT"), "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("x-request-id").len(), 36, "{path}");
        assert!(!answer.header("content-type").is_empty(), "{path}");
    }
    let mut named = request(Method::GET, "/");
    named
        .headers_mut()
        .insert("x-request-id", "abc".parse().unwrap());
    assert_eq!(node.send(named).await.header("x-request-id"), "abc");
}

#[tokio::test]
async fn the_texts_are_the_vendors() {
    let (_server, node) = start().await;
    let index = node.get("/").await;
    assert_eq!(index.body.len(), 336);
    assert_eq!(index.header("content-type"), "text/plain; charset=utf-8");
    assert!(index.body.contains("index_page_is_awesome"));
    let ping = node.get("/ping").await;
    assert_eq!((ping.status, ping.body.as_str()), (StatusCode::OK, "pong"));
    assert_eq!(ping.header("content-type"), "text/plain");
    let ready = node.get("/ready").await;
    assert_eq!(
        (ready.status, ready.body.as_str()),
        (StatusCode::OK, "ready")
    );
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_password() {
    let (server, node) = start().await;
    let answer = node.get("/config").await;
    assert_eq!(answer.header("content-type"), "application/yaml");
    assert!(answer.body.contains("student_email: test@example.com"));
    assert!(!answer.body.contains(server.password()), "{}", answer.body);
}

#[tokio::test]
async fn an_operation_is_repeated_with_the_nodes_name_and_clock() {
    let (_server, node) = start().await;
    for operation in [0, 1, i64::MAX] {
        let answer = node
            .post("/operation", &format!("{{\"operation\": {operation}}}"))
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        let body = answer.json();
        assert_eq!(body["operation"], operation);
        assert_eq!(body["host"], "node-\"1\"");
        let time: jiff::Timestamp = body["time"].as_str().unwrap().parse().unwrap();
        let age = jiff::Timestamp::now().duration_since(time);
        assert!((0..10).contains(&age.as_secs()), "{age}");
    }
    for wrong in [
        "",
        "{}",
        "5",
        r#"{"operation":-1}"#,
        r#"{"operation":1.5}"#,
        r#"{"operation":"1"}"#,
        r#"{"operation":9223372036854775808}"#,
        r#"{"operation":1"#,
    ] {
        assert_eq!(
            node.post("/operation", wrong).await.problem(400),
            "bad-request"
        );
    }
    let huge = format!("{{\"operation\": 1{}}}", " ".repeat(70_000));
    assert_eq!(
        node.post("/operation", &huge).await.problem(413),
        "body-too-large"
    );
}

#[tokio::test]
async fn the_dummies_take_their_time_and_only_the_long_one_may_be_cached() {
    let (_server, node) = start().await;
    let start = std::time::Instant::now();
    let answer = node.get("/db_dummy").await;
    assert!(start.elapsed().as_millis() >= 100);
    assert_eq!(answer.json()["host"], "node-\"1\"");
    assert_eq!(answer.header("cache-control"), "no-store");
    let answer = node.get("/long_dummy").await;
    assert!(answer.json()["time"].is_string());
    assert_eq!(answer.header("cache-control"), "public, max-age=60");
}

#[tokio::test]
async fn each_list_is_the_databases_own_json_in_the_databases_own_order() {
    let (server, node) = start().await;
    let movie = "json_build_object('id',m.id,'name',m.name,'year',m.year,'duration',m.duration)";
    let customer = "json_build_object('id',c.id,'name',c.name,'surname',c.surname,\
                    'birthday',c.birthday::text,'email',c.email)";
    let movies = format!("SELECT {movie} FROM movies m ORDER BY year DESC, name ASC, id DESC");
    let customers = format!(
        "SELECT {customer} FROM customers c \
         ORDER BY surname ASC, name ASC, birthday DESC, id DESC"
    );
    let sessions = format!(
        "SELECT json_build_object('id',s.id,'start_time',\
         to_char(start_time,'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),\
         'customer',{customer},'movie',{movie}) FROM sessions s \
         JOIN customers c ON c.id = s.customer_id JOIN movies m ON m.id = s.movie_id \
         ORDER BY m.year DESC, m.name ASC, c.id ASC, s.id DESC"
    );
    for (path, sql) in [
        ("/api/movie", movies),
        ("/api/customer", customers),
        ("/api/session", sessions),
    ] {
        let answer = node.get(path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-type"), "application/json");
        let expected: Vec<serde_json::Value> = psql(&server, &sql)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(expected.len() >= 120);
        assert!(answer.json() == value!(expected), "{path}");
        let two = node.get(&format!("{path}?limit=2")).await;
        assert!(two.json() == value!(expected[..2]), "{path}");
        let one = node.get(&format!("{path}/{}", expected[0]["id"])).await;
        assert_eq!(one.json(), expected[0]);
    }
}

#[tokio::test]
async fn an_empty_list_is_an_empty_array() {
    let (server, node) = start().await;
    psql(&server, "TRUNCATE movies, customers, sessions");
    for path in ["/api/movie", "/api/customer", "/api/session"] {
        assert_eq!(node.get(path).await.body, "[]");
    }
}

#[tokio::test]
async fn wrong_ids_limits_paths_and_methods_are_problems() {
    let (_server, node) = start().await;
    for resource in ["movie", "customer", "session"] {
        for id in ["0", "-1", "2147483647"] {
            let answer = node.get(&format!("/api/{resource}/{id}")).await;
            assert_eq!(answer.problem(404), "not-found");
            assert_eq!(answer.json()["instance"], format!("/api/{resource}/{id}"));
        }
        for id in [
            "x",
            "1.5",
            "+1",
            "1e3",
            "9223372036854775808",
            "%00",
            "%ff",
            "1%20",
        ] {
            let answer = node.get(&format!("/api/{resource}/{id}")).await;
            assert_eq!(answer.problem(400), "bad-request", "{id}");
        }
        for query in [
            "limit=0",
            "limit=100001",
            "limit=x",
            "limit=",
            "limit=1&limit=2",
        ] {
            let answer = node.get(&format!("/api/{resource}?{query}")).await;
            assert_eq!(answer.problem(400), "bad-request", "{query}");
            assert!(answer.body.contains("limit"), "{}", answer.body);
        }
    }
    assert_eq!(
        node.get("/api/movie/2147483648").await.problem(400),
        "bad-request"
    );
    assert_eq!(
        node.get("/api/session/2147483648").await.problem(404),
        "not-found"
    );
    assert_eq!(node.get("/nowhere").await.problem(404), "not-found");
    assert_eq!(node.get("/metrics").await.problem(404), "not-found");
    for (method, path, allow) in [
        (Method::POST, "/ping", "GET, HEAD"),
        (Method::GET, "/operation", "POST"),
        (Method::PUT, "/api/session", "GET, HEAD, POST"),
        (Method::PATCH, "/api/session/1", "GET, HEAD, DELETE"),
    ] {
        let answer = node.send(request(method, path)).await;
        assert_eq!(answer.problem(405), "method-not-allowed");
        assert_eq!(answer.header("allow"), allow);
    }
}

#[tokio::test]
async fn head_works_wherever_get_does() {
    let (_server, node) = start().await;
    for path in [
        "/",
        "/ping",
        "/config",
        "/api/movie/1",
        "/api/session",
        "/db_dummy",
    ] {
        let answer = node.send(request(Method::HEAD, path)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.body, "");
    }
    let index = node.send(request(Method::HEAD, "/")).await;
    assert_eq!(index.header("content-length"), "336");
    let missing = node.send(request(Method::HEAD, "/api/movie/0")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

const BODY: &str =
    r#"{"start_time":"2021-12-09T16:12:52.059188Z","customer_id":100,"movie_id":50}"#;

#[tokio::test]
async fn a_posted_session_is_answered_as_it_is_read_afterwards() {
    let (_server, node) = start().await;
    // The movies' names hold every character that JSON escapes.
    for movie in 1..=6 {
        let body = BODY.replace("50", &movie.to_string());
        let posted = node.post("/api/session", &body).await;
        assert_eq!(posted.status, StatusCode::CREATED, "{}", posted.body);
        assert_eq!(posted.json()["start_time"], "2021-12-09T16:12:52.059188Z");
        assert_eq!(posted.json()["movie"]["id"], movie);
        let location = posted.header("location");
        assert_eq!(location, format!("/api/session/{}", posted.json()["id"]));
        assert_eq!(node.get(location).await.body, posted.body);
    }
}

#[tokio::test]
async fn a_session_that_cannot_be_stored_says_why() {
    let (_server, node) = start().await;
    for wrong in [
        "",
        "[]",
        "{",
        r#"{"start_time":"2021-12-09T16:12:52Z","customer_id":1}"#,
        r#"{"start_time":"yesterday","customer_id":1,"movie_id":1}"#,
        r#"{"start_time":"2021-12-09T16:12:52Z","customer_id":"1","movie_id":1}"#,
        r#"{"start_time":"2021-12-09T16:12:52Z","customer_id":99999999999,"movie_id":1}"#,
    ] {
        assert_eq!(
            node.post("/api/session", wrong).await.problem(400),
            "bad-request"
        );
    }
    for (body, fault) in [
        ("[]", "it is a list"),
        ("{", "it is no JSON"),
        (
            &BODY.replace('}', ",\"seat\":1}"),
            "`seat` is none of its members",
        ),
        (
            &BODY.replace("100", "\"100\""),
            "`customer_id` is an integer",
        ),
    ] {
        let told = node.post("/api/session", body).await.json();
        let detail = told["detail"].as_str().unwrap();
        assert!(detail.contains(fault), "{body}: {detail}");
    }
    let more = node.post("/operation", r#"{"operation":1,"more":1}"#).await;
    assert!(more.body.contains("`more` is none"), "{}", more.body);
    let leap = BODY.replace("16:12:52.059188", "16:12:60");
    let stored = node.post("/api/session", &leap).await.json();
    assert_eq!(stored["start_time"], "2021-12-09T16:13:00.000000Z");
    let unknown = BODY.replace("100", "100000");
    assert_eq!(
        node.post("/api/session", &unknown).await.problem(422),
        "unknown-reference"
    );
    let text = json("/api/session", BODY, &[("content-type", "text/plain")]);
    assert_eq!(node.send(text).await.problem(415), "unsupported-media-type");
    let huge = BODY.replace('}', &format!("{}}}", " ".repeat(70_000)));
    assert_eq!(
        node.post("/api/session", &huge).await.problem(413),
        "body-too-large"
    );
    for key in ["", &"k".repeat(256)] {
        let keyed = json("/api/session", BODY, &[("idempotency-key", key)]);
        assert_eq!(node.send(keyed).await.problem(400), "bad-request");
    }
}

#[tokio::test]
async fn keyed_writes_have_one_effect() {
    let (server, node) = start().await;
    let other = Node::start(config(&server));
    let keyed = |body: &str| json("/api/session", body, &[("idempotency-key", "k")]);
    let first = node.send(keyed(BODY)).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let spelt_otherwise = BODY.replace(':', " : ").replace(" : 12 : 52", ":12:52");
    for repeat in [BODY, &spelt_otherwise] {
        let repeat = other.send(keyed(repeat)).await;
        assert_eq!(repeat.status, StatusCode::CREATED, "{}", repeat.body);
        assert_eq!(repeat.body, first.body);
        assert_eq!(repeat.header("location"), first.header("location"));
    }
    let reused = other.send(keyed(&BODY.replace("100", "101"))).await;
    assert_eq!(reused.problem(422), "idempotency-key-reused");
    assert_eq!(
        psql(&server, "SELECT count(*) FROM sessions").trim(),
        "5001"
    );

    let location = first.header("location");
    let delete = |key: &str| {
        let mut delete = request(Method::DELETE, location);
        delete
            .headers_mut()
            .insert("idempotency-key", key.parse().unwrap());
        delete
    };
    for node in [&node, &other] {
        let answer = node.send(delete("d")).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (StatusCode::NO_CONTENT, "")
        );
    }
    assert_eq!(node.send(delete("e")).await.problem(404), "not-found");
    assert_eq!(
        node.send(delete("k")).await.problem(422),
        "idempotency-key-reused"
    );
    assert_eq!(node.get(location).await.problem(404), "not-found");
    let unkeyed = request(Method::DELETE, "/api/session/7");
    assert_eq!(node.send(unkeyed).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn metrics_name_templates_and_leave_probes_out() {
    let (_server, node) = start().await;
    for path in [
        "/api/movie/1",
        "/api/movie/2",
        "/ping",
        "/ready",
        "/secret-path",
    ] {
        node.get(path).await;
    }
    let mut connection = fixture::connect(node.admin).await.unwrap();
    let answer = connection
        .send_request(request(Method::GET, "/metrics"))
        .await
        .unwrap();
    let metrics = fixture::whole(answer).await;
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let line = "http_server_request_duration_seconds_count{http_route=\"/api/movie/{id}\",\
                http_request_method=\"GET\",http_response_status_code=\"200\",\
                network_protocol_version=\"1.1\"} 2";
    assert!(metrics.body.contains(line), "{}", metrics.body);
    assert!(metrics.body.contains("http_route=\"other\""));
    assert!(metrics.body.contains("http_server_active_requests 0"));
    for absent in ["secret-path", "/ping", "/ready"] {
        assert!(!metrics.body.contains(absent), "{absent}");
    }
}
