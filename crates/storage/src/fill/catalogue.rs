//! What is in the database already, read from PostgreSQL's catalogue and from `bingo_fill`: never by
//! counting, save for a table whose rows came from somebody else.

use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::tables::Table;
use crate::Error;
use crate::connect::within;

/// One look, be it the count of a large table on a slow disk.
const QUERY_LIMIT: Duration = Duration::from_secs(600);

/// Who wrote the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Filled,
    Adopted,
}

/// A row of `bingo_fill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub origin: Origin,
    pub rows: u64,
    pub seed: Option<u64>,
    /// Keys, indexes, sequences and statistics are done too.
    pub is_ready: bool,
}

/// Reads every row of a query by `read`; `attempted` says what for.
pub(super) async fn ask<T>(
    client: &Client,
    attempted: &str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
    read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
) -> Result<Vec<T>, Error> {
    let rows = within(QUERY_LIMIT, attempted, client.query(sql, parameters)).await?;
    let values: Result<Vec<T>, _> = rows.iter().map(read).collect();
    values.map_err(|error| Error::query(attempted, error))
}

/// The one row of a query without parameters.
pub(super) async fn one<T>(
    client: &Client,
    attempted: &str,
    sql: &str,
    read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
) -> Result<T, Error> {
    let row = within(QUERY_LIMIT, attempted, client.query_one(sql, &[])).await?;
    read(&row).map_err(|error| Error::query(attempted, error))
}

/// The marker of a table, if it has one.
pub(super) async fn marker(client: &Client, table: &Table) -> Result<Option<Marker>, Error> {
    const SQL: &str = "SELECT origin, rows, seed, ready_at IS NOT NULL FROM bingo_fill \
         WHERE table_name = $1";
    let read = |row: &Row| {
        Ok(Marker {
            origin: match row.try_get(0)? {
                "filled" => Origin::Filled,
                _ => Origin::Adopted,
            },
            rows: row.try_get::<_, i64>(1)?.cast_unsigned(),
            seed: row.try_get::<_, Option<i64>>(2)?.map(i64::cast_unsigned),
            is_ready: row.try_get(3)?,
        })
    };
    let attempted = format!("read the marker of {}", table.name);
    Ok(ask(client, &attempted, SQL, &[&table.name], read)
        .await?
        .pop())
}

/// Writes the marker of a table that has its rows now.
pub(super) async fn mark(client: &Client, table: &Table, marker: Marker) -> Result<(), Error> {
    const SQL: &str =
        "INSERT INTO bingo_fill (table_name, origin, rows, seed) VALUES ($1, $2, $3, $4)";
    let origin = match marker.origin {
        Origin::Filled => "filled",
        Origin::Adopted => "adopted",
    };
    let (rows, seed) = (marker.rows.cast_signed(), marker.seed.map(u64::cast_signed));
    let attempted = format!("mark {}", table.name);
    let values: [&(dyn ToSql + Sync); 4] = [&table.name, &origin, &rows, &seed];
    within(QUERY_LIMIT, &attempted, client.execute(SQL, &values))
        .await
        .map(drop)
}

/// True if the table has at least one row.
pub(super) async fn has_rows(client: &Client, table: &Table) -> Result<bool, Error> {
    let sql = format!("SELECT EXISTS (SELECT FROM {})", table.name);
    one(client, &format!("look into {}", table.name), &sql, |row| {
        row.try_get(0)
    })
    .await
}

/// How many rows there are, and whether their ids are exactly 1 to that number.
pub(super) async fn count(client: &Client, table: &Table) -> Result<(u64, bool), Error> {
    let sql = format!(
        "SELECT count(*), coalesce(min(id) = 1 AND max(id) = count(DISTINCT id), false) FROM {}",
        table.name
    );
    let (rows, is_gapless): (i64, bool) =
        one(client, &format!("count {}", table.name), &sql, |row| {
            Ok((row.try_get(0)?, row.try_get(1)?))
        })
        .await?;
    Ok((rows.cast_unsigned(), is_gapless))
}

/// Refuses a table that is none, or has other columns than contract.md section 4 says.
pub(super) async fn check_columns(client: &Client, table: &Table) -> Result<(), Error> {
    const SQL: &str = "SELECT a.attname::text, format_type(a.atttypid, NULL), c.relkind::text \
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
         WHERE c.oid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped";
    let attempted = format!("use the table {}", table.name);
    let read = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    let columns = ask(client, &attempted, SQL, &[&table.name], read).await?;
    match unfit(table, &columns) {
        None => Ok(()),
        Some(why) => Err(Error::Refused {
            attempted,
            why,
            remedy: "give bingo a database of its own (postgres_cluster.db_name)".into(),
        }),
    }
}

/// Why these (name, type, kind of table) are no such table; `None` where they are.
fn unfit(table: &Table, columns: &[(String, String, String)]) -> Option<String> {
    if columns.is_empty() {
        return Some("it is missing, though the schema was made before".into());
    }
    if columns.iter().any(|(_, _, kind)| kind != "r") {
        return Some("it is no plain table".into());
    }
    table.columns.iter().find_map(|(name, wanted)| {
        match columns.iter().find(|(column, _, _)| column == name) {
            None => Some(format!("it has no column {name}")),
            Some((_, found, _)) if found == wanted => None,
            Some((_, found, _)) => Some(format!("its column {name} is {found}, not {wanted}")),
        }
    })
}

/// Whether an index of this name is on the table, and valid.
pub(super) async fn index_state(
    client: &Client,
    table: &Table,
    index: &str,
) -> Result<Option<bool>, Error> {
    const SQL: &str = "SELECT i.indisvalid AND i.indisready FROM pg_index i \
         JOIN pg_class c ON c.oid = i.indexrelid \
         WHERE i.indrelid = to_regclass($1) AND c.relname = $2";
    let attempted = format!("look at the index {index}");
    let names: [&(dyn ToSql + Sync); 2] = [&table.name, &index];
    Ok(ask(client, &attempted, SQL, &names, |row| row.try_get(0))
        .await?
        .pop())
}

/// True if the table has a primary key, whatever its name.
pub(super) async fn has_primary_key(client: &Client, table: &Table) -> Result<bool, Error> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM pg_constraint \
         WHERE conrelid = to_regclass($1) AND contype = 'p')";
    is_there(client, table, SQL).await
}

/// Whether a foreign key leads from one table to another, and is validated.
pub(super) async fn foreign_key_state(
    client: &Client,
    from: &str,
    to: &str,
) -> Result<Option<(String, bool)>, Error> {
    const SQL: &str = "SELECT conname::text, convalidated FROM pg_constraint \
         WHERE conrelid = to_regclass($1) AND confrelid = to_regclass($2) AND contype = 'f' \
         ORDER BY convalidated DESC LIMIT 1";
    let attempted = format!("look at the foreign keys of {from}");
    let read = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
    Ok(ask(client, &attempted, SQL, &[&from, &to], read)
        .await?
        .pop())
}

/// True if any foreign key leads to or from the table.
pub(super) async fn has_foreign_keys(client: &Client, table: &Table) -> Result<bool, Error> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' \
         AND (confrelid = to_regclass($1) OR conrelid = to_regclass($1)))";
    is_there(client, table, SQL).await
}

async fn is_there(client: &Client, table: &Table, sql: &str) -> Result<bool, Error> {
    let attempted = format!("look at the keys of {}", table.name);
    let found = ask(client, &attempted, sql, &[&table.name], |row| {
        row.try_get(0)
    })
    .await?;
    Ok(found.contains(&true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fill::tables::MOVIES;

    #[test]
    fn a_table_of_other_columns_is_refused_by_column() {
        let columns = |year: &str, kind: &str| -> Vec<(String, String, String)> {
            [
                ("id", "integer"),
                ("name", "character varying"),
                ("year", year),
                ("duration", "bigint"),
            ]
            .map(|(name, kind_of)| (name.into(), kind_of.into(), kind.into()))
            .to_vec()
        };
        assert_eq!(unfit(&MOVIES, &columns("integer", "r")), None);
        let why = unfit(&MOVIES, &columns("date", "r")).unwrap();
        assert_eq!(why, "its column year is date, not integer");
        assert!(
            unfit(&MOVIES, &columns("integer", "v"))
                .unwrap()
                .contains("no plain table")
        );
        assert!(
            unfit(&MOVIES, &columns("integer", "r")[..2])
                .unwrap()
                .contains("no column year")
        );
        assert!(unfit(&MOVIES, &[]).unwrap().contains("missing"));
    }
}
