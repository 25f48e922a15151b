//! A document made readable in spite of its faults, so that whoever knows what the values mean can
//! find the rest of the faults in the same run: what is wrong is left out where it may be, and else
//! replaced by anything of the right type. Never run on.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value as Json};

use super::Fault;
use super::located::{Located, Value};
use super::shape::{Bounds, Format, Shape, resolve};

/// What is left of a document.
pub(super) struct Repaired {
    pub(super) document: Json,
    /// Where each key stands, counted from 1.
    pub(super) lines: HashMap<String, u64>,
}

/// Repairs a document whose shape has these faults.
pub(super) fn repair(source: &str, schema: &Json, at: &Located, faults: &[Fault]) -> Repaired {
    let mut repair = Repair {
        source,
        root: schema,
        faulty: faults.iter().map(|fault| fault.key.as_str()).collect(),
        lines: HashMap::new(),
    };
    let document = repair.value(schema, "", at);
    Repaired {
        document: document.unwrap_or_else(|| placeholder(schema, schema)),
        lines: repair.lines,
    }
}

struct Repair<'a> {
    source: &'a str,
    root: &'a Json,
    faulty: HashSet<&'a str>,
    lines: HashMap<String, u64>,
}

impl Repair<'_> {
    /// `None` for what is to be left out.
    fn value(&mut self, schema: &Json, path: &str, at: &Located) -> Option<Json> {
        self.lines.insert(path.to_owned(), at.line());
        let (shape, nullable) = resolve(self.root, schema);
        match (shape, at.value()) {
            (Shape::Unknown, _) => Some(self.as_written(at)),
            (_, Value::Empty) => nullable.then_some(Json::Null),
            (Shape::Section(section), Value::Section(entries)) => {
                let mut object = Map::new();
                for (key, value) in entries {
                    let known = section.property(key.name()).or_else(|| section.other());
                    let below = super::check::join(path, key.name());
                    if let Some(schema) = known
                        && let Some(value) = self.value(schema, &below, value)
                    {
                        object.insert(key.name().to_owned(), value);
                    }
                }
                fill(self.root, schema, &mut object);
                Some(Json::Object(object))
            }
            (Shape::List { item, .. }, Value::List(items)) => {
                // None is left out: the others keep their numbers.
                let each = |(number, entry): (usize, &Located)| {
                    let below = format!("{path}[{number}]");
                    self.value(item, &below, entry)
                        .unwrap_or_else(|| placeholder(self.root, item))
                };
                Some(Json::Array(items.iter().enumerate().map(each).collect()))
            }
            _ if self.faulty.contains(path) => None,
            (shape, _) => self.scalar(&shape, at),
        }
    }

    fn scalar(&self, shape: &Shape<'_>, at: &Located) -> Option<Json> {
        let text = at.text(self.source)?;
        match shape {
            Shape::Flag => Some(Json::Bool(text == "true")),
            Shape::Integer { .. } => {
                let number = match at.value() {
                    Value::Integer(number) => *number,
                    _ => text.parse().ok()?,
                };
                let whole = i64::try_from(number).map(Json::from);
                whole
                    .or_else(|_| u64::try_from(number).map(Json::from))
                    .ok()
            }
            Shape::Number(_) => text.parse::<f64>().ok().map(Json::from),
            Shape::Words(_) | Shape::Text(..) => Some(Json::from(text)),
            Shape::Section(_) | Shape::List { .. } | Shape::Unknown => None,
        }
    }

    /// A value whose type the schema does not tell.
    fn as_written(&self, at: &Located) -> Json {
        match at.value() {
            Value::Empty => Json::Null,
            Value::List(items) => items.iter().map(|item| self.as_written(item)).collect(),
            Value::Section(entries) => entries
                .iter()
                .map(|(key, value)| (key.name().to_owned(), self.as_written(value)))
                .collect(),
            Value::Text(text) => Json::from(text.as_str()),
            Value::Flag | Value::Integer(_) | Value::Float => {
                let text = at.text(self.source).unwrap_or_default();
                serde_json::from_str(text).unwrap_or_else(|_| Json::from(text))
            }
        }
    }
}

/// Puts something in the place of every required key that is missing.
fn fill(root: &Json, schema: &Json, object: &mut Map<String, Json>) {
    if let (Shape::Section(section), _) = resolve(root, schema) {
        for name in section.required() {
            if !object.contains_key(name) {
                let schema = section.property(name).unwrap_or(&Json::Null);
                object.insert(name.to_owned(), placeholder(root, schema));
            }
        }
    }
}

fn placeholder(root: &Json, schema: &Json) -> Json {
    match resolve(root, schema).0 {
        Shape::Section(_) => {
            let mut object = Map::new();
            fill(root, schema, &mut object);
            Json::Object(object)
        }
        Shape::List { .. } => Json::Array(Vec::new()),
        Shape::Words(words) => words.first().map_or(Json::Null, |word| Json::from(*word)),
        Shape::Flag => Json::Bool(false),
        Shape::Integer { min, max } => {
            i64::try_from(0.clamp(min, max)).map_or(Json::Null, Json::from)
        }
        Shape::Number(Bounds { min, max }) => Json::from(0_f64.clamp(min, max)),
        // Some types parse their text.
        Shape::Text(format, _) => Json::from(match format {
            Format::Duration => "1s",
            Format::DurationRange => "1s..1s",
            Format::Size => "1B",
            Format::SocketAddress => "127.0.0.1:1",
            Format::Plain | Format::Email | Format::Host => "",
        }),
        Shape::Unknown => Json::Null,
    }
}
