//! The README is short, shows a command early, and says the same commands in both languages; a link
//! to a file leads to one. Left out: links to other sites (tests need no network) and anchors.

use crate::tree::Tree;

const README: &str = "README.md";
const README_RU: &str = "README.ru.md";
const README_LINES_MAX: usize = 100;
/// The first command stands at this line or before.
const COMMAND_BY_LINE: usize = 20;
/// Languages of fenced blocks in which every line is a command.
const SHELLS: [&str; 3] = ["sh", "bash", "shell"];
/// Languages of fenced blocks in which a command follows a `$ ` and the rest is output.
const SESSIONS: [&str; 2] = ["", "console"];
/// What a command within a sentence or a table begins with.
const PROGRAMS: [&str; 5] = ["make ", "target/release/bingo ", "curl ", "cargo ", "psql "];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for path in [README, README_RU] {
        let Some(text) = tree.text(path) else {
            problems.push(format!("{path}: missing"));
            continue;
        };
        let lines = text.lines().count();
        if lines > README_LINES_MAX {
            problems.push(format!("{path}: {lines} lines, at most {README_LINES_MAX}"));
        }
        let first = commands(text).first().map(|(line, _)| *line);
        if first.is_none_or(|line| line > COMMAND_BY_LINE) {
            problems.push(format!("{path}: no command by line {COMMAND_BY_LINE}"));
        }
    }
    if let (Some(english), Some(russian)) = (tree.text(README), tree.text(README_RU)) {
        let all = |text| {
            let fenced = commands(text).into_iter().map(|(_, line)| line);
            fenced.chain(inline_commands(text)).collect::<Vec<_>>()
        };
        let (english, russian) = (all(english), all(russian));
        if english != russian {
            problems.push(format!(
                "{README} and {README_RU}: different commands: {english:?} and {russian:?}"
            ));
        }
    }
    for (path, text) in tree.ending(".md") {
        problems.extend(broken_links(tree, path, text));
    }
    problems
}

/// The commands in fenced shell blocks, each with its line number from 1.
fn commands(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut language = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        match (line.strip_prefix("```"), language) {
            (Some(name), None) => language = Some(name),
            (Some(_), Some(_)) => language = None,
            (None, Some(name)) if SESSIONS.contains(&name) => {
                found.extend(line.strip_prefix("$ ").map(|command| (number, command)));
            }
            (None, Some(name)) if SHELLS.contains(&name) => {
                if !line.is_empty() && !line.starts_with('#') {
                    found.push((number, line));
                }
            }
            (None, _) => {}
        }
    }
    found
}

/// The commands in code within prose and tables, sorted: languages order their sentences differently.
fn inline_commands(text: &str) -> Vec<&str> {
    let mut found: Vec<&str> = text
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|code| PROGRAMS.iter().any(|program| code.starts_with(program)))
        .collect();
    found.sort_unstable();
    found
}

/// Links to files that are not there.
fn broken_links(tree: &Tree, path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut fenced = false;
    for (number, line) in (1..).zip(text.lines()) {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        // Every second piece between backquotes is code.
        let prose: String = line.split('`').step_by(2).collect();
        for link in prose.split("](").skip(1) {
            let target = link.split([')', ' ', '#']).next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !resolve(path, target).is_some_and(|file| tree.has(&file)) {
                problems.push(format!(
                    "{path}:{number}: link to `{target}`, which is not there"
                ));
            }
        }
    }
    problems
}

/// `target`, seen from the file at `from`, as a path from the root; none when it leaves the tree.
fn resolve(from: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => from.split('/').collect(),
    };
    parts.pop();
    for part in target
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        match part {
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# x\n```sh\nmake up\n```\n```console\n$ curl x\npong\n```\n";

    fn planted(path: &str, text: &str) -> String {
        let mut tree = Tree::of(&[(README, GOOD), (README_RU, GOOD), ("docs/a/b.md", "b\n")]);
        tree.files.insert(path.to_owned(), text.to_owned());
        check(&tree).join("\n")
    }

    #[test]
    fn two_short_readmes_with_the_same_commands_are_fine() {
        assert_eq!(
            planted(
                README_RU,
                &GOOD.replace("# x", "# ы").replace("pong", "понг")
            ),
            ""
        );
    }

    #[test]
    fn a_session_without_a_language_shows_a_command_too() {
        let bare = GOOD.replace("```console", "```");
        assert_eq!(planted(README, &bare), "");
        assert_eq!(commands(&bare), [(3, "make up"), (6, "curl x")]);
    }

    #[test]
    fn a_missing_readme_is_reported() {
        assert_eq!(
            check(&Tree::default()),
            ["README.md: missing", "README.ru.md: missing"]
        );
    }

    #[test]
    fn a_command_that_only_one_language_has_is_reported() {
        let problem = planted(README_RU, &GOOD.replace("curl x", "curl y"));
        assert!(problem.contains("different commands"), "{problem}");
        let inline = planted(README_RU, &format!("{GOOD}| тест | `make test` |\n"));
        assert!(inline.contains("make test"), "{inline}");
    }

    #[test]
    fn a_long_readme_or_one_with_a_late_command_is_reported() {
        let long = format!("{GOOD}{}", "x\n".repeat(93));
        assert!(planted(README, &long).contains("README.md: 101 lines, at most 100"));
        let late = format!("{}{GOOD}", "x\n".repeat(18));
        assert!(planted(README, &late).contains("no command by line 20"));
    }

    #[test]
    fn a_link_to_nothing_is_reported_with_its_line() {
        for fine in [
            "../../README.md",
            "b.md#part",
            "..",
            "/README.md",
            "https://example.org/x",
        ] {
            assert_eq!(
                planted("docs/a/c.md", &format!("[t]({fine})\n")),
                "",
                "{fine}"
            );
        }
        assert_eq!(planted("docs/a/c.md", "`[t](none.md)`\n"), "");
        let problem = planted("docs/a/c.md", "\nsee [t](none.md) and [u](../../../x)\n");
        assert!(
            problem.contains("docs/a/c.md:2: link to `none.md`"),
            "{problem}"
        );
        assert!(problem.contains("`../../../x`"), "{problem}");
    }
}
