//! What was acknowledged must be there, once. The ledger is made from what each write was answered;
//! afterwards every session in it is looked up by its id, and all of them together in the list, where
//! a session that was stored twice shows. Left out: rows that this run did not write.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::Error;
use crate::http::{Method, Request};
use crate::load::{Mark, Wrote};

/// Rows on one page of the list.
const PAGE_ROWS: usize = 1000;

/// What the writes of a run must have left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Acknowledged, by start time (microseconds since 1970), with their ids.
    stored: BTreeMap<i64, u64>,
    /// Never acknowledged: there once, or not at all.
    perhaps_stored: BTreeSet<i64>,
    deleted: BTreeSet<u64>,
    perhaps_deleted: BTreeSet<u64>,
}

/// What the database holds of them.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Ids by start time.
    rows: BTreeMap<i64, Vec<u64>>,
}

impl Ledger {
    pub(super) fn of(writes: impl Iterator<Item = Wrote>) -> Self {
        let mut ledger = Self::default();
        for wrote in writes {
            match wrote {
                Wrote::Stored {
                    id,
                    marked: Some(marked),
                } => drop(ledger.stored.insert(marked, id)),
                Wrote::PerhapsStored {
                    marked: Some(marked),
                } => drop(ledger.perhaps_stored.insert(marked)),
                Wrote::Deleted { id } => drop(ledger.deleted.insert(id)),
                Wrote::PerhapsDeleted { id } => drop(ledger.perhaps_deleted.insert(id)),
                Wrote::Stored { .. } | Wrote::PerhapsStored { .. } => {}
            }
        }
        ledger
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.stored.len() + self.deleted.len()
    }

    /// Each row that is not as it was acknowledged, in words; empty when all are.
    pub(super) fn faults(&self, found: &Found) -> Vec<String> {
        let mut faults = Vec::new();
        for (marked, id) in &self.stored {
            let rows = found.rows.get(marked).map_or(&[][..], Vec::as_slice);
            let is_gone = self.deleted.contains(id);
            let may_be_gone = self.perhaps_deleted.contains(id);
            match rows {
                [] if is_gone || may_be_gone => {}
                [] => faults.push(format!("session {id} was acknowledged and is lost")),
                [_] if is_gone => faults.push(format!("session {id} was deleted and is there")),
                [one] if one == id => {}
                several => faults.push(format!("session {id} is there as {several:?}")),
            }
        }
        for marked in &self.perhaps_stored {
            let rows = found.rows.get(marked).map_or(&[][..], Vec::as_slice);
            if rows.len() > 1 {
                faults.push(format!(
                    "a session that nobody acknowledged is there as {rows:?}"
                ));
            }
        }
        faults
    }
}

/// The newest movie by the list's order: its sessions are the first of theirs.
pub(super) async fn first_movie(http: &str) -> Result<u32, Error> {
    let url = format!("{http}/api/movie?limit=1");
    let answer = Request::new(Method::GET, &url).send().await?;
    let movies: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let id = movies.pointer("/0/id").and_then(Value::as_u64);
    id.and_then(|id| u32::try_from(id).ok())
        .ok_or_else(|| Error::Plan(format!("GET {url} shows no movie: {}", answer.status)))
}

/// Reads every session that carries the mark.
pub(super) async fn find(http: &str, mark: Mark) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut path = format!("/api/session?limit={PAGE_ROWS}");
    loop {
        let url = format!("{http}{path}");
        let answer = Request::new(Method::GET, &url).send().await?;
        let page: Vec<Value> = serde_json::from_slice(&answer.body)
            .map_err(|_| Error::Plan(format!("GET {url} shows no list: {}", answer.status)))?;
        let of_movie = |row: &&Value| row.pointer("/movie/id") == Some(&Value::from(mark.movie));
        let rows: Vec<&Value> = page.iter().filter(of_movie).collect();
        for row in &rows {
            let start_time = row["start_time"].as_str().unwrap_or_default();
            let at = start_time.parse::<jiff::Timestamp>();
            let marked = at.map_or(0, jiff::Timestamp::as_microsecond);
            if let (true, Some(id)) = (marked >= mark.first_micros, row["id"].as_u64()) {
                found.rows.entry(marked).or_default().push(id);
            }
        }
        let link = answer
            .headers
            .get("link")
            .and_then(|link| link.to_str().ok());
        match link.and_then(|link| link.strip_prefix('<')?.split('>').next()) {
            Some(next) if !rows.is_empty() => path = next.to_owned(),
            _ => return Ok(found),
        }
    }
}

/// Removes them again.
pub(super) async fn clean(http: &str, found: &Found) {
    for id in found.rows.values().flatten() {
        let url = format!("{http}/api/session/{id}");
        // One that stays is a row too many in a database of a drill: no reason to fail it.
        let _ = Request::new(Method::DELETE, &url).send().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::of(
            [
                Wrote::Stored {
                    id: 1,
                    marked: Some(10),
                },
                Wrote::Stored {
                    id: 2,
                    marked: Some(11),
                },
                Wrote::PerhapsStored { marked: Some(12) },
                Wrote::Deleted { id: 2 },
            ]
            .into_iter(),
        )
    }

    fn found(rows: &[(i64, &[u64])]) -> Found {
        let rows = rows.iter().map(|(marked, ids)| (*marked, ids.to_vec()));
        Found {
            rows: rows.collect(),
        }
    }

    #[test]
    fn what_was_acknowledged_is_there_once_and_the_rest_at_most_once() {
        assert!(ledger().faults(&found(&[(10, &[1])])).is_empty());
        assert!(
            ledger()
                .faults(&found(&[(10, &[1]), (12, &[3])]))
                .is_empty()
        );
    }

    #[test]
    fn a_lost_a_doubled_and_an_undead_row_are_each_told() {
        let faults = |rows: &[(i64, &[u64])]| ledger().faults(&found(rows)).join("; ");
        assert!(faults(&[]).contains("session 1 was acknowledged and is lost"));
        assert!(faults(&[(10, &[1, 4])]).contains("session 1 is there as [1, 4]"));
        assert!(faults(&[(10, &[1]), (11, &[2])]).contains("session 2 was deleted and is there"));
        assert!(faults(&[(10, &[1]), (12, &[5, 6])]).contains("nobody acknowledged"));
    }
}
