//! `bingo top` on a terminal: keys, the size of the window and new pictures become frames. A thread of
//! its own asks the gateways, because one that hangs takes seconds to be given up, and a key must not
//! wait for that.
//!
//! However it ends, the terminal is as before: by a key, by SIGTERM, by an error, by a panic.

use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use chassis::{Exit, Failure, Shutdown};
use jiff::{Timestamp, Zoned};
use local::{Gateways, Told};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::draw::{Look, draw};
use super::ink::Ink;
use super::parts::HISTORY_SECONDS;
use super::picture::Seen;

/// How often gateways are asked; they make a picture as often.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a key is waited for, before it is looked whether there is something new.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Lines that a page key leaves in sight.
const PAGE_OVERLAP: usize = 2;

const KEYS: &str = "q quit   a all lines   ↑↓ scroll   ? what is what";
const HELP: [&str; 4] = [
    "req/s, err/s (5xx), 4xx, p50, p90, p99: of the last 10 seconds, three seconds late",
    "Budget: what is left of the errors and slow answers that the objective allows, at most of a day",
    "↑ ↓ PgUp PgDn Home End scroll through all lines; a or Tab: all lines, or those that fit",
    "q Esc Ctrl-C quit; bingo status, events and logs NAME say more; ? closes this",
];

/// What answered, again and again.
pub(super) struct Asked {
    answers: Receiver<Result<Told, Vec<String>>>,
}

impl Asked {
    /// Asks from now on, until this is dropped.
    pub(super) fn start(mut gateways: Gateways) -> Self {
        let (sender, answers) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            while sender.send(gateways.ask(HISTORY_SECONDS)).is_ok() {
                std::thread::sleep(ASK_EVERY);
            }
        });
        Self { answers }
    }

    /// Takes in what came since the last call; whether that was anything. Fails when nobody asks any
    /// more.
    pub(super) fn hear(&self, seen: &mut Seen) -> Result<bool, Failure> {
        let mut heard = false;
        loop {
            match self.answers.try_recv() {
                Ok(answer) => seen.take(answer, Timestamp::now()),
                Err(TryRecvError::Empty) => return Ok(heard),
                Err(TryRecvError::Disconnected) => {
                    let help = "report what stands above it";
                    return Err(Failure::run_time("ask the gateways", "it broke", help));
                }
            }
            heard = true;
        }
    }
}

/// Shows it until a key or `shutdown` ends it.
pub(super) fn show(gateways: Gateways, shutdown: &Shutdown) -> Result<Exit, Failure> {
    let asked = Asked::start(gateways);
    // It restores the terminal in a panic, too.
    let terminal = ratatui::try_init();
    let shown = terminal
        .map_err(|error| unusable(&error))
        .and_then(|mut terminal| watch(&mut terminal, &asked, shutdown));
    ratatui::restore();
    shown
}

fn unusable(error: &std::io::Error) -> Failure {
    let help = "bingo top --once prints one frame, --json the picture";
    Failure::run_time("show the installation in this terminal", error, help)
}

fn watch(
    terminal: &mut DefaultTerminal,
    asked: &Asked,
    shutdown: &Shutdown,
) -> Result<Exit, Failure> {
    let mut seen = Seen::default();
    let mut keys = Keys::default();
    let ink = Ink::of_environment();
    let mut drawn_at = None;
    while !shutdown.is_requested() {
        let now = Zoned::now();
        let is_new = asked.hear(&mut seen)?;
        let second = Some(now.timestamp().as_second());
        if is_new || keys.is_changed || drawn_at != second {
            drawn_at = second;
            keys.is_changed = false;
            let look = keys.look(ink);
            let drawing = terminal.draw(|frame| {
                keys.rows = frame.area().height.into();
                keys.scroll_max = draw(frame, &seen, &now, &look);
            });
            drawing.map_err(|error| unusable(&error))?;
        }
        let is_there = event::poll(KEY_WAIT).map_err(|error| unusable(&error))?;
        if is_there {
            let event = event::read().map_err(|error| unusable(&error))?;
            if let Event::Key(key) = event
                && keys.press(key) == Pressed::Quit
            {
                return Ok(Exit::Done);
            }
            // A window of another size, too.
            keys.is_changed = true;
        }
    }
    Ok(Exit::Done)
}

/// What keys have chosen.
#[derive(Debug, Default)]
struct Keys {
    is_whole: bool,
    scroll: usize,
    has_help: bool,
    is_changed: bool,
    /// Of the last frame.
    scroll_max: usize,
    rows: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pressed {
    Quit,
    Other,
}

impl Keys {
    fn look(&self, ink: Ink) -> Look {
        let help = HELP.iter().filter(|_| self.has_help);
        let lines = help.copied().chain((!self.has_help).then_some(KEYS));
        Look {
            ink,
            is_whole: self.is_whole,
            scroll: self.scroll,
            foot: lines.map(str::to_owned).collect(),
        }
    }

    fn press(&mut self, key: KeyEvent) -> Pressed {
        if key.kind == KeyEventKind::Release {
            return Pressed::Other;
        }
        let page = self.rows.saturating_sub(PAGE_OVERLAP + 1).max(1);
        let last = self.scroll_max;
        let at = self.scroll.min(last);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Pressed::Quit;
            }
            KeyCode::Char('q') | KeyCode::Esc => return Pressed::Quit,
            KeyCode::Char('?') => self.has_help = !self.has_help,
            KeyCode::Char('a') | KeyCode::Tab => {
                self.is_whole = !self.is_whole;
                self.scroll = 0;
            }
            KeyCode::Up | KeyCode::Char('k') => self.to(at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.to(at + 1),
            KeyCode::PageUp => self.to(at.saturating_sub(page)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.to(at + page),
            KeyCode::Home => self.to(0),
            KeyCode::End => self.to(usize::MAX),
            _ => {}
        }
        Pressed::Other
    }

    /// Scrolling needs all lines: of those that fit none is hidden behind an edge.
    fn to(&mut self, scroll: usize) {
        // How many lines there are is known after the next frame, which stops at the last.
        let known = self.is_whole;
        self.is_whole = true;
        self.scroll = if known {
            scroll.min(self.scroll_max)
        } else {
            scroll
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(keys: &mut Keys, code: KeyCode) -> Pressed {
        keys.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn each_of_three_keys_quits_and_no_other() {
        let mut keys = Keys::default();
        assert_eq!(press(&mut keys, KeyCode::Char('q')), Pressed::Quit);
        assert_eq!(press(&mut keys, KeyCode::Esc), Pressed::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(keys.press(interrupt), Pressed::Quit);
        assert_eq!(press(&mut keys, KeyCode::Char('c')), Pressed::Other);
    }

    #[test]
    fn scrolling_shows_all_lines_and_ends_at_the_last_one() {
        let mut keys = Keys::default();
        press(&mut keys, KeyCode::Down);
        assert!(keys.is_whole);
        assert_eq!(keys.scroll, 1);
        keys.scroll_max = 5;
        keys.rows = 24;
        press(&mut keys, KeyCode::PageDown);
        assert_eq!(keys.scroll, 5);
        press(&mut keys, KeyCode::Up);
        assert_eq!(keys.scroll, 4);
        press(&mut keys, KeyCode::Home);
        assert_eq!(keys.scroll, 0);
        press(&mut keys, KeyCode::End);
        assert_eq!(keys.scroll, 5);
        press(&mut keys, KeyCode::Tab);
        assert!(!keys.is_whole);
        assert_eq!(keys.scroll, 0);
    }

    #[test]
    fn help_takes_the_place_of_the_keys_until_it_is_closed() {
        let mut keys = Keys::default();
        assert_eq!(keys.look(Ink::default()).foot, [KEYS]);
        press(&mut keys, KeyCode::Char('?'));
        assert_eq!(keys.look(Ink::default()).foot, HELP);
        press(&mut keys, KeyCode::Char('?'));
        assert_eq!(keys.look(Ink::default()).foot, [KEYS]);
    }
}
