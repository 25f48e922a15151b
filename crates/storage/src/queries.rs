//! What the service asks of the database, and the one handle that asks it. Four classes of work,
//! each with its own connections. Every read is a single prepared statement; the writes are in
//! `writes`.
//!
//! A query here has no limit of time of its own: dropping its future cancels it, so the caller's
//! deadline is the query's. Waiting for a connection and making one have limits in `pool`.

use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio_postgres::{Client, RowStream, Statement};

use crate::connect::host_config;
use crate::pool::{Class, Generation, Lease, Pool};
use crate::records::{Customer, Found, Movie, Record, Session};
use crate::writes::Writes;
use crate::{Error, PostgresCluster};

/// The longest list (contract.md section 3).
pub const LIST_ROWS_MAX: u32 = 100_000;

const CUSTOMER: &str = "c.id, c.name, c.surname, c.birthday, c.email";
const MOVIE: &str = "m.id, m.name, m.year, m.duration";
const SESSION_TABLES: &str = "sessions s \
    JOIN customers c ON c.id = s.customer_id JOIN movies m ON m.id = s.movie_id";

/// The database as the service sees it. Cloned freely: clones share their connections.
#[derive(Clone)]
pub struct Storage(Arc<Pools>);

struct Pools {
    points: Pool<Points>,
    lists: Pool<Lists>,
    writes: Pool<Writes>,
    pauses: Pool<Pauses>,
}

/// A list that is being read, row by row. Memory stays bounded: a reader that stops reading stops
/// the server by way of TCP. Dropped before its end, it cancels its query.
pub struct List<R: Record> {
    rows: std::pin::Pin<Box<RowStream>>,
    lease: Option<Lease<Lists>>,
    record: std::marker::PhantomData<fn() -> R>,
}

impl Storage {
    /// Checks the configuration and returns at once; the first connections are made in the
    /// background. Must be called inside a tokio runtime. Errors: a cluster without hosts, an
    /// `ssl_mode` that we do not have, a password file that cannot be read.
    pub fn open(cluster: &PostgresCluster) -> Result<Self, Error> {
        if cluster.hosts.is_empty() {
            return Err(Error::configuration(
                "postgres_cluster.hosts",
                "it is empty",
                "name at least one host",
            ));
        }
        for host in &cluster.hosts {
            host_config(cluster, host)?;
        }
        let cluster = Arc::new(cluster.clone());
        let generation = Generation::default();
        let storage = Self(Arc::new(Pools {
            points: Pool::new(cluster.clone(), generation.clone())?,
            lists: Pool::new(cluster.clone(), generation.clone())?,
            writes: Pool::new(cluster.clone(), generation.clone())?,
            pauses: Pool::new(cluster, generation)?,
        }));
        tokio::spawn(warm(storage.0.clone()));
        Ok(storage)
    }

    /// Whether the database answers and has our tables.
    pub async fn ready(&self) -> Result<(), Error> {
        let lease = self.0.points.lease().await?;
        let connection = lease.connection()?;
        let result = connection
            .client
            .query_opt(&connection.statements.ready, &[])
            .await;
        lease.settle("ask whether the database answers", result)?;
        Ok(())
    }

    /// Runs `SELECT pg_sleep(0.1)` (contract.md section 3, `/db_dummy`).
    pub async fn pause(&self) -> Result<(), Error> {
        let lease = self.0.pauses.lease().await?;
        let connection = lease.connection()?;
        let result = connection
            .client
            .query_opt(&connection.statements.pause, &[])
            .await;
        lease.settle("run pg_sleep(0.1)", result)?;
        Ok(())
    }

    pub async fn movie(&self, id: i32) -> Result<Option<Found<Movie<'static>>>, Error> {
        let lease = self.0.points.lease().await?;
        let connection = lease.connection()?;
        let result = connection
            .client
            .query_opt(&connection.statements.movie, &[&id])
            .await;
        Ok(lease.settle("read a movie", result)?.map(Found::new))
    }

    pub async fn customer(&self, id: i32) -> Result<Option<Found<Customer<'static>>>, Error> {
        let lease = self.0.points.lease().await?;
        let connection = lease.connection()?;
        let result = connection
            .client
            .query_opt(&connection.statements.customer, &[&id])
            .await;
        Ok(lease.settle("read a customer", result)?.map(Found::new))
    }

    /// The session with its customer and its movie.
    pub async fn session(&self, id: i64) -> Result<Option<Found<Session<'static>>>, Error> {
        let lease = self.0.points.lease().await?;
        let connection = lease.connection()?;
        let result = connection
            .client
            .query_opt(&connection.statements.session, &[&id])
            .await;
        Ok(lease.settle("read a session", result)?.map(Found::new))
    }

    /// `year DESC, name ASC, id DESC`, at most `rows_max` and never more than `LIST_ROWS_MAX`.
    pub async fn movies(&self, rows_max: u32) -> Result<List<Movie<'static>>, Error> {
        self.list(rows_max, |lists| &lists.movies).await
    }

    /// `surname ASC, name ASC, birthday DESC, id DESC`, at most `rows_max`.
    pub async fn customers(&self, rows_max: u32) -> Result<List<Customer<'static>>, Error> {
        self.list(rows_max, |lists| &lists.customers).await
    }

    /// `movies.year DESC, movies.name ASC, customers.id ASC, sessions.id DESC`, at most `rows_max`.
    pub async fn sessions(&self, rows_max: u32) -> Result<List<Session<'static>>, Error> {
        self.list(rows_max, |lists| &lists.sessions).await
    }

    async fn list<R: Record>(
        &self,
        rows_max: u32,
        statement: impl Fn(&Lists) -> &Statement,
    ) -> Result<List<R>, Error> {
        let lease = self.0.lists.lease().await?;
        let connection = lease.connection()?;
        let limit = i64::from(rows_max.min(LIST_ROWS_MAX));
        let result = connection
            .client
            .query_raw(statement(&connection.statements), [limit])
            .await;
        match result {
            Ok(rows) => Ok(List {
                rows: Box::pin(rows),
                lease: Some(lease),
                record: std::marker::PhantomData,
            }),
            Err(error) => lease.settle("read a list", Err(error)),
        }
    }

    pub(crate) fn writes(&self) -> &Pool<Writes> {
        &self.0.writes
    }
}

impl<R: Record> List<R> {
    /// The next row; `None` after the last one or after an error.
    pub async fn next(&mut self) -> Result<Option<Found<R>>, Error> {
        if self.lease.is_none() {
            return Ok(None);
        }
        match pin!(self.rows.next()).await {
            Some(Ok(row)) => Ok(Some(Found::new(row))),
            Some(Err(error)) => self.end(Err(error)),
            None => self.end(Ok(())),
        }
    }

    fn end(
        &mut self,
        result: Result<(), tokio_postgres::Error>,
    ) -> Result<Option<Found<R>>, Error> {
        if let Some(lease) = self.lease.take() {
            lease.settle("read a list", result)?;
        }
        Ok(None)
    }
}

/// A failure is said once and left to the first request.
async fn warm(pools: Arc<Pools>) {
    let (points, lists, writes, pauses) = tokio::join!(
        pools.points.warm(),
        pools.lists.warm(),
        pools.writes.warm(),
        pools.pauses.warm()
    );
    if let Err(error) = points.and(lists).and(writes).and(pauses) {
        let error = chassis::failure::chain(&error);
        tracing::warn!(%error, "the database could not be reached at start");
    }
}

/// Reads by primary key.
struct Points {
    ready: Statement,
    movie: Statement,
    customer: Statement,
    session: Statement,
}

impl Class for Points {
    const NAME: &'static str = "points";
    const CONNECTIONS_MAX: usize = 8;
    const CONNECTIONS_READY: usize = 2;

    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let movie = format!("SELECT {MOVIE} FROM movies m WHERE m.id = $1");
        let customer = format!("SELECT {CUSTOMER} FROM customers c WHERE c.id = $1");
        let session = format!(
            "SELECT s.id, s.start_time, {CUSTOMER}, {MOVIE} FROM {SESSION_TABLES} WHERE s.id = $1"
        );
        let (ready, movie, customer, session) = tokio::try_join!(
            client.prepare("SELECT 1"),
            client.prepare(&movie),
            client.prepare(&customer),
            client.prepare(&session)
        )?;
        Ok(Self {
            ready,
            movie,
            customer,
            session,
        })
    }
}

/// The three lists.
struct Lists {
    movies: Statement,
    customers: Statement,
    sessions: Statement,
}

impl Class for Lists {
    const NAME: &'static str = "lists";
    const CONNECTIONS_MAX: usize = 2;
    const CONNECTIONS_READY: usize = 1;
    /// Memoize misjudges itself under LIMIT; compiling a plan delays the first byte; a generic plan
    /// guesses the LIMIT and would leave the indexes (performance.md "The lists").
    const SETTINGS: &'static str =
        "SET enable_memoize = off; SET jit = off; SET plan_cache_mode = force_custom_plan";

    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let movies = format!(
            "SELECT {MOVIE} FROM movies m ORDER BY m.year DESC, m.name, m.id DESC LIMIT $1"
        );
        let customers = format!(
            "SELECT {CUSTOMER} FROM customers c \
             ORDER BY c.surname, c.name, c.birthday DESC, c.id DESC LIMIT $1"
        );
        let sessions = format!(
            "SELECT s.id, s.start_time, {CUSTOMER}, {MOVIE} FROM {SESSION_TABLES} \
             ORDER BY m.year DESC, m.name, c.id, s.id DESC LIMIT $1"
        );
        let (movies, customers, sessions) = tokio::try_join!(
            client.prepare(&movies),
            client.prepare(&customers),
            client.prepare(&sessions)
        )?;
        Ok(Self {
            movies,
            customers,
            sessions,
        })
    }
}

/// Queries that sleep on their connection: 120 a second are twelve at once.
struct Pauses {
    pause: Statement,
}

impl Class for Pauses {
    const NAME: &'static str = "db_dummy";
    const CONNECTIONS_MAX: usize = 24;
    const CONNECTIONS_READY: usize = 2;

    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let pause = client.prepare("SELECT pg_sleep(0.1)").await?;
        Ok(Self { pause })
    }
}
