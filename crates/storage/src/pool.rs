//! One pool of connections per class of work, each with its own limit, so that lists or sleeping
//! queries never take the connections that point reads need (performance.md "Point reads"). A
//! connection prepares its class's statements when it is made, so no request waits for a parse.
//!
//! A connection is lent as a `Lease`. A lease that is dropped while its query runs (the client went
//! away, a deadline passed) cancels the query and gives the connection up: put back, its next user
//! would wait for an answer that nobody wants.
//!
//! Why not deadpool-postgres: its manager knows one host and keeps statements in a map by text; ours
//! asks `connect`, which finds the writable host, and keeps them in a struct. When the roles of the
//! hosts are watched all the time, `Servers::create` is the place that asks for the chosen one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, QueueMode, RecycleError, RecycleResult};
use deadpool::managed::{PoolError, TimeoutType};
use tokio_postgres::{Client, NoTls};

use crate::connect::connect;
use crate::{Error, PostgresCluster};

/// How long a piece of work may wait for a connection of its class. Too low: a short burst is
/// refused; too high: requests pile up in front of a database that cannot follow.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// How long making one connection may take, all hosts and the preparing of statements together.
const CREATE_LIMIT: Duration = Duration::from_secs(5);
/// How long the request to cancel a query may take.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);

/// A class of work: its limit, the settings of its connections and its prepared statements.
pub(crate) trait Class: Sized + Send + Sync + 'static {
    /// Shown by PostgreSQL as `bingo/<NAME>`.
    const NAME: &'static str;
    /// Connections per process.
    const CONNECTIONS_MAX: usize;
    /// Connections that are made at start, before anybody asks.
    const CONNECTIONS_READY: usize;
    /// Statements that each new connection runs first; may be empty.
    const SETTINGS: &'static str = "";

    fn prepare(client: &Client)
    -> impl Future<Output = Result<Self, tokio_postgres::Error>> + Send;
}

/// The connections of one class.
pub(crate) struct Pool<C: Class> {
    connections: managed::Pool<Servers<C>>,
}

/// A connection and the statements prepared on it.
pub(crate) struct Connection<C> {
    pub(crate) client: Client,
    pub(crate) statements: C,
    generation: u64,
}

/// A connection on loan, taken to be in the middle of a query until it is settled.
pub(crate) struct Lease<C: Class> {
    connection: Option<Object<Servers<C>>>,
    generation: Generation,
}

/// Counts the times that the connections proved worthless. Connections of an earlier generation are
/// not lent again. One count for all classes: what one learns of the server holds for all.
#[derive(Clone, Default)]
pub(crate) struct Generation(Arc<AtomicU64>);

/// Makes connections of one class.
struct Servers<C> {
    cluster: Arc<PostgresCluster>,
    generation: Generation,
    class: std::marker::PhantomData<fn() -> C>,
}

impl Generation {
    fn current(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl<C: Class> Pool<C> {
    /// Connects to nothing yet.
    pub(crate) fn new(
        cluster: Arc<PostgresCluster>,
        generation: Generation,
    ) -> Result<Self, Error> {
        let servers = Servers {
            cluster,
            generation,
            class: std::marker::PhantomData,
        };
        managed::Pool::builder(servers)
            .runtime(Runtime::Tokio1)
            .max_size(C::CONNECTIONS_MAX)
            .wait_timeout(Some(WAIT_LIMIT))
            .create_timeout(Some(CREATE_LIMIT))
            // The last used first: its caches are warm.
            .queue_mode(QueueMode::Lifo)
            .build()
            .map(|connections| Self { connections })
            .map_err(|error| {
                Error::configuration("the connection pool", error.to_string(), "report this")
            })
    }

    /// A connection on loan, within `WAIT_LIMIT` and, where one must be made, `CREATE_LIMIT` more.
    pub(crate) async fn lease(&self) -> Result<Lease<C>, Error> {
        let connection = self.connections.get().await.map_err(pool_error::<C>)?;
        Ok(Lease {
            connection: Some(connection),
            generation: self.connections.manager().generation.clone(),
        })
    }

    /// Makes the first connections, so that the first requests need not.
    pub(crate) async fn warm(&self) -> Result<(), Error> {
        let leases = (0..C::CONNECTIONS_READY).map(|_| self.lease());
        for lease in futures_util::future::join_all(leases).await {
            lease?.unused();
        }
        Ok(())
    }
}

impl<C: Class> Lease<C> {
    /// The connection; an error only after it was given up, which a caller cannot do.
    pub(crate) fn connection(&self) -> Result<&Connection<C>, Error> {
        self.connection
            .as_deref()
            .ok_or_else(|| Error::configuration("the connection pool", "used twice", "report this"))
    }

    /// Ends the loan after a complete answer and sorts its error: after one that says that the
    /// server is gone or no longer the primary, no connection of now is lent again.
    pub(crate) fn settle<T>(
        mut self,
        attempted: &str,
        result: Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        match result {
            Ok(value) => {
                self.unused();
                Ok(value)
            }
            Err(error) => {
                let error = Error::query(attempted, error);
                if error.is_unavailable() {
                    self.generation.end();
                    drop(self.connection.take().map(Object::take));
                } else {
                    self.unused();
                }
                Err(error)
            }
        }
    }

    /// Gives the connection back as it came.
    fn unused(mut self) {
        drop(self.connection.take());
    }
}

/// Reached with a connection only where a query was abandoned in the middle.
impl<C: Class> Drop for Lease<C> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take().map(Object::take) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let token = connection.client.cancel_token();
            // Whatever comes of it, dropping the client closes the connection.
            let _ = tokio::time::timeout(CANCEL_LIMIT, token.cancel_query(NoTls)).await;
            drop(connection);
        });
    }
}

impl<C: Class> managed::Manager for Servers<C> {
    type Type = Connection<C>;
    type Error = Error;

    async fn create(&self) -> Result<Connection<C>, Error> {
        let generation = self.generation.current();
        let client = connect(&self.cluster, &format!("bingo/{}", C::NAME)).await?;
        let prepared = async {
            if !C::SETTINGS.is_empty() {
                client.batch_execute(C::SETTINGS).await?;
            }
            C::prepare(&client).await
        };
        let statements = prepared
            .await
            .map_err(|error| Error::query(format!("prepare the {} queries", C::NAME), error))?;
        Ok(Connection {
            client,
            statements,
            generation,
        })
    }

    async fn recycle(&self, connection: &mut Connection<C>, _: &Metrics) -> RecycleResult<Error> {
        if connection.client.is_closed() {
            return Err(RecycleError::message("closed"));
        }
        if connection.generation != self.generation.current() {
            return Err(RecycleError::message("of a server that was given up"));
        }
        Ok(())
    }
}

fn pool_error<C: Class>(error: PoolError<Error>) -> Error {
    match error {
        PoolError::Backend(error) => error,
        PoolError::Timeout(TimeoutType::Wait) => Error::Deadline {
            attempted: format!(
                "wait for one of {} {} connections",
                C::CONNECTIONS_MAX,
                C::NAME
            ),
            after: WAIT_LIMIT,
        },
        PoolError::Timeout(_) => Error::Deadline {
            attempted: format!("make a {} connection", C::NAME),
            after: CREATE_LIMIT,
        },
        other => Error::configuration("the connection pool", other.to_string(), "report this"),
    }
}
