//! Which lines are shown where not all find room. Each part of the picture has a short form of one
//! line; then the parts that matter most get as many lines as they need at least, then as many as they
//! have. Of what is left out a line says how much that is. Pure.

use ratatui::text::Line;

use super::ink::{Ink, Kind};

/// One part of the picture.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// All of it in one line.
    pub(super) short: Line<'static>,
    /// All of it, its head the first; none: there is nothing to say.
    pub(super) rows: Vec<Line<'static>>,
    /// So many of them say what matters.
    pub(super) least: usize,
    /// 0 matters most.
    pub(super) rank: u8,
}

/// All lines, a blank one between two parts.
pub(super) fn whole(parts: Vec<Part>) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for part in parts.into_iter().filter(|part| !part.rows.is_empty()) {
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.extend(part.rows);
    }
    lines
}

/// In at most `height` lines.
pub(super) fn fitted(parts: Vec<Part>, height: usize, ink: Ink) -> Vec<Line<'static>> {
    let mut parts = parts;
    parts.retain(|part| !part.rows.is_empty());
    let heights = heights(&parts, height);
    let shown = heights.iter().filter(|height| **height > 0).count();
    let spare = height.saturating_sub(heights.iter().sum());
    let is_airy = shown == parts.len() && spare >= shown;
    let mut lines = Vec::new();
    for (part, height) in parts.into_iter().zip(heights) {
        if is_airy && !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.extend(part_of(part, height, ink));
    }
    lines
}

fn part_of(part: Part, height: usize, ink: Ink) -> Vec<Line<'static>> {
    if height >= part.rows.len() {
        return part.rows;
    }
    match height {
        0 => Vec::new(),
        1 => vec![part.short],
        _ => {
            let left_out = part.rows.len() - (height - 1);
            let mut lines = part.rows;
            lines.truncate(height - 1);
            lines.push(ink.line(format!("… {left_out} more"), Kind::Quiet));
            lines
        }
    }
}

/// Lines of each part. A head with nothing below it says less than the short form.
fn heights(parts: &[Part], height: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|index| parts.get(*index).map(|part| part.rank));
    let mut left = height;
    let mut heights = vec![0; parts.len()];
    let stages: [fn(&Part) -> usize; 3] = [
        |_| 1,
        |part| part.least.min(part.rows.len()),
        |part| part.rows.len(),
    ];
    for wanted in stages {
        for index in &order {
            let (Some(part), Some(own)) = (parts.get(*index), heights.get_mut(*index)) else {
                continue;
            };
            let all = part.rows.len();
            let grown = wanted(part).max(*own).min(*own + left);
            let says_something = grown != 2 || all == 2;
            if says_something {
                left -= grown - *own;
                *own = grown;
            }
        }
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, rows: usize, least: usize, rank: u8) -> Part {
        Part {
            short: Line::from(format!("{name} in short")),
            rows: (0..rows)
                .map(|row| Line::from(format!("{name} {row}")))
                .collect(),
            least,
            rank,
        }
    }

    fn shown(height: usize) -> Vec<String> {
        let parts = vec![
            part("a", 6, 3, 1),
            part("none", 0, 0, 0),
            part("b", 4, 4, 0),
        ];
        let lines = fitted(parts, height, Ink::default());
        lines.iter().map(Line::to_string).collect()
    }

    #[test]
    fn the_part_that_matters_most_grows_first_and_the_order_stays() {
        assert_eq!(shown(1), ["b in short"]);
        assert_eq!(shown(2), ["a in short", "b in short"]);
        assert_eq!(shown(5), ["a in short", "b 0", "b 1", "b 2", "b 3"]);
    }

    #[test]
    fn what_is_left_out_is_counted() {
        assert_eq!(shown(4), ["a in short", "b 0", "b 1", "… 2 more"]);
        assert_eq!(shown(7)[..3], ["a 0", "a 1", "… 4 more"]);
    }

    #[test]
    fn with_room_to_spare_parts_stand_apart() {
        assert_eq!(shown(12)[5..8], ["a 5", "", "b 0"]);
        assert_eq!(shown(10)[5..7], ["a 5", "b 0"]);
        assert!(shown(0).is_empty());
    }

    #[test]
    fn the_whole_leaves_nothing_out_but_what_says_nothing() {
        let lines = whole(vec![
            part("a", 2, 1, 0),
            part("none", 0, 0, 0),
            part("b", 1, 1, 0),
        ]);
        assert_eq!(lines.len(), 4);
    }
}
