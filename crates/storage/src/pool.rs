//! One pool of connections per host and class of work, each with its own limit, so that lists or
//! sleeping queries never take the connections that point reads need (performance.md "Point reads").
//! A connection prepares its class's statements when it is made, so no request waits for a parse.
//!
//! A connection is lent as a `Lease`. A lease that is dropped while its query runs (the client went
//! away, a deadline passed) cancels the query and gives the connection up: put back, its next user
//! would wait for an answer that nobody wants.
//!
//! Why not deadpool-postgres: docs/decisions/0003. Which host's pool is asked is decided in `hosts`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, QueueMode, RecycleError, RecycleResult};
use deadpool::managed::{PoolError, TimeoutType, Timeouts};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error as DriverError, RowStream, Statement};

use crate::Error;
use crate::connect::{Canceller, Dialer, within};
use crate::error::Attempt;
use crate::hosts::Pools;
use crate::pooler::is_pooled;

/// How long a piece of work may wait for a connection of its class. Too low: a short burst is
/// refused; too high: requests pile up in front of a database that cannot follow.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// How long making one connection may take, with its settings and the preparing of statements.
const CREATE_LIMIT: Duration = Duration::from_secs(4);
/// How long the settings and statements of a new connection may take together.
const PREPARE_LIMIT: Duration = Duration::from_secs(2);

/// Of every session: nobody else waits longer for a transaction that we have left open.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "2s";

/// A class of work: its limits, the settings of its connections and its prepared statements.
pub(crate) trait Class: Sized + Send + Sync + 'static {
    /// Shown by PostgreSQL as `bingo/<NAME>`.
    const NAME: &'static str;
    /// Connections per process and host.
    const CONNECTIONS_MAX: usize;
    /// Connections that are made at start, before anybody asks.
    const CONNECTIONS_READY: usize;
    /// How long a query may take to its end, a list to its first row.
    const QUERY_LIMIT: Duration;
    /// The server's own limit, for when we are not there to cancel.
    const STATEMENT_TIMEOUT: &'static str;
    /// Statements that each new connection runs first; may be empty. Not run behind a pooler.
    const SETTINGS: &'static str = "";

    fn prepare(preparer: &Preparer<'_>) -> impl Future<Output = Result<Self, DriverError>> + Send;

    /// The pool of this class among those of a host.
    fn pool(pools: &Pools) -> &Pool<Self>;
}

/// The connections of one class to one host.
pub(crate) struct Pool<C: Class> {
    connections: managed::Pool<Maker<C>>,
}

/// A connection and the statements prepared on it.
pub(crate) struct Connection<C> {
    client: Client,
    canceller: Canceller,
    pub(crate) statements: C,
    generation: u64,
}

/// A connection on loan, taken to be in the middle of a query until it is given back.
pub(crate) struct Lease<C: Class> {
    connection: Option<Object<Maker<C>>>,
}

/// Why there is no lease.
pub(crate) enum NoLease {
    /// The host did not make a connection; another one may.
    Unreachable(Error),
    /// Too many wait already, or the statements cannot be prepared.
    Failed(Error),
}

/// What all pools of one host share.
#[derive(Clone)]
pub(crate) struct HostState {
    /// Counts the times that the connections proved worthless. Connections of an earlier generation
    /// are not lent again. What one class learns of the host holds for all.
    generation: Arc<AtomicU64>,
    /// A prepared statement was not found there, or found twice: a pooler stands between.
    is_pooled: Arc<AtomicBool>,
}

/// A statement of a class.
pub(crate) enum Query {
    Prepared(Statement),
    /// Sent whole each time.
    Text(String),
}

/// Prepares the statements of a new connection, where that can be done.
pub(crate) struct Preparer<'a> {
    client: &'a Client,
    is_pooled: bool,
}

/// Values with their types.
pub(crate) type Parameters<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// Makes connections of one class to one host.
struct Maker<C> {
    dialer: Dialer,
    state: HostState,
    class: std::marker::PhantomData<fn() -> C>,
}

impl HostState {
    pub(crate) fn new() -> Self {
        Self {
            generation: Arc::default(),
            is_pooled: Arc::default(),
        }
    }

    /// No connection of now is lent again.
    pub(crate) fn end_generation(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn prepare_no_more(&self) {
        self.is_pooled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }
}

impl Preparer<'_> {
    pub(crate) async fn query(&self, sql: &str) -> Result<Query, DriverError> {
        match self.is_pooled {
            true => Ok(Query::Text(sql.to_owned())),
            false => self.client.prepare(sql).await.map(Query::Prepared),
        }
    }

    /// Runs a list for its first row: a session's first plan reads catalogue and statistics, which
    /// would delay the first byte of the first request.
    pub(crate) async fn first_row(&self, list: &Query) -> Result<(), DriverError> {
        if let Query::Prepared(statement) = list {
            self.client.execute(statement, &[&1_i64]).await?;
        }
        Ok(())
    }
}

impl<C: Class> Pool<C> {
    /// Connects to nothing yet.
    pub(crate) fn new(dialer: Dialer, state: HostState) -> Result<Self, Error> {
        let maker = Maker {
            dialer,
            state,
            class: std::marker::PhantomData,
        };
        managed::Pool::builder(maker)
            .runtime(Runtime::Tokio1)
            .max_size(C::CONNECTIONS_MAX)
            // The last used first: its caches are warm.
            .queue_mode(QueueMode::Lifo)
            .build()
            .map(|connections| Self { connections })
            .map_err(|error| {
                Error::configuration("the connection pool", error.to_string(), "report this")
            })
    }

    /// A connection on loan, within `WAIT_LIMIT` and what is left of the deadline, and, where one
    /// must be made, `CREATE_LIMIT` more.
    pub(crate) async fn lease(&self, deadline: Instant) -> Result<Lease<C>, NoLease> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeouts = Timeouts {
            wait: Some(WAIT_LIMIT.min(left)),
            create: Some(CREATE_LIMIT),
            recycle: None,
        };
        let connection = self.connections.timeout_get(&timeouts).await;
        let connection = connection.map_err(|error| self.no_lease(error, timeouts.wait))?;
        Ok(Lease {
            connection: Some(connection),
        })
    }

    /// Closes the connections that nobody uses.
    pub(crate) fn close_idle(&self) {
        self.connections.retain(|_, _| false);
    }

    pub(crate) fn status(&self) -> deadpool::Status {
        self.connections.status()
    }

    fn no_lease(&self, error: PoolError<Error>, waited: Option<Duration>) -> NoLease {
        let made = |answer: String| Error::Unreachable {
            attempts: vec![Attempt {
                host: self.connections.manager().dialer.host().to_string(),
                answer,
                remedy: String::new(),
            }],
        };
        match error {
            PoolError::Backend(error) if error.is_unavailable() => NoLease::Unreachable(error),
            PoolError::Backend(error) => NoLease::Failed(error),
            PoolError::Timeout(TimeoutType::Wait) => NoLease::Failed(Error::Deadline {
                attempted: format!(
                    "wait for one of {} {} connections",
                    C::CONNECTIONS_MAX,
                    C::NAME
                ),
                after: waited.unwrap_or(WAIT_LIMIT),
            }),
            PoolError::Timeout(_) => NoLease::Unreachable(made(format!(
                "no {} connection within {}",
                C::NAME,
                chassis::config::format_duration(CREATE_LIMIT)
            ))),
            other => NoLease::Failed(Error::configuration(
                "the connection pool",
                other.to_string(),
                "report this",
            )),
        }
    }
}

impl<C: Class> Lease<C> {
    /// The connection; an error only after it was given up, which a caller cannot do.
    pub(crate) fn connection(&self) -> Result<&Connection<C>, Error> {
        self.connection
            .as_deref()
            .ok_or_else(|| Error::configuration("the connection pool", "used twice", "report this"))
    }

    /// Which of its host's generations the connection is of; `None` once it was given up.
    pub(crate) fn generation(&self) -> Option<u64> {
        Some(self.connection.as_deref()?.generation)
    }

    /// Ends the loan: no query runs on the connection.
    pub(crate) fn give_back(mut self) {
        drop(self.connection.take());
    }

    /// Ends the loan and closes the connection, which is worth nothing any more.
    pub(crate) fn give_up(mut self) {
        drop(self.connection.take().map(Object::take));
    }
}

/// Reached with a connection only where a query was abandoned in the middle.
impl<C: Class> Drop for Lease<C> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take().map(Object::take) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                connection.canceller.clone().cancel().await;
                drop(connection);
            });
        }
    }
}

impl<C> Connection<C> {
    /// Sends a query; its rows are read from the stream.
    pub(crate) async fn send(
        &self,
        query: &Query,
        parameters: &Parameters<'_>,
    ) -> Result<RowStream, DriverError> {
        match query {
            Query::Prepared(statement) => {
                let values = parameters.iter().map(|(value, _)| *value);
                self.client.query_raw(statement, values).await
            }
            Query::Text(sql) => self.send_text(sql, parameters).await,
        }
    }

    /// Sends a query that is prepared by nobody.
    pub(crate) async fn send_text(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<RowStream, DriverError> {
        let typed = parameters.iter().map(|(value, ty)| (*value, ty.clone()));
        self.client.query_typed_raw(sql, typed).await
    }
}

impl<C: Class> managed::Manager for Maker<C> {
    type Type = Connection<C>;
    type Error = Error;

    async fn create(&self) -> Result<Connection<C>, Error> {
        let generation = self.state.generation();
        let dialled = self.dialer.dial(&format!("bingo/{}", C::NAME)).await;
        let dialled = dialled.map_err(|error| Error::Unreachable {
            attempts: vec![Attempt::failed(self.dialer.host().to_string(), &error)],
        })?;
        let attempted = format!("prepare the {} queries", C::NAME);
        let prepare = Box::pin(self.prepare(&dialled.client));
        let statements = within(PREPARE_LIMIT, &attempted, prepare).await?;
        Ok(Connection {
            client: dialled.client,
            canceller: dialled.canceller,
            statements,
            generation,
        })
    }

    async fn recycle(&self, connection: &mut Connection<C>, _: &Metrics) -> RecycleResult<Error> {
        if connection.client.is_closed() {
            return Err(RecycleError::message("closed"));
        }
        if connection.generation != self.state.generation() {
            return Err(RecycleError::message("of a server that was given up"));
        }
        Ok(())
    }
}

impl<C: Class> Maker<C> {
    /// Settings of a session and prepared statements belong to a session of the server, which a
    /// pooler changes under us.
    async fn prepare(&self, client: &Client) -> Result<C, DriverError> {
        let is_pooled = is_pooled(client).await?;
        if !is_pooled {
            let settings = format!(
                "SET statement_timeout = '{}'; \
                 SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_TIMEOUT}'; {}",
                C::STATEMENT_TIMEOUT,
                C::SETTINGS
            );
            client.batch_execute(&settings).await?;
        }
        let may_prepare = self.dialer.cluster().prepared_statements;
        C::prepare(&Preparer {
            client,
            is_pooled: self.state.is_pooled.load(Ordering::Relaxed)
                || !may_prepare.unwrap_or(!is_pooled),
        })
        .await
    }
}
