//! Every metric, label and label value that a rule or a panel of `deploy/observability` names is there
//! in a running installation. A panel that shows nothing because of a name that was changed looks
//! like a service without faults. Left to `.ci/suites.d/90-prometheus`: what a real Prometheus makes
//! of them.

mod e2e {
    #[allow(dead_code)] // each test binary uses its part
    pub(crate) mod installation;
}
mod observability {
    pub(crate) mod expression;
    pub(crate) mod files;
}

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use acceptance::http;
use acceptance::signals::{Signal, wait_until};
use e2e::installation::{Installation, ROWS};
use observability::expression::{Expression, Matcher};
use observability::files::{self, Named};

/// What Prometheus adds by itself.
const OF_THE_TARGET: [&str; 3] = ["job", "instance", "process"];
/// Shown where the machine can tell: nothing may synchronise its clock.
const MAY_BE_ABSENT: [&str; 1] = ["bingo_host_clock_offset_seconds"];
/// Series of Prometheus' own.
const ITS_OWN: [&str; 2] = ["up", "ALERTS"];

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_and_label_of_rules_and_dashboards_is_there() {
    let mut installation = Installation::new("observability", ROWS);
    installation.up(&["--detach"]).await;
    ask_for_everything(&installation).await;
    let known = Known::scrape(&installation).await;
    let rules = files::rules();
    let records = Records::of(&rules);
    let mut problems = Vec::new();
    let mut count = 0;
    for named in rules.iter().chain(&files::panels()) {
        count += 1;
        for problem in known.check(named, &records) {
            problems.push(format!("{}: {problem}", named.place));
        }
    }
    println!("{count} expressions");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// One of each request, and a death, so that what counts them has begun.
async fn ask_for_everything(installation: &Installation) {
    for path in [
        "/",
        "/db_dummy",
        "/long_dummy",
        "/long_dummy",
        "/api/movie?limit=1",
        "/api/movie/1",
        "/api/customer/1",
        "/api/session/1",
    ] {
        let answer = http::get(&installation.url(path)).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
    }
    installation.kill("node-1", Signal::Kill);
    installation.wait_restarted("node-1", 1).await;
    let url = installation.url("/api/movie/1");
    for node in ["node-1", "node-2"] {
        // Each node is asked by somebody, and its queries have begun.
        wait_until(
            "the node has answered",
            Duration::from_secs(20),
            async || {
                http::get(&url).await.is_ok()
                    && answered(installation, node)
                        .await
                        .is_some_and(|count| count > 0)
            },
        )
        .await
        .unwrap();
    }
}

/// Queries for single rows that a node has had.
async fn answered(installation: &Installation, node: &str) -> Option<u64> {
    let status = installation.status();
    let processes = status["processes"].as_array()?;
    let process = processes.iter().find(|process| process["name"] == node)?;
    let text = http::get(process["metrics"].as_str()?).await.ok()?.text();
    let start =
        "bingo_database_query_duration_seconds_count{class=\"points\",result=\"answered\"} ";
    text.lines()
        .find_map(|line| line.strip_prefix(start)?.parse().ok())
}

/// The labels and values of a metric's samples.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// What is shown: by job, by metric.
struct Known(BTreeMap<String, BTreeMap<String, Labels>>);

/// The labels of each recorded series.
struct Records(BTreeMap<String, BTreeSet<String>>);

impl Records {
    /// A rule's labels are those it groups by and adds, and those of the records that it is made of.
    fn of(rules: &[Named]) -> Self {
        let mut records = Self(BTreeMap::new());
        for named in rules {
            if let Some((record, added)) = &named.recorded {
                let expression = Expression::parse(&named.expression);
                let mut labels: BTreeSet<_> = added.iter().cloned().collect();
                labels.extend(expression.labels);
                for selector in &expression.selectors {
                    labels.extend(
                        records
                            .0
                            .get(&selector.metric)
                            .into_iter()
                            .flatten()
                            .cloned(),
                    );
                }
                records.0.entry(record.clone()).or_default().extend(labels);
            }
        }
        records
    }
}

impl Known {
    async fn scrape(installation: &Installation) -> Self {
        let mut known = Self(BTreeMap::new());
        let status = installation.status();
        for process in status["processes"].as_array().unwrap() {
            let Some(url) = process["metrics"].as_str() else {
                continue;
            };
            let text = http::get(url).await.unwrap().text();
            let job = format!("bingo-{}", process["role"].as_str().unwrap());
            let of_job = known.0.entry(job).or_default();
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                note(of_job, line);
            }
        }
        known
    }

    fn check(&self, named: &Named, records: &Records) -> Vec<String> {
        let expression = Expression::parse(&named.expression);
        let mut problems = Vec::new();
        let mut labels: BTreeSet<String> = OF_THE_TARGET.map(str::to_owned).into();
        for selector in &expression.selectors {
            let metric = &selector.metric;
            if ITS_OWN.contains(&metric.as_str()) {
                labels.extend(selector.matchers.iter().map(|one| one.label.clone()));
                continue;
            }
            if let Some(recorded) = records.0.get(metric) {
                labels.extend(recorded.iter().cloned());
                continue;
            }
            let is_job = |one: &&Matcher| one.label == "job";
            let Some(job) = selector.matchers.iter().find(is_job) else {
                problems.push(format!("{metric} names no job"));
                continue;
            };
            let of_job = self.0.get(&job.value);
            if MAY_BE_ABSENT.contains(&metric.as_str()) {
                continue;
            }
            let Some(found) = of_job.and_then(|metrics| metrics.get(metric)) else {
                problems.push(format!("{} shows no {metric}", job.value));
                continue;
            };
            labels.extend(found.keys().cloned());
            problems.extend(
                selector
                    .matchers
                    .iter()
                    .filter_map(|one| unmatched(metric, found, one)),
            );
        }
        let named_labels = expression.labels.iter().chain(&named.shown);
        let missing = named_labels.filter(|label| !labels.contains(*label));
        problems.extend(missing.map(|label| format!("nothing in it has the label {label}")));
        problems
    }
}

/// What is wrong with one matcher of a metric with these labels.
fn unmatched(metric: &str, labels: &Labels, matcher: &Matcher) -> Option<String> {
    let Matcher { label, value, .. } = matcher;
    if OF_THE_TARGET.contains(&label.as_str()) {
        return None;
    }
    let Some(values) = labels.get(label) else {
        return Some(format!("{metric} has no label {label}"));
    };
    // Patterns may match what has not happened, such as 5xx.
    let is_there = matcher.operator != "=" || values.contains(value);
    (!is_there).then(|| format!("{metric} has {label} in {values:?}, and never {value}"))
}

/// Notes a sample: `name{label="value",…} 1`.
fn note(metrics: &mut BTreeMap<String, Labels>, line: &str) {
    let Some((series, _)) = line.rsplit_once(' ') else {
        return;
    };
    let (name, inside) = series.split_once('{').unwrap_or((series, ""));
    let labels = metrics.entry(name.to_owned()).or_default();
    for pair in inside.trim_end_matches('}').split("\",") {
        if let Some((label, value)) = pair.split_once("=\"") {
            let value = value.trim_end_matches('"').to_owned();
            labels.entry(label.to_owned()).or_default().insert(value);
        }
    }
}

#[test]
fn a_name_that_is_not_there_is_reported() {
    let mut metrics = BTreeMap::new();
    note(&mut metrics, "a_total{node=\"n\",state=\"up\"} 1");
    let known = Known(BTreeMap::from([("bingo-node".to_owned(), metrics)]));
    let rules = [Named {
        place: String::new(),
        expression: "sum by (node) (a_total{job=\"bingo-node\"})".to_owned(),
        shown: Vec::new(),
        recorded: Some(("bingo:a".to_owned(), Vec::new())),
    }];
    let records = Records::of(&rules);
    let check = |expression: &str, shown: &[&str]| {
        let shown = shown.iter().map(|label| (*label).to_owned()).collect();
        let named = Named {
            place: String::new(),
            expression: expression.to_owned(),
            shown,
            recorded: None,
        };
        known.check(&named, &records).join("; ")
    };
    assert_eq!(
        check(
            "a_total{job=\"bingo-node\",state=\"up\"}",
            &["node", "process"]
        ),
        ""
    );
    assert_eq!(check("bingo:a > 1", &["node"]), "");
    for (wrong, shown, problem) in [
        (
            "b_total{job=\"bingo-node\"}",
            "node",
            "bingo-node shows no b_total",
        ),
        (
            "a_total{job=\"bingo-gate\"}",
            "job",
            "bingo-gate shows no a_total",
        ),
        ("a_total", "job", "a_total names no job"),
        (
            "a_total{job=\"bingo-node\",stat=\"up\"}",
            "node",
            "has no label stat",
        ),
        (
            "a_total{job=\"bingo-node\",state=\"down\"}",
            "node",
            "never down",
        ),
        (
            "sum by (nod) (a_total{job=\"bingo-node\"})",
            "node",
            "the label nod",
        ),
        ("bingo:a > 1", "state", "the label state"),
    ] {
        let found = check(wrong, &[shown]);
        assert!(found.contains(problem), "{wrong}: {found}");
    }
}
