//! `bingo diagnose`: everything that somebody far away asks for when an installation is ill, in one
//! archive: status, logs' ends, configuration, metrics, events, what the machine has. It works on one
//! that is half dead: each part is got by a thread of its own, and one that cannot be had in time, or
//! at all, is a line of the archive's first file.
//!
//! Secrets stay out twice: those of this installation are known and replaced wherever they stand, and
//! what looks like one is masked (`chassis::masking`). Folders of keys and passwords are not read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use chassis::Failure;

use crate::layout::Layout;

mod archive;
mod parts;
mod secrets;

use secrets::Secrets;

/// How long all parts together may take.
const PARTS_MAX: Duration = Duration::from_secs(20);
/// Of each part so much is kept: its end.
const PART_BYTES_MAX: usize = 1 << 20;

/// One file of the archive, and what gets its text; an error says why there is none.
pub struct Part {
    pub name: String,
    pub work: Box<dyn FnOnce() -> Result<String, String> + Send>,
}

impl Part {
    pub fn new(
        name: impl Into<String>,
        work: impl FnOnce() -> Result<String, String> + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            work: Box::new(work),
        }
    }
}

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Packed {
    pub archive: PathBuf,
    pub files: usize,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}

/// Packs an installation, and `more` that only the caller can get, into a new archive in `folder`. Fails
/// with 64 where there is no installation or the archive cannot be written.
pub fn pack(layout: &Layout, folder: &Path, more: Vec<Part>) -> Result<Packed, Failure> {
    let root = layout.root();
    if !layout.is_ours() {
        return Err(Failure::configuration(
            format!("pack the installation in {}", root.display()),
            "there is none",
            "name its folder with --dir",
        ));
    }
    let secrets = Secrets::of(layout);
    let mut all = parts::of(layout);
    all.extend(more);
    let (mut files, missing) = gather(all, PARTS_MAX);
    for (_, text) in &mut files {
        *text = secrets.mask(end_of(text));
    }
    let missing: Vec<String> = missing.iter().map(|line| secrets.mask(line)).collect();
    let title = jiff::Timestamp::now().strftime("bingo-%Y%m%dT%H%M%SZ");
    let title = title.to_string();
    files.insert(
        0,
        ("README.txt".to_owned(), contents(&title, &files, &missing)),
    );
    let path = folder.join(format!("{title}.tar.gz"));
    archive::write(&path, &title, &files).map_err(|error| unwritable(&path, &error))?;
    Ok(Packed {
        archive: path,
        files: files.len(),
        missing,
    })
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let help = "name another folder with --output";
    Failure::configuration(format!("write {}", path.display()), error, help)
}

type Files = Vec<(String, String)>;

/// All at once, because those that hang would hold up the others.
fn gather(parts: Vec<Part>, within: Duration) -> (Files, Vec<String>) {
    let deadline = Instant::now() + within;
    let (sender, done) = mpsc::channel();
    let mut names: Vec<String> = Vec::new();
    for part in parts {
        let sender = sender.clone();
        let name = part.name.clone();
        names.push(part.name);
        let thread = std::thread::Builder::new().name("diagnose".to_owned());
        // Where there is no thread its sender is gone, and it is told as missing.
        let _ = thread.spawn(move || sender.send((name, (part.work)())));
    }
    drop(sender);
    let (mut files, mut missing) = (Vec::new(), Vec::new());
    while let Ok((name, result)) =
        done.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        names.retain(|waiting| *waiting != name);
        match result {
            Ok(text) => files.push((name, text)),
            Err(why) => missing.push(format!("{name}: {why}")),
        }
    }
    let late = names
        .iter()
        .map(|name| format!("{name}: not to be had within {} s", within.as_secs()));
    missing.extend(late);
    files.sort();
    missing.sort();
    (files, missing)
}

/// The end of a text, in whole lines.
fn end_of(text: &str) -> &str {
    let Some(from) = text.len().checked_sub(PART_BYTES_MAX) else {
        return text;
    };
    let line = text.bytes().skip(from).position(|byte| byte == b'\n');
    let start = line.map_or(text.len(), |at| from + at + 1);
    text.get(start..).unwrap_or_default()
}

fn contents(title: &str, files: &[(String, String)], missing: &[String]) -> String {
    let mut text = format!(
        "{title}: a diagnosis of an installation, by bingo {}.\n\
         The installation's own passwords and tokens are not in it, or are {}, and so is what looks like one;\n\
         read it before you send it.\n\nIt holds:\n",
        env!("CARGO_PKG_VERSION"),
        chassis::masking::MASK
    );
    for (name, content) in files {
        text.push_str(&format!("  {name} ({} bytes)\n", content.len()));
    }
    if !missing.is_empty() {
        text.push_str("\nIt lacks:\n");
    }
    for line in missing {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_hangs_or_fails_is_told_and_the_others_are_there() {
        let (never, hangs) = mpsc::channel::<()>();
        let parts = vec![
            Part::new("b", || Ok("two".to_owned())),
            Part::new("a", || Ok("one".to_owned())),
            Part::new("d", || Err("refused".to_owned())),
            Part::new("c", move || {
                let _ = hangs.recv();
                Ok(String::new())
            }),
        ];
        let (files, missing) = gather(parts, Duration::from_millis(300));
        let texts: Vec<&str> = files.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["one", "two"]);
        assert_eq!(missing, ["c: not to be had within 0 s", "d: refused"]);
        drop(never);
    }

    #[test]
    fn of_a_long_text_the_last_lines_stay() {
        let text = "x".repeat(100) + "\n" + &"line\n".repeat(PART_BYTES_MAX / 5);
        let end = end_of(&text);
        assert!(end.len() <= PART_BYTES_MAX && end.starts_with("line\n"));
        assert_eq!(end_of("short"), "short");
        assert_eq!(end_of(&"x".repeat(PART_BYTES_MAX + 1)), "");
    }

    #[test]
    fn an_archive_of_an_installation_that_is_dead_holds_no_secret_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().join("data"));
        let make = |path: PathBuf, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        make(layout.root().join(".bingo-installation"), "");
        make(layout.service_password(), "canary-service\n");
        make(layout.admin_token(), "canary-token");
        make(layout.pgpass(), "*:1:*:bingo:canary-pgpass\n");
        make(layout.tls().join("key.pem"), "canary-key");
        make(layout.exec_config(1), "password: canary-exec\n");
        make(
            layout.node_config(1),
            "postgres_cluster: {password: canary-config}\nname: node-1\n",
        );
        make(
            layout.logs().join("node-1.log"),
            "{\"message\":\"I say canary-service and canary-exec and postgres://u:canary-url@h/d\"}\n",
        );
        make(layout.events_file(), "{\"reason\":\"canary-token\"}\n");
        let packed = pack(&layout, folder.path(), Vec::new()).unwrap();
        let bytes = std::fs::read(&packed.archive).unwrap();
        let text = archive::read(&bytes);
        assert!(!text.contains("canary"), "{text}");
        for expected in [
            "README.txt",
            "name: node-1",
            "I say ********",
            "logs/node-1.log",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(
            packed
                .missing
                .iter()
                .any(|line| line.starts_with("installation.json"))
        );
        let mode = std::os::unix::fs::MetadataExt::mode(&packed.archive.metadata().unwrap());
        assert_eq!(mode & 0o777, 0o600);
        let empty = Layout::new(folder.path().join("none"));
        assert!(pack(&empty, folder.path(), Vec::new()).is_err());
    }
}
