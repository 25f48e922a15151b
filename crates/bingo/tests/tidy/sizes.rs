//! How large a file may be. A line of code is any line that is not blank, comments included, up to
//! the trailing `#[cfg(test)] mod tests { … }`: what a reader scrolls through. Functions are held to
//! 70 lines by clippy (`too_many_lines`).

use crate::tree::{Tree, without_tests};

const CODE_LINES_MAX: usize = 500;
/// Lines of a `main.rs`, all of them.
const MAIN_LINES_MAX: usize = 60;

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.rust() {
        let code = without_tests(text);
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        if lines > CODE_LINES_MAX {
            problems.push(format!(
                "{path}: {lines} lines of code, at most {CODE_LINES_MAX}; split it by what it does"
            ));
        }
        let all = text.lines().count();
        if path.ends_with("/main.rs") && all > MAIN_LINES_MAX {
            problems.push(format!(
                "{path}: {all} lines, at most {MAIN_LINES_MAX}; move the work into modules"
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)]))
    }

    #[test]
    fn a_file_that_outgrew_its_limit_is_reported_with_its_size() {
        assert!(planted("crates/x/src/a.rs", &"x\n".repeat(500)).is_empty());
        let problems = planted("crates/x/src/a.rs", &"x\n".repeat(501));
        assert_eq!(
            problems,
            ["crates/x/src/a.rs: 501 lines of code, at most 500; split it by what it does"]
        );
    }

    #[test]
    fn blank_lines_and_trailing_tests_do_not_count() {
        let tests = format!(
            "\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "    x\n".repeat(400)
        );
        let text = format!("{}{}{tests}", "x\n".repeat(500), "\n".repeat(99));
        assert!(planted("crates/x/src/a.rs", &text).is_empty());
        assert_eq!(planted("crates/x/src/a.rs", &format!("{text}x\n")).len(), 1);
    }

    #[test]
    fn a_main_over_sixty_lines_is_reported() {
        assert!(planted("crates/x/src/main.rs", &"x\n".repeat(60)).is_empty());
        assert_eq!(planted("crates/x/src/main.rs", &"x\n".repeat(61)).len(), 1);
    }
}
