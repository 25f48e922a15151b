//! A fill that is broken off anywhere is finished by the next one, with the rows of an undisturbed one.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use private_postgres::Signal;
use storage::fill::{FillOptions, Phase, Progress, prepare};
use tokio::sync::Notify;

use crate::database::{Database, small};

/// So large that a COPY takes several pieces, and there are many moments to break it off at.
fn several_pieces() -> FillOptions {
    FillOptions {
        customers: 3000,
        sessions: 40_000,
        ..small()
    }
}

async fn undisturbed() -> [String; 2] {
    let database = Database::start().await;
    database.prepare(&several_pieces()).await;
    database.fingerprint().await
}

/// Runs a fill and drops it at its n-th report of progress; false if it ended before.
async fn drop_at(database: &Database, n: usize) -> bool {
    let (seen, reached) = (AtomicUsize::new(0), Notify::new());
    let count = |_: Progress| {
        if seen.fetch_add(1, Ordering::Relaxed) == n {
            reached.notify_one();
        }
    };
    let options = several_pieces();
    tokio::select! {
        biased;
        () = reached.notified() => true,
        report = prepare(&database.cluster, &options, &count) => {
            report.unwrap();
            false
        }
    }
}

#[tokio::test]
async fn a_fill_dropped_at_any_of_its_steps_is_finished_by_the_next() {
    let expected = undisturbed().await;
    let database = Database::start().await;
    let mut dropped = 0;
    // Each round gets one step further over what the rounds before have left.
    while drop_at(&database, dropped).await {
        dropped += 1;
    }
    assert!(dropped >= 5, "{dropped} steps");
    assert_eq!(database.fingerprint().await, expected);
}

#[tokio::test]
async fn a_fill_dropped_in_the_middle_of_a_table_leaves_it_empty_and_unmarked() {
    let database = Database::start().await;
    // Schema, Rows, then the first pieces of both connections.
    assert!(drop_at(&database, 4).await);
    let settled = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ 'worker'";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while database.one::<i64>(settled).await > 0 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the server still works"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let marked: i64 = database
        .one("SELECT count(*) FROM bingo_fill WHERE table_name = 'sessions'")
        .await;
    let rows: i64 = database.one("SELECT count(*) FROM sessions").await;
    assert_eq!((marked, rows), (0, 0));
    database.prepare(&several_pieces()).await;
    assert_eq!(database.fingerprint().await, undisturbed().await);
}

#[tokio::test]
async fn a_fill_whose_connections_are_cut_again_and_again_is_finished_by_the_next() {
    let expected = undisturbed().await;
    let database = Database::start().await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name LIKE 'bingo prepare_db%'";
    let options = several_pieces();
    let mut broken = 0;
    // The moment of the cut is a later one in each round, until the fill is done before it.
    for moment_milliseconds in (0..).step_by(7) {
        let begun = Notify::new();
        let tell = |_: Progress| begun.notify_one();
        let cutter = async {
            begun.notified().await;
            tokio::time::sleep(Duration::from_millis(moment_milliseconds)).await;
            database.one::<i64>(cut).await
        };
        match tokio::join!(prepare(&database.cluster, &options, &tell), cutter).0 {
            Ok(_) => break,
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                broken += 1;
            }
        }
    }
    assert!(broken >= 3, "{broken} cuts");
    database.prepare(&options).await;
    assert_eq!(database.fingerprint().await, expected);
}

#[tokio::test]
async fn a_server_killed_during_a_fill_comes_back_and_is_filled() {
    let expected = undisturbed().await;
    let mut database = Database::start().await;
    let options = several_pieces();
    let server = &database.server;
    let kill = |step: Progress| {
        if step.phase == Phase::Rows && step.rows_done > 0 {
            server.kill(Signal::QUIT);
        }
    };
    let error = prepare(&database.cluster, &options, &kill)
        .await
        .unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    database.server.restart().unwrap();
    database.client = storage::connect::connect(&database.cluster, "test")
        .await
        .unwrap();
    database.prepare(&options).await;
    assert_eq!(database.fingerprint().await, expected);
}

#[tokio::test]
async fn an_invalid_index_of_ours_and_an_unattached_key_are_mended() {
    let (database, expected) = (Database::start().await, undisturbed().await);
    database.prepare(&several_pieces()).await;
    database
        .run(
            "ALTER TABLE sessions DROP CONSTRAINT sessions_pkey;
             CREATE UNIQUE INDEX sessions_pkey ON sessions (id);
             ALTER TABLE sessions DROP CONSTRAINT sessions_movie_id_fkey;
             ALTER TABLE sessions ADD CONSTRAINT sessions_movie_id_fkey
                FOREIGN KEY (movie_id) REFERENCES movies (id) NOT VALID;
             UPDATE bingo_fill SET ready_at = NULL",
        )
        .await;
    let url = database.server.superuser_url();
    let cluster = storage::PostgresCluster::from_url(&url).unwrap();
    let superuser = storage::connect::connect(&cluster, "test").await.unwrap();
    let spoil = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'movies_list'::regclass";
    superuser.batch_execute(spoil).await.unwrap();
    database.prepare(&several_pieces()).await;
    assert_eq!(database.fingerprint().await, expected);
    let valid: bool = database
        .one("SELECT indisvalid FROM pg_index WHERE indexrelid = 'movies_list'::regclass")
        .await;
    assert!(valid);
}

const URL: &str = "BINGO_FILL_TEST_URL";

#[tokio::test]
#[ignore = "the process that the next test kills"]
async fn fills_and_tells_each_phase() {
    let Ok(url) = std::env::var(URL) else {
        return;
    };
    let cluster = storage::PostgresCluster::from_url(&url).unwrap();
    let tell = |step: Progress| println!("at {} {}", step.phase.name(), step.rows_done);
    prepare(&cluster, &several_pieces(), &tell).await.unwrap();
}

#[tokio::test]
async fn a_process_killed_at_any_of_its_steps_leaves_what_the_next_finishes() {
    let expected = undisturbed().await;
    let database = Database::start().await;
    let mut rounds = 0;
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--ignored",
                "--nocapture",
                "interrupted::fills_and_tells_each_phase",
            ])
            .env(URL, database.server.url())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let reached = lines.filter(|line| line.starts_with("at ")).nth(rounds * 3);
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        if reached.is_none() {
            break;
        }
        rounds += 1;
    }
    assert!(rounds >= 2, "{rounds} rounds");
    database.prepare(&several_pieces()).await;
    assert_eq!(database.fingerprint().await, expected);
}
