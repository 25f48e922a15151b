//! How words look: what is well, ill or in between is said by the word, and a colour only underlines
//! it; without colours the rest stays. Also how wide words are, and how they are cut.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

/// Before the second line of a reason.
const INDENT: &str = "  ";

/// What a word says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
    /// Beside the matter.
    Quiet,
    /// Heads of tables.
    Head,
}

/// With colours, or without (no-color.org).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ink {
    pub(crate) is_coloured: bool,
}

impl Ink {
    pub(crate) fn of_environment() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_coloured = !refused;
        Self { is_coloured }
    }

    pub(super) fn style(self, kind: Kind) -> Style {
        let style = Style::new();
        let coloured = |colour| match self.is_coloured {
            true => style.fg(colour),
            false => style,
        };
        match kind {
            Kind::Plain => style,
            Kind::Good => coloured(Color::Green),
            Kind::Warning => coloured(Color::Yellow),
            Kind::Bad => coloured(Color::Red).add_modifier(Modifier::BOLD),
            Kind::Quiet => style.add_modifier(Modifier::DIM),
            Kind::Head => style.add_modifier(Modifier::BOLD),
        }
    }

    pub(super) fn span(self, text: impl Into<String>, kind: Kind) -> Span<'static> {
        Span::styled(text.into(), self.style(kind))
    }

    pub(super) fn line(self, text: impl Into<String>, kind: Kind) -> Line<'static> {
        Line::from(self.span(text, kind))
    }
}

/// Columns that a text takes on a terminal.
pub(super) fn width_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// The text in at most so many columns, with a sign that something is left out.
pub(super) fn cut(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let (mut kept, mut taken) = (String::new(), 1);
    for c in text.chars() {
        taken += width_of(c.encode_utf8(&mut [0; 4]));
        if taken > width {
            break;
        }
        kept.push(c);
    }
    if width > 0 {
        kept.push('…');
    }
    kept
}

/// Parts side by side, as many as find room.
pub(super) fn side_by_side(parts: Vec<Vec<Span<'static>>>, width: usize) -> Line<'static> {
    let mut line = Line::default();
    for part in parts {
        let gap = if line.spans.is_empty() { 0 } else { 2 };
        let taken: usize = part.iter().map(Span::width).sum();
        if !line.spans.is_empty() && line.width() + gap + taken > width {
            break;
        }
        line.spans.push(Span::raw(" ".repeat(gap)));
        line.spans.extend(part);
    }
    line
}

/// Words in one or two lines of at most so many columns, the first after `before` columns, the second
/// indented; what is more is cut.
pub(super) fn wrapped(text: &str, before: usize, width: usize) -> Vec<String> {
    let mut first = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let gap = if first.is_empty() { "" } else { " " };
        if before + width_of(&first) + width_of(gap) + width_of(word) > width {
            let rest = cut(rest, width.saturating_sub(INDENT.len()));
            return vec![first, format!("{INDENT}{rest}")];
        }
        first.push_str(gap);
        first.push_str(word);
        rest = after;
    }
    vec![first]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_the_column_ends_and_says_so() {
        assert_eq!(cut("node-1", 6), "node-1");
        assert_eq!(cut("node-10", 6), "node-…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("x", 0), "");
    }

    #[test]
    fn a_reason_takes_two_lines_at_most() {
        assert_eq!(wrapped("a b", 2, 5), ["a b"]);
        assert_eq!(wrapped("one two three", 2, 9), ["one two", "  three"]);
        assert_eq!(
            wrapped("one two three four", 2, 9),
            ["one two", "  three …"]
        );
        assert_eq!(wrapped("immeasurable", 2, 6), ["", "  imm…"]);
    }

    #[test]
    fn without_colours_a_problem_is_bold_still() {
        let style = Ink { is_coloured: false }.style(Kind::Bad);
        assert_eq!(style.fg, None);
        assert!(style.add_modifier.contains(Modifier::BOLD));
        let ink = Ink { is_coloured: true };
        assert_eq!(ink.style(Kind::Bad).fg, Some(Color::Red));
    }
}
