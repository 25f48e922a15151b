//! The repository's files as one value, so that every rule can be shown to fail on a planted tree.
//! Read from the folder and not from git: a file that is not yet added is to be tidy too. Build
//! output, version control and installations are left out, and so is what is no text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Folders that are no part of the source, wherever they stand.
const LEFT_OUT: [&str; 4] = ["target", ".git", ".bingo", "node_modules"];

/// Path relative to the root, with `/`, and the text; empty text for a file that is no UTF-8.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: BTreeMap<String, String>,
}

impl Tree {
    /// This repository.
    pub(crate) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut tree = Self::default();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(root.join(&folder)).expect("a readable folder");
            for entry in entries.flatten() {
                let path = folder.join(entry.file_name());
                let kind = entry.file_type().expect("a file type");
                let name = entry.file_name().to_string_lossy().into_owned();
                if kind.is_dir() && !LEFT_OUT.contains(&name.as_str()) {
                    folders.push(path);
                } else if kind.is_file() {
                    let text = std::fs::read_to_string(root.join(&path)).unwrap_or_default();
                    tree.files.insert(path.to_string_lossy().into_owned(), text);
                }
            }
        }
        tree
    }

    /// A planted tree.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
        Self { files }
    }

    /// Rust sources: path and text.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ending(".rs")
    }

    /// Files whose path ends so: path and text.
    pub(crate) fn ending(&self, end: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.ends_with(end))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether there is a file, or a folder with a file in it, at this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        path.is_empty()
            || self.files.contains_key(path)
            || self.files.keys().any(|file| file.starts_with(&folder))
    }
}

/// A source without its trailing `#[cfg(test)] mod tests { … }`. Only a module that ends the file is
/// taken off; code after it would otherwise go unseen.
pub(crate) fn without_tests(text: &str) -> &str {
    let Some(at) = text.rfind("\n#[cfg(test)]\n") else {
        return text;
    };
    let mut after = text[at..]
        .lines()
        .skip(2)
        .skip_while(|line| line.starts_with("#["));
    let opens = after
        .next()
        .is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'));
    let closes_at_the_end = after.position(|line| line == "}").is_some() && after.next().is_none();
    if opens && closes_at_the_end {
        &text[..=at]
    } else {
        text
    }
}

/// A line of Rust without its comment. A `//` within a string counts as a comment too, which can hide
/// a word from a rule but never invent one.
pub(crate) fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Whether `word` stands in `line` as a whole word: no letter, digit or `_` before or after it.
pub(crate) fn names(line: &str, word: &str) -> bool {
    let inside = |found: Option<char>| found.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let bounded = |c: Option<char>| inside(c);
    line.match_indices(word).any(|(at, _)| {
        let before = inside(word.chars().next()) && inside(line[..at].chars().next_back());
        let after =
            bounded(word.chars().next_back()) && inside(line[at + word.len()..].chars().next());
        !before && !after
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_is_read_without_its_build_output() {
        let tree = Tree::read();
        assert!(
            tree.text("Cargo.toml")
                .is_some_and(|text| text.contains("[workspace]"))
        );
        assert!(tree.has("crates/bingo"));
        assert!(!tree.has("target") && !tree.has(".git"));
    }

    #[test]
    fn only_tests_that_end_a_file_are_taken_off() {
        let code = "//! x\nfn a() {}\n";
        let tests = "\n#[cfg(test)]\nmod tests {\n    fn t() {\n    }\n}\n";
        assert_eq!(
            without_tests(&format!("{code}{tests}")),
            format!("{code}\n")
        );
        let attributed = tests.replace("mod tests", "#[allow(x)]\nmod tests");
        assert_eq!(
            without_tests(&format!("{code}{attributed}")),
            format!("{code}\n")
        );
        for whole in [
            code.to_owned(),
            format!("{code}{tests}fn after() {{}}\n"),
            format!("{code}\n#[cfg(test)]\nmod tests;\n"),
        ] {
            assert_eq!(without_tests(&whole), whole);
        }
    }

    #[test]
    fn a_word_within_a_longer_one_is_not_that_word() {
        assert!(names("use tokio::net;", "tokio"));
        assert!(names("a.elapsed()", ".elapsed("));
        assert!(!names("let tokio_like = 1;", "tokio"));
        assert!(!names("let my_tokio = 1;", "tokio"));
    }
}
