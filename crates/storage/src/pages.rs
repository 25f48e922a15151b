//! The lists in pages. A page begins at a place, which is the row that stands there; the list's order
//! makes every place unique, so no row is missed or read twice, whatever is stored or deleted
//! meanwhile.
//!
//! A place is written with ids alone: cursors stand in addresses, and a customer's name has no
//! business there. The rest of the order's key is read anew from the movie or the customer; a place
//! whose movie or customer is gone is no place any more. A session that is gone leaves its place.
//!
//! Where the next page begins must be known before this one's first row leaves, for it stands in the
//! answer's head. The statement therefore asks for it as one more column (an uncorrelated subquery,
//! computed once, from the index alone), in the same snapshot as the rows. The statements are not
//! prepared: a page is rare beside its own cost, and one that is parsed anew is always planned for
//! its values.

use tokio_postgres::types::{ToSql, Type};

use crate::queries::{CUSTOMER, MOVIE, SESSION_TABLES};
use crate::records::{Customer, Found, Movie, Session};
use crate::{Error, LIST_ROWS_MAX, List, Storage};

/// Which part of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<P> {
    /// The row that it begins with; `None`: the list's first.
    pub from: Option<P>,
    /// How many rows it has, 1 to [`LIST_ROWS_MAX`]; the next page begins after them.
    pub rows: u32,
    /// How many of them are read.
    pub rows_read: u32,
}

/// A place in the list of movies, or of customers: the row with this id. An id that no row can have
/// is as good as one that none has any more, so it is kept as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(i64);

/// A place in the list of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPlace {
    movie: i64,
    customer: i64,
    session: i64,
}

/// What the text of a [`Place`] looks like, as a regular expression of ECMA-262.
pub const PLACE_PATTERN: &str = "^-?[0-9]{1,18}$";
/// What the text of a [`SessionPlace`] looks like.
pub const SESSION_PLACE_PATTERN: &str = r"^-?[0-9]{1,18}\.-?[0-9]{1,18}\.-?[0-9]{1,18}$";

impl std::str::FromStr for Place {
    type Err = std::num::ParseIntError;

    /// From the text that `Found::next_place` gave.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl std::str::FromStr for SessionPlace {
    type Err = std::num::ParseIntError;

    /// From the text that `Found::next_place` gave.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut ids = text.splitn(3, '.');
        let mut id = || ids.next().unwrap_or_default();
        Ok(Self {
            movie: id().parse()?,
            customer: id().parse()?,
            session: id().parse()?,
        })
    }
}

/// The parameters of a statement, each with its type.
type Parameters<'a> = Vec<(&'a (dyn ToSql + Sync), Type)>;

impl Storage {
    /// A page of `movies`; `None` where its place is gone.
    pub async fn movies_page(
        &self,
        page: &Page<Place>,
    ) -> Result<Option<List<Movie<'static>>>, Error> {
        let (read, next) = (i64::from(page.rows_read), next(page.rows));
        let mut parameters: Parameters<'_> = vec![(&read, Type::INT8), (&next, Type::INT8)];
        let Some(Place(id)) = &page.from else {
            return self.page(&movies_sql(false), parameters).await.map(Some);
        };
        let Some(found) = self.movie_at(*id).await? else {
            return Ok(None);
        };
        let movie = found.view()?;
        parameters.push((&movie.year, Type::INT4));
        parameters.push((&movie.name, Type::TEXT));
        parameters.push((id, Type::INT8));
        self.page(&movies_sql(true), parameters).await.map(Some)
    }

    /// A page of `customers`; `None` where its place is gone.
    pub async fn customers_page(
        &self,
        page: &Page<Place>,
    ) -> Result<Option<List<Customer<'static>>>, Error> {
        let (read, next) = (i64::from(page.rows_read), next(page.rows));
        let mut parameters: Parameters<'_> = vec![(&read, Type::INT8), (&next, Type::INT8)];
        let Some(Place(id)) = &page.from else {
            return self.page(&customers_sql(false), parameters).await.map(Some);
        };
        let Ok(known) = i32::try_from(*id) else {
            return Ok(None);
        };
        let Some(found) = self.customer(known).await? else {
            return Ok(None);
        };
        let customer = found.view()?;
        parameters.push((&customer.surname, Type::TEXT));
        parameters.push((&customer.name, Type::TEXT));
        parameters.push((&customer.birthday, Type::DATE));
        parameters.push((id, Type::INT8));
        self.page(&customers_sql(true), parameters).await.map(Some)
    }

    /// A page of `sessions`; `None` where the movie of its place is gone.
    pub async fn sessions_page(
        &self,
        page: &Page<SessionPlace>,
    ) -> Result<Option<List<Session<'static>>>, Error> {
        let (read, next) = (i64::from(page.rows_read), next(page.rows));
        let mut parameters: Parameters<'_> = vec![(&read, Type::INT8), (&next, Type::INT8)];
        let Some(place) = &page.from else {
            return self.page(&sessions_sql(false), parameters).await.map(Some);
        };
        let Some(found) = self.movie_at(place.movie).await? else {
            return Ok(None);
        };
        let movie = found.view()?;
        parameters.push((&movie.year, Type::INT4));
        parameters.push((&movie.name, Type::TEXT));
        parameters.push((&place.customer, Type::INT8));
        parameters.push((&place.session, Type::INT8));
        self.page(&sessions_sql(true), parameters).await.map(Some)
    }

    async fn movie_at(&self, id: i64) -> Result<Option<Found<Movie<'static>>>, Error> {
        match i32::try_from(id) {
            Ok(id) => self.movie(id).await,
            Err(_) => Ok(None),
        }
    }
}

/// For tests: the index that each list's pages are read from, the types of its statement's parameters,
/// the statement, and values for a page from the middle.
pub fn page_statements() -> [(&'static str, &'static str, String, &'static str); 3] {
    [
        (
            "movies_list",
            "bigint, bigint, integer, text, bigint",
            movies_sql(true),
            "1000, 1000, 1990, 'M', 5",
        ),
        (
            "customers_list",
            "bigint, bigint, text, text, date, bigint",
            customers_sql(true),
            "1000, 1000, 'M', 'M', '1990-01-01', 5",
        ),
        (
            "sessions_list",
            "bigint, bigint, integer, text, bigint, bigint",
            sessions_sql(true),
            "1000, 1000, 1990, 'M', 5, 5",
        ),
    ]
}

/// How many rows stand before the next page.
fn next(rows: u32) -> i64 {
    i64::from(rows.clamp(1, LIST_ROWS_MAX))
}

/// $1 rows read, $2 rows before the next page; from a place: $3 year, $4 name, $5 id.
fn movies_sql(from_a_place: bool) -> String {
    let here = if from_a_place {
        "WHERE m.year <= $3 AND (m.year < $3 OR m.name > $4 OR (m.name = $4 AND m.id <= $5))"
    } else {
        ""
    };
    let tail = format!("FROM movies m {here} ORDER BY m.year DESC, m.name, m.id DESC");
    format!("SELECT {MOVIE}, (SELECT m.id::text {tail} OFFSET $2 LIMIT 1) AS next {tail} LIMIT $1")
}

/// $1 rows read, $2 rows before the next page; from a place: $3 surname, $4 name, $5 birthday, $6 id.
fn customers_sql(from_a_place: bool) -> String {
    let here = if from_a_place {
        "WHERE (c.surname, c.name) >= ($3, $4) AND ((c.surname, c.name) > ($3, $4) \
         OR c.birthday < $5 OR (c.birthday = $5 AND c.id <= $6))"
    } else {
        ""
    };
    let tail =
        format!("FROM customers c {here} ORDER BY c.surname, c.name, c.birthday DESC, c.id DESC");
    format!(
        "SELECT {CUSTOMER}, (SELECT c.id::text {tail} OFFSET $2 LIMIT 1) AS next {tail} LIMIT $1"
    )
}

/// $1 rows read, $2 rows before the next page; from a place: $3 year, $4 name, $5 customer, $6 id.
/// The next place is found without the customers: a foreign key says that each session has one.
fn sessions_sql(from_a_place: bool) -> String {
    let here = if from_a_place {
        "WHERE m.year <= $3 AND (m.year < $3 OR m.name >= $4) \
         AND ((m.year, m.name) <> ($3, $4) OR s.customer_id > $5 \
         OR (s.customer_id = $5 AND s.id <= $6))"
    } else {
        ""
    };
    let order = "ORDER BY m.year DESC, m.name";
    format!(
        "SELECT s.id, s.start_time, {CUSTOMER}, {MOVIE}, \
         (SELECT m.id || '.' || s.customer_id || '.' || s.id \
         FROM sessions s JOIN movies m ON m.id = s.movie_id {here} \
         {order}, s.customer_id, s.id DESC OFFSET $2 LIMIT 1) AS next \
         FROM {SESSION_TABLES} {here} {order}, c.id, s.id DESC LIMIT $1"
    )
}
