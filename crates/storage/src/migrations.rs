//! Brings the schema up to date: numbered SQL files, each in a transaction with its own row in
//! `bingo_migrations`. The vendor's `schema_migrations` is not ours and stays as it is.
//!
//! A runner of forty lines instead of refinery: refinery takes no lock between processes (stack.md,
//! trap 20), and here the caller already holds one, on this very connection.

use std::time::Duration;

use tokio_postgres::Client;

use crate::Error;
use crate::connect::within;

/// One file; none of them rewrites a large table.
const LIMIT: Duration = Duration::from_secs(60);

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

/// In order, and never changed once released.
const MIGRATIONS: [Migration; 2] = [
    Migration {
        version: 1,
        name: "tables",
        sql: include_str!("../migrations/0001_tables.sql"),
    },
    Migration {
        version: 2,
        name: "bookkeeping",
        sql: include_str!("../migrations/0002_bookkeeping.sql"),
    },
];

/// Applies what is missing and returns how many files that was. The caller holds the advisory lock.
pub async fn migrate(client: &Client) -> Result<usize, Error> {
    const CREATE: &str = "CREATE TABLE bingo_migrations (version integer PRIMARY KEY, \
         name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())";
    const READ: &str = "read the schema's version";
    let fault = |error| Error::query(READ, error);
    let exists = client.query_one("SELECT to_regclass('bingo_migrations') IS NOT NULL", &[]);
    if !within(LIMIT, READ, exists)
        .await?
        .try_get(0)
        .map_err(fault)?
    {
        let create = client.batch_execute(CREATE);
        within(LIMIT, "create the table bingo_migrations", create).await?;
    }
    let rows = client.query("SELECT version FROM bingo_migrations", &[]);
    let rows = within(LIMIT, READ, rows).await?;
    let applied: Result<Vec<i32>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    let missing = missing(&applied.map_err(fault)?)?;
    for migration in &missing {
        apply(client, migration).await?;
    }
    Ok(missing.len())
}

/// Errors: the database knows a version that we do not.
fn missing(applied: &[i32]) -> Result<Vec<&'static Migration>, Error> {
    let known = |version: &i32| MIGRATIONS.iter().any(|one| one.version == *version);
    if let Some(newer) = applied.iter().find(|version| !known(version)) {
        return Err(Error::Refused {
            attempted: "bring the schema up to date".into(),
            why: format!("a newer bingo has already brought it to version {newer}"),
            remedy: "use that bingo, or a newer one".into(),
        });
    }
    let missing = MIGRATIONS
        .iter()
        .filter(|one| !applied.contains(&one.version));
    Ok(missing.collect())
}

async fn apply(client: &Client, migration: &Migration) -> Result<(), Error> {
    let Migration { version, name, sql } = migration;
    let sql = format!(
        "BEGIN;\n{sql}\nINSERT INTO bingo_migrations (version, name) VALUES ({version}, '{name}');\nCOMMIT"
    );
    let attempted = format!("apply migration {version} ({name})");
    let applied = within(LIMIT, &attempted, client.batch_execute(&sql)).await;
    if applied.is_err() {
        // Leaves the failed transaction; where the connection is gone there is none to leave.
        let _ = within(LIMIT, "roll back", client.batch_execute("ROLLBACK")).await;
    }
    applied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_up_from_one() {
        for (i, migration) in (1..).zip(&MIGRATIONS) {
            assert_eq!(migration.version, i);
        }
    }

    #[test]
    fn only_missing_ones_are_applied_and_a_newer_schema_is_refused() {
        let versions = |applied: &[i32]| -> Vec<i32> {
            missing(applied)
                .unwrap()
                .iter()
                .map(|one| one.version)
                .collect()
        };
        assert_eq!(versions(&[]), [1, 2]);
        assert_eq!(versions(&[1]), [2]);
        assert_eq!(versions(&[2, 1]), [0; 0]);
        let error = missing(&[1, 2, 99]).err().unwrap().to_string();
        assert!(error.contains("version 99"), "{error}");
    }
}
