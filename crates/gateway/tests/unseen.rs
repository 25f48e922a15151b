//! What keeps a node's failure from clients: spooled answers, hedged requests, writes under a key of the
//! gateway's own, requests that leave a frozen node.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rig::{Answer, Gateway, Reply, Seen, Upstream, eventually, ok};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(10);

const ROUTES: &str = "
probe: {interval: 20ms, timeout: 100ms}
admission:
  point: {concurrent_max: 256, queue_max: 64, queue_timeout: 5s}
  list: {concurrent_max: 2, queue_max: 64, queue_timeout: 5s}
  slow: {concurrent_max: 64, queue_max: 64, queue_timeout: 5s}
  write: {concurrent_max: 64, queue_max: 64, queue_timeout: 5s}
routes:
- {methods: [GET], path: /list, deadline: 5s, class: list, spool: true}
- {methods: [GET, POST], path: /hedged, deadline: 2s, hedge: true}
- {methods: [GET], path: /plain, deadline: 5s}
- {methods: [POST, DELETE, GET], path: /keyed, deadline: 5s, idempotency_key: true}
";

/// Asks until `bad` has seen a request; every answer must be 200 with a body of `length` bytes.
async fn meets(bad: &Upstream, gateway: &Gateway, method: &str, path: &str, length: usize) {
    eventually("the bad node is asked", async || {
        let before = bad.seen().len();
        let mut client = gateway.client().await;
        let answer = client.send(method, path, &[], "").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, length));
        (bad.seen().len() > before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_breaks_off_a_spooled_answer_is_unseen() {
    const LENGTH: usize = 3_000_000;
    for head in [
        "content-length: 3000000\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        let mut bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n10000\r\n").into_bytes();
        bytes.extend(vec![b'x'; 65536]);
        let bad = Upstream::start(move |_| Reply::RawThenClose(bytes.clone())).await;
        let good = Upstream::start(|_| Reply::Stream(LENGTH)).await;
        let gateway = Gateway::start(&[&bad, &good], ROUTES);
        meets(&bad, &gateway, "GET", "/list", LENGTH).await;
        let retries = "bingo_retries_total{reason=\"no_answer\"}";
        assert!(gateway.metric(retries).await >= 1.0, "{head}");
    }
}

/// The answers of so many clients that ask at the same time.
async fn all_at_once(gateway: &Gateway, count: usize, path: &'static str) -> Vec<Answer> {
    let mut asked = JoinSet::new();
    for _ in 0..count {
        let mut client = gateway.client().await;
        asked.spawn(async move { client.get(path).await });
    }
    asked.join_all().await
}

/// A gateway with this `spool` section in front of a node that answers so many bytes.
async fn spooling(length: usize, section: &str) -> (Upstream, Gateway) {
    let node = Upstream::start(move |_| Reply::Stream(length)).await;
    let gateway = Gateway::start(&[&node], &format!("spool: {section}\n{ROUTES}"));
    (node, gateway)
}

#[tokio::test]
async fn a_spooled_answer_comes_whole_whatever_its_size_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let section = format!("{{folder: {}}}", folder.path().display());
    for length in [0, 1, 1 << 20, (1 << 20) + 1, 5_000_001] {
        let (_node, gateway) = spooling(length, &section).await;
        for _ in 0..3 {
            let answer = gateway.get("/list").await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (200, length));
            assert!(answer.body.iter().all(|byte| *byte == b'x'));
            assert_eq!(answer.header("content-length"), length.to_string());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let hits = "bingo_limit_hits_total{limit=\"spool_bytes_max\"}";
        assert_eq!(gateway.metric(hits).await, 0.0);
    }
}

#[tokio::test]
async fn an_answer_for_which_there_is_no_room_or_no_disk_streams() {
    let (_node, gateway) = spooling(5_000_000, "{bytes_max: 1MiB}").await;
    assert_eq!(gateway.get("/list").await.body.len(), 5_000_000);
    let hits = "bingo_limit_hits_total{limit=\"spool_bytes_max\"}";
    assert_eq!(gateway.metric(hits).await, 1.0);
    let (_node, gateway) = spooling(5_000_000, "{folder: /nowhere/at/all}").await;
    assert_eq!(gateway.get("/list").await.body.len(), 5_000_000);
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_a_spooled_answer_keeps_nobody_from_the_nodes() {
    let (_node, gateway) = spooling(30_000_000, "{}").await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client
            .write_all(b"GET /list HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        silent.push(client);
    }
    assert_eq!(gateway.get("/list").await.body.len(), 30_000_000);
}

#[tokio::test]
async fn spools_that_nobody_reads_are_on_disk_and_small_answers_come_whole_beside_them() {
    let node =
        Upstream::start(|seen| Reply::Stream(if seen.target == "/list" { 4_000_000 } else { 9 }))
            .await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut silent = Vec::new();
    for _ in 0..40 {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        let request = b"GET /list HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).await.unwrap();
        silent.push(client);
    }
    assert_eq!(gateway.get("/list").await.body.len(), 4_000_000);
    assert_eq!(gateway.get("/plain").await.body.len(), 9);
    for mut client in silent {
        // Reads what waits for it after all.
        let mut left = 4_000_000_usize;
        let mut piece = vec![0; 1 << 20];
        while left > 0 {
            let read = AsyncReadExt::read(&mut client, &mut piece).await.unwrap();
            assert!(read > 0, "{left} bytes are missing");
            left = left.saturating_sub(read);
        }
    }
}

/// A node whose lists come a byte at a time, with such a pause before each, until the flag is true.
async fn dripping(pause: Duration) -> (Upstream, Gateway, Arc<AtomicBool>) {
    let end = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&end);
    let node = Upstream::start(move |_| Reply::Drip(pause, Arc::clone(&flag))).await;
    let routes = ROUTES.replace("path: /list, deadline: 5s", "path: /list, deadline: 2s");
    let gateway = Gateway::start(&[&node], &routes);
    (node, gateway, end)
}

#[tokio::test]
async fn a_list_stays_with_the_only_node_though_its_probes_fail() {
    let (node, gateway, end) = dripping(Duration::from_millis(80)).await;
    let mut client = gateway.client().await;
    let asked = tokio::spawn(async move { client.get("/list").await });
    eventually("the node is asked", async || {
        (!node.seen().is_empty()).then_some(())
    })
    .await;
    node.answer_probes(rig::answer("500 Internal Server Error", "", "I feel bad"));
    gateway.node_is("node-1", "ejected").await;
    let before = node.probes();
    eventually("it is out for a while", async || {
        (node.probes() > before + 10).then_some(())
    })
    .await;
    end.store(true, SeqCst);
    assert_eq!(asked.await.unwrap().status, 200);
    assert_eq!(node.seen().len(), 1);
}

#[tokio::test]
async fn a_list_that_never_pauses_and_never_ends_streams_from_its_deadline_on() {
    let (_node, gateway, end) = dripping(Duration::from_millis(5)).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let request = b"GET /list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut head = [0; 15];
    let read = tokio::time::timeout(PATIENCE, client.read_exact(&mut head)).await;
    read.expect("a head, though the list goes on").unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    end.store(true, SeqCst);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"\r\n0\r\n\r\n"), "a clean end");
}

#[tokio::test]
async fn a_node_that_breaks_one_answer_and_is_well_keeps_what_else_it_has() {
    let end = Arc::new(AtomicBool::new(false));
    for broken in [
        Reply::Reset,
        Reply::RawThenClose(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhel".into()),
    ] {
        let flag = Arc::clone(&end);
        let one = Upstream::start(move |seen| match seen.method.as_str() {
            "POST" => Reply::When(Arc::clone(&flag), rig::answer("200 OK", "", "done")),
            _ => broken.clone(),
        });
        let (one, other) = (one.await, Upstream::start(|_| ok("good")).await);
        // An ejection lasts for several looks at the node.
        let routes = ROUTES.replace("interval: 20ms", "interval: 100ms");
        let gateway = Gateway::start(&[&one, &other], &routes);
        let posts = |node: &Upstream| {
            let seen = node.seen();
            seen.iter().filter(|seen| seen.method == "POST").count()
        };
        let asked = eventually("the node is asked", async || {
            let mut client = gateway.client().await;
            let asked = tokio::spawn(async move { client.send("POST", "/hedged", &[], "").await });
            let sent = posts(&one) + posts(&other);
            eventually("a node is asked", async || {
                (posts(&one) + posts(&other) > sent).then_some(())
            })
            .await;
            (posts(&one) > 0).then_some(asked)
        })
        .await;
        eventually("it breaks another request", async || {
            let answers = all_at_once(&gateway, 8, "/plain").await;
            assert!(answers.iter().all(|answer| answer.text() == "good"));
            (one.seen().len() > posts(&one)).then_some(())
        })
        .await;
        let before = one.probes();
        eventually("some time has gone", async || {
            (one.probes() > before + 3).then_some(())
        })
        .await;
        end.store(true, SeqCst);
        assert_eq!(asked.await.unwrap().unwrap().text(), "done");
        assert_eq!(posts(&one), 1);
        end.store(false, SeqCst);
    }
}

#[tokio::test]
async fn a_connection_from_before_a_node_was_lost_carries_nothing_afterwards() {
    let node = Upstream::start(|_| ok("good")).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut client = gateway.client().await;
    assert_eq!(client.get("/plain").await.status, 200);
    // As of a machine that vanishes without a word, and is back as another one.
    node.answer_probes(Vec::new());
    gateway.node_is("node-1", "ejected").await;
    node.answer_probes(rig::answer("200 OK", "", "pong"));
    gateway.node_is("node-1", "healthy").await;
    assert_eq!(client.get("/plain").await.status, 200);
    assert_eq!(node.connections_used(), 2);
}

/// A node that answers its probes and nothing else; the flag says that a request was given up.
async fn hung_and_good() -> (Upstream, Upstream, Gateway, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&gone);
    let bad = Upstream::start(move |_| Reply::Hang(Arc::clone(&flag))).await;
    let good = Upstream::start(|_| ok("good")).await;
    let gateway = Gateway::start(&[&bad, &good], ROUTES);
    (bad, good, gateway, gone)
}

#[tokio::test]
async fn a_get_that_meets_a_hung_node_is_answered_by_the_other_and_the_first_is_cancelled() {
    let (bad, _good, gateway, gone) = hung_and_good().await;
    meets(&bad, &gateway, "GET", "/hedged", 4).await;
    eventually("the loser is cancelled", async || {
        gone.load(SeqCst).then_some(())
    })
    .await;
    let won = "bingo_hedges_total{result=\"won\"}";
    assert_eq!(gateway.metric(won).await, 1.0);
}

#[tokio::test]
async fn a_write_is_never_sent_to_two_nodes_at_once() {
    let (bad, good, gateway, _gone) = hung_and_good().await;
    let status = eventually("the bad node is asked", async || {
        let mut client = gateway.client().await;
        let answer = client.send("POST", "/hedged", &[], "").await.unwrap();
        (!bad.seen().is_empty()).then_some(answer.status)
    })
    .await;
    assert_eq!(status, 504);
    let posts = |node: &Upstream| {
        node.seen()
            .iter()
            .filter(|seen| seen.method == "POST")
            .count()
    };
    assert_eq!(posts(&bad), 1);
    let before = posts(&good);
    assert_eq!(
        gateway.metric("bingo_hedges_total{result=\"won\"}").await,
        0.0
    );
    assert_eq!(posts(&good), before);
}

#[tokio::test]
async fn more_hedges_than_the_budget_are_not_sent() {
    let slow = || {
        Upstream::start(|_| {
            Reply::After(
                Duration::from_millis(300),
                rig::answer("200 OK", "", "slow"),
            )
        })
    };
    let (one, two) = (slow().await, slow().await);
    let gateway = Gateway::start(&[&one, &two], ROUTES);
    let asked = all_at_once(&gateway, 200, "/hedged").await;
    assert!(asked.iter().all(|answer| answer.status == 200));
    // 5 % and the steady allowance of 110 in all.
    let sent = one.seen().len() + two.seen().len();
    assert!((201..=200 + 10 + 120).contains(&sent), "{sent}");
    let hits = "bingo_limit_hits_total{limit=\"hedge_budget\"}";
    assert!(gateway.metric(hits).await > 0.0);
}

#[tokio::test]
async fn a_request_leaves_a_node_that_is_found_frozen_long_before_its_deadline() {
    // The kernel accepts for it; nobody reads: as after SIGSTOP.
    let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = Upstream::start(|_| ok("good")).await;
    let begin = Instant::now();
    let gateway = Gateway::start_at(&[frozen.local_addr().unwrap(), good.address], ROUTES);
    let asked = all_at_once(&gateway, 20, "/plain").await;
    assert!(asked.iter().all(|answer| answer.text() == "good"));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "before the deadline"
    );
    gateway.node_is("node-1", "ejected").await;
}

#[tokio::test]
async fn a_write_without_a_key_gets_one_and_its_repetition_has_the_same() {
    let bad = Upstream::start(|_| Reply::Reset).await;
    let good = Upstream::start(|_| ok("good")).await;
    let gateway = Gateway::start(&[&bad, &good], ROUTES);
    for method in ["POST", "DELETE"] {
        meets(&bad, &gateway, method, "/keyed", 4).await;
        let last = |node: &Upstream| node.seen().last().cloned().unwrap();
        let (first, second) = (last(&bad), last(&good));
        assert_eq!(
            first.headers["idempotency-key"],
            second.headers["idempotency-key"]
        );
        assert_eq!(first.headers["idempotency-key"].len(), 32);
    }
}

#[tokio::test]
async fn keys_differ_and_a_clients_own_key_stays_and_a_get_has_none() {
    let node = Upstream::start(|_| ok("")).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut client = gateway.client().await;
    let key = |seen: &Seen| seen.headers.get("idempotency-key").cloned();
    for (method, own) in [
        ("POST", None),
        ("POST", None),
        ("POST", Some("mine")),
        ("GET", None),
    ] {
        let own: Vec<_> = own
            .map(|own| ("idempotency-key", own))
            .into_iter()
            .collect();
        client.send(method, "/keyed", &own, "").await.unwrap();
    }
    let keys: Vec<_> = node.seen().iter().map(key).collect();
    assert!(keys[0].is_some() && keys[1].is_some() && keys[0] != keys[1]);
    assert_eq!(keys[2].as_deref(), Some("mine"));
    assert_eq!(keys[3], None);
}

#[tokio::test]
async fn what_a_node_refuses_with_429_is_done_by_another_or_later_and_no_client_sees_it() {
    let refusing = Arc::new(AtomicBool::new(true));
    let node = async |name: &'static str| {
        let refusing = Arc::clone(&refusing);
        Upstream::start(move |_| match refusing.load(SeqCst) {
            true => Reply::Raw(rig::answer("429 Too Many Requests", "", "")),
            false => ok(name),
        })
        .await
    };
    let (one, two) = (node("one").await, Upstream::start(|_| ok("two")).await);
    let gateway = Gateway::start(&[&one, &two], ROUTES);
    for method in ["GET", "POST"] {
        for _ in 0..20 {
            let mut client = gateway.client().await;
            let answer = client.send(method, "/hedged", &[], "").await.unwrap();
            assert_eq!(answer.text(), "two", "{method}");
        }
    }
    assert!(!one.seen().is_empty());
    // The rest is left alone: it said that it had enough.
    assert!(one.seen().len() < 20, "{}", one.seen().len());
    let alone = Gateway::start(&[&one], ROUTES);
    let mut client = alone.client().await;
    let held = tokio::spawn(async move { client.get("/plain").await });
    let refused = "bingo_attempts_total{node=\"node-1\",outcome=\"refused\"}";
    eventually("it is refused", async || {
        (alone.metric(refused).await >= 1.0).then_some(())
    })
    .await;
    refusing.store(false, SeqCst);
    assert_eq!(held.await.unwrap().text(), "one");
}
