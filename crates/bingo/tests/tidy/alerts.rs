//! Every alert has its page, named in its `runbook_url` and in `docs/operations/red.md`, and a case in
//! the rules' tests; every page has its alert. Whoever is woken reads the page first.

use crate::tree::Tree;

const RULES: &str = "deploy/observability/rules/alerts.yml";
const CASES: &str = "deploy/observability/tests/alerts_test.yml";
const PAGES: &str = "docs/operations/alerts/";
const FIRST_PAGE: &str = "docs/operations/red.md";
/// What each page answers.
const PARTS: [&str; 3] = ["## What it means", "## How to confirm it", "## What to do"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let text = |path: &str| tree.text(path).unwrap_or_default();
    let mut problems = Vec::new();
    let alerts = alerts(text(RULES));
    if alerts.is_empty() {
        problems.push(format!("{RULES}: no alerts"));
    }
    for (name, page) in &alerts {
        let wanted = format!("{PAGES}{name}.md");
        if *page != wanted {
            problems.push(format!("{RULES}: {name}: runbook_url is not {wanted}"));
        }
        match tree.text(&wanted) {
            None => problems.push(format!("{wanted}: missing, of an alert")),
            Some(page) => {
                let missing = PARTS.iter().filter(|part| !page.contains(*part));
                problems.extend(missing.map(|part| format!("{wanted}: no `{part}`")));
            }
        }
        if !text(CASES).contains(&format!("alertname=\"{name}\"")) {
            problems.push(format!("{CASES}: no case of {name}"));
        }
        if !text(FIRST_PAGE).contains(&format!("alerts/{name}.md")) {
            problems.push(format!("{FIRST_PAGE}: does not lead to {name}"));
        }
    }
    for (path, _) in tree.ending(".md") {
        if let Some(name) = path
            .strip_prefix(PAGES)
            .and_then(|name| name.strip_suffix(".md"))
            && !alerts.iter().any(|(alert, _)| *alert == name)
        {
            problems.push(format!("{path}: no alert has this name"));
        }
    }
    problems
}

/// Each alert with its `runbook_url`.
fn alerts(rules: &str) -> Vec<(&str, &str)> {
    let blocks = rules.split("- alert: ").skip(1);
    let alerts = blocks.map(|block| {
        let name = block.lines().next().unwrap_or_default().trim();
        let mut lines = block.lines();
        let page = lines.find_map(|line| line.trim().strip_prefix("runbook_url: "));
        (name, page.unwrap_or_default())
    });
    alerts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "- alert: A\n  expr: a\n  annotations:\n    runbook_url: \
                        docs/operations/alerts/A.md\n";
    const PAGE: &str = "## What it means\n## How to confirm it\n## What to do\n";

    fn planted(path: &str, text: &str) -> String {
        let mut tree = Tree::of(&[
            (RULES, RULE),
            (CASES, "ALERTS{alertname=\"A\"}"),
            ("docs/operations/alerts/A.md", PAGE),
            (FIRST_PAGE, "[A](alerts/A.md)"),
        ]);
        tree.files.insert(path.to_owned(), text.to_owned());
        check(&tree).join("\n")
    }

    #[test]
    fn an_alert_with_page_case_and_way_to_it_is_fine() {
        assert_eq!(planted("x", ""), "");
    }

    #[test]
    fn what_an_alert_lacks_is_reported() {
        let of_b = RULE.replace("alert: A", "alert: B");
        let problems = planted(RULES, &of_b);
        for problem in [
            "B: runbook_url is not docs/operations/alerts/B.md",
            "alerts/B.md: missing",
            "no case of B",
            "does not lead to B",
            "alerts/A.md: no alert has this name",
        ] {
            assert!(problems.contains(problem), "{problem}: {problems}");
        }
        let short = PAGE.replace("## What to do", "");
        let problems = planted("docs/operations/alerts/A.md", &short);
        assert!(problems.contains("no `## What to do`"), "{problems}");
        assert!(planted(RULES, "groups: []").contains("no alerts"));
    }
}
