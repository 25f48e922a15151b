//! The course of a fill: what is there, then rows on two connections, then indexes, foreign keys and
//! statistics in the order of performance.md's recipe.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio_postgres::Client;

use super::catalogue::{self, Marker, Origin};
use super::load::{Load, adopt, load};
use super::rows::Maker;
use super::tables::{CUSTOMERS, FOREIGN_KEYS, MOVIES, SESSIONS, TABLES, Table};
use super::worker::Worker;
use super::{FillOptions, Outcome, Phase, Progress, TableReport, keys};
use crate::{Error, PostgresCluster};

/// What is there before the work starts, in the order of `TABLES`.
pub(super) struct Survey {
    markers: [Option<Marker>; 3],
    /// Nothing is left to do.
    pub(super) is_ready: bool,
}

impl Survey {
    pub(super) fn reports(&self) -> Vec<TableReport> {
        let both = TABLES.iter().zip(&self.markers);
        both.filter_map(|(table, marker)| Some(TableReport::found(table, marker.as_ref()?)))
            .collect()
    }
}

pub(super) struct Fill<'a> {
    cluster: &'a PostgresCluster,
    options: &'a FillOptions,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
    rows_done: AtomicU64,
    rows_total: u64,
    pub(super) warnings: Vec<String>,
}

impl<'a> Fill<'a> {
    pub(super) fn new(
        cluster: &'a PostgresCluster,
        options: &'a FillOptions,
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> Self {
        Self {
            cluster,
            options,
            progress,
            rows_done: AtomicU64::new(0),
            rows_total: 0,
            warnings: Vec::new(),
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        (self.progress)(Progress {
            phase,
            rows_done: self.rows_done.load(Ordering::Relaxed),
            rows_total: self.rows_total,
        });
    }

    fn sent(&self, rows: u64) {
        self.rows_done.fetch_add(rows, Ordering::Relaxed);
        self.enter(Phase::Rows);
    }

    /// Reads the markers and adopts what has rows without one.
    pub(super) async fn survey(&mut self, client: &Client) -> Result<Survey, Error> {
        let mut markers = [None; 3];
        for (table, marker) in TABLES.into_iter().zip(&mut markers) {
            *marker = catalogue::marker(client, table).await?;
            if marker.is_none() && catalogue::has_rows(client, table).await? {
                adopt(client, table).await?;
                *marker = catalogue::marker(client, table).await?;
                self.warn_of_adopted(table, marker.as_ref());
            }
            match marker {
                Some(marker) => self.warn_of_other_rows(table, marker),
                None => self.rows_total += u64::from(self.options.rows(table)),
            }
        }
        let is_ready = markers
            .iter()
            .all(|marker| marker.is_some_and(|marker| marker.is_ready));
        Ok(Survey { markers, is_ready })
    }

    fn warn_of_adopted(&mut self, table: &Table, marker: Option<&Marker>) {
        let (name, rows) = (table.name, marker.map_or(0, |marker| marker.rows));
        let asked = self.options.rows(table);
        self.warnings.push(format!(
            "{name} holds {rows} rows that bingo did not write ({asked} were asked for): they stay \
             as they are"
        ));
    }

    fn warn_of_other_rows(&mut self, table: &Table, marker: &Marker) {
        let rows = u64::from(self.options.rows(table));
        let is_same = marker.rows == rows && marker.seed == Some(self.options.seed);
        if marker.origin == Origin::Filled && !is_same {
            let seed = marker.seed.unwrap_or_default();
            self.warnings.push(format!(
                "{} was filled before with {} rows of seed {seed}: it stays as it is (--reset \
                 empties it)",
                table.name, marker.rows
            ));
        }
    }

    /// Fills what has no marker and brings all three tables to their end.
    pub(super) async fn work(
        &mut self,
        client: &Client,
        survey: Survey,
    ) -> Result<Vec<TableReport>, Error> {
        let (one, other) =
            tokio::try_join!(Worker::connect(self.cluster), Worker::connect(self.cluster))?;
        let (tables, warnings) = self.rows(client, &one, &other, survey).await?;
        self.warnings.extend(warnings);
        self.finish(&one, &other, &tables).await?;
        one.finish();
        other.finish();
        Ok(tables)
    }

    /// Customers and movies with their indexes on one connection, sessions meanwhile on the other.
    async fn rows(
        &self,
        client: &Client,
        one: &Worker,
        other: &Worker,
        survey: Survey,
    ) -> Result<(Vec<TableReport>, Vec<String>), Error> {
        self.enter(Phase::Rows);
        let [customers, movies, sessions] = survey.markers;
        if sessions.is_none() {
            drop_foreign_keys(one).await?;
        }
        // Keys that are not ours stay, and then sessions have to wait for what they refer to.
        let in_turn = catalogue::has_foreign_keys(client, &SESSIONS).await?;
        let parents = async {
            let customers = self
                .parent(other, &CUSTOMERS, Maker::Customers, customers)
                .await?;
            let movies = self.parent(other, &MOVIES, Maker::Movies, movies).await?;
            Ok::<_, Error>((customers, movies))
        };
        let children = self.sessions(client, one, [customers, movies, sessions]);
        let ((customers, movies), (sessions, refused)) = match in_turn {
            true => (parents.await?, children.await?),
            false => tokio::try_join!(parents, children)?,
        };
        let mut warnings: Vec<String> = refused.into_iter().collect();
        warnings.extend(customers.1);
        warnings.extend(movies.1);
        Ok((vec![customers.0, movies.0, sessions], warnings))
    }

    async fn parent(
        &self,
        worker: &Worker,
        table: &'static Table,
        maker: Maker,
        marker: Option<Marker>,
    ) -> Result<(TableReport, keys::Warning), Error> {
        let report = self.table(worker, table, maker, marker).await?;
        let warning = keys::key_index(worker, table).await?;
        let also = keys::attach_key(worker, table).await?;
        keys::list_index(worker, table).await?;
        Ok((report, warning.or(also)))
    }

    async fn sessions(
        &self,
        client: &Client,
        worker: &Worker,
        [customers, movies, sessions]: [Option<Marker>; 3],
    ) -> Result<(TableReport, Option<String>), Error> {
        let mut maker = Maker::Sessions {
            customers: 1,
            movies: 1,
        };
        if sessions.is_none() && self.options.sessions > 0 {
            let customers = self.ids(client, &CUSTOMERS, customers).await?;
            let movies = self.ids(client, &MOVIES, movies).await?;
            match (customers, movies) {
                (Ok(customers), Ok(movies)) => maker = Maker::Sessions { customers, movies },
                (Err(why), _) | (_, Err(why)) => {
                    let report = TableReport::new(&SESSIONS, 0, Outcome::Skipped);
                    return Ok((report, Some(format!("sessions stays empty: {why}"))));
                }
            }
        }
        Ok((self.table(worker, &SESSIONS, maker, sessions).await?, None))
    }

    /// How many ids from 1 on the table has or will have, or why sessions cannot refer to them.
    async fn ids(
        &self,
        client: &Client,
        table: &Table,
        marker: Option<Marker>,
    ) -> Result<Result<u32, String>, Error> {
        let rows = match marker {
            None => u64::from(self.options.rows(table)),
            Some(marker) if marker.origin == Origin::Filled => marker.rows,
            Some(_) => match catalogue::count(client, table).await? {
                (rows, true) => rows,
                (_, false) => {
                    return Ok(Err(format!(
                        "the ids of {} have gaps or repeats",
                        table.name
                    )));
                }
            },
        };
        Ok(match u32::try_from(rows) {
            Ok(0) => Err(format!("{} has no rows", table.name)),
            Ok(rows) => Ok(rows),
            Err(_) => Err(format!("{} has more rows than ids", table.name)),
        })
    }

    async fn table(
        &self,
        worker: &Worker,
        table: &'static Table,
        maker: Maker,
        marker: Option<Marker>,
    ) -> Result<TableReport, Error> {
        if let Some(marker) = marker {
            return Ok(TableReport::found(table, &marker));
        }
        let what = Load {
            table,
            maker,
            seed: self.options.seed,
            rows: self.options.rows(table),
        };
        load(worker, what, &|rows| self.sent(rows)).await
    }

    /// Indexes of sessions side by side, foreign keys, sequences, statistics, checkpoint, done.
    async fn finish(
        &mut self,
        one: &Worker,
        other: &Worker,
        tables: &[TableReport],
    ) -> Result<(), Error> {
        self.enter(Phase::Indexes);
        let (warning, ()) = tokio::try_join!(
            keys::key_index(one, &SESSIONS),
            keys::list_index(other, &SESSIONS)
        )?;
        self.warnings.extend(warning);
        self.warnings
            .extend(keys::attach_key(one, &SESSIONS).await?);
        self.enter(Phase::ForeignKeys);
        for key in &FOREIGN_KEYS {
            self.warnings.extend(keys::foreign_key(one, key).await?);
        }
        self.enter(Phase::Statistics);
        let adopted = |table: &Table| {
            let mut of_table = tables.iter().filter(|report| report.table == table.name);
            of_table.any(|report| report.outcome == Outcome::Adopted)
        };
        let parents = async {
            for table in [&CUSTOMERS, &MOVIES] {
                keys::sequence(other, table).await?;
                keys::statistics(other, table, adopted(table)).await?;
            }
            Ok(())
        };
        let children = async {
            keys::sequence(one, &SESSIONS).await?;
            keys::statistics(one, &SESSIONS, adopted(&SESSIONS)).await
        };
        tokio::try_join!(parents, children)?;
        self.warnings.extend(keys::checkpoint(one).await?);
        one.run("UPDATE bingo_fill SET ready_at = now() WHERE ready_at IS NULL")
            .await
    }
}

/// An empty table with our own foreign keys (a restored schema): they come back after the rows, for
/// checking them row by row would take minutes.
async fn drop_foreign_keys(worker: &Worker) -> Result<(), Error> {
    for key in &FOREIGN_KEYS {
        let name = key.name;
        worker
            .run(&format!(
                "ALTER TABLE sessions DROP CONSTRAINT IF EXISTS {name}"
            ))
            .await?;
    }
    Ok(())
}

/// Empties the three tables and forgets that they were filled, at once or not at all. Keys and indexes
/// go too, for loading is quicker without. Refused by the server where other tables refer to ours.
pub(super) async fn reset(cluster: &PostgresCluster) -> Result<(), Error> {
    let worker = Worker::connect(cluster).await?;
    let mut sql = String::from("BEGIN;");
    for key in &FOREIGN_KEYS {
        sql += &format!(
            "ALTER TABLE sessions DROP CONSTRAINT IF EXISTS {};",
            key.name
        );
    }
    sql += "TRUNCATE sessions, customers, movies, idempotency_keys; DELETE FROM bingo_fill;";
    for table in TABLES {
        let Table {
            name,
            key,
            list_index,
            sequence,
            ..
        } = table;
        sql += &format!(
            "ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {key}; DROP INDEX IF EXISTS {key}; \
             DROP INDEX IF EXISTS {}; ALTER SEQUENCE {sequence} RESTART;",
            list_index.0
        );
    }
    worker.run(&(sql + "COMMIT")).await?;
    worker.finish();
    Ok(())
}
