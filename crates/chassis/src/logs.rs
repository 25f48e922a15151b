//! Logs: one JSON object a line, or text on a terminal; to stderr, and to a file as well where one
//! is given. stdout is left to a command's own output.

mod json;

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::Failure;
use crate::traces::Traces;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Format {
    /// Text where stderr is a terminal, JSON elsewhere.
    pub fn detect() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Text
        } else {
            Self::Json
        }
    }
}

/// What to log, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,gateway=debug`.
    pub level: String,
    /// Appended to, beside stderr.
    pub file: Option<PathBuf>,
    /// Where spans are sent as well.
    pub traces: Option<Traces>,
}

/// A log file that can be opened anew after it was renamed (rotation).
#[derive(Clone, Debug)]
pub struct Reopen {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl Reopen {
    /// Opens the path anew, for append; the old file stays in use when that fails.
    pub fn reopen(&self) -> std::io::Result<()> {
        let file = append(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// What is wrong with a level, and what to write instead; `None` where nothing is. A word that is no
/// level would be taken for the name of a module, and all else silenced.
pub fn level_fault(level: &str) -> Option<(String, &'static str)> {
    let words = level
        .split(',')
        .filter(|directive| !directive.contains(['=', '[']));
    for word in words {
        // The parser takes an empty word for `error`.
        let parsed = word.trim().parse::<tracing::level_filters::LevelFilter>();
        if word.trim().is_empty() || parsed.is_err() {
            return Some((format!("`{word}` is no level"), LEVEL_HELP));
        }
    }
    let error = EnvFilter::try_new(level).err()?;
    Some((error.to_string(), LEVEL_HELP))
}

const LEVEL_HELP: &str =
    "use error, warn, info, debug or trace, or directives such as info,gateway=debug";

fn filter(level: &str) -> Result<EnvFilter, Failure> {
    let wrong = |why: String| {
        Failure::configuration(format!("read the log level `{level}`"), why, LEVEL_HELP)
    };
    match level_fault(level) {
        Some((why, _)) => Err(wrong(why)),
        None => EnvFilter::try_new(level).map_err(|error| wrong(error.to_string())),
    }
}

/// Starts logging for the whole process; call once. Returns the handle to reopen the file with,
/// where there is one. Fails on a wrong level or a file that cannot be opened (exit 64).
pub fn start(settings: &Settings) -> Result<Option<Reopen>, Failure> {
    let filter = filter(&settings.level)?;
    let reopen = settings.file.as_deref().map(open_file).transpose()?;
    let writer = Writer {
        file: reopen.clone(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    #[cfg(feature = "otel")]
    let registry = registry.with(settings.traces.as_ref().map(Traces::layer));
    let result = match settings.format {
        Format::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .fmt_fields(JsonFields::new())
                    .event_format(json::Line)
                    .with_writer(writer),
            )
            .try_init(),
        Format::Text => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_ansi(std::io::stderr().is_terminal() && reopen.is_none())
                    .with_target(false)
                    .with_writer(writer),
            )
            .try_init(),
    };
    result.map_err(|error| Failure::run_time("start logging", error, String::new()))?;
    Ok(reopen)
}

fn open_file(path: &Path) -> Result<Reopen, Failure> {
    let file = append(path).map_err(|error| {
        Failure::configuration(
            format!("open the log file {}", path.display()),
            error,
            "create its folder, make it writable for this user, or choose another with --log-file",
        )
    })?;
    Ok(Reopen {
        path: path.to_owned(),
        file: Arc::new(Mutex::new(file)),
    })
}

/// Writes each line to stderr and, where there is one, to the file.
#[derive(Clone)]
struct Writer {
    file: Option<Reopen>,
}

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        // A full disk or a closed terminal must not end the process: a lost line is the lesser harm.
        let _ = std::io::stderr().write_all(line);
        if let Some(reopen) = &self.file {
            let mut file = reopen.file.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = file.write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Writer;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_file_is_opened_anew() {
        let folder = std::env::temp_dir().join(format!("bingo-logs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("main.log");
        let mut writer = Writer {
            file: Some(open_file(&path).unwrap()),
        };
        writer.write_all(b"one\n").unwrap();
        std::fs::rename(&path, folder.join("main.log.1")).unwrap();
        writer.file.as_ref().unwrap().reopen().unwrap();
        writer.write_all(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for level in ["info", "WARN", "info,gateway=debug", "gateway=trace"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["loud", "inf", "info,loud", ""] {
            let failure = filter(level).unwrap_err();
            assert_eq!(failure.exit, crate::Exit::Configuration, "{level}");
        }
    }

    #[test]
    fn a_log_file_in_a_missing_folder_names_it_and_the_remedy() {
        let failure = open_file(Path::new("/nonexistent/main.log"))
            .unwrap_err()
            .to_string();
        assert!(failure.contains("/nonexistent/main.log"), "{failure}");
        assert!(failure.contains("--log-file"), "{failure}");
    }
}
