//! A YAML document as a tree of values that know their lines, whatever the keys are. It is what the
//! check against a schema walks; a typed value would have stopped at its first fault.
//! Anchors, aliases and merge keys are resolved by the library before we see them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value and where it stands.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Located(Spanned<Value>);

/// What YAML makes of a value without being asked for a type.
#[derive(Debug)]
pub(super) enum Value {
    Empty,
    Flag,
    Integer(i128),
    Float,
    Text(String),
    List(Vec<Located>),
    Section(Vec<(Key, Located)>),
}

/// A key of a section and the line it stands on.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Key(Spanned<String>);

impl Located {
    pub(super) fn value(&self) -> &Value {
        &self.0.value
    }

    /// Counted from 1.
    pub(super) fn line(&self) -> u64 {
        self.0.referenced.line()
    }

    /// A scalar as it is written in `source`, without quotes; `None` for lists and sections.
    pub(super) fn text<'a>(&'a self, source: &'a str) -> Option<&'a str> {
        match self.value() {
            Value::Text(text) => Some(text),
            Value::Empty => Some(""),
            Value::Flag | Value::Integer(_) | Value::Float => {
                let span = self.0.defined.span();
                let start = usize::try_from(span.byte_offset()?).ok()?;
                let length = usize::try_from(span.byte_len()?).ok()?;
                source.get(start..start.checked_add(length)?)
            }
            Value::List(_) | Value::Section(_) => None,
        }
    }
}

impl Key {
    pub(super) fn name(&self) -> &str {
        &self.0.value
    }

    /// Counted from 1.
    pub(super) fn line(&self) -> u64 {
        self.0.referenced.line()
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Empty)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Empty)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Flag)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Float)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Section(entries))
    }
}
