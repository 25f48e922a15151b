//! What the service reads from the database, against a real server, and how it meets its absence.

mod queries_fixture;

use std::time::{Duration, Instant};

use private_postgres::TestServer;
use queries_fixture::{Fixture, PATIENCE, session};
use storage::deadline::until;
use storage::{Created, Error, LIST_ROWS_MAX, PostgresCluster, Storage};
use tokio_postgres::Client;

async fn ids(sql: &Client, query: &str) -> Vec<i64> {
    let rows = sql.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn each_list_is_in_the_order_that_the_database_gives_it() {
    let fixture = Fixture::start().await;
    let storage = &fixture.storage;

    let mut movies = Vec::new();
    let mut list = storage.movies(LIST_ROWS_MAX).await.unwrap();
    while let Some(found) = list.next().await.unwrap() {
        movies.push(i64::from(found.view().unwrap().id));
    }
    let expected = "SELECT id::int8 FROM movies ORDER BY year DESC, name ASC, id DESC";
    assert_eq!(movies, ids(&fixture.sql, expected).await);

    let mut customers = Vec::new();
    let mut list = storage.customers(LIST_ROWS_MAX).await.unwrap();
    while let Some(found) = list.next().await.unwrap() {
        customers.push(i64::from(found.view().unwrap().id));
    }
    let expected = "SELECT id::int8 FROM customers \
                    ORDER BY surname ASC, name ASC, birthday DESC, id DESC";
    assert_eq!(customers, ids(&fixture.sql, expected).await);

    let mut sessions = Vec::new();
    let mut list = storage.sessions(LIST_ROWS_MAX).await.unwrap();
    while let Some(found) = list.next().await.unwrap() {
        sessions.push(found.view().unwrap().id);
    }
    // Sorted from the table itself: no index has a say.
    let expected = "SELECT sessions.id FROM sessions, movies, customers \
                    WHERE movies.id = movie_id AND customers.id = customer_id \
                    ORDER BY movies.year DESC, movies.name ASC, customers.id ASC, sessions.id DESC";
    fixture
        .sql
        .batch_execute("SET enable_indexscan = off")
        .await
        .unwrap();
    assert_eq!(sessions, ids(&fixture.sql, expected).await);
    assert_eq!(sessions.len(), 5000);
}

#[tokio::test]
async fn a_list_ends_at_its_limit() {
    let fixture = Fixture::start().await;
    let mut list = fixture.storage.sessions(7).await.unwrap();
    let mut rows = 0;
    while list.next().await.unwrap().is_some() {
        rows += 1;
    }
    assert_eq!(rows, 7);
    assert!(list.next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_record_is_found_by_its_id_with_every_column() {
    let fixture = Fixture::start().await;
    let found = fixture.storage.session(1).await.unwrap().unwrap();
    let session = found.view().unwrap();
    let row = fixture
        .sql
        .query_one(
            "SELECT start_time::text, c.id, c.name, c.surname, c.birthday::text, c.email, m.id, \
             m.name, m.year, m.duration FROM sessions s JOIN customers c ON c.id = customer_id \
             JOIN movies m ON m.id = movie_id WHERE s.id = 1",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "2015-10-06 13:28:30.395872");
    assert_eq!(session.start_time.micros(), 497_453_310_395_872);
    assert_eq!(session.customer.id, row.get::<_, i32>(1));
    assert_eq!(session.customer.name, row.get::<_, &str>(2));
    assert_eq!(session.customer.surname, row.get::<_, &str>(3));
    let (year, month, day) = session.customer.birthday.civil().unwrap();
    assert_eq!(
        format!("{year:04}-{month:02}-{day:02}"),
        row.get::<_, &str>(4)
    );
    assert_eq!(session.customer.email, row.get::<_, &str>(5));
    assert_eq!(session.movie.id, row.get::<_, i32>(6));
    assert_eq!(session.movie.name, row.get::<_, &str>(7));
    assert_eq!(session.movie.year, row.get::<_, i32>(8));
    assert_eq!(session.movie.duration_seconds, row.get::<_, i64>(9));

    assert!(fixture.storage.session(i64::MAX).await.unwrap().is_none());
    assert!(fixture.storage.movie(-1).await.unwrap().is_none());
    assert!(fixture.storage.customer(0).await.unwrap().is_none());
    assert!(fixture.storage.movie(1).await.unwrap().is_some());
    assert!(fixture.storage.customer(1).await.unwrap().is_some());
}

#[tokio::test]
async fn an_abandoned_query_is_cancelled_and_its_connection_not_lent_again() {
    let fixture = Fixture::start().await;
    let pausing = "SELECT count(*) FROM pg_stat_activity \
                   WHERE application_name = 'bingo/db_dummy' AND state = 'active'";
    // Longer than the real pause, so that only a cancel can end it in time.
    let slow = "CREATE SCHEMA slow; CREATE FUNCTION slow.pg_sleep(numeric) RETURNS void \
                LANGUAGE sql AS 'SELECT pg_catalog.pg_sleep(600)'; \
                ALTER ROLE bingo SET search_path = slow, public, pg_catalog";
    fixture.sql.batch_execute(slow).await.unwrap();
    let cluster = PostgresCluster::from_url(&fixture.server.url()).unwrap();
    let storage = Storage::open(&cluster).unwrap();
    let pause = tokio::spawn({
        let storage = storage.clone();
        async move { storage.pause().await }
    });
    fixture.until(pausing, 1).await;
    pause.abort();
    fixture.until(pausing, 0).await;
    storage.ready().await.unwrap();
}

#[tokio::test]
async fn a_list_left_half_way_is_cancelled_and_others_go_on() {
    let fixture = Fixture::start().await;
    fixture
        .sql
        .batch_execute(
            "INSERT INTO sessions (start_time, customer_id, movie_id) \
             SELECT start_time, customer_id, movie_id FROM sessions, generate_series(1, 15)",
        )
        .await
        .unwrap();
    // More than there are connections for lists.
    for _ in 0..5 {
        let mut list = fixture.storage.sessions(LIST_ROWS_MAX).await.unwrap();
        assert!(list.next().await.unwrap().is_some());
    }
    let lists = "SELECT count(*) FROM pg_stat_activity \
                 WHERE application_name = 'bingo/lists' AND state = 'active'";
    fixture.until(lists, 0).await;
    assert!(
        fixture
            .storage
            .movies(1)
            .await
            .unwrap()
            .next()
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn sleeping_queries_leave_the_point_reads_alone() {
    let fixture = Fixture::start().await;
    fixture.storage.pause().await.unwrap();
    let pauses: Vec<_> = (0..48)
        .map(|_| {
            let storage = fixture.storage.clone();
            tokio::spawn(async move { storage.pause().await })
        })
        .collect();
    let active = "SELECT count(*) FROM pg_stat_activity \
                  WHERE application_name = 'bingo/db_dummy' AND wait_event = 'PgSleep'";
    let deadline = Instant::now() + PATIENCE;
    while fixture.number(active).await == 0 {
        assert!(Instant::now() < deadline);
    }
    assert!(fixture.storage.movie(1).await.unwrap().is_some());
    let connections = "SELECT count(*) FROM pg_stat_activity \
                       WHERE application_name = 'bingo/db_dummy'";
    for pause in pauses {
        pause.await.unwrap().unwrap();
    }
    assert!(fixture.number(connections).await <= 24);
}

/// As a jump of the machine's clock does, by which the server counts its `statement_timeout`.
#[tokio::test]
async fn a_statement_that_the_server_cancels_too_early_is_asked_once_more() {
    let fixture = Fixture::start().await;
    fixture.storage.pause().await.unwrap();
    let pause = tokio::spawn({
        let storage = fixture.storage.clone();
        async move { storage.pause().await }
    });
    let cancelled = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity \
                     WHERE application_name = 'bingo/db_dummy' AND wait_event = 'PgSleep'";
    let deadline = Instant::now() + PATIENCE;
    while fixture.number(cancelled).await == 0 {
        assert!(Instant::now() < deadline);
    }
    pause.await.unwrap().unwrap();
}

#[tokio::test]
async fn work_waits_for_a_database_that_is_away_until_its_deadline_and_no_longer() {
    let mut fixture = Fixture::start().await;
    let storage = fixture.storage.clone();
    storage.ready().await.unwrap();
    fixture.server.stop();
    let start = Instant::now();
    let patience = Duration::from_millis(600);
    let error = until(start + patience, storage.movie(1))
        .await
        .err()
        .unwrap();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let waited = start.elapsed();
    assert!(
        waited >= patience && waited < patience * 3,
        "{waited:?}: {error}"
    );

    // Asked while it is away, answered when it is back; nothing is started anew.
    let deadline = Instant::now() + PATIENCE;
    let read = tokio::spawn(until(deadline, {
        let storage = storage.clone();
        async move { storage.movie(1).await.map(|found| found.is_some()) }
    }));
    let write = tokio::spawn(until(deadline, {
        let storage = storage.clone();
        async move { storage.create_session(session(), None).await }
    }));
    tokio::task::yield_now().await;
    fixture.server.restart().unwrap();
    assert!(read.await.unwrap().unwrap());
    assert!(matches!(
        write.await.unwrap().unwrap(),
        Created::Stored { .. }
    ));
    storage.pause().await.unwrap();
    let mut list = storage.movies(1).await.unwrap();
    assert!(list.next().await.unwrap().is_some());
}

#[tokio::test]
async fn a_database_without_tables_sleeps_but_is_not_ready() {
    let server = TestServer::start().unwrap();
    let cluster = PostgresCluster::from_url(&server.url()).unwrap();
    let storage = Storage::open(&cluster).unwrap();
    storage.pause().await.unwrap();
    let error = storage.ready().await.unwrap_err();
    assert!(matches!(error, Error::Query { .. }), "{error:?}");
    assert!(error.remedy().contains("prepare_db"));
}

#[tokio::test]
async fn a_cluster_that_cannot_be_used_is_refused_before_it_is_asked() {
    let cluster = PostgresCluster {
        hosts: Vec::new(),
        ..PostgresCluster::default()
    };
    let error = Storage::open(&cluster).err().unwrap();
    assert!(
        error.to_string().contains("postgres_cluster.hosts"),
        "{error}"
    );
}
