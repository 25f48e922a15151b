//! The summary below what `bingo up` printed, as long as it runs in the foreground: the same drawing in
//! a few lines, made anew each second where it stands. Neither another screen nor raw keys: the
//! addresses above it stay, and Ctrl-C ends the installation as ever.

use std::io::Write;
use std::time::Duration;

use jiff::Zoned;
use local::{Gateways, Layout};

use super::draw::{Look, page};
use super::ink::Ink;
use super::picture::Seen;
use super::screen::Asked;
use super::{plain, window};

/// More would push the addresses out of sight.
const ROWS_MAX: u16 = 16;
const POLL: Duration = Duration::from_millis(50);

/// Shows it until `goes_on` says no.
pub(crate) fn show(layout: &Layout, goes_on: &mut dyn FnMut() -> bool) {
    let asked = Asked::start(Gateways::of(layout.clone()));
    let mut seen = Seen::default();
    let dir = layout.root().display();
    let look = Look {
        ink: Ink::of_environment(),
        foot: vec![format!(
            "Ctrl-C ends everything; bingo top --dir {dir} shows all"
        )],
        ..Look::default()
    };
    let (mut rows, mut drawn_at) = (0, None);
    while goes_on() {
        let now = Zoned::now();
        let Ok(is_new) = asked.hear(&mut seen) else {
            return;
        };
        let second = Some(now.timestamp().as_second());
        if is_new || drawn_at != second {
            drawn_at = second;
            let (columns, lines) = window();
            let size = (columns, ROWS_MAX.min(lines.saturating_sub(2)));
            let text = plain::text(&page(&seen, &now, &look, size), true);
            let mut out = std::io::stdout().lock();
            if rows > 0 {
                // Cursor up and clear to the end (ECMA-48 CUU, ED).
                let _ = write!(out, "\x1b[{rows}A\x1b[J");
            }
            let _ = write!(out, "{text}");
            let _ = out.flush();
            rows = text.lines().count();
        }
        std::thread::sleep(POLL);
    }
}
