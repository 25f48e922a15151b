//! A filled database, the handle that asks it, and a connection of the test's own to compare with.
#![allow(dead_code)] // each test binary uses its part

use std::time::{Duration, Instant};

use private_postgres::TestServer;
use storage::fill::{FillOptions, prepare};
use storage::{NewSession, PostgresCluster, Storage, Timestamp};
use tokio_postgres::{Client, NoTls};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Fixture {
    pub(crate) server: TestServer,
    pub(crate) storage: Storage,
    /// A connection of the test's own, to compare with.
    pub(crate) sql: Client,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        let server = TestServer::start().unwrap();
        let cluster = PostgresCluster::from_url(&server.url()).unwrap();
        let no_rows = FillOptions {
            customers: 0,
            movies: 0,
            sessions: 0,
            ..FillOptions::default()
        };
        prepare(&cluster, &no_rows, &|_| {}).await.unwrap();
        let sql = client(&server).await;
        sql.batch_execute(include_str!("../queries_data.sql"))
            .await
            .unwrap();
        let storage = Storage::open(&cluster).unwrap();
        Self {
            server,
            storage,
            sql,
        }
    }

    pub(crate) async fn number(&self, query: &str) -> i64 {
        self.sql.query_one(query, &[]).await.unwrap().get(0)
    }

    /// Waits until the query answers this number.
    pub(crate) async fn until(&self, query: &str, expected: i64) {
        let deadline = Instant::now() + PATIENCE;
        while self.number(query).await != expected {
            assert!(Instant::now() < deadline, "never {expected}: {query}");
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) async fn client(server: &TestServer) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A session that can be stored.
pub(crate) fn session() -> NewSession {
    NewSession {
        start_time: Timestamp::from_unix_micros(1_639_066_372_059_188).unwrap(),
        customer_id: 100,
        movie_id: 50,
    }
}
