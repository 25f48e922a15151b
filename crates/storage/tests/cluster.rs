//! A cluster of a real primary and a real streaming replica, while one is promoted, hangs or is lost:
//! what a writer and readers of the service see of it. Nothing is started anew on our side.

mod queries_fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use private_postgres::TestServer;
use queries_fixture::{Fixture, PATIENCE, client, session};
use storage::deadline::until;
use storage::{Created, Host, IdempotencyKey, Observed, PostgresCluster, Role, Storage};

/// How long a request of these tests may take, a failover included.
const DEADLINE: Duration = Duration::from_secs(8);

struct Pair {
    fixture: Fixture,
    replica: TestServer,
    storage: Storage,
}

impl Pair {
    async fn start(use_closest_node: bool) -> Self {
        let fixture = Fixture::start().await;
        let replica = fixture.server.start_replica().unwrap();
        let storage = Storage::open(&PostgresCluster {
            // The replica first: the order of the configuration decides nothing.
            hosts: [&replica, &fixture.server]
                .map(|server| Host::new("127.0.0.1", server.port()))
                .into(),
            use_closest_node,
            ..PostgresCluster::from_url(&fixture.server.url()).unwrap()
        })
        .unwrap();
        let pair = Self {
            fixture,
            replica,
            storage,
        };
        pair.until(|seen| {
            seen.hosts[0].role == Role::Replica
                && seen.hosts[0].lag == Some(Duration::ZERO)
                && seen.hosts[1].role == Role::Primary
        })
        .await;
        pair
    }

    async fn until(&self, wanted: impl Fn(&Observed) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(&self.storage.observed()) {
            assert!(Instant::now() < deadline, "{:?}", self.storage.observed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Writes and reads one after the other until it is told to stop, and remembers how it went.
struct Load {
    is_over: Arc<AtomicBool>,
    writer: tokio::task::JoinHandle<Vec<i64>>,
    reader: tokio::task::JoinHandle<(usize, Duration)>,
}

impl Load {
    fn start(storage: &Storage) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write(storage.clone(), is_over.clone()));
        let reader = tokio::spawn(read(storage.clone(), is_over.clone()));
        Self {
            is_over,
            writer,
            reader,
        }
    }

    /// The ids of what was stored; how many reads there were, and how long the slowest took.
    async fn end(self) -> (Vec<i64>, usize, Duration) {
        self.is_over.store(true, Ordering::Relaxed);
        let ids = self.writer.await.unwrap();
        let (reads, slowest) = self.reader.await.unwrap();
        (ids, reads, slowest)
    }
}

async fn write(storage: Storage, is_over: Arc<AtomicBool>) -> Vec<i64> {
    let mut ids = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let key = format!("key-{}", ids.len());
        let key = IdempotencyKey {
            key: &key,
            request_hash: b"h",
        };
        let stored = storage.create_session(session(), Some(key));
        match until(Instant::now() + DEADLINE, stored).await {
            Ok(Created::Stored { id, .. }) => ids.push(id),
            other => panic!("a write failed: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ids
}

async fn read(storage: Storage, is_over: Arc<AtomicBool>) -> (usize, Duration) {
    let mut reads = 0;
    let mut slowest = Duration::ZERO;
    while !is_over.load(Ordering::Relaxed) {
        let start = Instant::now();
        let found = until(start + DEADLINE, storage.session(1)).await;
        assert!(found.unwrap().is_some());
        let list = until(start + DEADLINE, storage.movies(3)).await;
        assert!(list.unwrap().next().await.unwrap().is_some());
        slowest = slowest.max(start.elapsed());
        reads += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (reads, slowest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_takes_the_writes_and_reads_never_stop() {
    let mut pair = Pair::start(true).await;
    let load = Load::start(&pair.storage);
    tokio::time::sleep(Duration::from_millis(300)).await;
    pair.fixture.server.stop();
    pair.replica.promote().unwrap();
    pair.until(|seen| seen.hosts[0].role == Role::Primary).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (ids, reads, slowest) = load.end().await;
    println!("{} writes, {reads} reads, slowest {slowest:?}", ids.len());
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let sql = client(&pair.replica).await;
    let mut sorted = ids.clone();
    sorted.dedup();
    assert_eq!(sorted.len(), ids.len());
    let stored = "SELECT count(*) FROM sessions WHERE id = ANY($1)";
    let stored: i64 = sql.query_one(stored, &[&ids]).await.unwrap().get(0);
    assert_eq!(stored, ids.len() as i64);
    let all = "SELECT count(*) FROM sessions WHERE id > 5000";
    let all: i64 = sql.query_one(all, &[]).await.unwrap().get(0);
    assert_eq!(all, stored, "a write took effect twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_primary_stops_no_read_and_its_successor_takes_the_writes() {
    let pair = Pair::start(true).await;
    let load = Load::start(&pair.storage);
    tokio::time::sleep(Duration::from_millis(300)).await;
    pair.fixture.server.freeze();
    pair.until(|seen| seen.hosts[1].role == Role::Away).await;
    pair.replica.promote().unwrap();
    pair.until(|seen| seen.hosts[0].role == Role::Primary).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (ids, reads, slowest) = load.end().await;
    println!("{} writes, {reads} reads, slowest {slowest:?}", ids.len());
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");

    // Thawed, the old primary is not taken for the primary again.
    pair.fixture.server.thaw();
    pair.until(|seen| seen.hosts[1].role == Role::Primary).await;
    pair.storage.create_session(session(), None).await.unwrap();
    let sql = client(&pair.replica).await;
    let newest = "SELECT max(id) FROM sessions WHERE id > 5000";
    let newest: i64 = sql.query_one(newest, &[]).await.unwrap().get(0);
    assert!(newest > *ids.last().unwrap());
}

#[tokio::test]
async fn without_use_closest_node_every_read_asks_the_primary() {
    let mut pair = Pair::start(false).await;
    let on_replica = client(&pair.replica).await;
    for _ in 0..5 {
        assert!(pair.storage.movie(1).await.unwrap().is_some());
    }
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bingo/points'";
    let ours: i64 = on_replica.query_one(ours, &[]).await.unwrap().get(0);
    assert_eq!(ours, 0);
    pair.fixture.server.stop();
    let deadline = Instant::now() + Duration::from_millis(700);
    let error = until(deadline, pair.storage.movie(1)).await.err().unwrap();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("recovery"), "{error}");
}

#[tokio::test]
async fn a_session_that_has_not_reached_the_replica_is_read_from_the_primary() {
    let pair = Pair::start(true).await;
    let superuser = pair.replica.superuser_url();
    let (superuser, connection) = tokio_postgres::connect(&superuser, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    superuser
        .batch_execute("SELECT pg_wal_replay_pause()")
        .await
        .unwrap();
    let created = pair.storage.create_session(session(), None).await.unwrap();
    let Created::Stored { id, .. } = created else {
        panic!("{created:?}");
    };
    assert!(pair.storage.session(id).await.unwrap().is_some());
    // Past max_replica_lag it takes no reads at all.
    pair.until(|seen| {
        seen.hosts[0].role == Role::Replica && seen.hosts[0].lag > Some(Duration::ZERO)
    })
    .await;
}

#[tokio::test]
async fn one_server_that_answers_is_enough_and_a_hung_one_delays_nobody() {
    let fixture = Fixture::start().await;
    let hung = TestServer::start().unwrap();
    hung.freeze();
    let cluster = PostgresCluster {
        hosts: vec![
            Host::new("127.0.0.1", hung.port()),
            Host::new("127.0.0.1", 1),
            Host::new("127.0.0.1", fixture.server.port()),
        ],
        ..PostgresCluster::from_url(&fixture.server.url()).unwrap()
    };
    let start = Instant::now();
    let storage = Storage::open(&cluster).unwrap();
    assert!(storage.movie(1).await.unwrap().is_some());
    storage.create_session(session(), None).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    storage::connect::connect(&cluster, "test").await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(1500));
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once_with_each_hosts_answer() {
    let server = TestServer::start().unwrap();
    let url = server.url().replace(server.password(), "wrong");
    let storage = Storage::open(&PostgresCluster::from_url(&url).unwrap()).unwrap();
    let start = Instant::now();
    let error = storage.movie(1).await.err().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(error.to_string().contains("password"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
}
