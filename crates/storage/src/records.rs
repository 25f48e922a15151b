//! The records as the API shows them, borrowed from the row that PostgreSQL sent: text columns are
//! slices of the network buffer, dates and times are the server's own integers. Nothing is copied
//! or allocated per value, so a list of 100 000 rows costs little more than its transfer.
//!
//! Left out: calendar arithmetic beyond what writing a date takes.

use std::error::Error as StdError;
use std::marker::PhantomData;

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};

use crate::Error;

/// A row of `movies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Movie<'a> {
    pub id: i32,
    pub name: &'a str,
    pub year: i32,
    pub duration_seconds: i64,
}

/// A row of `customers`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Customer<'a> {
    pub id: i32,
    pub name: &'a str,
    pub surname: &'a str,
    pub birthday: Date,
    pub email: &'a str,
}

/// A row of `sessions` with the customer and the movie that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session<'a> {
    pub id: i64,
    pub start_time: Timestamp,
    pub customer: Customer<'a>,
    pub movie: Movie<'a>,
}

/// Shows the id alone: a customer's fields have no place in a log.
impl std::fmt::Debug for Customer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Customer")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Days since 2000-01-01, PostgreSQL's own count; both ends of the range are its infinities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(i32);

/// Microseconds since 2000-01-01T00:00:00Z, PostgreSQL's own count, taken as UTC; both ends of the
/// range are its infinities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

/// A record that rows can be read as.
pub trait Record: 'static {
    type View<'a>;

    /// Reads the columns in the order of this record's queries.
    #[doc(hidden)]
    fn read(row: &Row) -> Result<Self::View<'_>, tokio_postgres::Error>;
}

/// A row that was found; it owns the bytes that its view borrows.
pub struct Found<R: Record> {
    row: Row,
    record: PhantomData<fn() -> R>,
}

impl Date {
    pub fn from_days(days: i32) -> Self {
        Self(days)
    }

    pub fn days(self) -> i32 {
        self.0
    }

    /// Year (0 is 1 BC), month 1..=12, day 1..=31 of the proleptic Gregorian calendar; `None` at
    /// infinity.
    pub fn civil(self) -> Option<(i32, u8, u8)> {
        (self.0 != i32::MIN && self.0 != i32::MAX).then(|| civil_from_days(i64::from(self.0)))
    }
}

impl Timestamp {
    /// From microseconds since 1970-01-01T00:00:00Z; `None` out of PostgreSQL's range.
    pub fn from_unix_micros(micros: i64) -> Option<Self> {
        micros.checked_sub(UNIX_TO_POSTGRES_MICROS).map(Self)
    }

    /// Microseconds since 2000-01-01T00:00:00Z.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// The day that it falls on in UTC; `None` at infinity.
    pub fn date(self) -> Option<Date> {
        if self.0 == i64::MIN || self.0 == i64::MAX {
            return None;
        }
        i32::try_from(self.0.div_euclid(MICROS_PER_DAY))
            .ok()
            .map(Date)
    }
}

impl<R: Record> Found<R> {
    pub(crate) fn new(row: Row) -> Self {
        Self {
            row,
            record: PhantomData,
        }
    }

    /// The record, borrowed from this row. Fails where a column has another type than the contract
    /// gives it, or is null.
    pub fn view(&self) -> Result<R::View<'_>, Error> {
        R::read(&self.row).map_err(|error| Error::query("read a row", error))
    }

    /// Where the next page begins, as every row of a page says it; `None` at the list's end and in
    /// rows of anything else.
    pub fn next_place(&self) -> Option<&str> {
        let last = self.row.len().checked_sub(1)?;
        let is_place = self.row.columns().get(last)?.name() == "next";
        is_place.then(|| self.row.try_get(last).ok()).flatten()
    }
}

impl Record for Movie<'static> {
    type View<'a> = Movie<'a>;

    fn read(row: &Row) -> Result<Movie<'_>, tokio_postgres::Error> {
        movie(row, 0)
    }
}

impl Record for Customer<'static> {
    type View<'a> = Customer<'a>;

    fn read(row: &Row) -> Result<Customer<'_>, tokio_postgres::Error> {
        customer(row, 0)
    }
}

impl Record for Session<'static> {
    type View<'a> = Session<'a>;

    fn read(row: &Row) -> Result<Session<'_>, tokio_postgres::Error> {
        Ok(Session {
            id: row.try_get(0)?,
            start_time: row.try_get(1)?,
            customer: customer(row, 2)?,
            movie: movie(row, 7)?,
        })
    }
}

/// The columns of `movies` in the order of the contract, from column `first` on.
fn movie(row: &Row, first: usize) -> Result<Movie<'_>, tokio_postgres::Error> {
    Ok(Movie {
        id: row.try_get(first)?,
        name: row.try_get(first + 1)?,
        year: row.try_get(first + 2)?,
        duration_seconds: row.try_get(first + 3)?,
    })
}

/// The columns of `customers` in the order of the contract, from column `first` on.
fn customer(row: &Row, first: usize) -> Result<Customer<'_>, tokio_postgres::Error> {
    Ok(Customer {
        id: row.try_get(first)?,
        name: row.try_get(first + 1)?,
        surname: row.try_get(first + 2)?,
        birthday: row.try_get(first + 3)?,
        email: row.try_get(first + 4)?,
    })
}

const MICROS_PER_DAY: i64 = 86_400_000_000;
const UNIX_TO_POSTGRES_MICROS: i64 = 10_957 * MICROS_PER_DAY;

impl<'a> FromSql<'a> for Date {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        postgres_protocol::types::date_from_sql(raw).map(Self)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::DATE
    }
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        postgres_protocol::types::timestamp_from_sql(raw).map(Self)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMP
    }
}

impl ToSql for Date {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        postgres_protocol::types::date_to_sql(self.0, out);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::DATE
    }

    tokio_postgres::types::to_sql_checked!();
}

impl ToSql for Timestamp {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        postgres_protocol::types::timestamp_to_sql(self.0, out);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMP
    }

    tokio_postgres::types::to_sql_checked!();
}

/// Days since 2000-01-01 to year, month, day. The year is made to start in March, so that the leap
/// day is its last; 400 years always have 146 097 days.
fn civil_from_days(days: i64) -> (i32, u8, u8) {
    const DAYS_PER_ERA: i64 = 146_097;
    /// From 0000-03-01, where an era starts, to 2000-01-01.
    const EPOCH: i64 = 730_425;
    let days = days + EPOCH;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    // An i32 of days spans under six million years, so all three fit.
    (year as i32, month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_ten_centuries_agrees_with_another_calendar() {
        let epoch = jiff::civil::date(2000, 1, 1);
        let mut day = jiff::civil::date(1500, 1, 1);
        let first = (day - epoch).get_days();
        for days in first..first + 365_243 {
            let expected = (i32::from(day.year()), day.month() as u8, day.day() as u8);
            assert_eq!(Date::from_days(days).civil(), Some(expected));
            day = day.tomorrow().unwrap();
        }
    }

    #[test]
    fn a_time_before_the_epoch_falls_on_the_day_before() {
        let eve = Timestamp::from_unix_micros(UNIX_TO_POSTGRES_MICROS - 1).unwrap();
        assert_eq!(eve.date().and_then(Date::civil), Some((1999, 12, 31)));
    }

    #[test]
    fn infinities_have_no_civil_date() {
        assert_eq!(Date::from_days(i32::MAX).civil(), None);
        assert_eq!(Timestamp(i64::MIN).date(), None);
    }

    #[test]
    fn a_customer_shows_nothing_personal_when_debugged() {
        let customer = Customer {
            id: 5,
            name: "canary",
            surname: "canary",
            birthday: Date::from_days(0),
            email: "canary@example.com",
        };
        assert!(!format!("{customer:?}").contains("canary"));
    }
}
