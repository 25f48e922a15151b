//! `bingo top`: the picture of the live page in a terminal, live; or one frame of it as text; or as
//! JSON. `bingo up` shows a summary of the same drawing.

mod draw;
mod figures;
mod fit;
mod ink;
mod parts;
mod picture;
mod plain;
mod screen;
pub(crate) mod summary;
mod table;

use std::io::IsTerminal;

use chassis::{Exit, Failure};
use jiff::{Timestamp, Zoned};
use local::{Gateways, Told};
use ratatui::crossterm::terminal;

use crate::up::Place;
use crate::{output, runtime};
use draw::{Look, page};
use picture::Seen;

/// Of a terminal that does not say how large it is, and where there is none.
const WINDOW: (u16, u16) = (80, 24);
/// One frame as text is read at leisure: reasons find room in it.
const ONCE_COLUMNS: u16 = 120;
const ONCE_ROWS: u16 = 1000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Admin listener of a gateway to ask instead, such as http://127.0.0.1:9090
    #[arg(long, value_name = "URL", value_parser = local::gateway_authority)]
    url: Option<String>,
    /// Print one frame as text
    #[arg(long)]
    once: bool,
    /// Print the picture as JSON
    #[arg(long, conflicts_with = "once")]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let gateways = gateways(arguments)?;
    if arguments.json {
        return output::json(&ask(gateways)?.picture);
    }
    if arguments.once {
        return once(gateways);
    }
    if !can_draw() {
        return Err(Failure::new(
            Exit::Usage,
            "show the installation in this terminal",
            "stdout is no terminal that can be drawn on",
            "bingo top --once prints one frame as text, --json the picture",
        ));
    }
    runtime::run(async {
        let shutdown = runtime::shutdown_on_signals()?;
        // It blocks: the runtime's other threads take the signals meanwhile.
        tokio::task::block_in_place(|| screen::show(gateways, &shutdown))
    })
}

fn gateways(arguments: &Arguments) -> Result<Gateways, Failure> {
    if let Some(authority) = &arguments.url {
        return Ok(Gateways::at(authority.clone()));
    }
    let layout = arguments.place.layout()?;
    if !layout.is_ours() {
        return Err(Failure::new(
            Exit::NotRunning,
            format!("show the installation in {}", layout.root().display()),
            "there is none",
            "name its folder with --dir, or a gateway's admin listener with --url",
        ));
    }
    Ok(Gateways::of(layout))
}

fn ask(mut gateways: Gateways) -> Result<Told, Failure> {
    gateways.ask(parts::HISTORY_SECONDS).map_err(|why| {
        let help = "bingo status says what runs, bingo logs NAME why one does not";
        let why = format!("none answers: {}", why.join("; "));
        Failure::run_time("ask the gateways for the picture", why, help)
    })
}

/// All lines of it: there is no edge behind which more would be.
fn once(gateways: Gateways) -> Result<Exit, Failure> {
    let told = ask(gateways)?;
    let mut seen = Seen::default();
    seen.take(Ok(told), Timestamp::now());
    let look = Look {
        is_whole: true,
        ..Look::default()
    };
    let columns = match std::io::stdout().is_terminal() {
        true => window().0,
        false => ONCE_COLUMNS,
    };
    let frame = page(&seen, &Zoned::now(), &look, (columns, ONCE_ROWS));
    output::text(&plain::text(&frame, false))
}

/// Whether stdout is a terminal whose cursor can be moved.
pub(crate) fn can_draw() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !is_dumb
}

/// Columns and rows of the terminal.
fn window() -> (u16, u16) {
    let size = terminal::size().unwrap_or(WINDOW);
    if size.0 == 0 || size.1 == 0 {
        return WINDOW;
    }
    size
}
