//! Until when a request may wait for a database that is away. The deadline belongs to the request and
//! not to any one query, so it travels with the task that serves it instead of through every
//! signature; `until` is called once, where a request begins.
//!
//! It bounds waiting only. A query that runs on a server that answers is ended by dropping its
//! future, which cancels it: that is the caller's own deadline, and another answer to the client.

use std::time::{Duration, Instant};

/// How long work waits where nobody named a deadline.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Runs `work`; whatever it asks of a `Storage` in this task waits for a usable server until
/// `deadline` and then fails with an error that `is_unavailable`.
pub async fn until<T>(deadline: Instant, work: impl Future<Output = T>) -> T {
    DEADLINE.scope(deadline, work).await
}

/// The deadline of this task, or `DEFAULT_PATIENCE` from now.
pub(crate) fn current() -> Instant {
    DEADLINE
        .try_with(|deadline| *deadline)
        .unwrap_or_else(|_| Instant::now() + DEFAULT_PATIENCE)
}
