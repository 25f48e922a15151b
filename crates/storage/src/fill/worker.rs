//! The connections of a fill: one that holds the lock and decides, and workers that load and index.
//!
//! The lock is a session's, so the server frees it when we die. It is polled instead of waited for in
//! the server: a waiting statement would hold a snapshot that VACUUM of the other process must spare.
//! A worker whose process died may go on for a while; whoever gets the lock next ends it first.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::catalogue::{ask, one};
use crate::connect::{CONNECT_LIMIT, Canceller, primary, within};
use crate::pooler::is_pooled;
use crate::{Error, PostgresCluster};

/// `bingo` in ASCII; advisory locks are numbers, one set for each database.
const LOCK: i64 = 0x62_69_6e_67_6f;
const LOCK_POLL: Duration = Duration::from_millis(100);
const LOCK_LIMIT: Duration = Duration::from_secs(3600);

const LOCK_NAME: &str = "bingo prepare_db";
const WORKER_NAME: &str = "bingo prepare_db worker";

/// One statement, be it the index of five million rows on a slow disk.
const STATEMENT_LIMIT: Duration = Duration::from_secs(3600);

/// Two builds at once may take twice as much; a stock server's 64 MB would sort on disk.
const SORT_MEMORY_KIB_MIN: u32 = 128 * 1024;

/// Connects and takes the lock; it is freed when the client is dropped. `waiting` is told once when
/// another process holds it.
pub(super) async fn lock(
    cluster: &PostgresCluster,
    waiting: &(dyn Fn() + Send + Sync),
) -> Result<Client, Error> {
    let client = primary(cluster, LOCK_NAME).await?.client;
    refuse_a_pooler(&client).await?;
    let sql = format!("SELECT pg_try_advisory_lock({LOCK})");
    let deadline = Instant::now() + LOCK_LIMIT;
    let mut is_told = false;
    while !one(&client, "take the lock of prepare_db", &sql, |row| {
        row.try_get(0)
    })
    .await?
    {
        if Instant::now() > deadline {
            return Err(Error::Deadline {
                attempted: "wait for another prepare_db to end".into(),
                after: LOCK_LIMIT,
            });
        }
        if !is_told {
            waiting();
            is_told = true;
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
    end_orphans(&client).await?;
    Ok(client)
}

/// The lock belongs to a session of the server, which a pooler may give to anybody.
async fn refuse_a_pooler(client: &Client) -> Result<(), Error> {
    let attempted = "take the lock of prepare_db";
    match within(CONNECT_LIMIT, attempted, is_pooled(client)).await? {
        false => Ok(()),
        true => Err(Error::Refused {
            attempted: attempted.into(),
            why: "a pooler stands between us and the server, and the lock needs a session".into(),
            remedy: "name the server itself for prepare_db; run_server may use the pooler".into(),
        }),
    }
}

/// Ends the workers of processes that died; the caller holds the lock, so no others can be there.
async fn end_orphans(client: &Client) -> Result<(), Error> {
    const SQL: &str = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
         WHERE datname = current_database() AND usename = current_user AND application_name = $1";
    let attempted = "end what a killed prepare_db left";
    let ended = ask(client, attempted, SQL, &[&WORKER_NAME], |_| Ok(())).await?;
    if !ended.is_empty() {
        tracing::info!(
            workers = ended.len(),
            "ended what a killed prepare_db had left"
        );
    }
    Ok(())
}

/// A connection that works. Dropped in the middle of a statement, it has the server cancel it.
pub(super) struct Worker {
    pub client: Client,
    cancel: Option<Canceller>,
}

impl Worker {
    pub(super) async fn connect(cluster: &PostgresCluster) -> Result<Self, Error> {
        let dialled = primary(cluster, WORKER_NAME).await?;
        let worker = Self {
            client: dialled.client,
            cancel: Some(dialled.canceller),
        };
        worker
            .run(&format!(
                "SET statement_timeout = 0; SET lock_timeout = '60s'; \
                 SET idle_in_transaction_session_timeout = '60s'; \
                 SET client_connection_check_interval = '1s'; \
                 SET client_min_messages = error; \
                 SELECT set_config('maintenance_work_mem', \
                   greatest(setting::bigint, {SORT_MEMORY_KIB_MIN})::text, false) \
                 FROM pg_settings WHERE name = 'maintenance_work_mem'"
            ))
            .await?;
        Ok(worker)
    }

    /// Runs statements that answer nothing.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Error> {
        let attempted = format!("run `{sql}`");
        within(STATEMENT_LIMIT, &attempted, self.client.batch_execute(sql)).await
    }

    /// The work is done: nothing is left to cancel.
    pub(super) fn finish(mut self) {
        self.cancel = None;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let (Some(canceller), Ok(runtime)) =
            (self.cancel.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        // At worst the statement runs to its end and its transaction is rolled back.
        runtime.spawn(canceller.cancel());
    }
}
