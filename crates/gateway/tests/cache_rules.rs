//! What is stored and what never is; who gets it. Every route but one shows a fresh answer each time.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use rig::cached::{FRESH, MINUTE, config, counting, counting_and_gateway, get};
use rig::{Gateway, Reply, Upstream, answer, raw};

#[tokio::test]
async fn what_is_no_plain_200_is_never_stored() {
    for status in [
        "203 Non-Authoritative Information",
        "204 No Content",
        "301 Moved Permanently",
        "404 Not Found",
        "500 Internal Server Error",
        "503 Service Unavailable",
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let node = Upstream::start(move |_| {
            counter.fetch_add(1, SeqCst);
            Reply::Raw(answer(status, FRESH, ""))
        })
        .await;
        let gateway = Gateway::start(&[&node], &config(MINUTE));
        for asked in 1..=3 {
            let answer = get(&gateway, "/cached", &[]).await;
            assert_eq!(answer.status.as_str(), &status[..3]);
            assert_eq!(answer.header("age"), "");
            assert!(count.load(SeqCst) >= asked, "{status}");
        }
    }
}

#[tokio::test]
async fn what_the_node_forbids_is_never_stored() {
    for headers in [
        "",
        "cache-control: public\r\n",
        "cache-control: no-store, max-age=60\r\n",
        "cache-control: max-age=60\r\ncache-control: No-Store\r\n",
        "cache-control: private, max-age=60\r\n",
        "cache-control: no-cache, max-age=60\r\n",
        "cache-control: max-age=0\r\n",
        "expires: 0\r\n",
        "cache-control: max-age=60\r\nvary: *\r\n",
        "cache-control: max-age=60\r\nvary: host\r\n",
        "cache-control: public, max-age=60\r\nset-cookie: a=b\r\n",
    ] {
        let (node, gateway) = counting_and_gateway(headers).await;
        for number in 0..3 {
            let answer = get(&gateway, "/cached", &[]).await;
            assert_eq!(answer.text(), format!("answer {number}"), "{headers}");
            assert_eq!(answer.header("age"), "");
            assert_eq!(answer.header("cache-status"), "bingo; fwd=uri-miss");
        }
        assert_eq!(node.seen().len(), 3);
    }
}

#[tokio::test]
async fn variants_are_stored_by_the_fields_that_vary_names() {
    let node = Upstream::start(|seen| {
        let headers = "cache-control: max-age=60\r\nvary: Accept-Language\r\n";
        let language = seen
            .headers
            .get("accept-language")
            .map_or("none", String::as_str);
        Reply::Raw(answer("200 OK", headers, language))
    })
    .await;
    let gateway = Gateway::start(&[&node], &config(MINUTE));
    for _ in 0..2 {
        for language in ["de", "en", "de, en;q=0.5"] {
            let headers = [("accept-language", language), ("x-other", "1")];
            let answer = get(&gateway, "/cached", &headers).await;
            assert_eq!(answer.text(), language);
            assert_eq!(answer.header("vary"), "Accept-Language");
        }
        assert_eq!(get(&gateway, "/cached", &[]).await.text(), "none");
    }
    assert_eq!(node.seen().len(), 4);
}

#[tokio::test]
async fn an_answer_for_one_who_is_authorized_is_for_others_only_where_the_node_says_so() {
    let mine = [("authorization", "Basic eDp5")];
    let (_node, gateway) = counting_and_gateway("cache-control: max-age=60\r\n").await;
    assert_eq!(get(&gateway, "/cached", &mine).await.text(), "answer 0");
    assert_eq!(get(&gateway, "/cached", &mine).await.text(), "answer 1");
    assert_eq!(get(&gateway, "/cached", &[]).await.text(), "answer 2");
    let (_node, gateway) = counting_and_gateway(FRESH).await;
    assert_eq!(get(&gateway, "/cached", &mine).await.text(), "answer 0");
    assert_eq!(get(&gateway, "/cached", &[]).await.text(), "answer 0");
}

#[tokio::test]
async fn a_client_cannot_send_requests_through_to_the_node_but_may_refuse_to_wait() {
    let (node, gateway) = counting_and_gateway(FRESH).await;
    let none = get(&gateway, "/cached", &[("cache-control", "only-if-cached")]).await;
    assert_eq!(none.status, 504);
    assert!(none.text().contains("/problems/not-cached") && node.seen().is_empty());
    get(
        &gateway,
        "/cached",
        &[("range", "bytes=0-1"), ("if-none-match", "\"x\"")],
    )
    .await;
    for headers in [
        ("cache-control", "no-cache"),
        ("cache-control", "max-age=0"),
        ("cache-control", "only-if-cached"),
        ("pragma", "no-cache"),
        ("range", "bytes=0-1"),
    ] {
        let answer = get(&gateway, "/cached", &[headers]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, "answer 0")
        );
    }
    assert_eq!(node.seen().len(), 1);
    // A body is in no key.
    let mut client = gateway.client().await;
    let fat = client.send("GET", "/cached", &[], "body").await.unwrap();
    assert_eq!((fat.text().as_str(), fat.header("age")), ("answer 1", ""));
    assert_eq!(get(&gateway, "/cached", &[]).await.text(), "answer 0");
}

#[tokio::test]
async fn the_name_that_a_client_calls_the_service_by_reaches_neither_key_nor_node() {
    let (node, gateway) = counting_and_gateway(FRESH).await;
    for host in ["evil.example", "good.example", "localhost:8080"] {
        let request = format!(
            "GET /cached HTTP/1.1\r\nhost: {host}\r\nx-forwarded-host: {host}\r\nconnection: close\r\n\r\n"
        );
        assert!(
            raw(gateway.address, &request)
                .await
                .unwrap()
                .ends_with("answer 0")
        );
    }
    let seen = node.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].headers["host"], node.address.to_string());
    let named = |value: &String| value.contains("example");
    assert!(
        !seen[0].headers.values().any(named),
        "{:?}",
        seen[0].headers
    );
}

#[tokio::test]
async fn a_redirect_is_asked_for_again_under_the_clients_own_host() {
    let node = Upstream::start(|seen| {
        let location = format!("location: http://{}/x\r\n", seen.headers["host"]);
        Reply::Raw(answer("302 Found", &location, ""))
    })
    .await;
    let gateway = Gateway::start(&[&node], &config(MINUTE));
    let answer = get(&gateway, "/cached", &[]).await;
    assert_eq!(answer.header("location"), "http://test.localhost/x");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_passed_through_whole() {
    let chunks = format!("4000\r\n{}\r\n", "x".repeat(0x4000)).repeat(3);
    let chunked =
        format!("HTTP/1.1 200 OK\r\n{FRESH}transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
    let sized = answer("200 OK", FRESH, &"x".repeat(0xC000));
    for bytes in [chunked.into_bytes(), sized] {
        let node = Upstream::start(move |_| Reply::Raw(bytes.clone())).await;
        let gateway = Gateway::start(&[&node], &config(MINUTE));
        for asked in 1..=2 {
            let answer = get(&gateway, "/cached", &[]).await;
            assert_eq!((answer.body.len(), answer.header("age")), (0xC000, ""));
            assert_eq!(node.seen().len(), asked);
        }
        let hits = "bingo_limit_hits_total{limit=\"cache_entry_bytes_max\"}";
        assert_eq!(gateway.metric(hits).await, 1.0);
    }
}

#[tokio::test]
async fn a_write_to_a_target_throws_its_answer_away() {
    let (_node, gateway) = counting_and_gateway(FRESH).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/cached").await.text(), "answer 0");
    assert_eq!(client.get("/cached").await.text(), "answer 0");
    assert_eq!(client.post("/cached", "x").await.text(), "answer 1");
    assert_eq!(client.get("/cached").await.text(), "answer 2");
}

/// What the shipped file says about routes, behind other addresses.
fn shipped() -> &'static str {
    let file = include_str!("../../../deploy/gateway.yaml");
    &file[file.find("\nprobe:").unwrap()..]
}

#[tokio::test]
async fn of_the_shipped_routes_long_dummy_alone_is_stored() {
    let node = counting(FRESH).await;
    let gateway = Gateway::start(&[&node], shipped());
    let mut client = gateway.client().await;
    let paths = [
        "/",
        "/ping",
        "/ready",
        "/config",
        "/openapi.json",
        "/docs",
        "/db_dummy",
        "/api/movie",
        "/api/customer",
        "/api/session",
        "/api/movie/1",
        "/api/customer/1",
        "/api/session/1",
    ];
    for path in paths {
        let (first, second) = (client.get(path).await, client.get(path).await);
        assert_ne!(first.text(), second.text(), "{path}");
        for answer in [first, second] {
            assert_eq!(
                (answer.header("age"), answer.header("cache-status")),
                ("", ""),
                "{path}"
            );
        }
    }
    assert_eq!(node.seen().len(), 2 * paths.len());
    let (first, second) = (
        client.get("/long_dummy").await,
        client.get("/long_dummy").await,
    );
    assert_eq!(first.text(), second.text());
    assert!(!second.header("age").is_empty());
    assert_eq!(node.seen().len(), 2 * paths.len() + 1);
}

#[tokio::test]
async fn the_age_that_an_answer_brings_is_part_of_its_age() {
    let headers = "cache-control: public, max-age=600\r\nage: 30\r\n";
    let (node, gateway) = counting_and_gateway(headers).await;
    for _ in 0..2 {
        let answer = get(&gateway, "/cached", &[]).await;
        assert_eq!(answer.text(), "answer 0");
        let age: u64 = answer.header("age").parse().unwrap();
        assert!((30..60).contains(&age), "{age}");
    }
    let status = get(&gateway, "/cached", &[]).await;
    let status = status.header("cache-status");
    // The route's bound of a minute holds for both ages together.
    let ttl: u64 = status.split("ttl=").nth(1).unwrap().parse().unwrap();
    assert!(ttl <= 30, "{status}");
    assert_eq!(node.seen().len(), 1);

    let old = "cache-control: public, max-age=600\r\nage: 60\r\n";
    let (node, gateway) = counting_and_gateway(old).await;
    for _ in 0..2 {
        get(&gateway, "/cached", &[]).await;
    }
    assert_eq!(node.seen().len(), 2);
}
