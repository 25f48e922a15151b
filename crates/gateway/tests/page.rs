//! The live page's files and what it reads: rates, errors and latency by endpoint, the same at every
//! gateway, bounded whatever clients ask for.

mod rig;

use std::time::Duration;

use http_body_util::BodyExt;
use rig::file::OnFile;
use rig::{Client, Gateway, Upstream, answer, eventually, ok};
use serde_json::Value;

const ROUTES: &str = "
probe: {interval: 20ms}
routes:
- {methods: [GET, POST], path: '/a/{id}', deadline: 5s, retry: never,
   objective: {errors_percent_max: 1, within: 400ms, within_percent_min: 90}}
";

fn failing(target: &str) -> rig::Reply {
    match target.contains("bad") {
        true => rig::Reply::Raw(answer("500 Internal Server Error", "", "")),
        false => ok("fine"),
    }
}

/// Waits for the first answer: a gateway looks around before it has a picture.
async fn json(gateway: &Gateway, path: &str) -> Value {
    eventually(path, async || {
        let answer = Client::connect(gateway.admin).await.get(path).await;
        let is_there = answer.status == 200;
        is_there.then(|| serde_json::from_slice(&answer.body).unwrap())
    })
    .await
}

/// The sum of a column of an endpoint, over the last ten minutes.
fn sum(history: &Value, method: &str, route: &str, column: &str) -> u64 {
    let endpoints = history["endpoints"].as_array().unwrap();
    let found = endpoints
        .iter()
        .find(|one| one["method"] == method && one["route"] == route);
    let column = found.map(|one| one[column].as_array().unwrap().iter());
    column
        .into_iter()
        .flatten()
        .map(|one| one.as_u64().unwrap())
        .sum()
}

/// Waits until an endpoint has so many requests.
async fn counted(gateway: &Gateway, method: &str, route: &str, requests: u64) -> Value {
    eventually("the requests are in the history", async || {
        let history = json(gateway, "/api/v1/history?span=10m").await;
        (sum(&history, method, route, "requests") == requests).then_some(history)
    })
    .await
}

#[tokio::test]
async fn the_page_and_all_that_it_names_are_served_and_nothing_is_loaded_from_elsewhere() {
    let node = Upstream::start(|_| ok("")).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut admin = Client::connect(gateway.admin).await;
    let page = admin.get("/dashboard").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let mut files: Vec<String> = named(&page.text(), "=\"/dashboard/");
    let mut seen = 0;
    while let Some(file) = files.pop() {
        let path = format!("/dashboard/{file}");
        let answer = admin.get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let text = answer.text();
        for elsewhere in [
            "src=\"http",
            "url(http",
            "import(\"http",
            "from \"http",
            " style=\"",
        ] {
            assert!(!text.contains(elsewhere), "{path}: {elsewhere}");
        }
        seen += 1;
        assert!(seen < 100, "modules that name each other");
        if seen < 30 {
            files.extend(named(&text, "from \"./"));
        }
    }
    assert!(seen > 8, "{seen}");
    assert_eq!(admin.get("/").await.header("location"), "/dashboard");
    for path in [
        "/dashboard/",
        "/dashboard/nothing.js",
        "/dashboard/../token",
    ] {
        let wanted = if path == "/dashboard/" { 200 } else { 404 };
        assert_eq!(admin.get(path).await.status, wanted, "{path}");
    }
}

/// What stands behind a mark, up to the quote.
fn named(text: &str, mark: &str) -> Vec<String> {
    let found = text.split(mark).skip(1);
    found
        .filter_map(|rest| rest.split('"').next().map(str::to_owned))
        .filter(|name| name.contains('.'))
        .collect()
}

#[tokio::test]
async fn every_request_shows_with_its_endpoint_and_ten_thousand_unknown_paths_are_one() {
    let node = Upstream::start(|seen| failing(&seen.target)).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    gateway.node_is("node-1", "healthy").await;
    let mut client = gateway.client().await;
    for number in 0..20 {
        let target = if number % 4 == 0 { "bad" } else { "good" };
        client.get(&format!("/a/{target}")).await;
    }
    for number in 0..10_000 {
        client.get(&format!("/unknown/{number}")).await;
    }
    client.post("/a/1", "x").await;
    let history = counted(&gateway, "GET", "other", 10_000).await;
    let history = match sum(&history, "POST", "/a/{id}", "requests") {
        1 => history,
        _ => counted(&gateway, "POST", "/a/{id}", 1).await,
    };
    assert_eq!(sum(&history, "GET", "/a/{id}", "requests"), 20);
    assert_eq!(sum(&history, "GET", "/a/{id}", "errors"), 5);
    assert_eq!(sum(&history, "GET", "other", "refused"), 10_000);
    assert_eq!(history["endpoints"].as_array().unwrap().len(), 3);
    let text = history.to_string();
    assert!(!text.contains("unknown"), "a path is told");
    assert_eq!(history["nodes"][0]["name"], "node-1");
    let picture = json(&gateway, "/api/v1/picture").await;
    assert_eq!(picture["objectives"][0]["route"], "/a/{id}");
    let left = &picture["objectives"][0]["day"]["errors"]["left_percent"];
    assert!(left.as_f64().unwrap() < 0.0, "{left}");
}

#[tokio::test]
async fn a_span_that_does_not_exist_is_refused_with_those_that_do() {
    let node = Upstream::start(|_| ok("")).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut admin = Client::connect(gateway.admin).await;
    for path in [
        "/api/v1/history?span=1y",
        "/api/v1/history?after=x",
        "/api/v1/live?after=-1",
        "/api/v1/gateway?after=",
    ] {
        let refused = admin.get(path).await;
        assert_eq!(refused.status, 400, "{path}");
    }
    let refused = admin.get("/api/v1/history?span=1y").await.text();
    assert!(refused.contains("10m, 2h, 24h"), "{refused}");
}

#[tokio::test]
async fn two_gateways_show_what_both_served_and_a_new_one_has_it_from_them() {
    let node = Upstream::start(|seen| failing(&seen.target)).await;
    let nodes = [("node-1", node.address)];
    let one = OnFile::start(&nodes, ROUTES);
    let two = one.another();
    let peers = format!(
        "peers: ['http://{}', 'http://{}']\n{ROUTES}",
        one.gateway.admin, two.admin
    );
    let peers = peers.replace("\nprobe", "probe");
    one.write(&nodes, &peers);
    assert_eq!(one.reload().await.status, 200);
    one.gateway.node_is("node-1", "healthy").await;
    for gateway in [&one.gateway, &two] {
        for _ in 0..7 {
            gateway.get("/a/1").await;
        }
    }
    counted(&one.gateway, "GET", "/a/{id}", 14).await;
    counted(&two, "GET", "/a/{id}", 14).await;
    let new = one.another();
    counted(&new, "GET", "/a/{id}", 14).await;
    drop(two);
    let problem = eventually("one says that the other is silent", async || {
        let picture = json(&one.gateway, "/api/v1/picture").await;
        let problems = picture["problems"].as_array().unwrap().clone();
        let what = |one: &Value| one["what"].as_str().unwrap().contains("does not answer");
        problems.into_iter().find(what)
    })
    .await;
    assert!(
        problem["since"].as_str().unwrap().starts_with("20"),
        "{problem}"
    );
    let why = problem["why"].as_str().unwrap();
    assert!(why.contains("not in the figures"), "{why}");
    // What it served before is not lost with it.
    counted(&one.gateway, "GET", "/a/{id}", 14).await;
}

#[tokio::test]
async fn a_node_that_dies_is_a_problem_until_it_is_back() {
    let mut node = Upstream::start(|_| ok("")).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    gateway.node_is("node-1", "healthy").await;
    node.kill();
    let problem = |picture: &Value| {
        let problems = picture["problems"].as_array().unwrap();
        let of_node = problems
            .iter()
            .find(|one| one["what"] == "node-1 is ejected");
        of_node.cloned()
    };
    let told = eventually("the page says so, and why", async || {
        let told = problem(&json(&gateway, "/api/v1/picture").await);
        told.filter(|told| !told["why"].as_str().unwrap().is_empty())
    })
    .await;
    assert_eq!(told["weight"], "bad");
    node.revive().await;
    let picture = eventually("it is well again", async || {
        let picture = json(&gateway, "/api/v1/picture").await;
        problem(&picture).is_none().then_some(picture)
    })
    .await;
    let events = picture["events"].as_array().unwrap();
    assert!(
        events.iter().any(|one| one["subject"] == "node-1"),
        "{events:?}"
    );
    assert_eq!(picture["nodes"][0]["state"], "healthy");
}

#[tokio::test]
async fn the_stream_brings_a_picture_and_its_seconds_again_and_again() {
    let node = Upstream::start(|_| ok("")).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let stream = tokio::net::TcpStream::connect(gateway.admin).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/api/v1/live").header("host", "localhost");
    let request = request.body(String::new()).unwrap();
    let mut answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while text.matches("event: picture\n").count() < 3 {
        let frame = tokio::time::timeout(Duration::from_secs(10), answer.frame()).await;
        let frame = frame.expect("a picture each second").unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    assert!(text.matches("event: seconds\n").count() >= 3);
    let events = text
        .split("\n\n")
        .filter_map(|event| event.split_once("data: "));
    for (head, data) in events.filter(|(head, _)| head.contains("event: ")) {
        let value: Value = serde_json::from_str(data).unwrap();
        let key = if head.contains("picture") {
            "problems"
        } else {
            "total"
        };
        assert!(value.get(key).is_some(), "{head}: {data}");
    }
}
