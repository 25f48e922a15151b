//! What the service asks of the database, and the one handle that asks it. Four classes of work,
//! each with its own connections. Every read is a single statement; the writes are in `writes`, the
//! lists in pages in `pages`.
//!
//! Which server is asked, waiting for one and asking again are in `hosts` and `ask`. Dropping the
//! future of a query cancels it, so the caller's deadline is the query's.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_postgres::Error as DriverError;
use tokio_postgres::types::{ToSql, Type};

use crate::ask::{Question, Reading, Which};
use crate::deadline;
use crate::hosts::{Hosts, Looks, Need, Pools};
use crate::observed::Observed;
use crate::pool::{Class, Parameters, Pool, Preparer, Query};
use crate::query_metrics::QueryMetrics;
use crate::records::{Customer, Found, Movie, Record, Session};
use crate::writes::Writes;
use crate::{Error, PostgresCluster, purge, tell, watch};

/// The longest list (contract.md section 3).
pub const LIST_ROWS_MAX: u32 = 100_000;

pub(crate) const CUSTOMER: &str = "c.id, c.name, c.surname, c.birthday, c.email";
pub(crate) const MOVIE: &str = "m.id, m.name, m.year, m.duration";
pub(crate) const SESSION_TABLES: &str = "sessions s \
    JOIN customers c ON c.id = s.customer_id JOIN movies m ON m.id = s.movie_id";

/// The database as the service sees it. Cloned freely: clones share their connections. What runs in
/// the background ends with the last clone.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

struct Inner {
    hosts: Arc<Hosts>,
    _background: JoinSet<()>,
}

/// A list that is being read, row by row. Memory stays bounded: a reader that stops reading stops
/// the server by way of TCP. Dropped before its end, it cancels its query.
pub struct List<R: Record> {
    rows: Reading<Lists>,
    record: std::marker::PhantomData<fn() -> R>,
}

/// What `register_metrics` shows after one of everything has happened, for the reference page.
pub fn register_example_metrics(registry: &mut Registry) {
    QueryMetrics::example().register(registry);
}

impl Storage {
    /// Checks the configuration and returns at once; the servers are looked at, and the first
    /// connections made, in the background. Must be called inside a tokio runtime. Errors: a cluster
    /// without hosts, a file for TLS or for the password that cannot be read.
    pub fn open(cluster: &PostgresCluster) -> Result<Self, Error> {
        let hosts = Arc::new(Hosts::new(cluster)?);
        let mut background = JoinSet::new();
        for host in 0..hosts.servers().len() {
            background.spawn(watch::watch(hosts.clone(), host));
        }
        background.spawn(warm(hosts.clone()));
        background.spawn(purge::purge_now_and_then(hosts.clone()));
        background.spawn(tell::tell_of_absence(hosts.clone()));
        Ok(Self(Arc::new(Inner {
            hosts,
            _background: background,
        })))
    }

    /// What is known of each server now, and what its pools do.
    pub fn observed(&self) -> Observed {
        self.0.hosts.observed()
    }

    /// Shows how long questions wait and take.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.0.hosts.metrics().register(registry);
    }

    /// Says whenever the servers were looked at anew, or a query found one lost.
    pub fn looks(&self) -> Looks {
        self.0.hosts.looks()
    }

    /// Whether a server for reads answers and has our tables.
    pub async fn ready(&self) -> Result<(), Error> {
        let question = Question {
            attempted: "ask whether the database answers",
            need: Need::Reader,
            is_repeatable: true,
            statement: Which::Own(|points: &Points| &points.ready),
            parameters: &[],
        };
        self.0.hosts.one(question).await?;
        Ok(())
    }

    /// Runs `SELECT pg_sleep(0.1)` (contract.md section 3, `/db_dummy`).
    pub async fn pause(&self) -> Result<(), Error> {
        let question = Question {
            attempted: "run pg_sleep(0.1)",
            need: Need::Reader,
            is_repeatable: true,
            statement: Which::Own(|pauses: &Pauses| &pauses.pause),
            parameters: &[],
        };
        self.0.hosts.one(question).await?;
        Ok(())
    }

    pub async fn movie(&self, id: i32) -> Result<Option<Found<Movie<'static>>>, Error> {
        let id: [(&(dyn ToSql + Sync), Type); 1] = [(&id, Type::INT4)];
        self.point("read a movie", |points| &points.movie, &id)
            .await
    }

    pub async fn customer(&self, id: i32) -> Result<Option<Found<Customer<'static>>>, Error> {
        let id: [(&(dyn ToSql + Sync), Type); 1] = [(&id, Type::INT4)];
        self.point("read a customer", |points| &points.customer, &id)
            .await
    }

    /// The session with its customer and its movie.
    pub async fn session(&self, id: i64) -> Result<Option<Found<Session<'static>>>, Error> {
        let id: [(&(dyn ToSql + Sync), Type); 1] = [(&id, Type::INT8)];
        self.point("read a session", |points| &points.session, &id)
            .await
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

    /// A list by a statement that is not prepared; see `pages`.
    pub(crate) async fn page<R: Record>(
        &self,
        sql: &str,
        parameters: Vec<(&(dyn ToSql + Sync), Type)>,
    ) -> Result<List<R>, Error> {
        self.read(Which::Text(sql), &parameters).await
    }

    pub(crate) fn hosts(&self) -> &Arc<Hosts> {
        &self.0.hosts
    }

    /// What a replica does not have may be on its way there: the primary decides.
    async fn point<R: Record>(
        &self,
        attempted: &'static str,
        statement: fn(&Points) -> &Query,
        parameters: &Parameters<'_>,
    ) -> Result<Option<Found<R>>, Error> {
        let question = |need| Question {
            attempted,
            need,
            is_repeatable: true,
            statement: Which::Own(statement),
            parameters,
        };
        let hosts = &self.0.hosts;
        let (mut row, host) = hosts.one(question(Need::Reader)).await?;
        if row.is_none() && hosts.primary() != Some(host) {
            (row, _) = hosts.one(question(Need::Primary)).await?;
        }
        Ok(row.map(Found::new))
    }

    async fn list<R: Record>(
        &self,
        rows_max: u32,
        statement: fn(&Lists) -> &Query,
    ) -> Result<List<R>, Error> {
        let limit = i64::from(rows_max.min(LIST_ROWS_MAX));
        self.read(Which::Own(statement), &[(&limit, Type::INT8)])
            .await
    }

    async fn read<R: Record>(
        &self,
        statement: Which<'_, Lists>,
        parameters: &Parameters<'_>,
    ) -> Result<List<R>, Error> {
        let question = Question {
            attempted: "read a list",
            need: Need::Reader,
            is_repeatable: true,
            statement,
            parameters,
        };
        Ok(List {
            rows: self.0.hosts.rows(question).await?,
            record: std::marker::PhantomData,
        })
    }
}

impl<R: Record> List<R> {
    /// The next row; `None` after the last one or after an error.
    pub async fn next(&mut self) -> Result<Option<Found<R>>, Error> {
        Ok(self.rows.next().await?.map(Found::new))
    }
}

/// Makes the first connections, so that the first requests need not. A failure is left to them; that
/// the database is away is said by `tell`.
async fn warm(hosts: Arc<Hosts>) {
    let (points, lists, writes, pauses) = tokio::join!(
        warm_class::<Points>(&hosts, Need::Reader),
        warm_class::<Lists>(&hosts, Need::Reader),
        warm_class::<Writes>(&hosts, Need::Primary),
        warm_class::<Pauses>(&hosts, Need::Reader)
    );
    let result = points.and(lists).and(writes).and(pauses);
    if let Err(error) = result.as_ref()
        && !error.is_unavailable()
    {
        let error = chassis::failure::chain(error);
        tracing::warn!(%error, "the database cannot be used as it is");
    }
}

async fn warm_class<C: Class>(hosts: &Hosts, need: Need) -> Result<(), Error> {
    let deadline = deadline::current();
    let leases = (0..C::CONNECTIONS_READY).map(|_| hosts.lease::<C>(need, deadline));
    for lent in futures_util::future::join_all(leases).await {
        lent?.lease.give_back();
    }
    Ok(())
}

/// Reads by primary key.
pub(crate) struct Points {
    ready: Query,
    movie: Query,
    customer: Query,
    session: Query,
}

impl Class for Points {
    const NAME: &'static str = "points";
    const CONNECTIONS_MAX: usize = 8;
    const CONNECTIONS_READY: usize = 2;
    const QUERY_LIMIT: Duration = Duration::from_secs(10);
    const STATEMENT_TIMEOUT: &'static str = "15s";

    fn pool(pools: &Pools) -> &Pool<Self> {
        &pools.points
    }

    async fn prepare(preparer: &Preparer<'_>) -> Result<Self, DriverError> {
        let movie = format!("SELECT {MOVIE} FROM movies m WHERE m.id = $1");
        let customer = format!("SELECT {CUSTOMER} FROM customers c WHERE c.id = $1");
        let session = format!(
            "SELECT s.id, s.start_time, {CUSTOMER}, {MOVIE} FROM {SESSION_TABLES} WHERE s.id = $1"
        );
        let (ready, movie, customer, session) = tokio::try_join!(
            preparer.query("SELECT FROM movies, customers, sessions, idempotency_keys LIMIT 0"),
            preparer.query(&movie),
            preparer.query(&customer),
            preparer.query(&session)
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
pub(crate) struct Lists {
    movies: Query,
    customers: Query,
    sessions: Query,
}

impl Class for Lists {
    const NAME: &'static str = "lists";
    const CONNECTIONS_MAX: usize = 2;
    const CONNECTIONS_READY: usize = 1;
    const QUERY_LIMIT: Duration = Duration::from_secs(15);
    /// A slow client may take its time over a list; the node sees to it that it takes some.
    const STATEMENT_TIMEOUT: &'static str = "15min";
    /// Memoize misjudges itself under LIMIT; compiling a plan delays the first byte; a generic plan
    /// guesses the LIMIT and would leave the indexes (performance.md "The lists").
    const SETTINGS: &'static str =
        "SET enable_memoize = off; SET jit = off; SET plan_cache_mode = force_custom_plan";

    fn pool(pools: &Pools) -> &Pool<Self> {
        &pools.lists
    }

    async fn prepare(preparer: &Preparer<'_>) -> Result<Self, DriverError> {
        let [(_, movies), (_, customers), (_, sessions)] = list_statements();
        let (movies, customers, sessions) = tokio::try_join!(
            preparer.query(&movies),
            preparer.query(&customers),
            preparer.query(&sessions)
        )?;
        for list in [&movies, &customers, &sessions] {
            preparer.first_row(list).await?;
        }
        Ok(Self {
            movies,
            customers,
            sessions,
        })
    }
}

/// The index that each of the three lists is read by, and its statement ($1: how many rows at most).
/// Public for the test that watches their plans.
#[doc(hidden)]
pub fn list_statements() -> [(&'static str, String); 3] {
    [
        (
            "movies_list",
            format!(
                "SELECT {MOVIE} FROM movies m ORDER BY m.year DESC, m.name, m.id DESC LIMIT $1"
            ),
        ),
        (
            "customers_list",
            format!(
                "SELECT {CUSTOMER} FROM customers c \
                 ORDER BY c.surname, c.name, c.birthday DESC, c.id DESC LIMIT $1"
            ),
        ),
        (
            "sessions_list",
            format!(
                "SELECT s.id, s.start_time, {CUSTOMER}, {MOVIE} FROM {SESSION_TABLES} \
                 ORDER BY m.year DESC, m.name, c.id, s.id DESC LIMIT $1"
            ),
        ),
    ]
}

/// The settings of the sessions that run them.
#[doc(hidden)]
pub const LIST_SETTINGS: &str = Lists::SETTINGS;

/// Queries that sleep on their connection: 120 a second are twelve at once.
pub(crate) struct Pauses {
    pause: Query,
}

impl Class for Pauses {
    const NAME: &'static str = "db_dummy";
    const CONNECTIONS_MAX: usize = 24;
    const CONNECTIONS_READY: usize = 2;
    const QUERY_LIMIT: Duration = Duration::from_secs(10);
    const STATEMENT_TIMEOUT: &'static str = "15s";

    fn pool(pools: &Pools) -> &Pool<Self> {
        &pools.pauses
    }

    async fn prepare(preparer: &Preparer<'_>) -> Result<Self, DriverError> {
        let pause = preparer.query("SELECT pg_sleep(0.1)").await?;
        Ok(Self { pause })
    }
}
