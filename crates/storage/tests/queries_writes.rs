//! The two writes of the service, keyed and not, alone and many at once, against a real server.

mod queries_fixture;

use std::time::{Duration, Instant};

use queries_fixture::{Fixture, PATIENCE, client, session};
use storage::{Created, Deleted, IdempotencyKey, NewSession, PostgresCluster, Storage};
use tokio_postgres::NoTls;

fn key<'a>(key: &'a str, request_hash: &'a [u8]) -> Option<IdempotencyKey<'a>> {
    Some(IdempotencyKey { key, request_hash })
}

#[tokio::test]
async fn a_keyed_session_is_stored_once_and_its_repeat_gets_the_same_answer() {
    let fixture = Fixture::start().await;
    let storage = &fixture.storage;
    let first = storage
        .create_session(session(), key("k", b"h"))
        .await
        .unwrap();
    let Created::Stored { id, json } = &first else {
        panic!("{first:?}");
    };
    assert_eq!(*id, 5001);
    assert!(json.starts_with(
        r#"{"id":5001,"start_time":"2021-12-09T16:12:52.059188Z","customer":{"id":100,"#
    ));
    // The answer stands although the session is changed or gone.
    fixture
        .sql
        .batch_execute("DELETE FROM sessions WHERE id = 5001")
        .await
        .unwrap();
    assert_eq!(
        storage
            .create_session(session(), key("k", b"h"))
            .await
            .unwrap(),
        first
    );
    assert_eq!(fixture.number("SELECT count(*) FROM sessions").await, 5000);
    assert_eq!(
        storage
            .create_session(session(), key("k", b"other"))
            .await
            .unwrap(),
        Created::KeyReused
    );
    assert_eq!(
        storage.delete_session(1, key("k", b"other")).await.unwrap(),
        Deleted::KeyReused
    );
}

#[tokio::test]
async fn sessions_without_a_key_are_stored_each_time() {
    let fixture = Fixture::start().await;
    for _ in 0..2 {
        let created = fixture
            .storage
            .create_session(session(), None)
            .await
            .unwrap();
        assert!(matches!(created, Created::Stored { .. }));
    }
    assert_eq!(fixture.number("SELECT count(*) FROM sessions").await, 5002);
    assert_eq!(
        fixture
            .number("SELECT count(*) FROM idempotency_keys")
            .await,
        0
    );
}

#[tokio::test]
async fn a_session_of_an_unknown_customer_or_movie_stores_nothing_and_no_key() {
    let fixture = Fixture::start().await;
    for (customer_id, movie_id) in [(100, 0), (-1, 50), (i32::MAX, i32::MAX)] {
        let unknown = NewSession {
            customer_id,
            movie_id,
            ..session()
        };
        let created = fixture
            .storage
            .create_session(unknown, key("k", b"h"))
            .await
            .unwrap();
        assert_eq!(created, Created::UnknownReference);
    }
    assert_eq!(fixture.number("SELECT count(*) FROM sessions").await, 5000);
    assert_eq!(
        fixture
            .number("SELECT count(*) FROM idempotency_keys")
            .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_with_one_key_store_one_session_and_all_get_its_answer() {
    let fixture = Fixture::start().await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let storage = fixture.storage.clone();
            tokio::spawn(async move { storage.create_session(session(), key("k", b"h")).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap().unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert!(matches!(answers[0], Created::Stored { .. }));
    assert_eq!(fixture.number("SELECT count(*) FROM sessions").await, 5001);
}

#[tokio::test]
async fn a_repeat_waits_for_the_first_while_it_runs() {
    let fixture = Fixture::start().await;
    let mut other = client(&fixture.server).await;
    let first = other.transaction().await.unwrap();
    first
        .batch_execute(
            "INSERT INTO idempotency_keys (key, request_hash, status, body) \
             VALUES ('k', 'h', 201, '{\"id\":7}')",
        )
        .await
        .unwrap();
    let repeat = tokio::spawn({
        let storage = fixture.storage.clone();
        async move { storage.create_session(session(), key("k", b"h")).await }
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE application_name = 'bingo/writes' AND wait_event_type = 'Lock'";
    fixture.until(waiting, 1).await;
    assert!(!repeat.is_finished());
    first.commit().await.unwrap();
    let expected = Created::Stored {
        id: 7,
        json: r#"{"id":7}"#.to_owned(),
    };
    assert_eq!(repeat.await.unwrap().unwrap(), expected);
    assert_eq!(fixture.number("SELECT count(*) FROM sessions").await, 5000);
}

#[tokio::test]
async fn a_frozen_transaction_of_somebody_elses_blocks_no_writer_past_its_limit() {
    let fixture = Fixture::start().await;
    let other = client(&fixture.server).await;
    other
        .batch_execute(
            "BEGIN; INSERT INTO idempotency_keys (key, request_hash, status, body) \
             VALUES ('k', 'h', 201, '{\"id\":7}')",
        )
        .await
        .unwrap();
    let start = Instant::now();
    // As many as there are connections that write.
    let repeats: Vec<_> = (0..4)
        .map(|_| {
            let storage = fixture.storage.clone();
            tokio::spawn(async move { storage.create_session(session(), key("k", b"h")).await })
        })
        .collect();
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE application_name = 'bingo/writes' AND wait_event_type = 'Lock'";
    fixture.until(waiting, 4).await;
    let storage = &fixture.storage;
    let another = storage.create_session(session(), key("other", b"h"));
    assert!(matches!(another.await.unwrap(), Created::Stored { .. }));
    for repeat in repeats {
        let error = repeat.await.unwrap().unwrap_err();
        assert!(error.is_unavailable() && error.is_retryable(), "{error:?}");
    }
    assert!(
        start.elapsed() < Duration::from_millis(4500),
        "{:?}",
        start.elapsed()
    );
    other.batch_execute("ROLLBACK").await.unwrap();
    let stored = storage.create_session(session(), key("k", b"h"));
    assert!(matches!(stored.await.unwrap(), Created::Stored { .. }));
}

#[tokio::test]
async fn a_first_that_freezes_in_a_session_of_ours_is_ended_and_its_repeat_stores() {
    let fixture = Fixture::start().await;
    // What our own sessions are set to, as a trigger sees it.
    let spy = "CREATE TABLE spied (limits text[]); \
        CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        INSERT INTO spied VALUES (ARRAY[current_setting('idle_in_transaction_session_timeout'), \
        current_setting('lock_timeout'), current_setting('statement_timeout')]); \
        RETURN NULL; END $$; \
        CREATE TRIGGER spy AFTER INSERT ON sessions EXECUTE FUNCTION spy()";
    fixture.sql.batch_execute(spy).await.unwrap();
    let storage = &fixture.storage;
    storage.create_session(session(), None).await.unwrap();
    let spied = "SELECT limits FROM spied";
    let limits: Vec<String> = fixture.sql.query_one(spied, &[]).await.unwrap().get(0);
    assert_eq!(limits, ["2s", "2500ms", "15s"]);

    let frozen = client(&fixture.server).await;
    let begin = format!(
        "SET idle_in_transaction_session_timeout = '{}'; BEGIN; \
         INSERT INTO idempotency_keys (key, request_hash, status, body) \
         VALUES ('k', 'h', 201, '{{\"id\":7}}')",
        limits[0]
    );
    frozen.batch_execute(&begin).await.unwrap();
    let start = Instant::now();
    let repeat = storage.create_session(session(), key("k", b"h")).await;
    let Created::Stored { id, .. } = repeat.unwrap() else {
        panic!("not stored");
    };
    assert!(id > 5000, "{id}");
    assert!(
        start.elapsed() < Duration::from_millis(3500),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyed_delete_that_took_effect_is_told_so_to_every_repeat() {
    let fixture = Fixture::start().await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let storage = fixture.storage.clone();
            tokio::spawn(async move { storage.delete_session(9, key("d", b"h")).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), Deleted::Gone);
    }
    assert_eq!(fixture.number("SELECT count(*) FROM sessions").await, 4999);
    assert_eq!(
        fixture
            .storage
            .delete_session(9, key("e", b"h"))
            .await
            .unwrap(),
        Deleted::NotFound
    );
    assert_eq!(
        fixture.storage.delete_session(9, None).await.unwrap(),
        Deleted::NotFound
    );
    assert_eq!(
        fixture
            .storage
            .create_session(session(), key("d", b"x"))
            .await
            .unwrap(),
        Created::KeyReused
    );
}

#[tokio::test]
async fn connections_to_a_server_that_takes_no_writes_any_more_are_given_up() {
    let fixture = Fixture::start().await;
    let (superuser, connection) = tokio_postgres::connect(&fixture.server.superuser_url(), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let read_only = async |switch: &str| {
        let set = format!("ALTER SYSTEM SET default_transaction_read_only = {switch}");
        superuser.batch_execute(&set).await.unwrap();
        superuser
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .unwrap();
    };
    let connections = "SELECT coalesce(sum(pid), 0)::int8 FROM pg_stat_activity \
                       WHERE application_name = 'bingo/writes'";
    let storage = &fixture.storage;
    storage.create_session(session(), None).await.unwrap();
    let before = fixture.number(connections).await;

    // As a demoted primary does: it answers, and refuses writes (25006).
    read_only("on").await;
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        match storage.create_session(session(), None).await {
            Err(error) => break error,
            Ok(_) => assert!(Instant::now() < deadline),
        }
    };
    assert!(error.is_unavailable(), "{error}");
    read_only("off").await;
    let deadline = Instant::now() + PATIENCE;
    while storage.create_session(session(), None).await.is_err() {
        assert!(Instant::now() < deadline);
    }
    assert_ne!(fixture.number(connections).await, before);
}

#[tokio::test]
async fn keys_older_than_a_day_are_removed_in_batches_and_younger_ones_kept() {
    let fixture = Fixture::start().await;
    let storage = &fixture.storage;
    let young = storage.create_session(session(), key("young", b"h")).await;
    young.unwrap();
    // More than two batches, and one at the edge.
    let old = "INSERT INTO idempotency_keys (key, request_hash, status, body, created_at) \
        SELECT 'old ' || i, 'h'::bytea, 204, '', now() - interval '25 hours' \
        FROM generate_series(1, 2500) AS i \
        UNION ALL SELECT 'edge', 'h'::bytea, 204, '', now() - interval '23 hours'";
    fixture.sql.batch_execute(old).await.unwrap();
    // The first turn of the process's own purge may fall into this one and take a share.
    let old = "SELECT count(*) FROM idempotency_keys WHERE key LIKE 'old %'";
    let deadline = Instant::now() + PATIENCE;
    let mut gone = 0;
    while fixture.number(old).await > 0 {
        gone += storage.purge_keys().await.unwrap();
        assert!(Instant::now() < deadline);
    }
    assert!(gone <= 2500, "{gone}");
    let kept = "SELECT count(*) FROM idempotency_keys WHERE key IN ('young', 'edge')";
    assert_eq!(fixture.number(kept).await, 2);
    assert_eq!(storage.purge_keys().await.unwrap(), 0);
    // A key that was removed is free again.
    let again = storage.create_session(session(), key("old 1", b"other"));
    assert!(matches!(again.await.unwrap(), Created::Stored { .. }));
}

#[tokio::test]
async fn a_process_that_starts_removes_old_keys_by_itself() {
    let fixture = Fixture::start().await;
    let old = "INSERT INTO idempotency_keys (key, request_hash, status, body, created_at) \
        VALUES ('old', 'h', 204, '', now() - interval '25 hours')";
    fixture.sql.batch_execute(old).await.unwrap();
    let cluster = PostgresCluster::from_url(&fixture.server.url()).unwrap();
    let _storage = Storage::open(&cluster).unwrap();
    fixture
        .until("SELECT count(*) FROM idempotency_keys", 0)
        .await;
}
