//! Rows in columns as wide as their words. Where they find no room the columns that matter least are
//! left out, one after the other, and the last one takes what is left: so a table fits a terminal of
//! any width. Pure.

use ratatui::text::{Line, Span};

use super::ink::{Ink, Kind, cut, width_of};

/// Between two columns.
const GAP: usize = 2;
/// The column that takes what is left is worth no less.
const REST_MIN: usize = 10;
const GRAPH_MAX: usize = 40;
const NAME_MIN: usize = 6;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
    /// Takes what is left of the width.
    Rest,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    head: &'static str,
    side: Side,
    /// 0 is always there; the highest is left out first.
    leaves: u8,
}

pub(super) const fn column(head: &'static str, side: Side, leaves: u8) -> Column {
    Column { head, side, leaves }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Words(String, Kind),
    /// Values one after the other; none is a gap.
    Graph(Vec<Option<f64>>),
}

impl Cell {
    fn width(&self) -> usize {
        match self {
            Self::Words(text, _) => width_of(text),
            Self::Graph(_) => GRAPH_MAX,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Words(text, Kind::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Words(text.to_owned(), Kind::Plain)
    }
}

/// The head and a line for each row.
pub(super) fn lines(
    columns: &[Column],
    rows: &[Vec<Cell>],
    width: usize,
    ink: Ink,
) -> Vec<Line<'static>> {
    let widths = widths(columns, rows, width);
    let heads = columns.iter().map(|column| {
        let head = column.head.to_owned();
        Cell::Words(head, Kind::Head)
    });
    let heads: Vec<Cell> = heads.collect();
    let all = std::iter::once(&heads).chain(rows);
    all.map(|row| line(columns, row, &widths, ink)).collect()
}

fn line(columns: &[Column], row: &[Cell], widths: &[Option<usize>], ink: Ink) -> Line<'static> {
    let mut line = Line::default();
    for ((column, cell), width) in columns.iter().zip(row).zip(widths) {
        let Some(width) = *width else {
            continue;
        };
        if !line.spans.is_empty() {
            line.spans.push(Span::raw(" ".repeat(GAP)));
        }
        let (text, kind) = match cell {
            Cell::Words(text, kind) => (cut(text, width), *kind),
            Cell::Graph(values) => (graph(values, width), Kind::Plain),
        };
        let room = " ".repeat(width.saturating_sub(width_of(&text)));
        let word = ink.span(text, kind);
        match column.side {
            Side::Right => line.spans.extend([Span::raw(room), word]),
            Side::Left => line.spans.extend([word, Span::raw(room)]),
            Side::Rest => line.spans.push(word),
        }
    }
    line
}

/// Of each column; none: it is left out.
fn widths(columns: &[Column], rows: &[Vec<Cell>], width: usize) -> Vec<Option<usize>> {
    let natural = columns.iter().enumerate().map(|(index, column)| {
        let cells = rows.iter().filter_map(|row| row.get(index));
        let widest = cells.map(Cell::width).max().unwrap_or_default();
        Some(widest.max(width_of(column.head)))
    });
    let mut widths: Vec<Option<usize>> = natural.collect();
    let least = |widths: &[Option<usize>]| {
        let taken = columns.iter().zip(widths).filter_map(|(column, width)| {
            width.map(|width| match column.side {
                Side::Rest => width.min(REST_MIN) + GAP,
                _ => width + GAP,
            })
        });
        taken.sum::<usize>().saturating_sub(GAP)
    };
    while least(&widths) > width {
        let there = columns.iter().zip(&mut widths);
        let there = there.filter(|(column, width)| width.is_some() && column.leaves > 0);
        match there.max_by_key(|(column, _)| column.leaves) {
            Some((_, last)) => *last = None,
            None => break,
        }
    }
    let over = least(&widths).saturating_sub(width);
    if let Some(Some(name)) = widths.first_mut() {
        *name = name.saturating_sub(over).max(NAME_MIN.min(*name));
    }
    let left = width.saturating_sub(least(&widths));
    for (column, own) in columns.iter().zip(&mut widths) {
        if let Some(own) = own
            && column.side == Side::Rest
        {
            *own = (*own).min(REST_MIN.min(*own) + left);
        }
    }
    widths
}

/// So many bars, each the mean of its part of the values, the highest of all at full height; zero is
/// the lowest bar, a gap is none.
fn graph(values: &[Option<f64>], width: usize) -> String {
    if values.is_empty() {
        return String::new();
    }
    let parts = (0..width).map(|bar| {
        let from = bar * values.len() / width;
        let to = ((bar + 1) * values.len() / width).max(from + 1);
        let known = values.get(from..to).unwrap_or_default().iter().flatten();
        let count = known.clone().count();
        (count > 0).then(|| known.sum::<f64>() / count as f64)
    });
    let parts: Vec<Option<f64>> = parts.collect();
    let most = parts.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |part: &Option<f64>| {
        let Some(part) = part else {
            return ' ';
        };
        let share = if most > 0.0 { part / most } else { 0.0 };
        let step = (share * (BARS.len() - 1) as f64).ceil() as usize;
        BARS.get(step).copied().unwrap_or(' ')
    };
    parts.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        column("Node", Side::Left, 0),
        column("Rate", Side::Right, 1),
        column("Failed", Side::Right, 2),
        column("Why", Side::Rest, 3),
    ];

    fn shown(width: usize) -> Vec<String> {
        let cells = |texts: [&str; 4]| texts.into_iter().map(Cell::from).collect();
        let rows: [Vec<Cell>; 2] = [
            cells(["node-1", "1.5", "0 %", "its process ended by a signal"]),
            cells(["node-2", "12.5", "0 %", ""]),
        ];
        let lines = lines(&COLUMNS, &rows, width, Ink::default());
        lines.iter().map(Line::to_string).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_words_and_the_last_takes_the_rest() {
        assert_eq!(
            shown(36),
            [
                "Node    Rate  Failed  Why",
                "node-1   1.5     0 %  its process e…",
                "node-2  12.5     0 %  ",
            ]
        );
    }

    #[test]
    fn what_matters_least_is_left_out_first_and_the_name_last_of_all() {
        assert_eq!(shown(31)[1], "node-1   1.5     0 %");
        assert_eq!(shown(19)[1], "node-1   1.5");
        assert_eq!(shown(11)[1], "node-1");
        assert_eq!(shown(0)[1], "node-1");
    }

    #[test]
    fn a_graph_tells_zero_from_what_nobody_counted() {
        let values = [
            Some(0.0),
            Some(0.0),
            None,
            None,
            Some(1.0),
            Some(1.0),
            Some(4.0),
            Some(4.0),
        ];
        assert_eq!(graph(&values, 4), "▁ ▃█");
        assert_eq!(graph(&[Some(0.0)], 3), "▁▁▁");
        assert_eq!(graph(&[], 3), "");
    }
}
