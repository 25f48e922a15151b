//! Rows that are not ours: they get keys where they bear them, and are never changed or deleted.

use storage::Error;
use storage::fill::{FillOptions, Outcome, prepare};

use crate::database::{Database, counts, small};

/// What the vendor's binary makes: tables and sequences, no key, no index.
const VENDOR: &str = "
    CREATE TABLE schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL);
    INSERT INTO schema_migrations VALUES (3, false);
    CREATE SEQUENCE customers_id_seq AS integer;
    CREATE TABLE customers (id integer NOT NULL DEFAULT nextval('customers_id_seq'),
        name varchar(80) NOT NULL, surname varchar(80) NOT NULL, birthday date NOT NULL,
        email varchar(256) NOT NULL);
    CREATE SEQUENCE movies_id_seq AS integer;
    CREATE TABLE movies (id integer NOT NULL DEFAULT nextval('movies_id_seq'),
        name varchar NOT NULL, year integer NOT NULL, duration bigint NOT NULL);
    CREATE SEQUENCE sessions_id_seq;
    CREATE TABLE sessions (id bigint NOT NULL DEFAULT nextval('sessions_id_seq'),
        start_time timestamp without time zone NOT NULL, customer_id integer NOT NULL,
        movie_id integer NOT NULL);";

const VENDOR_ROWS: &str = "
    INSERT INTO customers (name, surname, birthday, email)
        SELECT 'n' || i, 's' || i, '1990-01-01', i || '@x' FROM generate_series(1, 300) i;
    INSERT INTO movies (name, year, duration)
        SELECT 'm' || i, 1950 + i, 5000 FROM generate_series(1, 40) i;
    INSERT INTO sessions (start_time, customer_id, movie_id)
        SELECT now(), 1 + i % 300, 1 + i % 40 FROM generate_series(1, 2000) i;";

async fn vendors() -> Database {
    let database = Database::start().await;
    database.run(VENDOR).await;
    database.run(VENDOR_ROWS).await;
    database
}

const ROWS: &str =
    "SELECT md5((SELECT string_agg(t::text, '|' ORDER BY t::text) FROM customers t) ||
    (SELECT string_agg(t::text, '|' ORDER BY t::text) FROM movies t) ||
    (SELECT string_agg(t::text, '|' ORDER BY t::text) FROM sessions t) ||
    (SELECT string_agg(t::text, '|') FROM schema_migrations t))";

const KEYS: &str = "SELECT count(*) FROM pg_constraint WHERE contype IN ('p', 'f') AND convalidated
    AND conrelid IN ('customers'::regclass, 'movies'::regclass, 'sessions'::regclass)";

#[tokio::test]
async fn the_vendors_database_gets_keys_and_indexes_and_keeps_every_row() {
    let database = vendors().await;
    // As after an import by hand: the sequence of movies lags, that of sessions is far ahead.
    database
        .run("SELECT setval('movies_id_seq', 7), setval('sessions_id_seq', 9000)")
        .await;
    let before: String = database.one(ROWS).await;
    let report = database.prepare(&small()).await;
    assert_eq!(counts(&report), [300, 40, 2000]);
    assert!(
        report
            .tables
            .iter()
            .all(|table| table.outcome == Outcome::Adopted)
    );
    assert_eq!(report.warnings.len(), 3, "{:?}", report.warnings);
    assert!(report.warnings[0].contains("300 rows that bingo did not write"));
    assert_eq!(database.one::<String>(ROWS).await, before);
    assert_eq!(database.one::<i64>(KEYS).await, 5);
    let lists = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE '%\\_list'";
    assert_eq!(database.one::<i64>(lists).await, 3);
    assert_eq!(
        database.one::<i64>("SELECT nextval('movies_id_seq')").await,
        41
    );
    assert_eq!(
        database
            .one::<i64>("SELECT nextval('sessions_id_seq')")
            .await,
        9001
    );
    let again = database.prepare(&small()).await;
    assert!(
        again
            .tables
            .iter()
            .all(|table| table.outcome == Outcome::Adopted)
    );
    assert_eq!(again.warnings, [""; 0]);
    assert_eq!(database.one::<String>(ROWS).await, before);
}

#[tokio::test]
async fn rows_that_bear_no_key_are_counted_and_kept() {
    let database = vendors().await;
    database
        .run(
            "INSERT INTO movies (id, name, year, duration) VALUES (5, 'twice', 2000, 1);
             INSERT INTO sessions (start_time, customer_id, movie_id) VALUES (now(), 999, 1), (now(), 998, 1)",
        )
        .await;
    let before: String = database.one(ROWS).await;
    let report = database.prepare(&small()).await;
    let warnings = report.warnings.join("\n");
    assert!(
        warnings.contains("movies has 1 ids more than once"),
        "{warnings}"
    );
    assert!(warnings.contains("no foreign key to movies"), "{warnings}");
    assert!(
        warnings.contains("2 sessions have a customer_id that is not in customers"),
        "{warnings}"
    );
    assert_eq!(database.one::<String>(ROWS).await, before);
    assert_eq!(database.one::<i64>(KEYS).await, 2);
    // The key holds for new rows nevertheless.
    let orphan = "INSERT INTO sessions (start_time, customer_id, movie_id) VALUES (now(), 997, 1)";
    assert!(database.client.batch_execute(orphan).await.is_err());
    assert_eq!(counts(&database.prepare(&small()).await), [300, 41, 2002]);
}

#[tokio::test]
async fn a_table_with_foreign_rows_is_not_filled_beside_empty_ones_that_are() {
    let database = Database::start().await;
    database.run(VENDOR).await;
    database
        .run("INSERT INTO movies (name, year, duration) SELECT 'm', 2000, i FROM generate_series(1, 30) i")
        .await;
    let report = database.prepare(&small()).await;
    assert_eq!(counts(&report), [500, 30, 5000]);
    assert_eq!(report.tables[1].outcome, Outcome::Adopted);
    assert_eq!(
        database
            .one::<i32>("SELECT max(movie_id) FROM sessions")
            .await,
        30
    );
    assert_eq!(database.one::<i64>(KEYS).await, 5);
}

#[tokio::test]
async fn sessions_stay_empty_when_there_are_no_ids_to_rely_on() {
    let database = Database::start().await;
    database.run(VENDOR).await;
    database
        .run("INSERT INTO movies VALUES (17, 'm', 2000, 1)")
        .await;
    let report = database.prepare(&small()).await;
    assert_eq!(counts(&report), [500, 1, 0]);
    assert_eq!(report.tables[2].outcome, Outcome::Skipped);
    assert!(
        report
            .warnings
            .join("\n")
            .contains("ids of movies have gaps"),
        "{:?}",
        report.warnings
    );
}

#[tokio::test]
async fn a_restored_schema_with_keys_and_no_rows_is_filled() {
    let (database, plain) = (Database::start().await, Database::start().await);
    plain.prepare(&small()).await;
    database
        .prepare(&FillOptions {
            customers: 0,
            movies: 0,
            sessions: 0,
            ..small()
        })
        .await;
    database.run("DELETE FROM bingo_fill").await;
    assert_eq!(database.one::<i64>(KEYS).await, 5);
    assert_eq!(counts(&database.prepare(&small()).await), [500, 50, 5000]);
    assert_eq!(database.fingerprint().await, plain.fingerprint().await);
}

#[tokio::test]
async fn a_table_of_other_columns_is_refused_and_stays() {
    let database = Database::start().await;
    database
        .run("CREATE TABLE movies (id integer, title text); INSERT INTO movies VALUES (1, 'x')")
        .await;
    let error = prepare(&database.cluster, &small(), &|_| {})
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("movies"), "{error}");
    assert_eq!(database.one::<i64>("SELECT count(*) FROM movies").await, 1);
}

#[tokio::test]
async fn a_user_who_may_not_create_tables_is_told_the_remedy() {
    let database = Database::start().await;
    let url = database.server.superuser_url();
    let cluster = storage::PostgresCluster::from_url(&url).unwrap();
    let superuser = storage::connect::connect(&cluster, "test").await.unwrap();
    let sql =
        "CREATE ROLE guest LOGIN PASSWORD 'guest'; REVOKE CREATE ON SCHEMA public FROM PUBLIC";
    superuser.batch_execute(sql).await.unwrap();
    let url = format!(
        "postgresql://guest:guest@127.0.0.1:{}/bingo",
        database.server.port()
    );
    let guest = storage::PostgresCluster::from_url(&url).unwrap();
    let error = prepare(&guest, &small(), &|_| {}).await.unwrap_err();
    assert!(error.remedy().contains("GRANT CREATE"), "{error:?}");
    assert!(!error.is_retryable());
}
