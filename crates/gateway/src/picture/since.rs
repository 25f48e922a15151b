//! Since when something is in its state, and why: what is asked again and again says only how it is
//! now. What was so already when it was first seen is so since then at least. Pure.

use std::collections::BTreeMap;

/// Things whose states are remembered; those that were seen longest ago leave.
const THINGS_MAX: usize = 256;

/// How a thing stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stands {
    pub(crate) state: String,
    /// RFC 3339.
    pub(crate) since: String,
    pub(crate) reason: Option<String>,
}

/// States by name of the thing.
#[derive(Debug, Default)]
pub(crate) struct Since {
    things: BTreeMap<String, (u64, Stands)>,
    /// What was told of a thing last, until its state is next asked for.
    told: BTreeMap<String, (String, Option<String>)>,
    now: String,
    round: u64,
}

impl Since {
    /// Every look at things begins with the time, as RFC 3339.
    pub(crate) fn begin(&mut self, now: &str) {
        now.clone_into(&mut self.now);
        self.round += 1;
    }

    /// Something happened to a thing at a time, for a reason.
    pub(crate) fn tell(&mut self, name: &str, at: &str, reason: Option<&str>) {
        if self.told.len() < THINGS_MAX || self.told.contains_key(name) {
            let reason = reason.map(str::to_owned);
            self.told.insert(name.to_owned(), (at.to_owned(), reason));
        }
    }

    /// The thing is in this state now.
    pub(crate) fn of(&mut self, name: &str, state: &str) -> Stands {
        let told = self.told.remove(name);
        if let Some((seen, stands)) = self.things.get_mut(name)
            && stands.state == state
            && told.is_none()
        {
            *seen = self.round;
            return stands.clone();
        }
        let (since, reason) = told.unwrap_or((self.now.clone(), None));
        let stands = Stands {
            state: state.to_owned(),
            since,
            reason,
        };
        if self.things.len() >= THINGS_MAX && !self.things.contains_key(name) {
            let oldest = self.things.iter().min_by_key(|(_, (seen, _))| *seen);
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|oldest| self.things.remove(&oldest));
        }
        let seen = (self.round, stands.clone());
        self.things.insert(name.to_owned(), seen);
        stands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_the_time_and_the_reason_of_what_brought_it_about() {
        let mut since = Since::default();
        since.begin("10:00");
        assert_eq!(since.of("node-1", "healthy").since, "10:00");
        since.begin("10:01");
        assert_eq!(since.of("node-1", "healthy").since, "10:00");
        since.tell("node-1", "10:01.5", Some("broken"));
        since.begin("10:02");
        let stands = since.of("node-1", "ejected");
        assert_eq!(stands.since, "10:01.5");
        assert_eq!(stands.reason.as_deref(), Some("broken"));
        since.begin("10:03");
        assert_eq!(since.of("node-1", "ejected"), stands);
    }

    #[test]
    fn a_change_that_nobody_told_of_is_as_old_as_the_look_that_found_it() {
        let mut since = Since::default();
        since.begin("1");
        since.of("db", "primary");
        since.begin("2");
        let stands = since.of("db", "away");
        assert_eq!((stands.since.as_str(), stands.reason), ("2", None));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut since = Since::default();
        for number in 0..10_000 {
            since.begin(&number.to_string());
            since.tell(&format!("t-{number}"), "0", None);
            since.of(&format!("n-{number}"), "up");
        }
        assert_eq!(
            (since.things.len(), since.told.len()),
            (THINGS_MAX, THINGS_MAX)
        );
        assert!(since.things.contains_key("n-9999"));
    }
}
