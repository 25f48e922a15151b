//! The part of JSON Schema that our configuration types use, as schemars derives it: objects with
//! known keys, lists, words, numbers with bounds, and texts in the formats below. Anything else is
//! `Unknown`: the check passes it on to the typed parser.

use serde_json::Value as Json;

/// What a value may be.
pub(super) enum Shape<'a> {
    Section(Section<'a>),
    List { item: &'a Json, items_min: u64 },
    Words(Vec<&'a str>),
    Flag,
    Integer { min: i128, max: i128 },
    Number(Bounds),
    Text(Format, &'a Json),
    Unknown,
}

/// What a number with a fraction may be.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) min: f64,
    pub(super) max: f64,
}

/// How a text is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Plain,
    /// `250ms`; `x-min` and `x-max` bound it.
    Duration,
    /// `20m..25m`, the lesser first.
    DurationRange,
    /// `64KiB`; `x-min` and `x-max` bound it.
    Size,
    /// `IP:PORT`.
    SocketAddress,
    Email,
    /// A name or an address without a port, or the folder of a Unix socket.
    Host,
}

/// The keys of an object.
#[derive(Clone, Copy)]
pub(super) struct Section<'a>(&'a Json);

impl<'a> Section<'a> {
    pub(super) fn names(self) -> Vec<&'a str> {
        let properties = self.0.get("properties").and_then(Json::as_object);
        properties.map_or(Vec::new(), |all| all.keys().map(String::as_str).collect())
    }

    pub(super) fn property(self, name: &str) -> Option<&'a Json> {
        self.0.get("properties")?.get(name)
    }

    /// The schema of keys that are not named: `None` where there may be none.
    pub(super) fn other(self) -> Option<&'a Json> {
        match self.0.get("additionalProperties") {
            Some(Json::Bool(false)) => None,
            Some(schema) => Some(schema),
            None => Some(&Json::Null),
        }
    }

    pub(super) fn required(self) -> Vec<&'a str> {
        let names = self.0.get("required").and_then(Json::as_array);
        names.map_or(Vec::new(), |all| {
            all.iter().filter_map(Json::as_str).collect()
        })
    }
}

/// A schema without its references: what it allows, and whether it may be left empty.
pub(super) fn resolve<'a>(root: &'a Json, schema: &'a Json) -> (Shape<'a>, bool) {
    if let Some(target) = referenced(root, schema) {
        return resolve(root, target);
    }
    if let Some(any) = schema.get("anyOf").and_then(Json::as_array) {
        let mut others = any.iter().filter(|one| type_of(one) != Some("null"));
        return match (others.next(), others.next()) {
            (Some(one), None) => (resolve(root, one).0, true),
            _ => (Shape::Unknown, true),
        };
    }
    let nullable = schema
        .get("type")
        .and_then(Json::as_array)
        .is_some_and(|types| types.iter().any(|one| one == "null"));
    (shape(schema), nullable)
}

/// True for a value that must never be shown.
pub(super) fn is_secret(schema: &Json) -> bool {
    schema.get("writeOnly") == Some(&Json::Bool(true))
}

fn referenced<'a>(root: &'a Json, schema: &'a Json) -> Option<&'a Json> {
    let path = schema.get("$ref")?.as_str()?;
    root.pointer(path.strip_prefix('#')?)
}

/// The first type that is not `null`.
fn type_of(schema: &Json) -> Option<&str> {
    match schema.get("type")? {
        Json::String(one) => Some(one),
        Json::Array(types) => types
            .iter()
            .filter_map(Json::as_str)
            .find(|one| *one != "null"),
        _ => None,
    }
}

fn shape(schema: &Json) -> Shape<'_> {
    if let Some(words) = words(schema) {
        return Shape::Words(words);
    }
    match type_of(schema) {
        Some("object") => Shape::Section(Section(schema)),
        Some("array") => match schema.get("items") {
            Some(item) => Shape::List {
                item,
                items_min: schema.get("minItems").and_then(Json::as_u64).unwrap_or(0),
            },
            None => Shape::Unknown,
        },
        Some("boolean") => Shape::Flag,
        Some("integer") => Shape::Integer {
            min: bound(schema, "minimum").unwrap_or(i64::MIN.into()),
            max: bound(schema, "maximum").unwrap_or_else(|| widest(schema)),
        },
        Some("number") => {
            let bound = |key: &str| schema.get(key).and_then(Json::as_f64);
            Shape::Number(Bounds {
                min: bound("minimum").unwrap_or(f64::MIN),
                max: bound("maximum").unwrap_or(f64::MAX),
            })
        }
        Some("string") => Shape::Text(format(schema), schema),
        _ => Shape::Unknown,
    }
}

/// The words of an enumeration without data: `enum`, `const`, or a `oneOf` of these.
fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(word) = schema.get("const") {
        return Some(vec![word.as_str()?]);
    }
    if let Some(all) = schema.get("enum").and_then(Json::as_array) {
        return all
            .iter()
            .filter(|word| !word.is_null())
            .map(Json::as_str)
            .collect();
    }
    let parts = schema.get("oneOf")?.as_array()?;
    let words: Option<Vec<Vec<&str>>> = parts.iter().map(words).collect();
    words.map(|words| words.concat())
}

fn bound(schema: &Json, key: &str) -> Option<i128> {
    let number = schema.get(key)?;
    number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from))
}

fn widest(schema: &Json) -> i128 {
    match schema.get("format").and_then(Json::as_str) {
        Some("uint16") => u16::MAX.into(),
        Some("uint32") => u32::MAX.into(),
        Some("int32") => i32::MAX.into(),
        Some("uint64" | "uint") => u64::MAX.into(),
        _ => i64::MAX.into(),
    }
}

fn format(schema: &Json) -> Format {
    match schema.get("format").and_then(Json::as_str) {
        Some("duration") => Format::Duration,
        Some("duration-range") => Format::DurationRange,
        Some("size") => Format::Size,
        Some("socket-address") => Format::SocketAddress,
        Some("email") => Format::Email,
        Some("host") => Format::Host,
        _ => Format::Plain,
    }
}
