//! Forgets idempotency keys after a day (contract.md section 4), a few at a time, so that no purge
//! holds locks for long. Every process tries now and then; an advisory lock that is held for one
//! statement lets one of them do it.

use std::sync::Arc;
use std::time::Duration;

use crate::ask::{Question, Which};
use crate::hosts::{Hosts, Need};
use crate::writes::Writes;
use crate::{Error, Storage};

/// Between two purges of one process. Too low: questions for nothing; too high: keys are kept for longer
/// than their day by as much.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);
const BATCH_ROWS: i64 = 1000;
/// Between two batches: others write as well.
const BATCH_PAUSE: Duration = Duration::from_millis(100);

/// The number is `bingo-k` in ASCII; another one than `fill`'s. Behind a pooler too, the lock ends
/// with the statement.
pub(crate) const PURGE: &str = "
WITH mine AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(27704280310496619) AS is_mine
), old AS MATERIALIZED (
    SELECT key FROM idempotency_keys, mine
    WHERE is_mine AND created_at < now() - interval '1 day'
    ORDER BY created_at LIMIT 1000 FOR UPDATE OF idempotency_keys SKIP LOCKED
), gone AS (
    DELETE FROM idempotency_keys USING old WHERE idempotency_keys.key = old.key RETURNING 1
)
SELECT count(*) FROM gone";

impl Storage {
    /// Removes idempotency keys that are older than a day and returns how many; none while another
    /// process is at it.
    pub async fn purge_keys(&self) -> Result<u64, Error> {
        purge(self.hosts()).await
    }
}

/// Purges at once, for a process may not live until its second turn, and then now and then, until the
/// task is ended.
pub(crate) async fn purge_now_and_then(hosts: Arc<Hosts>) {
    loop {
        match purge(&hosts).await {
            Ok(gone) => tracing::debug!(gone, "old idempotency keys were removed"),
            // That the database is away is said elsewhere, and the next turn comes.
            Err(error) if error.is_unavailable() => {}
            Err(error) => {
                let error = chassis::failure::chain(&error);
                tracing::warn!(%error, "old idempotency keys are not removed");
            }
        }
        tokio::time::sleep(PURGE_INTERVAL).await;
    }
}

async fn purge(hosts: &Arc<Hosts>) -> Result<u64, Error> {
    let mut all = 0;
    loop {
        let question = Question {
            attempted: "remove old idempotency keys",
            need: Need::Primary,
            is_repeatable: true,
            statement: Which::Own(|writes: &Writes| &writes.purge),
            parameters: &[],
        };
        let (row, _) = hosts.one(question).await?;
        let gone: i64 = match row {
            Some(row) => row
                .try_get(0)
                .map_err(|error| Error::query("remove old idempotency keys", error))?,
            None => 0,
        };
        all += gone.unsigned_abs();
        if gone < BATCH_ROWS {
            return Ok(all);
        }
        tokio::time::sleep(BATCH_PAUSE).await;
    }
}
