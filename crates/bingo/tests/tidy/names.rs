//! A file is named for what it does and opens with a `//!` that says it. Names that fit anything
//! are banned, because everything ends up in them.

use crate::tree::Tree;

const BANNED: [&str; 8] = [
    "util", "utils", "common", "misc", "helper", "helpers", "manager", "managers",
];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.rust() {
        if !text.starts_with("//! ") {
            problems.push(format!(
                "{path}: must open with `//!`: what it does, why this way, what it leaves out"
            ));
        }
        for part in path.split('/') {
            if let Some(word) = banned(part.trim_end_matches(".rs")) {
                problems.push(format!(
                    "{path}: `{word}` says nothing; name it for what it does"
                ));
            }
        }
        for line in text.lines() {
            if let Some(word) = module(line).and_then(banned) {
                problems.push(format!(
                    "{path}: module with `{word}` in its name; name it for what it does"
                ));
            }
        }
    }
    problems
}

/// The banned word in a name of several.
fn banned(name: &str) -> Option<&'static str> {
    let mut words = name.split(['_', '-']);
    words.find_map(|word| BANNED.into_iter().find(|banned| *banned == word))
}

/// The name of the module that a line opens with a body; one without a body is a file and seen there.
fn module(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
    let (name, rest) = line.strip_prefix("mod ")?.split_once(' ')?;
    rest.starts_with('{').then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(path: &str, text: &str) -> String {
        check(&Tree::of(&[(path, text)])).join("\n")
    }

    #[test]
    fn a_file_that_does_not_say_what_it_does_is_reported() {
        assert_eq!(planted("crates/x/src/a.rs", "//! Does a.\n"), "");
        assert!(planted("crates/x/src/a.rs", "fn a() {}\n").contains("must open with"));
        assert!(planted("crates/x/tests/a.rs", "").contains("must open with"));
    }

    #[test]
    fn a_banned_name_is_reported_for_files_folders_crates_and_modules() {
        for path in [
            "crates/x/src/utils.rs",
            "crates/x/src/test_helpers.rs",
            "crates/x/src/misc/a.rs",
            "crates/pool-manager/src/lib.rs",
        ] {
            assert!(planted(path, "//! x\n").contains("says nothing"), "{path}");
        }
        let text = "//! x\npub(crate) mod common {\n}\n";
        assert!(planted("crates/x/src/a.rs", text).contains("module with `common`"));
        assert_eq!(planted("crates/x/src/commonly.rs", "//! x\n"), "");
    }
}
