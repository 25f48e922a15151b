//! Loads one table in one transaction: lock, look, TRUNCATE of the empty table, COPY FREEZE, marker.
//! Killed at any moment there is either the whole table with its marker or an empty one.
//!
//! FREEZE needs a table created or truncated in the same transaction; it writes rows that never need
//! a vacuum, and on a server with `wal_level = minimal` nothing of it is logged.

use tokio_postgres::Client;

use super::catalogue::{self, Marker, Origin};
use super::rows::Maker;
use super::tables::Table;
use super::worker::Worker;
use super::{Outcome, TableReport, copy};
use crate::Error;

/// What a table is to be filled with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub table: &'static Table,
    pub maker: Maker,
    pub seed: u64,
    pub rows: u32,
}

/// Fills the table, or finds that somebody was faster.
pub(super) async fn load(
    worker: &Worker,
    load: Load,
    sent: &(dyn Fn(u64) + Send + Sync),
) -> Result<TableReport, Error> {
    let name = load.table.name;
    worker
        .run(&format!(
            "BEGIN; LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"
        ))
        .await?;
    let client = &worker.client;
    if let Some(marker) = catalogue::marker(client, load.table).await? {
        worker.run("ROLLBACK").await?;
        return Ok(TableReport::found(load.table, &marker));
    }
    if catalogue::has_rows(client, load.table).await? {
        let report = adopt(client, load.table).await?;
        worker.run("COMMIT").await?;
        return Ok(report);
    }
    let freeze = match catalogue::has_foreign_keys(client, load.table).await? {
        // PostgreSQL truncates no table that a key refers to, be it empty.
        true => "",
        false => {
            worker.run(&format!("TRUNCATE {name}")).await?;
            ", FREEZE"
        }
    };
    let columns = load.maker.columns();
    let statement = format!("COPY {name} ({columns}) FROM STDIN (FORMAT binary{freeze})");
    let rows = copy::send(client, &statement, load.maker, load.seed, load.rows, sent).await?;
    let marker = Marker {
        origin: Origin::Filled,
        rows,
        seed: Some(load.seed),
        is_ready: false,
    };
    catalogue::mark(client, load.table, marker).await?;
    worker.run("COMMIT").await?;
    Ok(TableReport::new(load.table, rows, Outcome::Filled))
}

/// Counts a table that somebody else filled and marks it as adopted; nothing in it changes.
pub(super) async fn adopt(client: &Client, table: &'static Table) -> Result<TableReport, Error> {
    let (rows, _) = catalogue::count(client, table).await?;
    let marker = Marker {
        origin: Origin::Adopted,
        rows,
        seed: None,
        is_ready: false,
    };
    catalogue::mark(client, table, marker).await?;
    Ok(TableReport::new(table, rows, Outcome::Adopted))
}
