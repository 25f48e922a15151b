//! A request's body as a JSON object: the members that are documented and no others. What is wrong
//! with one is said in words of ours that name the member: the parser's own speak of types of ours.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Problem;

/// Characters of a client's own member that are repeated to it.
const NAME_MAX: usize = 40;

/// A member: its name, what it is, and whether a value is that.
pub(super) type Member = (&'static str, &'static str, fn(&Value) -> bool);

/// Reads an object whose members these are. `T` refuses what they refuse.
pub(super) fn read<T: DeserializeOwned>(body: &[u8], members: &[Member]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|_| {
        let names: Vec<String> = members
            .iter()
            .map(|(name, ..)| format!("\"{name}\""))
            .collect();
        Problem::bad_request(format!(
            "the body is a JSON object with {}: {}",
            names.join(", "),
            fault(body, members)
        ))
    })
}

fn fault(body: &[u8], members: &[Member]) -> String {
    let object = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(object)) => object,
        Ok(other) => return format!("it is {}", kind(&other)),
        Err(_) if body.is_empty() => return "it is empty".to_owned(),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            return format!("it is no JSON (line {line}, column {column})");
        }
    };
    let known = |name: &&String| members.iter().any(|(member, ..)| member == name);
    if let Some(name) = object.keys().find(|name| !known(name)) {
        let name: String = name.chars().take(NAME_MAX).collect();
        return format!("`{name}` is none of its members");
    }
    for (name, what, fits) in members {
        match object.get(*name) {
            None => return format!("`{name}` is missing"),
            Some(value) if !fits(value) => return format!("`{name}` is {what}"),
            Some(_) => {}
        }
    }
    "a member stands there twice".to_owned()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// An integer of PostgreSQL's `integer`.
pub(super) fn is_int32(value: &Value) -> bool {
    value
        .as_i64()
        .is_some_and(|value| i32::try_from(value).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Example {
        id: i32,
        name: String,
    }

    const MEMBERS: [Member; 2] = [
        ("id", "an integer", is_int32),
        ("name", "a string", Value::is_string),
    ];

    #[test]
    fn each_fault_of_a_body_is_told_in_plain_words() {
        for (body, fault) in [
            ("", "it is empty"),
            ("[]", "it is a list"),
            ("null", "it is null"),
            ("{\"id\"", "it is no JSON (line 1, column 5)"),
            ("{\"id\":1}", "`name` is missing"),
            ("{\"id\":1.5,\"name\":\"x\"}", "`id` is an integer"),
            ("{\"id\":9876543210,\"name\":\"x\"}", "`id` is an integer"),
            ("{\"id\":1,\"name\":null}", "`name` is a string"),
            (
                "{\"id\":1,\"name\":\"x\",\"more\":1}",
                "`more` is none of its members",
            ),
            (
                "{\"id\":1,\"name\":\"x\",\"id\":1}",
                "a member stands there twice",
            ),
        ] {
            let problem = read::<Example>(body.as_bytes(), &MEMBERS).unwrap_err();
            let detail = format!("the body is a JSON object with \"id\", \"name\": {fault}");
            assert_eq!(problem.detail, detail, "{body}");
        }
        assert!(read::<Example>(b"{\"name\":\"x\",\"id\":1}", &MEMBERS).is_ok());
    }
}
