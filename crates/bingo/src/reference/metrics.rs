//! `metrics.md`: names, labels and meaning of every metric, from what the processes would answer to a
//! scrape after one of each had happened.

use super::cell;

pub(super) fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin listener (gateways: `--admin-port` of `bingo up`, `admin.listen`; \
         nodes:\n`--admin-listen`; the supervisor: `metrics_listen`). Who asks for OpenMetrics 1.0, as Prometheus does, gets it; all others get \
         the text\nformat 0.0.4. Probes are left out of the request metrics. Gateways and nodes are told apart by the scrape's job.\n",
    );
    for (role, text) in [
        ("Gateway", gateway::metrics_example()),
        ("Node", node::metrics_example()),
        ("Supervisor and machine", supervisor::metrics_example()),
    ] {
        page.push_str(&format!(
            "\n## {role}\n\n| metric | type | labels | what |\n|---|---|---|---|\n"
        ));
        page.push_str(&rows(&text));
    }
    page
}

/// One row for each `# HELP` line of a scrape.
fn rows(text: &str) -> String {
    let mut rows = String::new();
    for line in text.lines() {
        let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let kind = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")))
            .unwrap_or("unknown");
        let suffix = if kind == "counter" { "_total" } else { "" };
        rows.push_str(&format!(
            "| `{name}{suffix}` | {kind} | {} | {} |\n",
            labels(text, name),
            // The encoder ends each help text with a full stop.
            cell(help.trim_end_matches('.')),
        ));
    }
    rows
}

/// The label names of a metric's first sample; `le` belongs to every histogram.
fn labels(text: &str, name: &str) -> String {
    let sample = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', '_']) && rest.contains('{'))
    });
    let inside = sample
        .and_then(|line| line.split_once('{'))
        .and_then(|(_, rest)| rest.rsplit_once('}'))
        .map_or("", |(inside, _)| inside);
    let names: Vec<String> = inside
        .split("\",")
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| *name != "le")
        .map(|name| format!("`{name}`"))
        .collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_becomes_rows_with_names_types_labels_and_meaning() {
        let text = "# HELP a_total Things.\n# TYPE a_total counter\n\
                    # HELP b_seconds Time | spent.\n# TYPE b_seconds histogram\n\
                    b_seconds_bucket{le=\"1\",route=\"/x,y\",code=\"200\"} 1\n# EOF\n";
        assert_eq!(
            rows(text),
            "| `a_total_total` | counter |  | Things |\n\
             | `b_seconds` | histogram | `route` `code` | Time \\| spent |\n"
        );
    }
}
