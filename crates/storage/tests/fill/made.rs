//! What a fill makes, and what a second one does.

use std::sync::Mutex;
use std::time::Duration;

use storage::Error;
use storage::fill::{FillOptions, Outcome, Phase, Progress, prepare};

use crate::database::{Database, counts, small};

fn outcomes(report: &storage::fill::Report) -> Vec<Outcome> {
    report.tables.iter().map(|table| table.outcome).collect()
}

#[tokio::test]
async fn a_fill_ends_with_rows_keys_indexes_sequences_and_statistics() {
    let database = Database::start().await;
    let steps: Mutex<Vec<Progress>> = Mutex::new(Vec::new());
    let record = |step| steps.lock().unwrap().push(step);
    let report = prepare(&database.cluster, &small(), &record).await.unwrap();
    assert_eq!(counts(&report), [500, 50, 5000]);
    assert_eq!(outcomes(&report), [Outcome::Filled; 3]);
    assert_eq!(report.warnings, [""; 0]);
    for (table, rows) in [("customers", 500_i64), ("movies", 50), ("sessions", 5000)] {
        let count: i64 = database.one(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(count, rows);
        let next: i64 = database
            .one(&format!("SELECT nextval('{table}_id_seq')"))
            .await;
        assert_eq!(next, rows + 1);
        let seen = format!("SELECT reltuples::int8 FROM pg_class WHERE oid = '{table}'::regclass");
        assert_eq!(database.one::<i64>(&seen).await, rows);
        // COPY FREEZE: nothing is left for a vacuum, and index-only scans work at once.
        let frozen = format!(
            "SELECT relallvisible = relpages FROM pg_class WHERE oid = '{table}'::regclass"
        );
        assert!(database.one::<bool>(&frozen).await, "{table}");
    }
    let keys = |kind: &str| {
        format!(
            "SELECT count(*) FROM pg_constraint WHERE contype = '{kind}' AND convalidated
            AND conrelid IN ('customers'::regclass, 'movies'::regclass, 'sessions'::regclass)"
        )
    };
    assert_eq!(database.one::<i64>(&keys("p")).await, 3);
    assert_eq!(database.one::<i64>(&keys("f")).await, 2);
    let lists =
        "SELECT count(*) FROM pg_indexes WHERE indexname ~ '^(customers|movies|sessions)_list$'";
    assert_eq!(database.one::<i64>(lists).await, 3);
    let mails =
        "SELECT count(DISTINCT email) FROM customers WHERE email ~ '@example[.](com|org|net)$'";
    assert_eq!(database.one::<i64>(mails).await, 500);
    let steps = steps.into_inner().unwrap();
    assert_eq!(steps.first().unwrap().phase, Phase::Schema);
    let last = steps.last().unwrap();
    assert_eq!(
        (last.phase, last.rows_done, last.rows_total),
        (Phase::Done, 5550, 5550)
    );
    assert!(
        steps
            .windows(2)
            .all(|two| two[0].rows_done <= two[1].rows_done)
    );
}

#[tokio::test]
async fn rows_depend_on_the_seed_and_on_nothing_else() {
    let (one, other) = (Database::start().await, Database::start().await);
    one.prepare(&small()).await;
    other.prepare(&small()).await;
    assert_eq!(one.fingerprint().await, other.fingerprint().await);
    let seed = FillOptions {
        seed: 2,
        reset: true,
        ..small()
    };
    other.prepare(&seed).await;
    assert_ne!(one.fingerprint().await[0], other.fingerprint().await[0]);
    let again = FillOptions {
        reset: true,
        ..small()
    };
    let report = other.prepare(&again).await;
    assert_eq!(outcomes(&report), [Outcome::Filled; 3]);
    assert_eq!(one.fingerprint().await, other.fingerprint().await);
}

#[tokio::test]
async fn the_bytes_that_we_send_are_the_values_that_we_mean() {
    let database = Database::start().await;
    database.prepare(&small()).await;
    let bounds: bool = database
        .one(
            "SELECT min(start_time) >= '2012-01-01' AND max(start_time) < '2024-01-01'
                AND count(*) FILTER (WHERE date_part('microseconds', start_time)::int % 1000 = 0) < 50
                AND (SELECT min(year) >= 1900 AND max(year) <= 2023 FROM movies)
                AND (SELECT min(duration) >= 2700 AND max(duration) < 12000 FROM movies)
                AND (SELECT min(birthday) >= '1935-01-01' AND max(birthday) < '2008-01-01' FROM customers)
                AND (SELECT bool_and(email = lower(name || '.' || surname || id) || '@' ||
                    split_part(email, '@', 2)) FROM customers)
             FROM sessions",
        )
        .await;
    assert!(bounds);
    let early: i64 = database
        .one(
            "SELECT count(*) FROM sessions s JOIN movies m ON m.id = s.movie_id
              WHERE s.start_time < make_date(m.year, 1, 1)",
        )
        .await;
    assert_eq!(early, 0);
}

#[tokio::test]
async fn a_filled_database_is_left_alone_at_once() {
    let database = Database::start().await;
    database.prepare(&small()).await;
    database
        .run("INSERT INTO sessions (start_time, customer_id, movie_id) VALUES (now(), 1, 1)")
        .await;
    let before = database.fingerprint().await;
    let other = FillOptions {
        seed: 9,
        customers: 7,
        ..small()
    };
    let report = database.prepare(&small()).await;
    assert_eq!(outcomes(&report), [Outcome::Found; 3]);
    assert_eq!(report.warnings, [""; 0]);
    assert!(
        report.elapsed < Duration::from_secs(1),
        "{:?}",
        report.elapsed
    );
    let report = database.prepare(&other).await;
    assert_eq!(counts(&report), [500, 50, 5000]);
    assert!(
        report.warnings[0].contains("500 rows of seed 1"),
        "{:?}",
        report.warnings
    );
    assert_eq!(database.fingerprint().await, before);
}

#[tokio::test]
async fn two_at_once_end_with_the_rows_of_one() {
    let (database, undisturbed) = (Database::start().await, Database::start().await);
    undisturbed.prepare(&small()).await;
    let options = small();
    let waited = Mutex::new(false);
    let watch = |step: Progress| *waited.lock().unwrap() |= step.phase == Phase::Waiting;
    let (one, other) = tokio::join!(
        prepare(&database.cluster, &options, &watch),
        prepare(&database.cluster, &options, &watch)
    );
    let mut outcomes = [one.unwrap(), other.unwrap()].map(|report| outcomes(&report)[0]);
    outcomes.sort_by_key(|outcome| *outcome == Outcome::Filled);
    assert_eq!(outcomes, [Outcome::Found, Outcome::Filled]);
    assert!(*waited.lock().unwrap());
    assert_eq!(
        database.fingerprint().await,
        undisturbed.fingerprint().await
    );
}

#[tokio::test]
async fn tiny_sizes_are_filled_as_well() {
    let database = Database::start().await;
    let sizes = FillOptions {
        customers: 1,
        movies: 1,
        sessions: 0,
        ..small()
    };
    let report = database.prepare(&sizes).await;
    assert_eq!(counts(&report), [1, 1, 0]);
    assert_eq!(
        database
            .one::<i64>("SELECT nextval('sessions_id_seq')")
            .await,
        1
    );
    let sizes = FillOptions {
        customers: 0,
        movies: 0,
        reset: true,
        ..sizes
    };
    assert_eq!(counts(&database.prepare(&sizes).await), [0, 0, 0]);
    let sizes = FillOptions {
        customers: 1,
        movies: 1,
        sessions: 3,
        ..sizes
    };
    assert_eq!(counts(&database.prepare(&sizes).await), [1, 1, 3]);
}

#[tokio::test]
async fn sessions_of_nobody_are_refused_before_anything_is_touched() {
    let database = Database::start().await;
    let sizes = FillOptions {
        movies: 0,
        ..small()
    };
    let error = prepare(&database.cluster, &sizes, &|_| {})
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::InvalidConfiguration { .. }),
        "{error}"
    );
    assert!(
        database
            .one::<bool>("SELECT to_regclass('movies') IS NULL")
            .await
    );
}

#[tokio::test]
async fn an_unreachable_database_names_each_host_and_its_answer() {
    let mut database = Database::start().await;
    database.server.stop();
    let error = prepare(&database.cluster, &small(), &|_| {})
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!("127.0.0.1:{}", database.server.port())),
        "{text}"
    );
    assert!(text.contains("refused"), "{text}");
    assert!(error.is_retryable() && !error.remedy().is_empty());
}

#[test]
fn a_fill_may_run_as_a_task_of_its_own() {
    fn is_send<T: Send>(_: &T) {}
    let (cluster, options) = (storage::PostgresCluster::default(), small());
    is_send(&prepare(&cluster, &options, &|_| {}));
}
