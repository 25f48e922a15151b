//! A server of the test's own, and questions to it.

use private_postgres::TestServer;
use storage::PostgresCluster;
use storage::fill::{FillOptions, Report, prepare};
use tokio_postgres::Client;
use tokio_postgres::types::FromSqlOwned;

pub(crate) struct Database {
    pub(crate) server: TestServer,
    pub(crate) cluster: PostgresCluster,
    pub(crate) client: Client,
}

pub(crate) fn small() -> FillOptions {
    FillOptions {
        seed: 1,
        customers: 500,
        movies: 50,
        sessions: 5000,
        reset: false,
    }
}

impl Database {
    pub(crate) async fn start() -> Self {
        let server = TestServer::start().unwrap();
        let cluster = PostgresCluster::from_url(&server.url()).unwrap();
        let client = storage::connect::connect(&cluster, "test").await.unwrap();
        Self {
            server,
            cluster,
            client,
        }
    }

    pub(crate) async fn prepare(&self, options: &FillOptions) -> Report {
        prepare(&self.cluster, options, &|_| {}).await.unwrap()
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    pub(crate) async fn one<T: FromSqlOwned>(&self, sql: &str) -> T {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// One hash over every row of the three tables, and one over keys, indexes and sequences.
    pub(crate) async fn fingerprint(&self) -> [String; 2] {
        let rows = "SELECT md5((SELECT string_agg(t::text, '|' ORDER BY id) FROM customers t) ||
            (SELECT string_agg(t::text, '|' ORDER BY id) FROM movies t) ||
            coalesce((SELECT string_agg(t::text, '|' ORDER BY id) FROM sessions t), ''))";
        [self.one(rows).await, self.one(SCHEMA).await]
    }
}

const SCHEMA: &str = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
    SELECT conrelid::regclass || ' ' || conname || ' ' || convalidated AS line
    FROM pg_constraint WHERE contype IN ('p', 'f')
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT sequencename || ' ' || coalesce(last_value, 0) FROM pg_sequences
    UNION ALL SELECT table_name || origin || rows || (ready_at IS NULL) FROM bingo_fill) lines";

/// The three counts of a report.
pub(crate) fn counts(report: &Report) -> Vec<u64> {
    report.tables.iter().map(|table| table.rows).collect()
}
