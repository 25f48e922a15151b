//! Which crate may depend on which (ARCHITECTURE.md, invariants 1 to 3). Normal and development
//! edges are checked apart: a test may stand on a private PostgreSQL, the product may not. Allowed
//! edges need not exist; any other is a fault.

use std::process::Command;

use serde_json::Value;

use crate::tree::{Tree, names, without_comment};

/// Every crate of ours, and what it may use.
const NORMAL: [(&str, &[&str]); 9] = [
    (
        "bingo",
        &[
            "acceptance",
            "chassis",
            "gateway",
            "local",
            "node",
            "private_postgres",
            "storage",
            "supervisor",
        ],
    ),
    ("gateway", &["chassis"]),
    ("node", &["chassis", "storage"]),
    ("storage", &["chassis"]),
    ("supervisor", &["chassis"]),
    ("local", &["chassis", "supervisor", "private_postgres"]),
    ("chassis", &[]),
    ("private_postgres", &[]),
    ("acceptance", &[]),
];
/// What its tests may use besides.
const DEVELOPMENT: [(&str, &[&str]); 9] = [
    ("bingo", &[]),
    ("gateway", &["acceptance"]),
    ("node", &["acceptance", "private_postgres"]),
    ("storage", &["acceptance", "private_postgres"]),
    ("supervisor", &["acceptance"]),
    ("local", &["acceptance"]),
    ("chassis", &["acceptance"]),
    ("private_postgres", &[]),
    ("acceptance", &[]),
];
/// PostgreSQL drivers, and other crates that bring one.
const DRIVERS: [&str; 9] = [
    "tokio-postgres",
    "postgres-protocol",
    "postgres-types",
    "deadpool-postgres",
    "tokio-postgres-rustls",
    "postgres",
    "sqlx",
    "diesel",
    "refinery",
];
/// The one crate that may name them.
const DRIVER_OWNER: &str = "storage";

/// What `cargo metadata --no-deps` says about our crates.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug)]
struct Package {
    name: String,
    uses: Vec<Dependency>,
}

#[derive(Debug)]
struct Dependency {
    name: String,
    kind: String,
}

impl Metadata {
    /// Of this workspace.
    pub(crate) fn read() -> Result<Self, String> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let output = Command::new(cargo)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .map_err(|error| format!("start cargo: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let value: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
        Ok(Self::of(&value))
    }

    /// Of cargo's JSON (format version 1).
    fn of(value: &Value) -> Self {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or("normal").to_owned();
        let packages = list(&value["packages"]).into_iter().map(|package| Package {
            name: text(&package["name"]),
            uses: list(&package["dependencies"])
                .iter()
                .map(|dependency| Dependency {
                    name: text(&dependency["name"]),
                    kind: text(&dependency["kind"]),
                })
                .collect(),
        });
        Self {
            packages: packages.collect(),
        }
    }
}

/// Crates and edges that the architecture does not have, and drivers outside of storage.
pub(crate) fn check(metadata: &Metadata) -> Vec<String> {
    let mut problems = Vec::new();
    if metadata.packages.is_empty() {
        problems.push("cargo metadata lists no crate".to_owned());
    }
    for package in &metadata.packages {
        let name = &package.name;
        let Some(normal) = allowed(&NORMAL, name) else {
            problems.push(format!(
                "crate `{name}` is not in the architecture's layout"
            ));
            continue;
        };
        for used in &package.uses {
            let (other, kind) = (&used.name, &used.kind);
            if DRIVERS.contains(&other.as_str()) && name != DRIVER_OWNER {
                problems.push(format!(
                    "`{name}` depends on the PostgreSQL driver `{other}`; only {DRIVER_OWNER} may"
                ));
            }
            let ours = allowed(&NORMAL, other).is_some();
            let tests = allowed(&DEVELOPMENT, name).unwrap_or_default();
            let fine = normal.contains(&other.as_str())
                || (kind == "dev" && tests.contains(&other.as_str()));
            if ours && (!fine || kind == "build") {
                problems.push(format!(
                    "`{name}` depends on `{other}` ({kind}): the architecture has no such edge"
                ));
            }
        }
    }
    problems
}

/// Sources that name a driver outside of storage, through whatever crate they got it.
pub(crate) fn check_driver_is_named_by_storage_only(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    let own = format!("crates/{DRIVER_OWNER}/");
    for (path, text) in tree.rust().filter(|(path, _)| !path.starts_with(&own)) {
        for driver in DRIVERS.map(|driver| format!("{}::", driver.replace('-', "_"))) {
            let code = text.lines().map(without_comment);
            let used = code.filter(|line| names(line, &driver) && !line.contains('"'));
            if used.count() > 0 {
                problems.push(format!("{path}: names `{driver}`; only {DRIVER_OWNER} may"));
            }
        }
    }
    problems
}

fn allowed<'a>(edges: &[(&str, &'a [&'a str])], name: &str) -> Option<&'a [&'a str]> {
    let found = edges.iter().find(|(from, _)| *from == name);
    found.map(|(_, to)| *to)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of one crate with one dependency.
    fn planted(name: &str, other: &str, kind: &Value) -> String {
        let dependency = serde_json::json!({"name": other, "kind": kind});
        let package = serde_json::json!({"name": name, "dependencies": [dependency]});
        check(&Metadata::of(&serde_json::json!({"packages": [package]}))).join("\n")
    }

    #[test]
    fn an_edge_of_the_architecture_is_fine() {
        assert_eq!(planted("gateway", "chassis", &Value::Null), "");
        assert_eq!(planted("storage", "private_postgres", &"dev".into()), "");
        assert_eq!(planted("chassis", "acceptance", &"dev".into()), "");
        assert_eq!(planted("bingo", "acceptance", &"dev".into()), "");
        assert_eq!(planted("gateway", "hyper", &Value::Null), "");
        assert_eq!(planted("storage", "tokio-postgres", &Value::Null), "");
    }

    #[test]
    fn an_added_edge_is_reported() {
        let problem = planted("gateway", "node", &Value::Null);
        assert_eq!(
            problem,
            "`gateway` depends on `node` (normal): the architecture has no such edge"
        );
        assert_ne!(planted("supervisor", "storage", &Value::Null), "");
        assert_ne!(planted("gateway", "storage", &"dev".into()), "");
        assert_ne!(planted("gateway", "chassis", &"build".into()), "");
    }

    #[test]
    fn an_edge_for_tests_only_is_reported_in_the_product() {
        assert_ne!(planted("storage", "private_postgres", &Value::Null), "");
        assert_ne!(planted("node", "acceptance", &Value::Null), "");
    }

    #[test]
    fn the_judge_and_the_private_server_depend_on_none_of_ours() {
        assert_ne!(planted("acceptance", "chassis", &Value::Null), "");
        assert_ne!(planted("acceptance", "private_postgres", &"dev".into()), "");
        assert_ne!(planted("private_postgres", "chassis", &"dev".into()), "");
    }

    #[test]
    fn a_driver_outside_of_storage_is_reported() {
        let problem = planted("node", "tokio-postgres", &"dev".into());
        assert!(
            problem.contains("PostgreSQL driver `tokio-postgres`"),
            "{problem}"
        );
        let text = "//! x\nuse tokio_postgres::Client;\n";
        let tree = Tree::of(&[
            ("crates/node/src/a.rs", text),
            ("crates/storage/src/b.rs", text),
        ]);
        let problems = check_driver_is_named_by_storage_only(&tree);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("crates/node/src/a.rs"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_crate_that_the_architecture_does_not_know_is_reported() {
        let problem = planted("cleverness", "serde", &Value::Null);
        assert_eq!(
            problem,
            "crate `cleverness` is not in the architecture's layout"
        );
        assert!(
            !check(&Metadata::default()).is_empty(),
            "an empty answer checks nothing"
        );
    }
}
