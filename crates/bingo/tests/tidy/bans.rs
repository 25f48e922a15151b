//! What must not be in the tree at all: crates that we ban (cargo-deny says the same where it is
//! installed; this holds without it), dependencies from elsewhere than crates.io, package mirrors of
//! somebody's machine, and notes to self instead of work.

use crate::tree::{Tree, names};

/// Each with its reason; deny.toml must name them too.
const CRATES: [(&str, &str); 8] = [
    ("ring", "one cryptography library: aws-lc-rs"),
    ("openssl", "TLS is rustls"),
    ("openssl-sys", "TLS is rustls"),
    ("native-tls", "TLS is rustls"),
    ("rustls-pemfile", "unmaintained; rustls-pki-types reads PEM"),
    ("serde_yml", "unsound; YAML is serde-saphyr"),
    ("serde_yaml", "unmaintained; YAML is serde-saphyr"),
    ("serde_norway", "unmaintained; YAML is serde-saphyr"),
];
/// Crates that stand in the lock and in no build, and who locks them: a feature written `ring?/alloc`
/// locks `ring` even where nothing turns it on, and quinn-proto wants it in browsers. Banned again
/// once any other crate wants them.
const LOCKED_ONLY: [(&str, &[&str]); 1] = [("ring", &["rustls-webpki", "quinn-proto"])];
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Notes to self.
const NOTES: [&str; 3] = ["TODO", "FIXME", "XXX"];
/// Marks of a mirror that only somebody's machine reaches.
const MIRRORS: [&str; 7] = [
    "replace-with",
    "sparse+http",
    "index-url",
    "extra-index",
    "/artifactory/",
    "/nexus/",
    "GOPROXY=",
];
/// The rules themselves name what they ban.
const RULES: &str = "crates/bingo/tests/tidy/";

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = check_lock(tree);
    let deny = tree.text("deny.toml").unwrap_or_default();
    for (name, why) in CRATES {
        if !deny.contains(&format!("\"{name}\"")) {
            problems.push(format!("deny.toml: must ban `{name}` ({why})"));
        }
    }
    for (path, text) in &tree.files {
        if path.starts_with(RULES) || path == "Cargo.lock" {
            continue;
        }
        for note in NOTES {
            if text.lines().any(|line| names(line, note)) {
                problems.push(format!(
                    "{path}: `{note}`: do it, or open an issue and drop the note"
                ));
            }
        }
        for mirror in MIRRORS {
            if text.contains(mirror) {
                problems.push(format!("{path}: names a package mirror (`{mirror}`)"));
            }
        }
    }
    problems
}

fn check_lock(tree: &Tree) -> Vec<String> {
    let Some(lock) = tree.text("Cargo.lock") else {
        return vec!["Cargo.lock: missing; builds must be repeatable".to_owned()];
    };
    let mut problems = Vec::new();
    for line in lock.lines() {
        let value = |key| line.strip_prefix(key)?.strip_suffix('"');
        let name = value("name = \"").unwrap_or_default();
        if let Some((name, why)) = CRATES.iter().find(|(banned, _)| *banned == name)
            && !is_locked_only(lock, name)
        {
            problems.push(format!(
                "Cargo.lock: `{name}` is banned ({why}); `cargo tree -i {name}` shows who wants it"
            ));
        }
        if let Some(source) = value("source = \"").filter(|source| *source != REGISTRY) {
            problems.push(format!(
                "Cargo.lock: a crate from `{source}`; only crates.io is used"
            ));
        }
    }
    problems
}

/// Nobody but the one crate of `LOCKED_ONLY` names it.
fn is_locked_only(lock: &str, name: &str) -> bool {
    let mut wanted_by = lock
        .split("[[package]]")
        .filter(|package| {
            let wants = |line: &str| {
                let dependency = line.trim().trim_matches(['"', ',']);
                dependency.split(' ').next() == Some(name)
            };
            package.lines().any(wants)
        })
        .filter_map(|package| {
            package
                .lines()
                .find_map(|line| line.strip_prefix("name = \""))
        })
        .peekable();
    let is_known = |package: &str| {
        let package = package.trim_end_matches('"');
        let known = LOCKED_ONLY.iter().find(|(locked, _)| *locked == name);
        known.is_some_and(|(_, wanters)| wanters.contains(&package))
    };
    wanted_by.peek().is_some() && wanted_by.all(is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "[[package]]\nname = \"serde\"\n\
        source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";

    /// The problems of a clean tree with one more file, or with one of its own replaced.
    fn planted(path: &str, text: &str) -> String {
        let deny: String = CRATES
            .iter()
            .map(|(name, _)| format!("\"{name}\"\n"))
            .collect();
        let mut tree = Tree::of(&[("Cargo.lock", LOCK), ("deny.toml", &deny)]);
        tree.files.insert(path.to_owned(), text.to_owned());
        check(&tree).join("\n")
    }

    #[test]
    fn a_banned_crate_is_reported_with_its_reason() {
        assert_eq!(planted("Cargo.lock", LOCK), "");
        let problem = planted("Cargo.lock", &LOCK.replace("serde", "ring"));
        assert!(
            problem.contains("`ring` is banned (one cryptography library"),
            "{problem}"
        );
        assert!(planted("deny.toml", "").contains("must ban `openssl`"));
    }

    #[test]
    fn a_banned_crate_that_is_only_locked_is_fine_until_another_one_wants_it() {
        let wants =
            |who: &str| format!("[[package]]\nname = \"{who}\"\ndependencies = [\n \"ring\",\n]\n");
        let locked = format!(
            "{LOCK}[[package]]\nname = \"ring\"\n{}",
            wants("rustls-webpki")
        );
        assert_eq!(planted("Cargo.lock", &locked), "");
        let built = format!("{locked}{}", wants("rustls"));
        assert!(planted("Cargo.lock", &built).contains("`ring` is banned"));
    }

    #[test]
    fn a_crate_from_elsewhere_is_reported() {
        let elsewhere = LOCK.replace("registry+https://github.com", "git+https://example.org");
        assert!(planted("Cargo.lock", &elsewhere).contains("only crates.io"));
    }

    #[test]
    fn notes_to_self_and_mirrors_are_reported() {
        assert!(planted("a.rs", "// TODO later\n").contains("a.rs: `TODO`"));
        assert!(planted("docs/a.md", "FIXME\n").contains("`FIXME`"));
        assert!(planted(".cargo/config.toml", "replace-with = \"mine\"\n").contains("mirror"));
        assert_eq!(planted("a.rs", "// A TODOS list is another word.\n"), "");
    }

    #[test]
    fn a_tree_without_its_lock_is_reported() {
        assert!(check(&Tree::default())[0].contains("Cargo.lock: missing"));
    }
}
