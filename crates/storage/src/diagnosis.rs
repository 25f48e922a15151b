//! What the servers of a cluster say of themselves, as text for people who look for a fault: versions,
//! settings, sizes, what runs and waits, and the plans of the lists as they would be chosen now. It reads
//! only, on one connection to each server, and what one does not answer stands in its place.

use std::fmt::Write as _;
use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::connect::{Dialer, within};
use crate::queries::{LIST_ROWS_MAX, LIST_SETTINGS, list_statements};
use crate::{Error, PostgresCluster, page_statements};

/// How long one question may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(3);

/// Settings that hold connection strings are left out: they may hold passwords. Statements of others
/// are left out too: they may hold anything.
const QUESTIONS: [(&str, &str); 6] = [
    (
        "server",
        "SELECT version(), pg_is_in_recovery() AS is_replica, now(), pg_postmaster_start_time() AS started",
    ),
    (
        "settings",
        "SELECT name, setting, unit, source FROM pg_settings \
         WHERE source NOT IN ('default', 'override') AND name !~ 'conninfo|command|passphrase' \
         ORDER BY name",
    ),
    (
        "tables",
        "SELECT relname, n_live_tup AS rows, n_dead_tup AS dead, last_analyze, last_autovacuum, \
         pg_total_relation_size(relid) AS bytes FROM pg_stat_user_tables ORDER BY relname",
    ),
    (
        "indexes",
        "SELECT relname, indexrelname, idx_scan AS scans, pg_relation_size(indexrelid) AS bytes \
         FROM pg_stat_user_indexes ORDER BY relname, indexrelname",
    ),
    (
        "activity",
        "SELECT application_name, state, wait_event_type, wait_event, count(*), \
         max(now() - state_change) AS longest FROM pg_stat_activity \
         GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
    ),
    (
        "replication",
        "SELECT application_name, state, sync_state, replay_lag FROM pg_stat_replication",
    ),
];

/// Asks each server of the cluster. Must be called inside a runtime. Errors: those of a configuration
/// that cannot be used; a server that does not answer is part of the text.
pub async fn describe(cluster: &PostgresCluster) -> Result<String, Error> {
    let mut text = String::new();
    for dialer in Dialer::all(cluster)? {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "==== {}\n", dialer.host());
        match dialer.dial("bingo/diagnose").await {
            Ok(dialled) => ask_all(&dialled.client, &mut text).await,
            Err(error) => {
                let _ = writeln!(text, "{}\n", chassis::failure::chain(&error));
            }
        }
    }
    Ok(text)
}

async fn ask_all(client: &Client, text: &mut String) {
    for (title, question) in QUESTIONS {
        ask(client, title, question, text).await;
    }
    ask(client, "settings of the lists", LIST_SETTINGS, text).await;
    for (index, statement) in list_statements() {
        let statement = format!(
            "PREPARE bingo_plan (bigint) AS {statement}; \
             EXPLAIN EXECUTE bingo_plan ({LIST_ROWS_MAX}); DEALLOCATE bingo_plan"
        );
        ask(client, &format!("plan of {index}"), &statement, text).await;
    }
    for (index, types, statement, values) in page_statements() {
        let statement = format!(
            "PREPARE bingo_plan ({types}) AS {statement}; \
             EXPLAIN EXECUTE bingo_plan ({values}); DEALLOCATE bingo_plan"
        );
        let title = format!("plan of a page of {index}");
        ask(client, &title, &statement, text).await;
    }
}

async fn ask(client: &Client, title: &str, question: &str, text: &mut String) {
    let _ = writeln!(text, "== {title}");
    match within(QUESTION_LIMIT, title, client.simple_query(question)).await {
        Ok(answers) => {
            for answer in &answers {
                match answer {
                    SimpleQueryMessage::RowDescription(columns) => {
                        let names: Vec<&str> = columns.iter().map(|column| column.name()).collect();
                        let _ = writeln!(text, "{}", names.join(" | "));
                    }
                    SimpleQueryMessage::Row(row) => {
                        let values = (0..row.len()).map(|at| row.get(at).unwrap_or("-"));
                        let _ = writeln!(text, "{}", values.collect::<Vec<_>>().join(" | "));
                    }
                    _ => {}
                }
            }
        }
        Err(error) => {
            let _ = writeln!(text, "{}", chassis::failure::chain(&error));
        }
    }
    text.push('\n');
}
