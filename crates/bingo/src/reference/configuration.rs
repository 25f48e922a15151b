//! `configuration.md` and the JSON Schemas: the keys of every configuration file, from the types that
//! the files are read into. What a key means is its field's comment.

use serde_json::Value as Json;

use super::cell;

/// File name of the schema, name of the configuration file, and what it is for.
const FILES: [(&str, &str, &str); 3] = [
    (
        "config.schema.json",
        "config.yaml",
        "of a node (`bingo run_server`) and of `bingo prepare_db`; `/opt/bingo/config.yaml` unless \
         `--config` or `BINGO_CONFIG` name another. The vendor's file is a whole one.",
    ),
    (
        "gateway.schema.json",
        "gateway.yaml",
        "of a gateway (`bingo gateway`). `bingo gateway --check FILE` checks one.",
    ),
    (
        "supervisor.schema.json",
        "supervisor.yaml",
        "of the supervisor (`bingo supervise`).",
    ),
];

/// Each schema with its file's name.
pub(super) fn schemas() -> [(&'static str, Json); 3] {
    let [node, gateway, supervisor] = FILES.map(|(name, ..)| name);
    [
        (node, chassis::config::json_schema::<node::Config>()),
        (gateway, chassis::config::json_schema::<gateway::Config>()),
        (
            supervisor,
            chassis::config::json_schema::<supervisor::Config>(),
        ),
    ]
}

pub(super) fn page() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         All files are YAML. A missing key takes its default. All faults of a file are told in one run, \
         each with\nkey, value, reason, remedy and line, and exit code 64. Durations are a number and \
         one of `us`, `ms`, `s`,\n`m`, `h`; sizes a number and one of `B`, `KiB`, `MiB`, `GiB`.\n\n\
         The password of the database is taken from `BINGO_POSTGRES_PASSWORD`, `password_file`, \
         `passfile`,\n`password`, `~/.pgpass`, in this order. `--postgres-url` or `BINGO_POSTGRES_URL` replace hosts, \
         user,\npassword and database of the file together; the password of such a URL then stands in the \
         place of\n`password`. Only the variable may hold one: in an argument it is refused.\n",
    );
    for ((_, name, what), (schema_name, schema)) in FILES.into_iter().zip(schemas()) {
        page.push_str(&format!(
            "\n## {name}\n\nThe file {what} JSON Schema: [{schema_name}]({schema_name}).\n"
        ));
        let mut tables = Tables {
            root: &schema,
            text: String::new(),
        };
        tables.section("", &schema);
        page.push_str(&tables.text);
    }
    page
}

struct Tables<'a> {
    root: &'a Json,
    text: String,
}

impl<'a> Tables<'a> {
    /// A table of one object's keys, and after it those of the objects in it.
    fn section(&mut self, path: &str, schema: &'a Json) {
        let Some(properties) = schema.get("properties").and_then(Json::as_object) else {
            return;
        };
        let required = schema.get("required").and_then(Json::as_array);
        let mut rows = String::new();
        let mut below = Vec::new();
        for (name, property) in properties {
            let resolved = self.resolve(property);
            let key = match path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            let must = required.is_some_and(|all| all.iter().any(|one| one == name));
            rows.push_str(&self.row(name, property, resolved, must));
            let item = resolved.get("items").map(|item| self.resolve(item));
            match item {
                Some(item) if item.get("properties").is_some() => {
                    below.push((format!("{key}[]"), item));
                }
                _ if resolved.get("properties").is_some() => below.push((key, resolved)),
                _ => {}
            }
        }
        if !path.is_empty() {
            self.text.push_str(&format!("\n### `{path}`\n"));
        }
        self.text.push_str(&format!(
            "\n| key | value | default | what |\n|---|---|---|---|\n{rows}"
        ));
        for (path, schema) in below {
            self.section(&path, schema);
        }
    }

    fn row(&self, name: &str, property: &Json, resolved: &Json, must: bool) -> String {
        let text = |schema: &Json| {
            let text = schema.get("description").and_then(Json::as_str);
            text.unwrap_or_default().to_owned()
        };
        let what = match text(property) {
            own if own.is_empty() => text(resolved),
            own => own,
        };
        let default = match property.get("default") {
            _ if must => "must be given".to_owned(),
            None | Some(Json::Null | Json::Object(_)) => String::new(),
            Some(Json::Array(all)) if all.is_empty() => String::new(),
            Some(Json::String(text)) => format!("`{text}`"),
            Some(other) => format!("`{other}`"),
        };
        format!(
            "| `{name}` | {} | {} | {} |\n",
            cell(&self.kind(resolved)),
            cell(&default),
            cell(&what)
        )
    }

    fn kind(&self, schema: &Json) -> String {
        let word = |key: &str| schema.get(key).and_then(Json::as_str);
        let words = words(schema);
        if !words.is_empty() {
            return words.join(", ");
        }
        let base = match (first_type(schema), word("format")) {
            (Some("string"), Some("duration")) => "duration",
            (Some("string"), Some("duration-range")) => "two durations, like `20m..25m`",
            (Some("string"), Some("size")) => "size",
            (Some("string"), Some("socket-address")) => "IP:PORT",
            (Some("string"), Some("email")) => "e-mail",
            (Some("string"), Some("host")) => "name, address or folder of a Unix socket",
            (Some("string"), _) if schema.get("writeOnly").is_some() => "secret text",
            (Some("string"), _) => "text",
            (Some("integer"), _) => "whole number",
            (Some("boolean"), _) => "`true` or `false`",
            (Some("array"), _) => {
                let item = schema
                    .get("items")
                    .map(|item| self.kind(self.resolve(item)));
                return format!("list of: {}", item.unwrap_or_default());
            }
            (Some("object"), _) => "section",
            _ => "see the text",
        };
        format!("{base}{}", bounds(schema))
    }

    /// The schema behind a reference, and behind "this or null".
    fn resolve(&self, schema: &'a Json) -> &'a Json {
        if let Some(path) = schema.get("$ref").and_then(Json::as_str) {
            let target = path.strip_prefix('#').and_then(|p| self.root.pointer(p));
            return target.map_or(schema, |target| self.resolve(target));
        }
        let any = schema.get("anyOf").and_then(Json::as_array);
        let mut real = any.into_iter().flatten();
        match real.find(|one| first_type(one) != Some("null")) {
            Some(one) => self.resolve(one),
            None => schema,
        }
    }
}

fn first_type(schema: &Json) -> Option<&str> {
    match schema.get("type")? {
        Json::String(one) => Some(one),
        Json::Array(all) => all.iter().filter_map(Json::as_str).find(|t| *t != "null"),
        _ => None,
    }
}

fn words(schema: &Json) -> Vec<String> {
    let word = |word: &Json| word.as_str().map(|word| format!("`{word}`"));
    let mut words: Vec<String> = schema.get("const").and_then(word).into_iter().collect();
    let list = |key: &str| schema.get(key).and_then(Json::as_array);
    words.extend(list("enum").into_iter().flatten().filter_map(word));
    words.extend(list("oneOf").into_iter().flatten().flat_map(self::words));
    words
}

/// `, 1 to 65535`; bounds that are only a type's own are left out.
fn bounds(schema: &Json) -> String {
    let bound = |numeric: &str, quantity: &str| {
        let value = schema.get(numeric).or_else(|| schema.get(quantity))?;
        Some(value.as_str().map_or(value.to_string(), str::to_owned))
    };
    match (bound("minimum", "x-min"), bound("maximum", "x-max")) {
        (Some(min), Some(max)) => format!(", {min} to {max}"),
        (None, Some(max)) => format!(", at most {max}"),
        (Some(min), None) if min != "0" => format!(", at least {min}"),
        _ => String::new(),
    }
}
