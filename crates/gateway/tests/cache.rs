//! What the cache gives clients and spares nodes, and how old an answer gets.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rig::cached::{FRESH, MINUTE, config, counting, counting_and_gateway, get};
use rig::file::OnFile;
use rig::{Gateway, Reply, Upstream, answer, eventually};

async fn requests(gateway: &Gateway, result: &str) -> f64 {
    let series = format!("bingo_cache_requests_total{{route=\"/cached\",result=\"{result}\"}}");
    gateway.metric(&series).await
}

#[tokio::test]
async fn two_hundred_first_requests_at_once_ask_the_node_once() {
    let open = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&open);
    let reply = answer("200 OK", FRESH, "the one");
    let node = Upstream::start(move |_| Reply::When(Arc::clone(&flag), reply.clone())).await;
    let gateway = Gateway::start(&[&node], &config(MINUTE));
    let mut asking = Vec::new();
    for _ in 0..200 {
        let mut client = gateway.client().await;
        asking.push(tokio::spawn(async move { client.get("/cached").await }));
    }
    eventually("all are there", async || {
        (gateway.metric("http_server_active_requests").await == 200.0).then_some(())
    })
    .await;
    open.store(true, SeqCst);
    for one in asking {
        let answer = one.await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, "the one")
        );
        assert!(!answer.header("age").is_empty());
    }
    assert_eq!(node.seen().len(), 1);
    assert_eq!(requests(&gateway, "miss").await, 1.0);
    assert_eq!(requests(&gateway, "collapsed").await, 199.0);
}

#[tokio::test]
async fn a_hit_says_what_it_is_and_whose() {
    let headers = "cache-control: public, max-age=60\r\nage: 7\r\nbingo-node: x\r\nx-request-id: y\r\n\
                   content-type: text/x\r\nkeep-alive: timeout=5\r\n";
    let (node, gateway) = counting_and_gateway(headers).await;
    let first = get(&gateway, "/cached?a=1", &[]).await;
    assert_eq!(first.header("cache-status"), "bingo; fwd=uri-miss; stored");
    let second = get(&gateway, "/cached?a=1", &[("x-request-id", "mine")]).await;
    assert_eq!(second.text(), "answer 0");
    assert!(
        second
            .header("cache-status")
            .starts_with("bingo; hit; ttl=5")
    );
    assert_eq!(second.header("x-request-id"), "mine");
    assert_eq!(second.header("content-type"), "text/x");
    assert_eq!(second.header("cache-control"), "public, max-age=60");
    assert_eq!(second.headers.get_all("date").iter().count(), 1);
    for gone in ["bingo-node", "keep-alive"] {
        assert_eq!(second.header(gone), "", "{gone}");
    }
    // The seven seconds that it brought are part of it.
    assert!((7..=9).contains(&second.header("age").parse::<u64>().unwrap()));
    assert_eq!(get(&gateway, "/cached?a=2", &[]).await.text(), "answer 1");
    assert_eq!(node.seen().len(), 2);
    eventually("the sizes are shown", async || {
        let entries = gateway.metric("bingo_cache_entries").await;
        (entries == 2.0 && gateway.metric("bingo_cache_bytes").await > 1024.0).then_some(())
    })
    .await;
}

/// A node that takes `slow` and answers with the time at which it was asked, in milliseconds of a
/// clock of the test.
async fn telling_time(clock: Instant, slow: Duration) -> Upstream {
    Upstream::start(move |_| {
        let born = clock.elapsed().as_millis().to_string();
        Reply::After(slow, answer("200 OK", FRESH, &born))
    })
    .await
}

#[tokio::test]
async fn no_answer_is_older_than_the_bound_counted_from_when_its_request_was_sent() {
    let clock = Instant::now();
    let node = telling_time(clock, Duration::from_millis(250)).await;
    let rules = "ttl_max: 500ms, refresh_ahead: 0s";
    let gateway = Gateway::start(&[&node], &config(rules));
    let mut client = gateway.client().await;
    while node.seen().len() < 5 {
        let asked = clock.elapsed().as_millis() as u64;
        let answer = client.get("/cached").await;
        let born: u64 = answer.text().parse().unwrap();
        assert!(born + 500 >= asked, "born at {born}, asked for at {asked}");
    }
    assert!(requests(&gateway, "hit").await > 10.0);
}

#[tokio::test]
async fn while_an_answer_is_wanted_nobody_waits_for_the_next_one() {
    let node = counting(FRESH).await;
    let rules = "ttl_max: 2s, refresh_ahead: 1500ms";
    let gateway = Gateway::start(&[&node], &config(rules));
    let mut client = gateway.client().await;
    client.get("/cached").await;
    while node.seen().len() < 4 {
        let answer = client.get("/cached").await;
        let status = answer.header("cache-status");
        assert!(status.starts_with("bingo; hit; ttl="), "{status}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(requests(&gateway, "refresh").await >= 2.0);
    assert_eq!(requests(&gateway, "miss").await, 1.0);
}

#[tokio::test]
async fn a_refresh_that_fails_is_tried_again_before_the_answer_expires() {
    let count = AtomicUsize::new(0);
    let node = Upstream::start(move |_| match count.fetch_add(1, SeqCst) {
        1 | 2 => Reply::Raw(answer("500 Internal Server Error", FRESH, "sick")),
        number => Reply::Raw(answer("200 OK", FRESH, &format!("answer {number}"))),
    })
    .await;
    let gateway = Gateway::start(&[&node], &config("ttl_max: 4s, refresh_ahead: 3900ms"));
    let mut client = gateway.client().await;
    eventually("the newer answer is there", async || {
        let answer = client.get("/cached").await;
        assert_eq!(answer.status, 200);
        (answer.text() == "answer 3").then_some(())
    })
    .await;
    assert_eq!(requests(&gateway, "refresh_failed").await, 2.0);
    assert_eq!(requests(&gateway, "miss").await, 1.0);
}

#[tokio::test]
async fn with_all_nodes_gone_the_answer_ends_at_its_bound() {
    let clock = Instant::now();
    let mut node = telling_time(clock, Duration::ZERO).await;
    let gateway = Gateway::start(&[&node], &config("ttl_max: 1s, refresh_ahead: 500ms"));
    let mut client = gateway.client().await;
    client.get("/cached").await;
    node.kill();
    let gone = eventually("the answer ends", async || {
        let asked = clock.elapsed().as_millis() as u64;
        let answer = client.get("/cached").await;
        if answer.status == 200 {
            let born: u64 = answer.text().parse().unwrap();
            assert!(born + 1000 >= asked, "born at {born}, asked for at {asked}");
            return None;
        }
        Some(answer)
    })
    .await;
    assert_eq!(gone.status, 504);
    node.revive().await;
    gateway.node_is("node-1", "healthy").await;
    assert_eq!(client.get("/cached").await.status, 200);
}

#[tokio::test]
async fn a_stored_answer_serves_head_and_whoever_has_it_already() {
    let (node, gateway) = counting_and_gateway(FRESH).await;
    let mut client = gateway.client().await;
    let first = client.get("/cached").await;
    let etag = first.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.len() == 34, "{etag}");
    let head = client.send("HEAD", "/cached", &[], "").await.unwrap();
    assert_eq!(
        (head.status.as_u16(), head.header("content-length")),
        (200, "8")
    );
    assert!(head.body.is_empty() && head.header("cache-status").contains("hit"));
    let known = [("if-none-match", etag.as_str())];
    let unchanged = client.send("GET", "/cached", &known, "").await.unwrap();
    assert_eq!(unchanged.status, 304);
    assert!(unchanged.body.is_empty());
    assert_eq!(unchanged.header("etag"), etag);
    assert_eq!(unchanged.header("cache-control"), "public, max-age=60");
    let other = [("if-none-match", "\"other\"")];
    assert_eq!(
        client
            .send("GET", "/cached", &other, "")
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(node.seen().len(), 1);
    // The node's own validator stands.
    let (_node, gateway) =
        counting_and_gateway("cache-control: max-age=60\r\netag: W/\"n\"\r\n").await;
    assert_eq!(
        get(&gateway, "/cached", &[]).await.header("etag"),
        "W/\"n\""
    );
    let known = get(&gateway, "/cached", &[("if-none-match", "\"n\"")]).await;
    assert_eq!(known.status, 304);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_nothing_from_those_who_wait_with_it() {
    let open = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&open);
    let reply = answer("200 OK", FRESH, "the one");
    let node = Upstream::start(move |_| Reply::When(Arc::clone(&flag), reply.clone())).await;
    let gateway = Gateway::start(&[&node], &config(MINUTE));
    let mut first = gateway.client().await;
    let first = tokio::spawn(async move { first.get("/cached").await });
    eventually("the node is asked", async || {
        (node.seen().len() == 1).then_some(())
    })
    .await;
    let mut second = gateway.client().await;
    let second = tokio::spawn(async move { second.get("/cached").await });
    eventually("both are there", async || {
        (gateway.metric("http_server_active_requests").await == 2.0).then_some(())
    })
    .await;
    first.abort();
    eventually("the first is gone", async || {
        (gateway.metric("http_server_active_requests").await == 1.0).then_some(())
    })
    .await;
    open.store(true, SeqCst);
    assert_eq!(second.await.unwrap().text(), "the one");
    assert_eq!(node.seen().len(), 1);
}

#[tokio::test]
async fn when_the_fetch_fails_those_who_waited_go_on_by_themselves() {
    let (count, open) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&open);
    let node = Upstream::start(move |_| match count.fetch_add(1, SeqCst) {
        // The end of the body never comes.
        0 => Reply::When(
            Arc::clone(&flag),
            b"HTTP/1.1 200 OK\r\ncache-control: max-age=9\r\ncontent-length: 99\r\n\r\nx".to_vec(),
        ),
        _ => Reply::Raw(answer("200 OK", FRESH, "good")),
    })
    .await;
    let gateway = Gateway::start(&[&node], &config(MINUTE));
    let mut first = gateway.client().await;
    let first = tokio::spawn(async move { first.get("/cached").await });
    eventually("the node is asked", async || {
        (node.seen().len() == 1).then_some(())
    })
    .await;
    // Its time ends later than that of the first.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut second = gateway.client().await;
    let second = tokio::spawn(async move { second.get("/cached").await });
    eventually("both are there", async || {
        (gateway.metric("http_server_active_requests").await == 2.0).then_some(())
    })
    .await;
    open.store(true, SeqCst);
    assert_eq!(first.await.unwrap().status, 504);
    assert_eq!(second.await.unwrap().text(), "good");
}

#[tokio::test]
async fn a_thousand_targets_stay_within_the_bytes_of_the_store() {
    let body = "x".repeat(8 * 1024);
    let node = Upstream::start(move |_| Reply::Raw(answer("200 OK", FRESH, &body))).await;
    let gateway = Gateway::start(&[&node], &config(MINUTE));
    let mut client = gateway.client().await;
    for number in 0..200 {
        assert_eq!(client.get(&format!("/cached/{number}")).await.status, 200);
    }
    eventually("the size is shown", async || {
        let bytes = gateway.metric("bingo_cache_bytes").await;
        (bytes > 8192.0 && bytes <= 131_072.0).then_some(())
    })
    .await;
    let full = "bingo_limit_hits_total{limit=\"cache_bytes_max\"}";
    assert!(gateway.metric(full).await > 100.0);
    // Not each of them is asked of the nodes again and again.
    let many = "bingo_limit_hits_total{limit=\"cache_kept_max\"}";
    assert_eq!(gateway.metric(many).await, 136.0);
}

#[tokio::test]
async fn a_hung_fetch_costs_those_who_wait_no_more_than_their_own_time() {
    let gone = Arc::new(AtomicBool::new(false));
    let node = Upstream::start(move |_| Reply::Hang(Arc::clone(&gone))).await;
    let gateway = Gateway::start(&[&node], &config(MINUTE));
    let asked = Instant::now();
    let (mut one, mut two) = (gateway.client().await, gateway.client().await);
    let (one, two) = tokio::join!(one.get("/cached"), two.get("/cached"));
    assert_eq!((one.status.as_u16(), two.status.as_u16()), (504, 504));
    assert!(asked.elapsed() >= Duration::from_millis(1900));
}

#[tokio::test]
async fn a_reload_keeps_what_is_stored_and_holds_it_to_the_new_bound() {
    let node = counting(FRESH).await;
    let nodes = [("node-1", node.address)];
    let on_file = OnFile::start(&nodes, &config(MINUTE));
    let mut client = on_file.gateway.client().await;
    assert_eq!(client.get("/cached").await.text(), "answer 0");
    on_file.write(&nodes, &config("ttl_max: 59s, refresh_ahead: 20s"));
    assert_eq!(on_file.reload().await.status, 200);
    assert_eq!(client.get("/cached").await.text(), "answer 0");
    on_file.write(&nodes, &config("ttl_max: 10ms, refresh_ahead: 0s"));
    assert_eq!(on_file.reload().await.status, 200);
    // Long before the minute that it was stored for.
    eventually("the new bound holds", async || {
        (client.get("/cached").await.text() != "answer 0").then_some(())
    })
    .await;
}
