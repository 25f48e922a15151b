//! The rows themselves: each a pure function of (seed, id), so that an interrupted fill made again
//! gives the same rows, and two databases of one seed are equal.
//! Sizes and types: contract.md section 4.

use super::copy::Writer;
use super::random::Stream;
use super::words::{ADJECTIVES, NAMES, NOUNS, PLACES, SURNAMES};

const CUSTOMERS: u64 = 1;
const MOVIES: u64 = 2;
const SESSIONS: u64 = 3;

const FIRST_YEAR: i32 = 1900;
const LAST_YEAR: i32 = 2023;
/// Sessions are sold from here on, and never before the year of their movie.
const FIRST_SESSION_YEAR: i32 = 2012;
const SESSIONS_END_YEAR: i32 = 2024;

const DAY_MICROSECONDS: i64 = 86_400_000_000;
const DOMAINS: [&str; 3] = ["example.com", "example.org", "example.net"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Customer {
    pub name: &'static str,
    pub surname: &'static str,
    /// Days since 2000-01-01, as PostgreSQL counts them.
    pub birthday: i32,
    /// Unique, for it contains the id.
    pub email: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Movie {
    pub name: String,
    pub year: i32,
    pub duration_seconds: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Microseconds since 2000-01-01, UTC, as PostgreSQL counts them.
    pub start_time: i64,
    pub customer_id: i32,
    pub movie_id: i32,
}

/// How the rows of one table are made and sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Maker {
    Customers,
    Movies,
    /// Refers to the ids 1 to `customers` and 1 to `movies`.
    Sessions {
        customers: u32,
        movies: u32,
    },
}

impl Maker {
    /// The columns that it writes, in its order.
    pub(super) fn columns(self) -> &'static str {
        match self {
            Self::Customers => "id, name, surname, birthday, email",
            Self::Movies => "id, name, year, duration",
            Self::Sessions { .. } => "id, start_time, customer_id, movie_id",
        }
    }

    /// Appends one row in the binary COPY format.
    pub(super) fn write(self, seed: u64, id: u32, writer: &mut Writer) {
        match self {
            Self::Customers => {
                let row = customer(seed, id);
                writer.row(5);
                writer.int4(id.cast_signed());
                writer.text(row.name);
                writer.text(row.surname);
                writer.int4(row.birthday);
                writer.text(&row.email);
            }
            Self::Movies => {
                let row = movie(seed, id);
                writer.row(4);
                writer.int4(id.cast_signed());
                writer.text(&row.name);
                writer.int4(row.year);
                writer.int8(row.duration_seconds);
            }
            Self::Sessions { customers, movies } => {
                let row = session(seed, id, customers, movies);
                writer.row(4);
                writer.int8(i64::from(id));
                writer.int8(row.start_time);
                writer.int4(row.customer_id);
                writer.int4(row.movie_id);
            }
        }
    }
}

pub(super) fn customer(seed: u64, id: u32) -> Customer {
    let mut random = Stream::of(seed, CUSTOMERS, u64::from(id));
    let name = random.pick(&NAMES);
    let surname = random.pick(&SURNAMES);
    let oldest = days_since_2000(1935);
    let youngest = days_since_2000(2008);
    let birthday = oldest + random.below((youngest - oldest) as u64) as i32;
    let email = format!("{name}.{surname}{id}@{}", random.pick(&DOMAINS)).to_ascii_lowercase();
    Customer {
        name,
        surname,
        birthday,
        email,
    }
}

pub(super) fn movie(seed: u64, id: u32) -> Movie {
    let mut random = Stream::of(seed, MOVIES, u64::from(id));
    let year = movie_year(&mut random);
    let minutes = 45 + random.below(60) + random.below(90);
    let duration_seconds = (minutes * 60 + random.below(60)) as i64;
    let adjective = random.pick(&ADJECTIVES);
    let (one, other) = (random.pick(&NOUNS), random.pick(&NOUNS));
    let place = random.pick(&PLACES);
    let name = match random.below(8) {
        0 | 1 => format!("The {adjective} {one}"),
        2 => format!("{adjective} {one}"),
        3 => format!("The {one} of {place}"),
        4 => format!("{adjective} {one} in {place}"),
        5 => format!("The {one} and the {other}"),
        6 => format!("{place}, {adjective} {one}"),
        _ => format!("The {adjective} {one} {}", 2 + random.below(3)),
    };
    Movie {
        name,
        year,
        duration_seconds,
    }
}

/// Both counts are at least 1.
pub(super) fn session(seed: u64, id: u32, customers: u32, movies: u32) -> Session {
    let mut random = Stream::of(seed, SESSIONS, u64::from(id));
    let customer_id = 1 + random.below(u64::from(customers)) as u32;
    let movie_id = 1 + random.below(u64::from(movies)) as u32;
    let year = movie_year(&mut Stream::of(seed, MOVIES, u64::from(movie_id)));
    let start = i64::from(days_since_2000(year.max(FIRST_SESSION_YEAR)));
    let days = i64::from(days_since_2000(SESSIONS_END_YEAR)) - start;
    let span = (days * DAY_MICROSECONDS).cast_unsigned();
    Session {
        start_time: start * DAY_MICROSECONDS + random.below(span) as i64,
        customer_id: customer_id.cast_signed(),
        movie_id: movie_id.cast_signed(),
    }
}

/// The first thing taken from a movie's stream. Of two even picks the later one: more films are made
/// every year.
fn movie_year(random: &mut Stream) -> i32 {
    let years = (LAST_YEAR - FIRST_YEAR + 1) as u64;
    FIRST_YEAR + random.below(years).max(random.below(years)) as i32
}

/// From 2000-01-01 to the first of January of a year (Gregorian calendar).
fn days_since_2000(year: i32) -> i32 {
    let leap_days = |year: i32| year / 4 - year / 100 + year / 400;
    (year - 2000) * 365 + leap_days(year - 1) - leap_days(1999)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        assert_eq!(days_since_2000(2000), 0);
        assert_eq!(days_since_2000(2001), 366);
        assert_eq!(days_since_2000(1999), -365);
        assert_eq!(days_since_2000(1970), -10_957);
        assert_eq!(days_since_2000(1900), -36_524);
        assert_eq!(days_since_2000(2024), 8_766);
    }

    #[test]
    fn a_row_depends_on_seed_and_id_alone() {
        assert_eq!(customer(1, 7), customer(1, 7));
        assert_ne!(customer(1, 7), customer(2, 7));
        assert_ne!(customer(1, 7).birthday, customer(1, 8).birthday);
        assert_eq!(session(1, 7, 10, 10), session(1, 7, 10, 10));
        assert_ne!(movie(1, 7), movie(2, 7));
    }

    #[test]
    fn emails_are_unique_lower_case_and_at_reserved_domains() {
        let emails: HashSet<String> = (1..=5000).map(|id| customer(1, id).email).collect();
        assert_eq!(emails.len(), 5000);
        for email in &emails {
            let (local, domain) = email.split_once('@').unwrap();
            assert!(DOMAINS.contains(&domain), "{email}");
            assert!(
                local
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.')
            );
        }
    }

    #[test]
    fn movies_have_believable_years_lengths_and_names() {
        let movies: Vec<Movie> = (1..=20_000).map(|id| movie(1, id)).collect();
        let years: Vec<i32> = movies.iter().map(|one| one.year).collect();
        assert!(years.iter().all(|year| (1900..=2023).contains(year)));
        assert!(years.contains(&1910) && years.contains(&2023));
        assert!(
            movies
                .iter()
                .all(|one| (2700..=11_700).contains(&one.duration_seconds))
        );
        let names: HashSet<&str> = movies.iter().map(|one| one.name.as_str()).collect();
        assert!(names.len() > 12_000, "{}", names.len());
    }

    #[test]
    fn sessions_refer_to_existing_rows_and_start_after_their_movie() {
        let (customers, movies) = (500, 50);
        let mut years = HashSet::new();
        for id in 1..=5000 {
            let row = session(3, id, customers, movies);
            assert!((1..=500).contains(&row.customer_id) && (1..=50).contains(&row.movie_id));
            let year = movie(3, row.movie_id.cast_unsigned()).year;
            let first = i64::from(days_since_2000(year)) * DAY_MICROSECONDS;
            assert!(row.start_time >= first);
            assert!(row.start_time < i64::from(days_since_2000(2024)) * DAY_MICROSECONDS);
            years.insert(row.start_time / DAY_MICROSECONDS / 365);
        }
        assert!(years.len() >= 12, "{years:?}");
    }
}
