//! What is left to fall back on, who is suspected, and what happened: cache, budgets, quarantine,
//! events. Pure.

use super::Maker;
use super::cells::{joined, name_of};
use crate::top::figures::{bytes, percent, plural, time};
use crate::top::fit::Part;
use crate::top::ink::{Kind, cut, side_by_side};
use crate::top::picture::{Budget, Picture};
use crate::top::table::{Cell, Column, Side, column};

/// `bingo events` shows more.
const EVENTS_MAX: usize = 20;
/// Of what may be sent again; above it, it is nearly all used.
const USED_SHARE_HIGH: f64 = 0.8;

impl Maker<'_> {
    pub(super) fn reserves(&self) -> Part {
        let Picture {
            cache,
            budgets,
            held,
            sheds,
            ..
        } = self.picture;
        let asked = cache.hits + cache.misses;
        let hits = match asked > 0.0 {
            true => format!("{} answered", percent(cache.hits, asked)),
            false => "nothing asked".to_owned(),
        };
        let size = bytes(Some(cache.bytes));
        let answers = plural(cache.entries, "answer", "answers");
        let span = |text: String, kind| vec![self.ink.span(text, kind)];
        let budget = |name: &str, one: &Budget| {
            let is_high = one.used_per_second > one.per_second_max * USED_SHARE_HIGH;
            let kind = if is_high { Kind::Bad } else { Kind::Plain };
            let used = percent(one.used_per_second, one.per_second_max);
            span(format!("{name} budget {used} used"), kind)
        };
        let limit = |name: &str, count: u64, kind| {
            let kind = if count > 0 { kind } else { Kind::Plain };
            span(format!("{name} {count}"), kind)
        };
        let parts = vec![
            span("Reserves".to_owned(), Kind::Head),
            budget("retry", &budgets.retry),
            budget("hedge", &budgets.hedge),
            limit("held", *held, Kind::Warning),
            limit("shed", *sheds, Kind::Bad),
            span(format!("cache {hits}"), Kind::Plain),
            span(format!("{answers}, {size}"), Kind::Plain),
        ];
        self.one_line(side_by_side(parts, self.width), 8)
    }

    pub(super) fn quarantine(&self) -> Part {
        const COLUMNS: [Column; 5] = [
            column("Quarantine", Side::Left, 0),
            column("Verdict", Side::Left, 0),
            column("Until", Side::Left, 1),
            column("Node", Side::Left, 2),
            column("Why", Side::Rest, 3),
        ];
        let quarantine = &self.picture.quarantine;
        let convicted = quarantine
            .convicted
            .iter()
            .map(|one| (one, "convicted", Kind::Bad));
        let suspected = quarantine
            .suspected
            .iter()
            .map(|one| (one, "suspected", Kind::Warning));
        let rows = convicted.chain(suspected).map(|(charge, verdict, kind)| {
            let until = match charge.until.as_str() {
                "" => "its trial".to_owned(),
                until => time(until, self.now),
            };
            vec![
                cut(&name_of(&charge.method, &charge.target), self.width / 2).into(),
                Cell::Words(verdict.to_owned(), kind),
                until.into(),
                charge.node.as_str().into(),
                charge.reason.as_str().into(),
            ]
        });
        let rows: Vec<Vec<Cell>> = rows.collect();
        if rows.is_empty() {
            return Part::default();
        }
        let (convicted, suspected) = (quarantine.convicted.len(), quarantine.suspected.len());
        let short = format!("{convicted} convicted, {suspected} suspected");
        self.table("Quarantine", short, &COLUMNS, &rows, 3, 5)
    }

    pub(super) fn events(&self) -> Part {
        const COLUMNS: [Column; 5] = [
            column("Events", Side::Left, 0),
            column("What", Side::Left, 0),
            column("Whom", Side::Left, 0),
            column("Told by", Side::Left, 2),
            column("Why", Side::Rest, 1),
        ];
        let events = self.picture.events.iter().rev().take(EVENTS_MAX);
        let rows = events.map(|event| {
            vec![
                time(&event.at, self.now).into(),
                event.kind.as_str().into(),
                event.subject.as_str().into(),
                event.source.as_str().into(),
                event.reason.as_str().into(),
            ]
        });
        let rows: Vec<Vec<Cell>> = rows.collect();
        let Some(last) = self.picture.events.last() else {
            return Part::default();
        };
        let at = time(&last.at, self.now);
        let short = joined([
            &format!("{at} {} {}", last.kind, last.subject),
            &last.reason,
        ]);
        self.table("Events", short, &COLUMNS, &rows, 4, 2)
    }
}
