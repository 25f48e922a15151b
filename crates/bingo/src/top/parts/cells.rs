//! Words that stand in the cells of several tables: states, tallies, shares, budgets. Pure.

use std::collections::BTreeMap;

use crate::top::figures::{NOTHING, UNKNOWN, bytes, latency, percent};
use crate::top::ink::Kind;
use crate::top::picture::{Objective, Standing};
use crate::top::table::Cell;

/// Of a budget; below it, it is nearly spent.
const LEFT_PERCENT_LOW: f64 = 25.0;

/// What no route names is counted as one.
pub(super) fn name_of(method: &str, route: &str) -> String {
    match (method, route) {
        ("other", "other") => "other".to_owned(),
        _ => format!("{method} {route}"),
    }
}

pub(super) fn joined(words: [&str; 2]) -> String {
    let there: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    there.join("; ")
}

/// Who of the others sees it otherwise, in words.
pub(super) fn others(said: &BTreeMap<String, String>) -> String {
    let said = said.iter().map(|(who, word)| format!("{who} says {word}"));
    said.collect::<Vec<_>>().join(", ")
}

pub(super) fn state(word: &str) -> Cell {
    let kind = match word {
        "healthy" | "answers" | "primary" | "replica" | "done" => Kind::Good,
        "ejected" | "silent" | "away" | "unhealthy" | "failed" | "stopped" => Kind::Bad,
        "draining" | "maintenance" | "starting" => Kind::Warning,
        _ => Kind::Plain,
    };
    let word = if word.is_empty() { UNKNOWN } else { word };
    Cell::Words(word.to_owned(), kind)
}

/// How many are in each state.
pub(super) fn tally<'a>(states: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for state in states {
        *counts.entry(state).or_default() += 1;
    }
    let counts = counts
        .into_iter()
        .map(|(state, count)| format!("{count} {state}"));
    let words = counts.collect::<Vec<_>>().join(", ");
    if words.is_empty() {
        "none".to_owned()
    } else {
        words
    }
}

pub(super) fn counted(text: String, is_bad: bool) -> Cell {
    let kind = if is_bad { Kind::Bad } else { Kind::Plain };
    Cell::Words(text, kind)
}

pub(super) fn known(count: Option<impl ToString>) -> Cell {
    count
        .map_or(UNKNOWN.to_owned(), |count| count.to_string())
        .into()
}

pub(super) fn measured(seconds: Option<f64>) -> Cell {
    match seconds {
        Some(_) => latency(seconds).into(),
        None => UNKNOWN.into(),
    }
}

pub(super) fn used(all: Option<u64>, free: Option<u64>) -> String {
    let Some((all, free)) = all.zip(free) else {
        return UNKNOWN.to_owned();
    };
    let share = percent(all.saturating_sub(free) as f64, all as f64);
    format!("{share} of {}", bytes(Some(all)))
}

/// The lesser of the two halves of a promise.
pub(super) fn budget_left(objective: &Objective) -> Cell {
    let Standing {
        requests,
        errors,
        slow,
    } = &objective.day;
    if *requests == 0 {
        return NOTHING.into();
    }
    let parts = [Some(errors), slow.as_ref()];
    let left = parts
        .into_iter()
        .flatten()
        .filter_map(|part| part.left_percent);
    match left.min_by(f64::total_cmp) {
        None => NOTHING.into(),
        Some(left) if left < 0.0 => Cell::Words("spent".to_owned(), Kind::Bad),
        Some(left) if left < LEFT_PERCENT_LOW => Cell::Words(format!("{left:.0} %"), Kind::Warning),
        Some(left) => format!("{left:.0} %").into(),
    }
}
