//! Looks at each server all the time: does it answer, how fast, is it the primary, how far has it
//! come. One task and one connection per host, so that a server that hangs delays no look at another.
//! A look is one round trip of the simple protocol, which every pooler passes on.
//!
//! Source of the functions: PostgreSQL 9.27.3, "Backup Control Functions" (the first eight digits of a
//! log file's name are its timeline), and 9.27.4, "Recovery Control Functions".

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::SimpleQueryMessage;

use crate::Error;
use crate::choice::{Seen, Standing};
use crate::connect::{Dialled, within};
use crate::hosts::Hosts;

/// Between two looks at a server that answers. Too low: queries for nothing; too high: a promoted
/// replica is found late.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks at one that does not.
const LOOK_INTERVAL_AWAY: Duration = Duration::from_millis(200);
/// Before a look that somebody asked for: a hundred failed queries ask for one.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Too low: a busy server is taken for a hung one; too high: work waits for a hung one.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// The weight of a new round-trip time in the smoothed one, as a divisor (RFC 6298 section 2).
const SMOOTHING: u32 = 8;

const LOOK: &str = "\
SELECT recovering, \
    CASE WHEN recovering THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END \
        - '0/0'::pg_lsn, \
    CASE WHEN recovering THEN pg_last_wal_receive_lsn() IS NULL \
        OR pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() END, \
    CASE WHEN recovering THEN greatest(0, \
        extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())) END, \
    CASE WHEN NOT recovering THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END \
FROM (SELECT pg_is_in_recovery() AS recovering OFFSET 0) AS role";

/// Looks at one host until the task is ended.
pub(crate) async fn watch(hosts: Arc<Hosts>, host: usize) {
    let Some(server) = hosts.servers().get(host) else {
        return;
    };
    let mut connection = None;
    let mut smoothed = None;
    loop {
        let had_one = connection.is_some();
        let mut seen = look(server, &mut connection).await;
        if seen.is_err() && had_one && !matches!(seen, Err(Error::Deadline { .. })) {
            // The connection is gone; that need not be true of the server.
            connection = None;
            seen = look(server, &mut connection).await;
        }
        let is_seen = seen.is_ok();
        match &mut seen {
            Ok(seen) => {
                let average = smoothed.unwrap_or(seen.round_trip);
                let new = average - average / SMOOTHING + seen.round_trip / SMOOTHING;
                smoothed = Some(new);
                seen.round_trip = new;
            }
            Err(_) => connection = None,
        }
        hosts.saw(host, seen);
        let interval = match is_seen {
            true => LOOK_INTERVAL,
            false => LOOK_INTERVAL_AWAY,
        };
        if tokio::time::timeout(interval, server.wake.notified())
            .await
            .is_ok()
        {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

/// One look, on the connection of the last one where there is one.
async fn look(
    server: &crate::hosts::Server,
    connection: &mut Option<Dialled>,
) -> Result<Seen, Error> {
    let dialled = match connection {
        Some(dialled) => dialled,
        None => connection.insert(server.dialer.dial("bingo/watch").await?),
    };
    let attempted = format!("look at {}", server.dialer.host());
    let start = Instant::now();
    let answers = within(LOOK_LIMIT, &attempted, dialled.client.simple_query(LOOK)).await?;
    let at = Instant::now();
    let row = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let column = |i| row.and_then(|row| row.try_get(i).ok().flatten());
    let standing = standing(&[column(0), column(1), column(2), column(3), column(4)]);
    Ok(Seen {
        at,
        round_trip: at - start,
        standing: standing.ok_or_else(|| Error::Refused {
            attempted,
            why: "it does not answer as PostgreSQL does".into(),
            remedy: "name PostgreSQL servers, or poolers in front of them".into(),
        })?,
    })
}

/// Reads the columns of `LOOK`; `None` where they are not what it asked for.
fn standing(columns: &[Option<&str>; 5]) -> Option<Standing> {
    let [recovering, position, is_drained, age, timeline] = columns;
    let position = position.as_ref()?.parse().ok()?;
    Some(match *recovering.as_ref()? {
        "t" => Standing::Replica {
            replayed: position,
            is_drained: *is_drained == Some("t"),
            age: age
                .and_then(|seconds| seconds.parse().ok())
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        },
        _ => Standing::Primary {
            timeline: u32::from_str_radix(timeline.as_ref()?, 16).ok()?,
            written: position,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_primary_or_replica() {
        let primary = [Some("f"), Some("33554432"), None, None, Some("0000000A")];
        assert_eq!(
            standing(&primary),
            Some(Standing::Primary {
                timeline: 10,
                written: 33_554_432
            })
        );
        let replica = [Some("t"), Some("7"), Some("t"), Some("1.250000"), None];
        assert_eq!(
            standing(&replica),
            Some(Standing::Replica {
                replayed: 7,
                is_drained: true,
                age: Some(Duration::from_millis(1250))
            })
        );
        assert_eq!(standing(&[Some("t"), None, None, None, None]), None);
        assert_eq!(standing(&[None; 5]), None);
    }
}
