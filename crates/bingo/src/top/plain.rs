//! A drawn frame as text: for `--once`, and for the summary that stands below what `bingo up` printed,
//! where the rest of the terminal must stay as it is. Codes of ECMA-48 (SGR) only where asked for.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

use super::ink::width_of;

/// Lines without trailing blanks, each with its end.
pub(crate) fn text(buffer: &Buffer, has_codes: bool) -> String {
    let columns = usize::from(buffer.area().width).max(1);
    let rows = buffer.content().chunks(columns);
    let rows = rows.map(|cells| {
        let mut row = Row::default();
        let mut covered = 0_usize;
        for cell in cells {
            // The cell behind a wide sign is covered by it.
            if covered > 0 {
                covered -= 1;
                continue;
            }
            covered = width_of(cell.symbol()).saturating_sub(1);
            row.push(cell.symbol(), cell.style(), has_codes);
        }
        row.end()
    });
    rows.collect()
}

#[derive(Default)]
struct Row {
    text: String,
    codes: String,
    /// Blanks that may turn out to be the last ones.
    blanks: usize,
}

impl Row {
    fn push(&mut self, symbol: &str, style: Style, has_codes: bool) {
        if symbol == " " {
            self.blanks += 1;
            return;
        }
        let codes = if has_codes {
            codes(style)
        } else {
            String::new()
        };
        self.text
            .push_str(&" ".repeat(std::mem::take(&mut self.blanks)));
        if codes != self.codes {
            self.text.push_str(&format!("\x1b[0{codes}m"));
            self.codes = codes;
        }
        self.text.push_str(symbol);
    }

    fn end(mut self) -> String {
        if !self.codes.is_empty() {
            self.text.push_str("\x1b[0m");
        }
        self.text.push('\n');
        self.text
    }
}

/// Those that `Ink` uses.
fn codes(style: Style) -> String {
    let modifiers = [(Modifier::BOLD, ";1"), (Modifier::DIM, ";2")];
    let modifiers = modifiers.into_iter();
    let set = modifiers.filter(|(modifier, _)| style.add_modifier.contains(*modifier));
    let mut codes: String = set.map(|(_, code)| code).collect();
    codes.push_str(match style.fg {
        Some(Color::Red) => ";31",
        Some(Color::Green) => ";32",
        Some(Color::Yellow) => ";33",
        _ => "",
    });
    codes
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::layout::Rect;

    fn buffer() -> Buffer {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 9, 2));
        buffer.set_string(0, 0, "ill", Style::new().fg(Color::Red));
        buffer.set_string(4, 0, "日x", Style::new());
        buffer
    }

    #[test]
    fn a_frame_as_text_has_no_codes_and_no_trailing_blanks() {
        assert_eq!(text(&buffer(), false), "ill 日x\n\n");
    }

    #[test]
    fn codes_end_with_the_words_that_they_are_for() {
        assert_eq!(text(&buffer(), true), "\x1b[0;31mill \x1b[0m日x\n\n");
    }
}
