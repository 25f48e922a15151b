//! `prepare_db`: schema, rows, keys, indexes, statistics (contract.md section 4), by the recipe of
//! performance.md. Safe to run again, from two processes at once, and after a kill at any moment:
//! a lock lets one work, each table is loaded in one transaction with its marker in `bingo_fill`,
//! and every later step looks at the catalogue first.
//!
//! A table with rows that we did not write is never filled: it is counted, marked as adopted, and gets
//! keys and indexes. Only `reset` deletes; asking before is the caller's affair.

mod catalogue;
mod copy;
mod keys;
mod load;
mod random;
mod rows;
mod tables;
mod words;
mod work;
mod worker;

use std::time::{Duration, Instant};

use self::catalogue::{Marker, Origin};
use self::tables::{TABLES, Table};
use self::work::{Fill, reset};
use crate::{Error, PostgresCluster, migrations};

/// The ids of customers and movies are int4.
const IDS_MAX: u32 = i32::MAX.cast_unsigned();

/// What to fill the database with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillOptions {
    /// The same seed and counts give the same rows.
    pub seed: u64,
    pub customers: u32,
    pub movies: u32,
    pub sessions: u32,
    /// Deletes all rows of the three tables first.
    pub reset: bool,
}

/// Where a fill stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub phase: Phase,
    /// Of all tables together.
    pub rows_done: u64,
    pub rows_total: u64,
}

/// In this order; some may be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Another process prepares the same database.
    Waiting,
    Schema,
    Rows,
    Indexes,
    ForeignKeys,
    Statistics,
    Done,
}

/// What `prepare` did and found.
#[derive(Clone, Debug)]
pub struct Report {
    /// customers, movies, sessions.
    pub tables: Vec<TableReport>,
    /// Things that are not as they should be and were left alone, one sentence each.
    pub warnings: Vec<String>,
    pub elapsed: Duration,
}

/// One table afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableReport {
    pub table: &'static str,
    /// As written, or as counted when it was adopted; not what was added since.
    pub rows: u64,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Filled now.
    Filled,
    /// Filled by us before.
    Found,
    /// Rows of somebody else, now or before: left as they are.
    Adopted,
    /// Left empty, see the warnings.
    Skipped,
}

impl Default for FillOptions {
    /// The vendor's numbers.
    fn default() -> Self {
        Self {
            seed: 1,
            customers: 500_000,
            movies: 29_019,
            sessions: 5_000_000,
            reset: false,
        }
    }
}

impl Phase {
    /// Two or three words for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting for another prepare_db",
            Self::Schema => "schema",
            Self::Rows => "rows",
            Self::Indexes => "keys and indexes",
            Self::ForeignKeys => "foreign keys",
            Self::Statistics => "statistics",
            Self::Done => "done",
        }
    }
}

impl Outcome {
    /// One word for people and for JSON lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filled => "filled",
            Self::Found => "found",
            Self::Adopted => "adopted",
            Self::Skipped => "skipped",
        }
    }
}

impl TableReport {
    fn new(table: &Table, rows: u64, outcome: Outcome) -> Self {
        Self {
            table: table.name,
            rows,
            outcome,
        }
    }

    fn found(table: &Table, marker: &Marker) -> Self {
        let outcome = match marker.origin {
            Origin::Filled => Outcome::Found,
            Origin::Adopted => Outcome::Adopted,
        };
        Self::new(table, marker.rows, outcome)
    }
}

/// Brings the database to its full state and says what was done. Dropped half-way, it has the server
/// cancel what runs; the next call goes on. Errors: no writable server, no right to create tables, a
/// table of other columns, a full disk (`Error::remedy` says what to do about each).
pub async fn prepare(
    cluster: &PostgresCluster,
    options: &FillOptions,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Report, Error> {
    let started = Instant::now();
    options.check()?;
    let mut fill = Fill::new(cluster, options, progress);
    let client = worker::lock(cluster, &|| fill.enter(Phase::Waiting)).await?;
    fill.enter(Phase::Schema);
    migrations::migrate(&client).await?;
    for table in TABLES {
        catalogue::check_columns(&client, table).await?;
    }
    if options.reset {
        reset(cluster).await?;
    }
    let tables = fill.survey(&client).await?;
    let tables = match tables.is_ready {
        true => tables.reports(),
        false => fill.work(&client, tables).await?,
    };
    fill.enter(Phase::Done);
    Ok(Report {
        tables,
        warnings: fill.warnings,
        elapsed: started.elapsed(),
    })
}

impl FillOptions {
    fn check(&self) -> Result<(), Error> {
        let parents = [("customers", self.customers), ("movies", self.movies)];
        for (key, rows) in parents {
            if rows > IDS_MAX {
                let why = format!("{rows} is more than its ids can count");
                return Err(Error::configuration(key, why, format!("at most {IDS_MAX}")));
            }
            if rows == 0 && self.sessions > 0 {
                let why = "0, while sessions are to refer to them";
                return Err(Error::configuration(
                    key,
                    why,
                    "at least 1, or no sessions either",
                ));
            }
        }
        Ok(())
    }

    fn rows(&self, table: &Table) -> u32 {
        match table.name {
            "customers" => self.customers,
            "movies" => self.movies,
            _ => self.sessions,
        }
    }
}
