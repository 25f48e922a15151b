//! One request of a mix and what a right answer to it is. An answer of status 200 is not yet right:
//! the id in it must be the one asked for, the operation must be echoed, a list must be closed, else
//! a proxy that mixes answers up or breaks them off would pass. Left out: the age of `time` (its
//! verdict needs a clock checked against the server's) and the order of lists.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use hyper::Method;
use jiff::Timestamp;
use serde_json::Value;

use super::mix::Call;
use super::random::Random;

/// Session ids that a run keeps for deleting.
const CREATED_MAX: usize = 10_000;
/// Bits 32–35 of an operation are the vendor's fault triggers (contract 5): never sent by chance.
const FAULT_BITS: u64 = 0xF_0000_0000;

/// The ids asked for: 1 up to and with each of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    pub customers: u32,
    pub movies: u32,
    pub sessions: u64,
}

impl Default for Ids {
    /// The full data set.
    fn default() -> Self {
        Self {
            customers: 500_000,
            movies: 29_019,
            sessions: 5_000_000,
        }
    }
}

/// One request, drawn.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) call: Call,
    pub(super) method: Method,
    pub(super) path: String,
    /// JSON.
    pub(super) body: Option<String>,
    pub(super) expect: Expect,
}

/// What a right answer looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// 200 and a body that begins with this.
    Text(&'static str),
    /// 200 and an object with this `id`.
    Id(u64),
    /// 200 and an object with this `operation`.
    Operation(u64),
    /// 200 and an object with `host` and `time`.
    Stamp,
    /// 200 and `[`…`]`, not empty.
    Array,
    /// 201 and an object with a new `id` and these two, named by `Location`. `marked` is the start
    /// time, microseconds since 1970, where the run marks its sessions.
    Created {
        customer: u64,
        movie: u64,
        marked: Option<i64>,
    },
    /// 204.
    Deleted { id: u64 },
}

/// Makes the sessions that a run stores findable afterwards, each for itself: all have this movie, and
/// no two the same start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub movie: u32,
    /// The start time of the first, microseconds since 1970; each next one's is a microsecond later.
    pub first_micros: i64,
}

/// What became of the row that a write was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// Acknowledged.
    Stored { id: u64, marked: Option<i64> },
    /// Not acknowledged: it may be there, once.
    PerhapsStored { marked: Option<i64> },
    /// Acknowledged.
    Deleted { id: u64 },
    /// Not acknowledged: it may be gone.
    PerhapsDeleted { id: u64 },
}

/// An answer as the checks need it.
#[derive(Clone, Debug, Default)]
pub(super) struct Answered {
    pub(super) location: String,
    /// The whole body, or of a list its first and last byte.
    pub(super) body: Vec<u8>,
}

/// Sessions that this run stored and has not yet deleted.
#[derive(Debug, Default)]
pub(super) struct Created {
    ids: Mutex<VecDeque<u64>>,
    mark: Option<Mark>,
    drawn: AtomicI64,
}

impl Created {
    pub(super) fn new(mark: Option<Mark>) -> Self {
        Self {
            mark,
            ..Self::default()
        }
    }

    /// Over [`CREATED_MAX`] the id is forgotten; its row stays.
    pub(super) fn keep(&self, id: u64) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() < CREATED_MAX {
            ids.push_back(id);
        }
    }

    fn take(&self) -> Option<u64> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.pop_front()
    }

    /// The movie and start time of the next session to store.
    fn next_mark(&self) -> Option<(u64, i64)> {
        let mark = self.mark?;
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        Some((u64::from(mark.movie), mark.first_micros + number))
    }
}

impl Asked {
    /// Draws the ids of one call. Every call draws the same count of numbers, so that what later
    /// ones ask does not hang on answers.
    pub(super) fn draw(call: Call, ids: &Ids, random: &mut Random, created: &Created) -> Self {
        let (first, second) = (random.next(), random.next());
        let id = |numbers, count: u64| 1 + Random::seeded(numbers).below(count);
        let customer = id(first, u64::from(ids.customers));
        let movie = id(second, u64::from(ids.movies));
        let get = |path: &str, expect| Self {
            call,
            method: Method::GET,
            path: path.to_owned(),
            body: None,
            expect,
        };
        let by_id = |table, id| get(&format!("/api/{table}/{id}"), Expect::Id(id));
        match call {
            Call::Ping => get("/ping", Expect::Text("pong")),
            Call::Index => get("/", Expect::Text("Hi. Accept my congratulations.")),
            Call::Movie => by_id("movie", movie),
            Call::Customer => by_id("customer", customer),
            Call::Session => by_id("session", id(first, ids.sessions)),
            Call::DbDummy => get("/db_dummy", Expect::Stamp),
            Call::LongDummy => get("/long_dummy", Expect::Stamp),
            Call::ListMovie => get("/api/movie", Expect::Array),
            Call::ListCustomer => get("/api/customer", Expect::Array),
            Call::ListSession => get("/api/session", Expect::Array),
            Call::Operation => Self::operation((first >> 1) & !FAULT_BITS),
            Call::PostSession => Self::post_session(customer, movie, created.next_mark()),
            Call::DeleteSession => match created.take() {
                Some(id) => Self::delete_session(id),
                None => Self::post_session(customer, movie, created.next_mark()),
            },
        }
    }

    /// What a write that was acknowledged, or was not, leaves to find.
    pub(super) fn wrote(&self, stored: Option<u64>, is_acknowledged: bool) -> Option<Wrote> {
        match self.expect {
            Expect::Created { marked, .. } => Some(match stored {
                Some(id) if is_acknowledged => Wrote::Stored { id, marked },
                _ => Wrote::PerhapsStored { marked },
            }),
            Expect::Deleted { id } if is_acknowledged => Some(Wrote::Deleted { id }),
            Expect::Deleted { id } => Some(Wrote::PerhapsDeleted { id }),
            _ => None,
        }
    }

    /// The status of a right answer.
    pub(super) fn status(&self) -> u16 {
        match self.expect {
            Expect::Created { .. } => 201,
            Expect::Deleted { .. } => 204,
            _ => 200,
        }
    }

    /// What is wrong with the body, if anything; the id of a stored session is kept and returned.
    pub(super) fn check(
        &self,
        answered: &Answered,
        created: &Created,
    ) -> Result<Option<u64>, String> {
        let fault = |wanted: String| {
            let head = String::from_utf8_lossy(answered.body.get(..200).unwrap_or(&answered.body));
            Err(format!("wanted {wanted}, got `{head}`"))
        };
        let json = || serde_json::from_slice::<Value>(&answered.body).unwrap_or(Value::Null);
        match &self.expect {
            Expect::Text(text) if answered.body.starts_with(text.as_bytes()) => Ok(None),
            Expect::Text(text) => fault(format!("`{text}`")),
            Expect::Id(id) if json()["id"] == *id => Ok(None),
            Expect::Id(id) => fault(format!("id {id}")),
            Expect::Operation(value) if json()["operation"] == *value => Ok(None),
            Expect::Operation(value) => fault(format!("operation {value}")),
            Expect::Stamp if json()["host"].is_string() && json()["time"].is_string() => Ok(None),
            Expect::Stamp => fault("host and time".to_owned()),
            Expect::Array if answered.body == b"[]" => Ok(None),
            Expect::Array => fault("an array, `[` to `]`".to_owned()),
            Expect::Created {
                customer, movie, ..
            } => {
                let stored = json();
                let is = |nested: &str, flat: &str, wanted: &u64| {
                    stored.pointer(nested).or(stored.get(flat)) == Some(&Value::from(*wanted))
                };
                let (customer_is, movie_is) = (
                    is("/customer/id", "customer_id", customer),
                    is("/movie/id", "movie_id", movie),
                );
                match stored["id"].as_u64() {
                    Some(id) if answered.location != format!("/api/session/{id}") => fault(
                        format!("Location /api/session/{id}, not `{}`", answered.location),
                    ),
                    Some(id) if customer_is && movie_is => {
                        created.keep(id);
                        Ok(Some(id))
                    }
                    _ => fault(format!("a session of customer {customer}, movie {movie}")),
                }
            }
            Expect::Deleted { .. } if answered.body.is_empty() => Ok(None),
            Expect::Deleted { .. } => fault("an empty body".to_owned()),
        }
    }

    fn operation(value: u64) -> Self {
        Self {
            call: Call::Operation,
            method: Method::POST,
            path: "/operation".to_owned(),
            body: Some(format!("{{\"operation\":{value}}}")),
            expect: Expect::Operation(value),
        }
    }

    /// The movie is the mark's where there is one.
    fn post_session(customer: u64, movie: u64, mark: Option<(u64, i64)>) -> Self {
        let (movie, marked) = mark.map_or((movie, None), |(movie, at)| (movie, Some(at)));
        let start_time = marked.and_then(|at| Timestamp::from_microsecond(at).ok());
        let start_time = start_time.map_or_else(
            || "2021-12-09T16:12:52.059188Z".to_owned(),
            |at| format!("{at:.6}"),
        );
        let body = format!(
            "{{\"start_time\":\"{start_time}\",\
             \"customer_id\":{customer},\"movie_id\":{movie}}}"
        );
        Self {
            call: Call::PostSession,
            method: Method::POST,
            path: "/api/session".to_owned(),
            body: Some(body),
            expect: Expect::Created {
                customer,
                movie,
                marked,
            },
        }
    }

    fn delete_session(id: u64) -> Self {
        Self {
            call: Call::DeleteSession,
            method: Method::DELETE,
            path: format!("/api/session/{id}"),
            body: None,
            expect: Expect::Deleted { id },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(call: Call, created: &Created) -> Vec<Asked> {
        let mut random = Random::seeded(7);
        (0..1_000)
            .map(|_| Asked::draw(call, &Ids::default(), &mut random, created))
            .collect()
    }

    fn judge(asked: &Asked, body: &str) -> Result<Option<u64>, String> {
        let answered = Answered {
            location: "/api/session/9".to_owned(),
            body: body.as_bytes().to_vec(),
        };
        asked.check(&answered, &Created::default())
    }

    #[test]
    fn the_same_seed_asks_the_same_and_no_operation_carries_a_fault() {
        let (once, again) = (
            drawn(Call::Operation, &Created::default()),
            drawn(Call::Operation, &Created::default()),
        );
        for (one, other) in once.iter().zip(&again) {
            assert_eq!(one.body, other.body);
            assert!(
                matches!(one.expect, Expect::Operation(n) if n & FAULT_BITS == 0 && n >> 63 == 0)
            );
        }
    }

    #[test]
    fn ids_stay_within_their_tables() {
        for asked in drawn(Call::Movie, &Created::default()) {
            assert!(matches!(asked.expect, Expect::Id(1..=29_019)), "{asked:?}");
        }
    }

    #[test]
    fn only_sessions_of_this_run_are_deleted() {
        let created = Created::default();
        created.keep(42);
        let asked = drawn(Call::DeleteSession, &created);
        assert_eq!(asked[0].path, "/api/session/42");
        assert_eq!(asked[1].call, Call::PostSession);
    }

    #[test]
    fn an_answer_meant_for_another_request_is_wrong() {
        let asked = Asked {
            expect: Expect::Id(5),
            ..drawn(Call::Movie, &Created::default())[0].clone()
        };
        assert!(judge(&asked, r#"{"id":5,"name":"x"}"#).is_ok());
        assert!(judge(&asked, r#"{"id":6,"name":"x"}"#).is_err_and(|why| why.contains("id 5")));
        assert!(judge(&asked, r#"{"id":5,"#).is_err());
        assert!(judge(&Asked::operation(7), r#"{"operation":8}"#).is_err());
    }

    #[test]
    fn a_stored_session_must_be_the_one_sent_and_be_named_by_its_location() {
        let asked = Asked::post_session(1, 2, None);
        let nested = r#"{"id":9,"customer":{"id":1},"movie":{"id":2}}"#;
        assert!(judge(&asked, nested).is_ok());
        assert!(judge(&asked, r#"{"id":9,"customer_id":1,"movie_id":2}"#).is_ok());
        assert!(judge(&asked, &nested.replace("\"id\":1}", "\"id\":3}")).is_err());
        assert!(
            judge(&asked, &nested.replace(":9", ":8")).is_err_and(|why| why.contains("Location"))
        );
    }

    #[test]
    fn marked_sessions_are_of_one_movie_and_each_has_a_start_time_of_its_own() {
        let created = Created::new(Some(Mark {
            movie: 7,
            first_micros: 1_639_066_372_059_188,
        }));
        let asked = drawn(Call::PostSession, &created);
        let [first, second] =
            [&asked[0], &asked[1]].map(|one| one.body.clone().unwrap_or_default());
        assert!(
            first.contains(r#""2021-12-09T16:12:52.059188Z""#),
            "{first}"
        );
        assert!(
            second.contains(r#""2021-12-09T16:12:52.059189Z""#),
            "{second}"
        );
        assert!(first.contains(r#""movie_id":7}"#), "{first}");
        assert_eq!(
            asked[1].wrote(Some(3), true),
            Some(Wrote::Stored {
                id: 3,
                marked: Some(1_639_066_372_059_189)
            })
        );
    }
}
