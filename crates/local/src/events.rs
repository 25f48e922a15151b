//! `bingo events`: what happened in an installation, as all its processes told it, in the order of
//! time.

use std::io::{self, Write};
use std::time::Duration;

use chassis::Failure;
use chassis::events::{self, History, Told};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::layout::Layout;
use crate::logs::Selection;

/// How often a followed file is looked at.
const FOLLOW_POLL: Duration = Duration::from_millis(200);

/// Writes the chosen events to `out`; none is none. Exit 1 where there is no
/// installation or the file cannot be read.
pub fn show(layout: &Layout, selection: &Selection, out: &mut dyn Write) -> Result<(), Failure> {
    let path = layout.events_file();
    if !layout.is_ours() && !path.exists() {
        return Err(Failure::run_time(
            format!("read the events of {}", layout.root().display()),
            "there is no installation",
            "name its folder: bingo events --dir PATH",
        ));
    }
    match write(layout, selection, out) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let attempted = format!("read the events in {}", path.display());
            let help = "run as root or as the user who started the installation";
            Err(Failure::run_time(attempted, error, help))
        }
        _ => Ok(()),
    }
}

fn write(layout: &Layout, selection: &Selection, out: &mut dyn Write) -> io::Result<()> {
    let path = layout.events_file();
    // Before anything is read: what is written meanwhile may be shown twice, and is never left out.
    let mut history = History::from_now(&path);
    let since = selection.since.map(events::at).unwrap_or_default();
    let all = events::read(&path, &since)?;
    let first = selection
        .lines
        .map_or(0, |lines| all.len().saturating_sub(lines));
    for told in all.iter().skip(first) {
        line(told, selection, out)?;
    }
    out.flush()?;
    if !selection.follow {
        return Ok(());
    }
    let mut last = all.last().cloned();
    loop {
        std::thread::sleep(FOLLOW_POLL);
        let mut new = history.news()?;
        if let Some(last) = last.take() {
            let shown = new.iter().rposition(|told| *told == last);
            new.drain(..shown.map_or(0, |at| at + 1));
        }
        for told in &new {
            line(told, selection, out)?;
        }
        out.flush()?;
    }
}

fn line(told: &Told, selection: &Selection, out: &mut dyn Write) -> io::Result<()> {
    if selection.json {
        serde_json::to_writer(&mut *out, told)?;
        return out.write_all(b"\n");
    }
    let Told {
        source,
        kind,
        subject,
        reason,
        ..
    } = told;
    // What others wrote is not to move anybody's cursor.
    let plain = |text: &str| text.replace(char::is_control, " ");
    let text = format!(
        "{} {:<11} {:<13} {:<11} {}",
        local_time(&told.at),
        plain(source),
        plain(kind),
        plain(subject),
        plain(reason)
    );
    writeln!(out, "{}", text.trim_end())
}

/// In this machine's zone, to the millisecond.
fn local_time(at: &str) -> String {
    match at.parse::<Timestamp>() {
        Ok(time) => {
            let zoned = time.to_zoned(TimeZone::system());
            zoned.strftime("%b %d %H:%M:%S%.3f").to_string()
        }
        Err(_) => at.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_shown_as_lines_for_people_or_as_they_were_told() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        let nothing = show(&layout, &Selection::default(), &mut Vec::new());
        assert!(nothing.is_err(), "an empty folder is no quiet installation");
        std::fs::create_dir(layout.logs()).unwrap();
        std::fs::write(layout.events_file(), "").unwrap();
        let show = |selection: &Selection| {
            let mut out = Vec::new();
            show(&layout, selection, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(show(&Selection::default()), "");
        let text = "{\"at\":\"2026-11-21T10:00:00.500Z\",\"source\":\"supervisor\",\
            \"kind\":\"killed\",\"subject\":\"node-1\",\"reason\":\"memory hard: 1\\u001b[2J\"}\n\
            {\"at\":\"2026-11-21T10:00:01.000Z\",\"source\":\"gateway-1\",\"kind\":\"ejected\",\
            \"subject\":\"node-1\",\"reason\":\"refused\"}\n";
        std::fs::write(layout.events_file(), text).unwrap();
        let all = show(&Selection::default());
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].contains(":00.500 supervisor  killed        node-1"),
            "{all}"
        );
        assert!(!all.contains('\u{1b}'));
        let last = show(&Selection {
            lines: Some(1),
            json: true,
            ..Selection::default()
        });
        assert_eq!(last, text.lines().nth(1).unwrap().to_owned() + "\n");
        let since = show(&Selection {
            since: Some("2026-11-21T10:00:00.6Z".parse().unwrap()),
            ..Selection::default()
        });
        assert_eq!(since.lines().count(), 1);
    }
}
