//! Every fault of a file in one run: its tree of values is held against the schema of the type that
//! it will become, and nothing stops at the first difference. A fault has key, value, reason, remedy
//! and line. Secrets are masked; the value of an unknown key is not shown at all, because a mistyped
//! `password` is a secret too.

use std::net::SocketAddr;

use serde_json::Value as Json;

use super::located::{Located, Value};
use super::shape::{Bounds, Format, Section, Shape, is_secret, resolve};
use super::{Fault, nearest, parse_duration, parse_size};

/// Longer values are cut in messages.
const SHOWN_CHARACTERS: usize = 60;
/// More faults than this are not listed one by one: the file is then another file.
const FAULTS_MAX: usize = 100;

/// Checks a document, whose text is `source`; its faults in the order of their lines.
pub(super) fn check(source: &str, schema: &Json, document: &Located) -> Vec<Fault> {
    let mut checker = Checker {
        source,
        root: schema,
        faults: Vec::new(),
    };
    checker.value(schema, "", document);
    checker.faults.sort_by_key(|fault| fault.line);
    checker.faults.truncate(FAULTS_MAX);
    checker.faults
}

struct Checker<'a> {
    source: &'a str,
    root: &'a Json,
    faults: Vec<Fault>,
}

/// Why a value cannot be taken, and what to write instead.
struct Why(String, String);

impl Why {
    fn new(why: impl Into<String>, help: impl Into<String>) -> Self {
        Self(why.into(), help.into())
    }
}

impl Checker<'_> {
    fn value(&mut self, schema: &Json, path: &str, at: &Located) {
        let (shape, nullable) = resolve(self.root, schema);
        if matches!(at.value(), Value::Empty) {
            if !nullable && !matches!(shape, Shape::Unknown) {
                let fault = Why::new("it is empty", "write a value, or leave the key out");
                self.add(schema, path, at, fault);
            }
            return;
        }
        match (shape, at.value()) {
            (Shape::Unknown, _) => {}
            (Shape::Section(section), Value::Section(entries)) => {
                self.section(section, path, at.line(), entries);
            }
            (Shape::Section(section), _) => {
                let help = format!(
                    "write `key: value` lines under it; its keys are {}",
                    list(&section.names())
                );
                self.add(schema, path, at, Why::new("it is no section", help));
            }
            (Shape::List { item, items_min }, Value::List(items)) => {
                if (items.len() as u64) < items_min {
                    let help = format!("name at least {items_min}");
                    self.add(
                        schema,
                        path,
                        at,
                        Why::new("the list has too few entries", help),
                    );
                }
                for (i, entry) in items.iter().enumerate() {
                    self.value(item, &format!("{path}[{i}]"), entry);
                }
            }
            (Shape::List { .. }, _) => {
                let help = "write one `- …` line for each entry";
                self.add(schema, path, at, Why::new("it is no list", help));
            }
            (shape, value) => {
                let Some(text) = at.text(self.source) else {
                    let fault = Why::new("it is a list or a section", "write one value");
                    return self.add(schema, path, at, fault);
                };
                if let Some(fault) = scalar(&shape, value, text) {
                    self.add(schema, path, at, fault);
                }
            }
        }
    }

    fn section(
        &mut self,
        section: Section<'_>,
        path: &str,
        line: u64,
        entries: &[(super::located::Key, Located)],
    ) {
        for (key, value) in entries {
            let below = join(path, key.name());
            match (section.property(key.name()), section.other()) {
                (Some(schema), _) | (None, Some(schema)) => self.value(schema, &below, value),
                (None, None) => {
                    let names = section.names();
                    let help = match nearest(key.name(), &names) {
                        Some(name) => format!("did you mean `{name}`? Else remove it"),
                        None => format!("remove it; the keys here are {}", list(&names)),
                    };
                    self.faults.push(Fault {
                        line: Some(key.line()),
                        key: join(path, &masked(key.name())),
                        value: String::new(),
                        reason: "there is no such key".to_owned(),
                        remedy: help,
                    });
                }
            }
        }
        for name in section.required() {
            if entries.iter().all(|(key, _)| key.name() != name) {
                self.faults.push(Fault {
                    line: Some(line),
                    key: join(path, name),
                    value: String::new(),
                    reason: "it is missing".to_owned(),
                    remedy: "add this key".to_owned(),
                });
            }
        }
    }

    fn add(&mut self, schema: &Json, path: &str, at: &Located, Why(reason, remedy): Why) {
        let shown = match at.value() {
            _ if is_secret(schema) => "***".to_owned(),
            Value::Empty => String::new(),
            Value::List(_) => "a list".to_owned(),
            Value::Section(_) => "a section".to_owned(),
            _ => shortened(&masked(at.text(self.source).unwrap_or_default())),
        };
        self.faults.push(Fault {
            line: Some(at.line()),
            key: path.to_owned(),
            value: shown,
            reason,
            remedy,
        });
    }
}

fn scalar(shape: &Shape<'_>, value: &Value, text: &str) -> Option<Why> {
    match shape {
        Shape::Words(words) => word(words, text),
        Shape::Flag => {
            let known = matches!(value, Value::Flag) || matches!(text, "true" | "false");
            (!known).then(|| Why::new("it is neither true nor false", "write true or false"))
        }
        Shape::Integer { min, max } => integer(*min, *max, value, text),
        Shape::Number(bounds) => number(*bounds, text),
        Shape::Text(format, schema) => formatted(*format, schema, text),
        Shape::Section(_) | Shape::List { .. } | Shape::Unknown => None,
    }
}

fn word(words: &[&str], text: &str) -> Option<Why> {
    if words.contains(&text) {
        return None;
    }
    let help = match nearest(text, words) {
        Some(name) => format!("did you mean `{name}`? Known are {}", list(words)),
        None => format!("choose one of {}", list(words)),
    };
    Some(Why::new("there is no such word", help))
}

fn integer(min: i128, max: i128, value: &Value, text: &str) -> Option<Why> {
    let help = format!("write a whole number from {min} to {max}");
    let number = match value {
        Value::Integer(number) => Some(*number),
        _ => text.parse::<i128>().ok(),
    };
    match number {
        None => Some(Why::new("it is no whole number", help)),
        Some(number) if number < min => Some(Why::new(format!("it is below {min}"), help)),
        Some(number) if number > max => Some(Why::new(format!("it is above {max}"), help)),
        Some(_) => None,
    }
}

/// With a fraction or without.
fn number(bounds: Bounds, text: &str) -> Option<Why> {
    let Bounds { min, max } = bounds;
    let help = match (min > f64::MIN, max < f64::MAX) {
        (true, true) => format!("write a number from {min} to {max}"),
        (true, false) => format!("write a number from {min} on"),
        (false, true) => format!("write a number up to {max}"),
        (false, false) => "write a number".to_owned(),
    };
    match text.parse::<f64>() {
        Ok(number) if number < min => Some(Why::new(format!("it is below {min}"), help)),
        Ok(number) if number > max => Some(Why::new(format!("it is above {max}"), help)),
        Ok(number) if number.is_finite() => None,
        _ => Some(Why::new("it is no number", help)),
    }
}

fn formatted(format: Format, schema: &Json, text: &str) -> Option<Why> {
    match format {
        Format::Plain => plain(schema, text),
        Format::Duration => quantity(
            schema,
            text,
            "duration",
            "write a number and one of us, ms, s, m, h, like 250ms",
            |text| parse_duration(text).ok().map(|time| time.as_secs_f64()),
        ),
        Format::DurationRange => {
            let ordered = text.split_once("..").is_some_and(|(least, most)| {
                let (least, most) = (parse_duration(least), parse_duration(most));
                matches!((least, most), (Ok(least), Ok(most)) if least <= most)
            });
            let help = "write two durations, the lesser first, like 20m..25m";
            (!ordered).then(|| Why::new("it is no range of durations", help))
        }
        Format::Size => quantity(
            schema,
            text,
            "size",
            "write a number and one of B, KiB, MiB, GiB, like 64MiB",
            |text| parse_size(text).ok().map(|bytes| bytes as f64),
        ),
        Format::SocketAddress => text.parse::<SocketAddr>().is_err().then(|| {
            let help = "write one, like 127.0.0.1:8080 or [::1]:8080";
            Why::new("it is no IP:PORT", help)
        }),
        Format::Email => email_fault(text).map(|(why, help)| Why::new(why, help)),
        Format::Host => host(text),
    }
}

fn plain(schema: &Json, text: &str) -> Option<Why> {
    let least = schema.get("minLength").and_then(Json::as_u64).unwrap_or(0);
    let most = schema.get("maxLength").and_then(Json::as_u64);
    let length = text.chars().count() as u64;
    if length < least && length == 0 {
        return Some(Why::new("it is empty", "write a value"));
    }
    if length < least {
        return Some(Why::new(
            "it is too short",
            format!("write at least {least} characters"),
        ));
    }
    let most = most.filter(|most| length > *most)?;
    let help = format!("write at most {most} characters");
    Some(Why::new("it is too long", help))
}

/// A number with a unit, within `x-min` and `x-max` of its schema.
fn quantity(
    schema: &Json,
    text: &str,
    noun: &str,
    help: &str,
    parse: impl Fn(&str) -> Option<f64>,
) -> Option<Why> {
    let limit = |key: &str| schema.get(key).and_then(Json::as_str);
    let Some(amount) = parse(text) else {
        let digits = text.bytes().any(|byte| byte.is_ascii_digit());
        let why = match text {
            negative if negative.starts_with('-') => "it is negative".to_owned(),
            _ if digits && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                "it has no unit".to_owned()
            }
            _ => format!("it is no {noun}"),
        };
        return Some(Why::new(why, help));
    };
    if let Some(min) = limit("x-min").filter(|min| parse(min).is_some_and(|min| amount < min)) {
        return Some(Why::new(
            format!("it is below {min}"),
            format!("choose {min} or more"),
        ));
    }
    let max = limit("x-max").filter(|max| parse(max).is_some_and(|max| amount > max))?;
    Some(Why::new(
        format!("it is above {max}"),
        format!("choose {max} or less"),
    ))
}

/// Whether a text can be no name, no address and no folder of a Unix socket.
pub fn is_no_host(text: &str) -> bool {
    host(text).is_some()
}

fn host(text: &str) -> Option<Why> {
    let help = "write a name like localhost, an address like 10.0.0.5 or ::1, or the folder of a \
                Unix socket";
    if text.is_empty() {
        return Some(Why::new("it is empty", help));
    }
    if text.starts_with('/') || text.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    if text.contains("://") {
        let help = "write its host alone here, and its other parts under keys of their own";
        return Some(Why::new("it is a URL", help));
    }
    if let Some((_, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        let help = format!("write the port under a key of its own: `port: {port}`");
        return Some(Why::new("it holds a port", help));
    }
    let strange =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '@' | ',');
    text.contains(strange)
        .then(|| Why::new("it is neither a name nor an address", help))
}

/// Why a text cannot be an e-mail address, and the remedy. Only what would surely be a mistake: who
/// a server takes for valid is the server's affair.
pub fn email_fault(text: &str) -> Option<(&'static str, &'static str)> {
    let help = "write it like name@example.com";
    let (name, domain) = match text.rsplit_once('@') {
        _ if text.is_empty() => return Some(("it is empty", help)),
        None => return Some(("it has no @", help)),
        Some(parts) => parts,
    };
    if name.is_empty() || domain.is_empty() {
        return Some(("nothing stands on one side of its @", help));
    }
    if name.contains('@') {
        return Some(("it has more than one @", help));
    }
    let strange = |c: char| c.is_whitespace() || c.is_control();
    if text.contains(strange) {
        return Some(("it holds a blank", help));
    }
    (text.len() > 254).then_some(("it is longer than 254 bytes (RFC 5321)", help))
}

/// The key `name` of the section `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

fn list(names: &[&str]) -> String {
    names.join(", ")
}

/// Without what may be a password: user and password of a URL, and of what looks like the rest of one.
/// A password may hold a raw `@` or `/` itself, so it ends at the last `@`.
pub(super) fn masked(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    match rest.rsplit_once('@') {
        Some((user, after)) if !scheme.is_empty() || user.contains(':') => {
            format!("{scheme}***@{after}")
        }
        _ => text.to_owned(),
    }
}

/// One line, not too long.
fn shortened(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS).map(clean).collect();
    if text.chars().nth(SHOWN_CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // read by nobody: the files are faulty
    struct Cluster {
        #[serde(default)]
        hosts: Vec<Host>,
        #[serde(default)]
        port: u16,
    }

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // as above
    struct Host {
        #[schemars(extend("format" = "host"))]
        address: String,
    }

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // as above
    struct Log {
        #[schemars(range(min = 0.0, max = 1.0))]
        share: f64,
    }

    #[test]
    fn a_number_that_is_none_or_out_of_bounds_is_told_with_its_key() {
        for good in ["0", "1", "0.25", "1e-2"] {
            let read = parse::<Log>("f", &format!("share: {good}\n"));
            assert!(
                read.is_ok(),
                "{good}: {:?}",
                read.err().map(|e| e.to_string())
            );
        }
        for (wrong, why) in [
            ("yes", "it is no number"),
            ("true", "it is no number"),
            ("NaN", "it is no number"),
            ("inf", "it is above 1"),
            ("1 %", "it is no number"),
            ("2", "it is above 1"),
            ("-0.1", "it is below 0"),
            ("[1]", "it is a list or a section"),
        ] {
            let told = parse::<Log>("f", &format!("share: {wrong}\n"));
            let told = told.err().unwrap().to_string();
            assert!(
                told.contains("share") && told.contains(why),
                "{wrong}: {told}"
            );
            assert!(
                !told.contains("out of range") && told.contains("help: write"),
                "{told}"
            );
        }
    }

    #[test]
    fn the_user_and_password_of_a_url_in_the_wrong_place_are_masked() {
        const URL: &str = "postgres://u:CAN@A/RY@db:5432/films";
        for text in [
            format!("hosts:\n- address: {URL}\n"),
            format!("hosts: {URL}\n"),
            "hosts: [{address: 'u:CAN@A/RY@db'}]\n".to_owned(),
            format!("port: {URL}\n"),
            format!("{URL}\n"),
            format!("? {URL}\n: 1\n"),
        ] {
            let told = parse::<Cluster>("f", &text).err().unwrap().to_string();
            assert!(!told.contains("CAN") && !told.contains("RY"), "{told}");
            assert!(told.contains("***@db"), "{told}");
        }
        let told = parse::<Cluster>("f", &format!("hosts: [{{address: '{URL}'}}]\n"));
        let told = told.err().unwrap().to_string();
        assert!(told.contains("it is a URL"), "{told}");
    }
}
