//! One frame: the line that says whether all is well, the parts of the picture, and the keys. It is made
//! as lines, so that `bingo top`, its one frame as text and the summary under a foreground `bingo up`
//! are the same drawing. Where the terminal is too small the parts are shortened (`fit`), or all lines
//! are scrolled through. Pure: `now` with its zone comes along.

use std::ops::Range;

use jiff::Zoned;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::figures::{plural, time};
use super::fit;
use super::ink::{Ink, Kind, cut, side_by_side, wrapped};
use super::parts::Maker;
use super::picture::{Picture, Seen};

/// Reasons why no gateway answers that are shown.
const SILENCE_LINES_MAX: usize = 4;

/// What of it is shown, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    pub(crate) ink: Ink,
    /// All lines instead of those that fit.
    pub(crate) is_whole: bool,
    /// Lines of the whole that are passed.
    pub(crate) scroll: usize,
    /// The last lines, such as the keys.
    pub(crate) foot: Vec<String>,
}

/// Draws it into the whole frame; returns how far it could be scrolled.
pub(crate) fn draw(frame: &mut Frame<'_>, seen: &Seen, now: &Zoned, look: &Look) -> usize {
    let Rect { width, height, .. } = frame.area();
    let buffer = frame.buffer_mut();
    let mut foot = foot(look, width);
    let room = height.saturating_sub(foot.len() as u16);
    let (lines, scroll_max) = lines(seen, now, look, width.into(), room.into());
    let below = scroll_max.saturating_sub(look.scroll);
    if let Some(keys) = foot.last_mut().filter(|_| below > 0) {
        let below = plural(below, "more line", "more lines");
        let words = format!("   ↓ {below}");
        keys.push_span(look.ink.span(words, Kind::Head));
    }
    paint(buffer, 0..room, &lines);
    paint(buffer, room..height, &foot);
    scroll_max
}

/// A frame without a terminal: as high as it has lines, `height` at most.
pub(crate) fn page(seen: &Seen, now: &Zoned, look: &Look, (width, height): (u16, u16)) -> Buffer {
    let foot = foot(look, width);
    let room = height.saturating_sub(foot.len() as u16);
    let (mut lines, _) = lines(seen, now, look, width.into(), room.into());
    lines.extend(foot);
    let rows = height.min(lines.len() as u16);
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, rows));
    paint(&mut buffer, 0..rows, &lines);
    buffer
}

fn paint(buffer: &mut Buffer, rows: Range<u16>, lines: &[Line<'_>]) {
    let width = buffer.area().width;
    for (row, line) in rows.zip(lines) {
        buffer.set_line(0, row, line, width);
    }
}

fn foot(look: &Look, width: u16) -> Vec<Line<'static>> {
    let lines = look.foot.iter().map(|text| {
        let text = cut(text, width.into());
        look.ink.line(text, Kind::Quiet)
    });
    lines.collect()
}

/// At most `height` lines, and how far they could be scrolled.
fn lines(
    seen: &Seen,
    now: &Zoned,
    look: &Look,
    width: usize,
    height: usize,
) -> (Vec<Line<'static>>, usize) {
    let ink = look.ink;
    let mut all = head(seen, now, ink, width);
    let room = height.saturating_sub(all.len());
    let parts = seen.picture.as_ref().map(|picture| {
        let maker = Maker {
            seen,
            picture,
            now,
            width,
            ink,
        };
        maker.all()
    });
    let parts = parts.unwrap_or_default();
    let mut scroll_max = 0;
    if look.is_whole {
        let body = fit::whole(parts);
        scroll_max = body.len().saturating_sub(room);
        let passed = look.scroll.min(scroll_max);
        all.extend(body.into_iter().skip(passed).take(room));
    } else {
        all.extend(fit::fitted(parts, room, ink));
    }
    all.truncate(height);
    (all, scroll_max)
}

/// Whether all is well; where no gateway answers that, since when, and why.
fn head(seen: &Seen, now: &Zoned, ink: Ink, width: usize) -> Vec<Line<'static>> {
    let is_lost = seen.is_lost(now.timestamp());
    let (words, kind) = match &seen.picture {
        _ if is_lost => ("? Connection lost".to_owned(), Kind::Warning),
        None => ("Looking…".to_owned(), Kind::Quiet),
        Some(picture) => verdict(picture),
    };
    let of = seen.picture.as_ref().map(|picture| {
        let at = time(&picture.at, now);
        format!("as of {at}, told by {}", picture.by)
    });
    let span = |text: String, kind: Kind| vec![Span::styled(text, ink.style(kind))];
    let mut parts = vec![span("bingo".to_owned(), Kind::Head), span(words, kind)];
    parts.extend(of.map(|of| span(of, Kind::Quiet)));
    let mut lines = vec![side_by_side(parts, width)];
    if is_lost {
        let told = match &seen.picture {
            Some(picture) => format!(
                "No gateway answers. These figures are of {}; what happened since then is not known.",
                time(&picture.at, now)
            ),
            None => "No gateway answers; nothing is known yet.".to_owned(),
        };
        let told = wrapped(&told, 0, width).into_iter();
        lines.extend(told.map(|text| ink.line(text, Kind::Bad)));
        let why = seen.silence.iter().take(SILENCE_LINES_MAX);
        lines.extend(why.map(|why| ink.line(cut(&format!("  {why}"), width), Kind::Plain)));
    }
    lines
}

fn verdict(picture: &Picture) -> (String, Kind) {
    let bad = picture.problems.iter().filter(|one| one.is_bad()).count();
    let warnings = picture.problems.len() - bad;
    match (bad, warnings) {
        (0, 0) => ("✔ All is well".to_owned(), Kind::Good),
        (0, _) => (
            format!("▲ {}", plural(warnings, "warning", "warnings")),
            Kind::Warning,
        ),
        _ => (
            format!("✖ {}", plural(bad, "problem", "problems")),
            Kind::Bad,
        ),
    }
}

#[cfg(test)]
mod tests;
