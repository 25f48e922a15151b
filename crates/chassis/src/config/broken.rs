//! What the YAML library says of a text that is no YAML, for people: it speaks of its own options and
//! functions. What is not known here is passed on in its words.

use serde_saphyr::Error;

use super::check::masked;

/// What is wrong with a text, where, and what to do.
pub(super) struct Broken {
    /// Line and column, counted from 1; `None` where the library tells none.
    pub(super) at: Option<(u64, u64)>,
    pub(super) why: String,
    pub(super) help: String,
}

impl Broken {
    pub(super) fn new(error: &Error) -> Self {
        let error = error.without_snippet();
        let at = error.location().map(|at| (at.line(), at.column()));
        let (why, help) = match error {
            Error::DuplicateMappingKey { key: Some(key), .. } => (
                format!("the key `{}` stands here a second time", masked(key)),
                "leave one of the two out",
            ),
            Error::DuplicateMappingKey { .. } => (
                "a key stands here a second time".to_owned(),
                "leave one of the two out",
            ),
            Error::MultipleDocuments { .. } => (
                "a second document begins".to_owned(),
                "leave out what follows the first one, and the line `---` or `...` between them",
            ),
            Error::UnknownAnchor { .. } => (
                "a value begins with * and names nothing".to_owned(),
                "put the value in quotes",
            ),
            Error::Budget { .. } => (
                "it is nested too deeply, or too long".to_owned(),
                "is it the right file? Correct it, or name another",
            ),
            other => (own_words(other, at), "correct the file"),
        };
        Self {
            at,
            why,
            help: help.to_owned(),
        }
    }

    /// ` at line 2, column 19`; empty where it is not known.
    pub(super) fn place(&self) -> String {
        self.at.map_or(String::new(), place)
    }
}

/// The library's own words, without the place that they end in.
fn own_words(error: &Error, at: Option<(u64, u64)>) -> String {
    let words = error.to_string();
    match at.map(place).and_then(|place| words.strip_suffix(&place)) {
        Some(without) => without.to_owned(),
        None => words,
    }
}

fn place((line, column): (u64, u64)) -> String {
    format!(" at line {line}, column {column}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn broken_texts_are_told_without_words_of_the_library() {
        for (text, why, help) in [
            (
                "listen: 1\nlisten: 2\n",
                "parse f at line 2, column 1: the key `listen` stands here a second time",
                "leave one",
            ),
            ("a: 1\n---\na: 2\n", "a second document begins", "`---`"),
            ("a: *b\n", "begins with *", "in quotes"),
        ] {
            let failure =
                super::super::parse::<std::collections::BTreeMap<String, String>>("f", text)
                    .unwrap_err();
            let told = failure.to_string();
            assert!(told.contains(why) && told.contains(help), "{told}");
            for word in ["Options", "from_str", "Policy", "breach"] {
                assert!(!told.contains(word), "{told}");
            }
            let examined =
                super::super::examine::<std::collections::BTreeMap<String, String>>(text);
            let fault = examined.faults.first().unwrap();
            assert!(fault.remedy.contains(help), "{fault:?}");
        }
    }
}
