//! The rules and dashboards of `deploy/observability`, read as what they name: expressions, and labels
//! in legends and annotations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// An expression and where it stands.
pub(crate) struct Named {
    /// For messages: file and rule or panel.
    pub(crate) place: String,
    pub(crate) expression: String,
    /// Labels that a legend or an annotation shows.
    pub(crate) shown: Vec<String>,
    /// The series that it becomes, with the labels that are added.
    pub(crate) recorded: Option<(String, Vec<String>)>,
}

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/observability")
}

fn read(folder: &Path, ending: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "nothing in {}", folder.display());
    let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), text(path))).collect()
}

/// Of recording rules and alerts.
pub(crate) fn rules() -> Vec<Named> {
    let mut all = Vec::new();
    for (file, text) in read(&folder().join("rules"), "yml") {
        let parsed: RuleFile = chassis::config::from_yaml(&file, &text).unwrap();
        for rule in parsed.groups.into_iter().flat_map(|group| group.rules) {
            let name = rule.record.as_ref().or(rule.alert.as_ref()).unwrap();
            let texts = rule.annotations.values();
            all.push(Named {
                place: format!("{file}: {name}"),
                expression: rule.expr,
                shown: texts.flat_map(|text| after(text, "$labels.")).collect(),
                recorded: rule
                    .record
                    .map(|record| (record, rule.labels.into_keys().collect())),
            });
        }
    }
    all
}

/// Of every panel.
pub(crate) fn panels() -> Vec<Named> {
    let mut all = Vec::new();
    for (file, text) in read(&folder().join("dashboards"), "json") {
        let board: serde_json::Value = serde_json::from_str(&text).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let legend = target["legendFormat"].as_str().unwrap_or_default();
                all.push(Named {
                    place: format!("{file}: {}", panel["title"]),
                    expression: target["expr"].as_str().unwrap().to_owned(),
                    shown: after(legend, "{{"),
                    recorded: None,
                });
            }
        }
    }
    all
}

/// The names that follow a mark.
fn after(text: &str, mark: &str) -> Vec<String> {
    let names = text.split(mark).skip(1).map(|rest| {
        let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        rest.split(end).next().unwrap_or_default().to_owned()
    });
    names.collect()
}
