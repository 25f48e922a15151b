//! Decisions are pure: they take `now` and what happened, and return what to do, so that a test can
//! replay any of them (ARCHITECTURE.md, invariant 4). Whoever writes a decision adds its file here;
//! a file that is here and not in the tree is reported, so that moving one does not free it. Types
//! such as `Instant` and `SocketAddr` are values and fine; asking the clock or opening a socket is not.

use crate::tree::{Tree, names, without_comment, without_tests};

const DECISIONS: [&str; 45] = [
    "crates/bingo/src/top/draw.rs",
    "crates/bingo/src/top/fit.rs",
    "crates/bingo/src/top/parts.rs",
    "crates/bingo/src/top/table.rs",
    "crates/chassis/src/backoff.rs",
    "crates/chassis/src/events/rate.rs",
    "crates/gateway/src/admission/queue.rs",
    "crates/gateway/src/allowance.rs",
    "crates/gateway/src/balancer.rs",
    "crates/gateway/src/cache/keeper.rs",
    "crates/gateway/src/cache/policy.rs",
    "crates/gateway/src/ejection.rs",
    "crates/gateway/src/head.rs",
    "crates/gateway/src/history/latency.rs",
    "crates/gateway/src/history/mod.rs",
    "crates/gateway/src/history/objective.rs",
    "crates/gateway/src/history/ring.rs",
    "crates/gateway/src/history/slot.rs",
    "crates/gateway/src/history/view.rs",
    "crates/gateway/src/innocents.rs",
    "crates/gateway/src/listener/flood.rs",
    "crates/gateway/src/outliers.rs",
    "crates/gateway/src/pace.rs",
    "crates/gateway/src/picture/problems.rs",
    "crates/gateway/src/picture/since.rs",
    "crates/gateway/src/picture/whole.rs",
    "crates/gateway/src/quic/frames.rs",
    "crates/gateway/src/quic/section.rs",
    "crates/gateway/src/retry.rs",
    "crates/gateway/src/router.rs",
    "crates/gateway/src/suspects.rs",
    "crates/gateway/src/tls/decision.rs",
    "crates/node/src/faults/fate.rs",
    "crates/node/src/faults/quota.rs",
    "crates/node/src/pace.rs",
    "crates/storage/src/choice.rs",
    "crates/supervisor/src/change.rs",
    "crates/supervisor/src/order.rs",
    "crates/supervisor/src/policy.rs",
    "crates/supervisor/src/policy/causes.rs",
    "crates/supervisor/src/policy/memory.rs",
    "crates/supervisor/src/policy/probed.rs",
    "crates/supervisor/src/policy/succession.rs",
    "crates/supervisor/src/policy/turns.rs",
    "crates/supervisor/src/scribe/allowance.rs",
];

/// What a decision may not name, and what that is.
const IMPURE: [(&str, &str); 24] = [
    ("Instant::now", "a clock"),
    ("SystemTime", "a clock"),
    (".elapsed(", "a clock"),
    ("Timestamp::now", "a clock"),
    ("Zoned::now", "a clock"),
    ("clock_gettime", "a clock"),
    ("TcpStream", "a socket"),
    ("TcpListener", "a socket"),
    ("TcpSocket", "a socket"),
    ("UdpSocket", "a socket"),
    ("UnixStream", "a socket"),
    ("UnixListener", "a socket"),
    ("socket2", "a socket"),
    ("tokio", "a runtime"),
    ("std::thread", "a runtime"),
    ("thread::spawn", "a runtime"),
    ("thread::sleep", "a runtime"),
    ("std::fs", "a file"),
    ("std::process", "a process"),
    ("rustix", "the operating system"),
    ("nix", "the operating system"),
    ("getrandom", "a random source"),
    ("RandomState", "a random source"),
    ("random()", "a random source"),
];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for path in DECISIONS {
        if tree.text(path).is_none() {
            problems.push(format!(
                "{path}: listed as a decision and not there; list its new place in tidy/purity.rs"
            ));
        }
    }
    for (path, text) in tree.rust().filter(|(path, _)| decides(path)) {
        for (number, line) in without_tests(text).lines().enumerate() {
            for (word, what) in IMPURE {
                if names(without_comment(line), word) {
                    let number = number + 1;
                    problems.push(format!(
                        "{path}:{number}: a decision names {what} (`{word}`); take it as an argument"
                    ));
                }
            }
        }
    }
    problems
}

/// A listed file, or a module below it; not its tests.
fn decides(path: &str) -> bool {
    let below =
        |decision: &str| path.starts_with(&format!("{}/", decision.trim_end_matches(".rs")));
    let listed = DECISIONS
        .iter()
        .any(|decision| path == *decision || below(decision));
    listed && !path.ends_with("/tests.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of a tree whose decisions are all clean but the first one, which is `text`.
    fn planted(text: &str) -> Vec<String> {
        let files: Vec<(&str, &str)> = DECISIONS
            .iter()
            .enumerate()
            .map(|(at, path)| (*path, if at == 0 { text } else { "//! x\n" }))
            .collect();
        check(&Tree::of(&files))
    }

    #[test]
    fn a_decision_that_asks_the_world_is_reported_with_its_line() {
        for (word, what) in IMPURE {
            let problems = planted(&format!("//! x\nlet a = {word};\n"));
            assert!(
                problems
                    .iter()
                    .any(|one| one.contains(":2: ") && one.contains(what)),
                "{word}"
            );
        }
    }

    #[test]
    fn values_comments_and_tests_are_fine() {
        let text = "//! No tokio here.\nfn a(now: Instant, at: SocketAddr, random: f64) {} // tokio\n\
                    \n#[cfg(test)]\nmod tests {\n    fn t() {\n        Instant::now();\n    }\n}\n";
        assert_eq!(planted(text), [""; 0]);
    }

    #[test]
    fn modules_below_a_decision_are_held_to_it_too() {
        let below = DECISIONS[0].replace(".rs", "/deeper.rs");
        let tests = DECISIONS[0].replace(".rs", "/tests.rs");
        let mut tree = Tree::of(&[
            (&below, "//! x\nuse tokio::time;\n"),
            (&tests, "use tokio;\n"),
        ]);
        for path in DECISIONS {
            tree.files.insert(path.to_owned(), "//! x\n".to_owned());
        }
        let problems = check(&tree);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(&below), "{problems:?}");
    }

    #[test]
    fn a_decision_that_was_moved_away_is_reported() {
        let problems = check(&Tree::default());
        assert_eq!(problems.len(), DECISIONS.len());
        assert!(
            problems[0].contains("listed as a decision and not there"),
            "{problems:?}"
        );
    }
}
