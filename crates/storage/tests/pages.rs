//! The lists in pages: together they are the whole list, and each is read from its index.

mod queries_fixture;

use queries_fixture::Fixture;
use storage::{Page, Place, SessionPlace};

fn page<P>(from: Option<P>, rows: u32) -> Page<P> {
    Page {
        from,
        rows,
        rows_read: rows,
    }
}

/// Reads a list in pages of this many rows, by one of storage's three functions.
macro_rules! in_pages {
    ($storage:expr, $function:ident, $place:ty, $rows:expr) => {{
        let (mut ids, mut from) = (Vec::<i64>::new(), None::<$place>);
        loop {
            let page = page(from, $rows);
            let mut list = $storage.$function(&page).await.unwrap().unwrap();
            let (mut next, mut rows) = (None, 0);
            while let Some(found) = list.next().await.unwrap() {
                next = found.next_place().map(|place| place.parse().unwrap());
                ids.push(found.view().unwrap().id.into());
                rows += 1;
            }
            assert!(rows <= $rows && (rows == $rows || next.is_none()), "{rows}");
            from = next;
            if from.is_none() {
                break ids;
            }
        }
    }};
}

async fn expected(fixture: &Fixture, sql: &str) -> Vec<i64> {
    let rows = fixture.sql.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

const MOVIES: &str = "SELECT id::int8 FROM movies ORDER BY year DESC, name, id DESC";
const CUSTOMERS: &str =
    "SELECT id::int8 FROM customers ORDER BY surname, name, birthday DESC, id DESC";
const SESSIONS: &str = "SELECT s.id FROM sessions s JOIN movies m ON m.id = movie_id \
    JOIN customers c ON c.id = customer_id ORDER BY m.year DESC, m.name, c.id, s.id DESC";

#[tokio::test]
async fn the_pages_of_a_list_are_the_list() {
    let fixture = Fixture::start().await;
    let storage = &fixture.storage;
    for rows in [1, 7, 60, 1000] {
        let movies = in_pages!(storage, movies_page, Place, rows);
        assert_eq!(movies, expected(&fixture, MOVIES).await);
        let customers = in_pages!(storage, customers_page, Place, rows);
        assert_eq!(customers, expected(&fixture, CUSTOMERS).await);
    }
    for rows in [43, 2500, 100_000] {
        let sessions = in_pages!(storage, sessions_page, SessionPlace, rows);
        assert_eq!(sessions, expected(&fixture, SESSIONS).await);
    }
}

#[tokio::test]
async fn a_page_goes_on_where_a_deleted_session_stood() {
    let fixture = Fixture::start().await;
    let first = page(None, 10);
    let mut list = fixture
        .storage
        .sessions_page(&first)
        .await
        .unwrap()
        .unwrap();
    let next = list.next().await.unwrap().unwrap();
    let place: SessionPlace = next.next_place().unwrap().parse().unwrap();
    drop((next, list));
    let all = expected(&fixture, SESSIONS).await;
    let gone = all[10];
    fixture
        .sql
        .execute("DELETE FROM sessions WHERE id = $1", &[&gone])
        .await
        .unwrap();
    let second = page(Some(place), 1);
    let mut list = fixture
        .storage
        .sessions_page(&second)
        .await
        .unwrap()
        .unwrap();
    let row = list.next().await.unwrap().unwrap();
    assert_eq!(row.view().unwrap().id, all[11]);
}

#[tokio::test]
async fn a_place_whose_row_is_gone_is_no_place() {
    let fixture = Fixture::start().await;
    let from = Some("2147483647".parse().unwrap());
    assert!(
        fixture
            .storage
            .movies_page(&page(from, 1))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        fixture
            .storage
            .customers_page(&page(from, 1))
            .await
            .unwrap()
            .is_none()
    );
    for wrong in ["", "x", "1.2", "1.2.3.4", "99999999999999999999.1.1"] {
        assert!(wrong.parse::<SessionPlace>().is_err(), "{wrong}");
    }
}
