//! What comes after the rows: primary keys, list indexes, foreign keys, sequences, statistics. Every
//! step looks at the catalogue first, so that it can be interrupted and repeated.
//!
//! A primary key is built as a unique index and then attached, because building the key itself would
//! lock the table against the other index. Foreign keys are added unchecked and then validated: where
//! an adopted table does not bear it, the key stays unvalidated and a warning says how many rows are
//! at fault; none is deleted.

use tokio_postgres::error::SqlState;

use super::catalogue::{self, one};
use super::tables::{ForeignKey, SESSIONS, Table};
use super::worker::Worker;
use crate::Error;

/// What could not be done for the sake of rows that are not ours.
pub(super) type Warning = Option<String>;

/// Builds the index of the primary key.
pub(super) async fn key_index(worker: &Worker, table: &Table) -> Result<Warning, Error> {
    if catalogue::has_primary_key(&worker.client, table).await? {
        return Ok(None);
    }
    let Table { name, key, .. } = table;
    let build = format!("CREATE UNIQUE INDEX {key} ON {name} (id)");
    match index(worker, table, key, &build).await {
        Err(error) if is(&error, &SqlState::UNIQUE_VIOLATION) => {
            let sql = format!(
                "SELECT count(*) FROM (SELECT id FROM {name} GROUP BY id HAVING count(*) > 1) twice"
            );
            let count: i64 = one(&worker.client, "count duplicates", &sql, |row| {
                row.try_get(0)
            })
            .await?;
            Ok(Some(format!(
                "{name} has {count} ids more than once: it gets no primary key until they are unique"
            )))
        }
        result => result.map(|()| None),
    }
}

/// Makes the finished index the primary key; nothing where there is no such index.
pub(super) async fn attach_key(worker: &Worker, table: &Table) -> Result<Warning, Error> {
    let Table { name, key, .. } = table;
    let client = &worker.client;
    if catalogue::has_primary_key(client, table).await?
        || catalogue::index_state(client, table, key).await?.is_none()
    {
        return Ok(None);
    }
    let sql = format!("ALTER TABLE {name} ADD CONSTRAINT {key} PRIMARY KEY USING INDEX {key}");
    match worker.run(&sql).await {
        Err(error) if is(&error, &SqlState::NOT_NULL_VIOLATION) => Ok(Some(format!(
            "{name} has rows without an id: it gets no primary key until they have one"
        ))),
        result => result.map(|()| None),
    }
}

/// Builds the index that the table's list is read from.
pub(super) async fn list_index(worker: &Worker, table: &Table) -> Result<(), Error> {
    let (name, definition) = table.list_index;
    index(
        worker,
        table,
        name,
        &format!("CREATE INDEX {name} ON {definition}"),
    )
    .await
}

/// Adds and validates one foreign key of `sessions`.
pub(super) async fn foreign_key(worker: &Worker, key: &ForeignKey) -> Result<Warning, Error> {
    let ForeignKey { name, column, to } = key;
    let parent = to.name;
    let state = catalogue::foreign_key_state(&worker.client, SESSIONS.name, parent).await?;
    let existing = match state {
        Some((_, true)) => return Ok(None),
        Some((existing, false)) => existing,
        None if !catalogue::has_primary_key(&worker.client, to).await? => {
            return Ok(Some(format!(
                "sessions gets no foreign key to {parent}, for {parent} has no primary key"
            )));
        }
        None => {
            let add = format!(
                "ALTER TABLE sessions ADD CONSTRAINT {name} FOREIGN KEY ({column}) \
                 REFERENCES {parent} (id) NOT VALID"
            );
            worker.run(&add).await?;
            (*name).to_owned()
        }
    };
    let validate = format!("ALTER TABLE sessions VALIDATE CONSTRAINT \"{existing}\"");
    match worker.run(&validate).await {
        Err(error) if is(&error, &SqlState::FOREIGN_KEY_VIOLATION) => {
            let sql = format!(
                "SELECT count(*) FROM sessions s \
                 WHERE NOT EXISTS (SELECT FROM {parent} p WHERE p.id = s.{column})"
            );
            let count: i64 =
                one(&worker.client, "count orphans", &sql, |row| row.try_get(0)).await?;
            Ok(Some(format!(
                "{count} sessions have a {column} that is not in {parent}: the foreign key holds for \
                 new rows only; mend them and run: {validate}"
            )))
        }
        result => result.map(|()| None),
    }
}

/// Moves the sequence past the last id; never back.
pub(super) async fn sequence(worker: &Worker, table: &Table) -> Result<(), Error> {
    let Table { name, sequence, .. } = table;
    let sql = format!(
        "SELECT setval('{sequence}', last.id) \
         FROM (SELECT max(id)::bigint AS id FROM {name}) last, {sequence} s \
         WHERE last.id > s.last_value OR last.id = s.last_value AND NOT s.is_called"
    );
    worker.run(&sql).await
}

/// Statistics for the planner. Rows of others were not loaded frozen: without VACUUM the lists' index
/// would have to look at the table for each of them.
pub(super) async fn statistics(
    worker: &Worker,
    table: &Table,
    is_adopted: bool,
) -> Result<(), Error> {
    let how = if is_adopted {
        "VACUUM (ANALYZE)"
    } else {
        "ANALYZE"
    };
    worker.run(&format!("{how} {}", table.name)).await
}

/// Everything on the disk, so that the first minutes of service are not spent on it.
pub(super) async fn checkpoint(worker: &Worker) -> Result<Warning, Error> {
    match worker.run("CHECKPOINT").await {
        Err(error) if is(&error, &SqlState::INSUFFICIENT_PRIVILEGE) => Ok(Some(
            "no CHECKPOINT: this user may not (GRANT pg_checkpoint TO it); the server does it later"
                .into(),
        )),
        result => result.map(|()| None),
    }
}

/// Builds an index unless a valid one of this name is there; an invalid one is built again.
async fn index(worker: &Worker, table: &Table, name: &str, build: &str) -> Result<(), Error> {
    match catalogue::index_state(&worker.client, table, name).await? {
        Some(true) => Ok(()),
        Some(false) => worker.run(&format!("DROP INDEX {name}; {build}")).await,
        None => worker.run(build).await,
    }
}

fn is(error: &Error, code: &SqlState) -> bool {
    error.code() == Some(code)
}
