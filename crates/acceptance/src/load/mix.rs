//! Which calls a run makes, and how often each: `movie=30,customer=30,operation=10,ping`. A weight
//! left out is 1. Calls are the service's own and known here by name, because each needs its own
//! check of the answer; an arbitrary URL could only be checked for its status.

use std::fmt;
use std::str::FromStr;

use super::random::Random;
use crate::error::Error;

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Ping,
    Index,
    Movie,
    Customer,
    Session,
    Operation,
    DbDummy,
    LongDummy,
    ListMovie,
    ListCustomer,
    ListSession,
    /// Stores a session; its id is kept for [`Call::DeleteSession`].
    PostSession,
    /// Deletes a session that this run stored, never one that was there before; when there is none
    /// left, a session is stored instead (and counted as such).
    DeleteSession,
}

impl Call {
    pub const ALL: [Self; 13] = [
        Self::Ping,
        Self::Index,
        Self::Movie,
        Self::Customer,
        Self::Session,
        Self::Operation,
        Self::DbDummy,
        Self::LongDummy,
        Self::ListMovie,
        Self::ListCustomer,
        Self::ListSession,
        Self::PostSession,
        Self::DeleteSession,
    ];

    /// The name in a mix and in a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Index => "index",
            Self::Movie => "movie",
            Self::Customer => "customer",
            Self::Session => "session",
            Self::Operation => "operation",
            Self::DbDummy => "db_dummy",
            Self::LongDummy => "long_dummy",
            Self::ListMovie => "list_movie",
            Self::ListCustomer => "list_customer",
            Self::ListSession => "list_session",
            Self::PostSession => "post_session",
            Self::DeleteSession => "delete_session",
        }
    }
}

/// Calls with their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    weights: Vec<(Call, u32)>,
}

impl Mix {
    /// One call, with its share of the whole given by the seeded numbers.
    pub(super) fn pick(&self, random: &mut Random) -> Call {
        let total = self
            .weights
            .iter()
            .map(|(_, weight)| u64::from(*weight))
            .sum();
        let mut left = random.below(total);
        for (call, weight) in &self.weights {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return *call,
            }
        }
        Call::Ping
    }
}

impl Default for Mix {
    /// The three calls by id and the operation, as the service's users make them.
    fn default() -> Self {
        let weights = vec![
            (Call::Movie, 30),
            (Call::Customer, 30),
            (Call::Session, 30),
            (Call::Operation, 10),
        ];
        Self { weights }
    }
}

impl FromStr for Mix {
    type Err = Error;

    fn from_str(mix: &str) -> Result<Self, Error> {
        let fault = |reason: String| Error::Mix {
            mix: mix.to_owned(),
            reason,
        };
        let mut weights: Vec<(Call, u32)> = Vec::new();
        for part in mix
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let call = Call::ALL.into_iter().find(|call| call.name() == name);
            let Some(call) = call else {
                let known = Call::ALL.map(Call::name).join(" ");
                return Err(fault(format!(
                    "no call is named `{name}`; known are: {known}"
                )));
            };
            let Some(weight) = weight.parse().ok().filter(|weight| *weight > 0) else {
                return Err(fault(format!(
                    "the weight of `{name}` must be a whole number from 1"
                )));
            };
            if weights.iter().any(|(known, _)| *known == call) {
                return Err(fault(format!("`{name}` is there twice")));
            }
            weights.push((call, weight));
        }
        if weights.is_empty() {
            return Err(fault("it names no call".to_owned()));
        }
        Ok(Self { weights })
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (call, weight)) in self.weights.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(out, "{comma}{}={weight}", call.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_and_written_the_same_way() {
        let mix: Mix = "movie=30, ping,delete_session=2".parse().expect("read");
        assert_eq!(mix.to_string(), "movie=30,ping=1,delete_session=2");
    }

    #[test]
    fn a_wrong_mix_says_what_is_wrong_and_what_is_known() {
        for (mix, reason) in [
            ("moovie=1", "known are: ping"),
            ("movie=0", "from 1"),
            ("movie=x", "from 1"),
            ("movie,movie", "twice"),
            (" , ", "no call"),
        ] {
            let error = mix.parse::<Mix>().expect_err(mix).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn calls_come_up_by_their_weights() {
        let mix: Mix = "ping=1,movie=9".parse().expect("read");
        let mut random = Random::seeded(3);
        let pings = (0..10_000)
            .filter(|_| mix.pick(&mut random) == Call::Ping)
            .count();
        assert!((900..1100).contains(&pings), "{pings}");
    }
}
