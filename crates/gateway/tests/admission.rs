//! What clients see when more requests come than nodes take.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rig::file::OnFile;
use rig::{Gateway, Reply, Upstream, answer, eventually, ok};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const ROUTES: &str = "
probe: {interval: 20ms}
routes:
- {methods: [GET], path: '/point/{any}', deadline: 5s}
- {methods: [GET], path: '/list', deadline: 5s, class: list}
- {methods: [POST], path: '/write', deadline: 5s, class: write}
- {methods: [GET], path: '/ping', deadline: 5s}
";

fn config(point: &str) -> String {
    format!(
        "admission: {{point: {{{point}}}, write: {{concurrent_max: 1, queue_max: 8, queue_timeout: 5s}}}}{ROUTES}"
    )
}

/// A node that answers `/point/slow` when the flag turns true, and anything else at once.
async fn gated(open: &Arc<AtomicBool>) -> Upstream {
    let open = Arc::clone(open);
    Upstream::start(move |seen| {
        if seen.target == "/point/slow" || seen.target == "/write" {
            Reply::When(Arc::clone(&open), answer("200 OK", "", "slow"))
        } else {
            ok("fast")
        }
    })
    .await
}

async fn in_flight(gateway: &Gateway, class: &str) -> f64 {
    gateway
        .metric(&format!("bingo_admission_in_flight{{class=\"{class}\"}}"))
        .await
}

async fn queued_is(gateway: &Gateway, class: &str, count: f64) {
    let series = format!("bingo_admission_queued{{class=\"{class}\"}}");
    eventually(&format!("{count} wait"), async || {
        (gateway.metric(&series).await == count).then_some(())
    })
    .await;
}

async fn spawn_get(gateway: &Gateway, path: &'static str) -> tokio::task::JoinHandle<rig::Answer> {
    let mut client = gateway.client().await;
    tokio::spawn(async move { client.get(path).await })
}

#[tokio::test]
async fn over_the_limit_requests_wait_and_over_the_queue_they_are_turned_away() {
    let open = Arc::new(AtomicBool::new(false));
    let node = gated(&open).await;
    let gateway = Gateway::start(
        &[&node],
        &config("concurrent_max: 1, queue_max: 1, queue_timeout: 5s"),
    );
    let first = spawn_get(&gateway, "/point/slow").await;
    eventually("the first is at the node", async || {
        (node.seen().len() == 1).then_some(())
    })
    .await;
    let second = spawn_get(&gateway, "/point/2").await;
    queued_is(&gateway, "point", 1.0).await;
    let third = spawn_get(&gateway, "/point/3").await;
    // The oldest that waits makes room for the newest.
    let shed = second.await.unwrap();
    assert_eq!(
        (shed.status.as_u16(), shed.header("retry-after")),
        (503, "1")
    );
    assert_eq!(shed.header("content-type"), "application/problem+json");
    assert!(shed.text().contains("/problems/overloaded"));
    // Neither another class nor a probe is concerned.
    assert_eq!(gateway.get("/list").await.status, 200);
    assert_eq!(gateway.get("/ping").await.status, 200);
    open.store(true, SeqCst);
    assert_eq!(first.await.unwrap().text(), "slow");
    assert_eq!(third.await.unwrap().text(), "fast");
    assert_eq!(
        gateway.metric("bingo_sheds_total{class=\"point\"}").await,
        1.0
    );
    assert_eq!(
        gateway
            .metric("bingo_limit_hits_total{limit=\"queue_max\"}")
            .await,
        1.0
    );
}

#[tokio::test]
async fn a_request_that_has_waited_its_time_is_turned_away() {
    let open = Arc::new(AtomicBool::new(false));
    let node = gated(&open).await;
    let gateway = Gateway::start(
        &[&node],
        &config("concurrent_max: 1, queue_max: 10, queue_timeout: 100ms"),
    );
    let _first = spawn_get(&gateway, "/point/slow").await;
    eventually("the first is at the node", async || {
        (node.seen().len() == 1).then_some(())
    })
    .await;
    let asked = Instant::now();
    assert_eq!(gateway.get("/point/2").await.status, 503);
    assert!(asked.elapsed() >= Duration::from_millis(100));
    assert_eq!(
        gateway
            .metric("bingo_limit_hits_total{limit=\"queue_timeout\"}")
            .await,
        1.0
    );
    assert_eq!(node.seen().len(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_queue_or_gives_its_permit_back() {
    let open = Arc::new(AtomicBool::new(false));
    let node = gated(&open).await;
    let gateway = Gateway::start(
        &[&node],
        &config("concurrent_max: 1, queue_max: 10, queue_timeout: 5s"),
    );
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        let request = b"POST /write HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
        client.write_all(request).await.unwrap();
        clients.push(client);
        eventually("it is on its way", async || {
            (in_flight(&gateway, "write").await == 1.0).then_some(())
        })
        .await;
    }
    queued_is(&gateway, "write", 1.0).await;
    drop(clients.pop());
    queued_is(&gateway, "write", 0.0).await;
    drop(clients.pop());
    eventually("nobody holds a permit", async || {
        (in_flight(&gateway, "write").await == 0.0).then_some(())
    })
    .await;
    open.store(true, SeqCst);
    assert_eq!(
        gateway.client().await.post("/write", "{}").await.status,
        200
    );
}

#[tokio::test]
async fn a_permit_is_held_to_the_end_of_the_answers_body() {
    let node = Upstream::start(|_| Reply::Stream(64 * 1024 * 1024)).await;
    let rest = "admission: {list: {concurrent_max: 1, queue_max: 8, queue_timeout: 5s}}";
    let gateway = Gateway::start(&[&node], &format!("{rest}{ROUTES}"));
    let mut unread = TcpStream::connect(gateway.address).await.unwrap();
    let request = b"GET /list HTTP/1.1\r\nhost: a\r\n\r\n";
    unread.write_all(request).await.unwrap();
    eventually("the answer streams", async || {
        (node.seen().len() == 1 && in_flight(&gateway, "list").await == 1.0).then_some(())
    })
    .await;
    let second = spawn_get(&gateway, "/list").await;
    queued_is(&gateway, "list", 1.0).await;
    assert_eq!(node.seen().len(), 1);
    drop(unread);
    assert_eq!(second.await.unwrap().body.len(), 64 * 1024 * 1024);
}

#[tokio::test]
async fn with_all_nodes_down_for_a_while_nothing_is_shed() {
    let mut node = Upstream::start(|_| ok("back")).await;
    let gateway = Gateway::start(
        &[&node],
        &config("concurrent_max: 4, queue_max: 200, queue_timeout: 5s"),
    );
    gateway.node_is("node-1", "healthy").await;
    node.kill();
    let mut asked = Vec::new();
    for _ in 0..100 {
        asked.push(spawn_get(&gateway, "/point/1").await);
    }
    queued_is(&gateway, "point", 96.0).await;
    node.revive().await;
    for one in asked {
        assert_eq!(one.await.unwrap().status, 200);
    }
    assert_eq!(
        gateway.metric("bingo_sheds_total{class=\"point\"}").await,
        0.0
    );
}

#[tokio::test]
async fn under_an_overload_the_node_stays_busy_and_newcomers_are_served_once_it_is_over() {
    // One node that serves 100 requests a second, one after the other.
    let busy_until = std::sync::Mutex::new(Instant::now());
    let node = Upstream::start(move |_| {
        let mut until = busy_until.lock().unwrap();
        *until = (*until).max(Instant::now()) + Duration::from_millis(10);
        Reply::After(*until - Instant::now(), answer("200 OK", "", "served"))
    })
    .await;
    let gateway = Gateway::start(
        &[&node],
        &config("concurrent_max: 8, queue_max: 40, queue_timeout: 4s"),
    );
    let (served, stop) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut clients = Vec::new();
    for _ in 0..120 {
        let mut client = gateway.client().await;
        let (served, stop) = (Arc::clone(&served), Arc::clone(&stop));
        clients.push(tokio::spawn(async move {
            while !stop.load(SeqCst) {
                let status = client.get("/point/1").await.status;
                served.fetch_add(usize::from(status == 200), SeqCst);
                if status == 503 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }));
    }
    eventually("much is served and much is shed", async || {
        let shed = gateway.metric("bingo_sheds_total{class=\"point\"}").await;
        (served.load(SeqCst) >= 100 && shed >= 100.0).then_some(())
    })
    .await;
    stop.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(gateway.get("/point/1").await.text(), "served");
    queued_is(&gateway, "point", 0.0).await;
}

#[tokio::test]
async fn a_reload_with_more_permits_lets_those_go_on_who_wait() {
    let open = Arc::new(AtomicBool::new(false));
    let node = gated(&open).await;
    let nodes = [("node-1", node.address)];
    let bounds = |permits| {
        config(&format!(
            "concurrent_max: {permits}, queue_max: 8, queue_timeout: 5s"
        ))
    };
    let on_file = OnFile::start(&nodes, &bounds(1));
    let first = spawn_get(&on_file.gateway, "/point/slow").await;
    eventually("the first is at the node", async || {
        (node.seen().len() == 1).then_some(())
    })
    .await;
    let second = spawn_get(&on_file.gateway, "/point/2").await;
    queued_is(&on_file.gateway, "point", 1.0).await;
    on_file.write(&nodes, &bounds(2));
    assert_eq!(on_file.reload().await.status, 200);
    assert_eq!(second.await.unwrap().text(), "fast");
    open.store(true, SeqCst);
    assert_eq!(first.await.unwrap().text(), "slow");
}
