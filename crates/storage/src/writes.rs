//! The two writes of the service, each one statement: with a key, the same statement stores the
//! answer beside the effect, so there is either both or neither, and no round trip inside a
//! transaction that a lost node could leave open.
//!
//! A repeat finds the stored answer. Two of a kind at the same time meet in the primary key of
//! `idempotency_keys` (or on the row that both delete): the second waits there for the first, is
//! then refused by the server or finds nothing, and asks again, now seeing the first one's answer.
//!
//! The answer's JSON is made by PostgreSQL in the shape that the service writes everywhere, because
//! the statement that stores it cannot wait for anybody else to make it.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Error as DriverError, Row};

use crate::ask::{Question, Which};
use crate::hosts::{Need, Pools};
use crate::pool::{Class, Parameters, Pool, Preparer, Query};
use crate::purge::PURGE;
use crate::records::Timestamp;
use crate::{Error, Storage};

/// How often a keyed write is asked again after it met another with its key. Each time the other
/// one has ended, so the second try decides; the third is for a key that was purged in between.
const MEETINGS_MAX: usize = 3;

/// What makes a write repeatable.
#[derive(Clone, Copy, Debug)]
pub struct IdempotencyKey<'a> {
    pub key: &'a str,
    /// A hash of what was asked; another hash under the same key is another request.
    pub request_hash: &'a [u8],
}

/// A session to be stored. Its time is UTC.
#[derive(Clone, Copy, Debug)]
pub struct NewSession {
    pub start_time: Timestamp,
    pub customer_id: i32,
    pub movie_id: i32,
}

/// What became of `create_session`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// Stored, now or by an earlier request with this key; the same answer either way.
    Stored { id: i64, json: String },
    /// There is no such customer or no such movie.
    UnknownReference,
    /// The key was used for another request.
    KeyReused,
}

/// What became of `delete_session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// Deleted, now or by an earlier request with this key.
    Gone,
    NotFound,
    /// The key was used for another request.
    KeyReused,
}

impl Storage {
    /// Stores a session and returns it as JSON with its customer and movie.
    pub async fn create_session(
        &self,
        session: NewSession,
        key: Option<IdempotencyKey<'_>>,
    ) -> Result<Created, Error> {
        for _ in 0..MEETINGS_MAX {
            match self.create(session, key).await {
                Ok(None) => return Ok(Created::UnknownReference),
                Ok(Some(row)) => return created(&row, key),
                Err(error) if is_foreign_key(&error) => return Ok(Created::UnknownReference),
                Err(error) if is_met_key(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(met_too_often("store a session"))
    }

    /// Deletes a session.
    pub async fn delete_session(
        &self,
        id: i64,
        key: Option<IdempotencyKey<'_>>,
    ) -> Result<Deleted, Error> {
        let mut last_look = key.is_none();
        for _ in 0..MEETINGS_MAX {
            match self.delete(id, key).await {
                Ok(Some(row)) => return deleted(&row, key),
                Ok(None) if last_look => return Ok(Deleted::NotFound),
                // One with the same key may have deleted it while we waited for the row.
                Ok(None) => last_look = true,
                Err(error) if is_met_key(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(met_too_often("delete a session"))
    }

    async fn create(
        &self,
        session: NewSession,
        key: Option<IdempotencyKey<'_>>,
    ) -> Result<Option<Row>, Error> {
        let parameters: &Parameters<'_> = &[
            (&key.map(|key| key.key), Type::TEXT),
            (&key.map(|key| key.request_hash), Type::BYTEA),
            (&session.start_time, Type::TIMESTAMP),
            (&session.customer_id, Type::INT4),
            (&session.movie_id, Type::INT4),
        ];
        let question = Question {
            attempted: "store a session",
            need: Need::Primary,
            is_repeatable: key.is_some(),
            statement: Which::Own(|writes: &Writes| &writes.create),
            parameters,
        };
        self.hosts().one(question).await.map(|(row, _)| row)
    }

    async fn delete(&self, id: i64, key: Option<IdempotencyKey<'_>>) -> Result<Option<Row>, Error> {
        let parameters: &Parameters<'_> = &[
            (&key.map(|key| key.key), Type::TEXT),
            (&key.map(|key| key.request_hash), Type::BYTEA),
            (&id, Type::INT8),
        ];
        let question = Question {
            attempted: "delete a session",
            need: Need::Primary,
            is_repeatable: key.is_some(),
            statement: Which::Own(|writes: &Writes| &writes.delete),
            parameters,
        };
        self.hosts().one(question).await.map(|(row, _)| row)
    }
}

/// The connections that write.
pub(crate) struct Writes {
    create: Query,
    delete: Query,
    pub(crate) purge: Query,
}

impl Class for Writes {
    const NAME: &'static str = "writes";
    const CONNECTIONS_MAX: usize = 4;
    const CONNECTIONS_READY: usize = 1;
    const QUERY_LIMIT: Duration = Duration::from_secs(10);
    const STATEMENT_TIMEOUT: &'static str = "15s";
    /// Whoever holds a key's row in a transaction that does not end must not hold, through those that
    /// wait for it, every connection that writes. Longer than the two seconds after which a frozen
    /// session of ours is ended, so that a repeat outlives it.
    const SETTINGS: &'static str = "SET lock_timeout = '2500ms'";

    fn pool(pools: &Pools) -> &Pool<Self> {
        &pools.writes
    }

    async fn prepare(preparer: &Preparer<'_>) -> Result<Self, DriverError> {
        let (create, delete, purge) = tokio::try_join!(
            preparer.query(CREATE),
            preparer.query(DELETE),
            preparer.query(PURGE)
        )?;
        Ok(Self {
            create,
            delete,
            purge,
        })
    }
}

/// $1 key or null, $2 request hash or null, $3 start time, $4 customer, $5 movie.
/// Answers one row (request hash, session id, body), or none where a reference is unknown.
const CREATE: &str = r#"
WITH earlier AS MATERIALIZED (
    SELECT request_hash, status, body FROM idempotency_keys WHERE key = $1::text
), answer AS MATERIALIZED (
    SELECT n.id, format(
        '{"id":%s,"start_time":"%s",'
        '"customer":{"id":%s,"name":%s,"surname":%s,"birthday":"%s","email":%s},'
        '"movie":{"id":%s,"name":%s,"year":%s,"duration":%s}}',
        n.id, to_char($3::timestamp, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        c.id, to_json(c.name::text), to_json(c.surname::text),
        to_char(c.birthday::timestamp, 'YYYY-MM-DD'), to_json(c.email::text),
        m.id, to_json(m.name::text), m.year, m.duration) AS body
    FROM customers c, movies m, nextval('sessions_id_seq') n(id)
    WHERE c.id = $4::int4 AND m.id = $5::int4 AND NOT EXISTS (SELECT FROM earlier)
), stored AS (
    INSERT INTO sessions (id, start_time, customer_id, movie_id)
    SELECT id, $3::timestamp, $4::int4, $5::int4 FROM answer
), keyed AS (
    INSERT INTO idempotency_keys (key, request_hash, status, body)
    SELECT $1::text, $2::bytea, 201, body FROM answer WHERE $1::text IS NOT NULL
)
SELECT request_hash, CASE status WHEN 201 THEN (body::json ->> 'id')::int8 END, body FROM earlier
UNION ALL SELECT $2::bytea, id, body FROM answer
"#;

/// $1 key or null, $2 request hash or null, $3 id.
/// Answers one row (request hash), or none where there is no such session.
const DELETE: &str = "
WITH earlier AS MATERIALIZED (
    SELECT request_hash FROM idempotency_keys WHERE key = $1::text
), gone AS (
    DELETE FROM sessions WHERE id = $3::int8 AND NOT EXISTS (SELECT FROM earlier) RETURNING id
), keyed AS (
    INSERT INTO idempotency_keys (key, request_hash, status, body)
    SELECT $1::text, $2::bytea, 204, '' FROM gone WHERE $1::text IS NOT NULL
)
SELECT request_hash FROM earlier
UNION ALL SELECT $2::bytea FROM gone
";

fn created(row: &Row, key: Option<IdempotencyKey<'_>>) -> Result<Created, Error> {
    let read = || -> Result<Created, tokio_postgres::Error> {
        if is_other_request(row, key)? {
            return Ok(Created::KeyReused);
        }
        Ok(Created::Stored {
            id: row.try_get(1)?,
            json: row.try_get(2)?,
        })
    };
    read().map_err(|error| Error::query("read the stored answer", error))
}

fn deleted(row: &Row, key: Option<IdempotencyKey<'_>>) -> Result<Deleted, Error> {
    match is_other_request(row, key) {
        Ok(true) => Ok(Deleted::KeyReused),
        Ok(false) => Ok(Deleted::Gone),
        Err(error) => Err(Error::query("read the stored answer", error)),
    }
}

fn is_other_request(
    row: &Row,
    key: Option<IdempotencyKey<'_>>,
) -> Result<bool, tokio_postgres::Error> {
    let stored: Option<&[u8]> = row.try_get(0)?;
    Ok(stored != key.map(|key| key.request_hash))
}

fn is_foreign_key(error: &Error) -> bool {
    error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION)
}

/// Another write with the same key was stored between our look and our own.
fn is_met_key(error: &Error) -> bool {
    match error {
        Error::Query { source, .. } => source.as_db_error().is_some_and(|error| {
            *error.code() == SqlState::UNIQUE_VIOLATION && error.table() == Some("idempotency_keys")
        }),
        _ => false,
    }
}

fn met_too_often(attempted: &str) -> Error {
    Error::Refused {
        attempted: attempted.to_owned(),
        why: "others with the same idempotency key kept coming and going".to_owned(),
        remedy: "send it again".to_owned(),
    }
}
