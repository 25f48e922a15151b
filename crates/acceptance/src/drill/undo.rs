//! What puts things right again. Each fault leaves here how it is taken back *before* it is made, and
//! dropping this takes all of it back, last first: at the end, after an error, and when the drill is
//! interrupted. What would outlive a SIGKILL of the drill itself is noted in the folder too, and put right
//! by the next drill; a frozen process is the supervisor's to find. A clock that was set stays so then.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::installation::{Installation, gateway_file};
use crate::error::Error;

type Step = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct Undo(Mutex<Vec<Step>>);

/// What a drill leaves in the installation's folder until it is put right.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Left {
    /// In the gateway's file a node is at another address.
    Address {
        usual: String,
        now: String,
    },
    /// These processes may run copies of their programs.
    Programs {
        copies: Vec<PathBuf>,
        /// By name.
        usual: Vec<(String, PathBuf)>,
    },
    File(PathBuf),
}

impl Undo {
    pub(super) fn push(&self, step: impl FnOnce() + Send + 'static) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push(Box::new(step));
    }

    /// Takes back all that was pushed so far.
    pub(super) fn run(&self) {
        loop {
            let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(step) = steps.pop() else {
                return;
            };
            drop(steps);
            step();
        }
    }

    /// Notes what is about to be left, to be put right when undone, and by the next drill where this one
    /// is killed.
    ///
    /// # Errors
    /// [`Error::Installation`] where the folder cannot be written.
    pub(super) fn leave(&self, installation: &Installation, left: &Left) -> Result<(), Error> {
        let noted = serde_json::to_vec(left).map_err(std::io::Error::other);
        noted
            .and_then(|text| std::fs::write(note(&installation.folder), text))
            .map_err(|error| {
                installation.fault("note what this drill changes", error.to_string())
            })?;
        let installation = installation.clone();
        self.push(move || put_right(&installation));
        Ok(())
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        self.run();
    }
}

/// Puts right what a drill has left, and nothing else: others may have changed much since then.
pub(super) fn put_right(installation: &Installation) {
    let note = note(&installation.folder);
    let Ok(text) = std::fs::read(&note) else {
        return;
    };
    let is_right = match serde_json::from_slice(&text) {
        Ok(Left::Address { usual, now }) => {
            // What cannot be read or written shows in the status, as a node that is out.
            replace_in_gateway_file(&installation.folder, &now, &usual).is_ok()
        }
        Ok(Left::Programs { copies, usual }) => put_programs_right(installation, copies, usual),
        Ok(Left::File(path)) => std::fs::remove_file(&path).is_ok() || !path.exists(),
        Err(_) => true,
    };
    // Else it is for the next drill.
    if is_right {
        let _ = std::fs::remove_file(note);
    }
}

/// Whoever runs a copy by then goes back to its program, and then the copies are removed. False where one
/// did not go back: it needs its copy.
fn put_programs_right(
    installation: &Installation,
    copies: Vec<PathBuf>,
    usual: Vec<(String, PathBuf)>,
) -> bool {
    if !copies.iter().any(|copy| copy.exists()) {
        return true;
    }
    for (name, program) in usual {
        let mut command = std::process::Command::new(&installation.program);
        command.arg("restart").arg(name).arg("--binary");
        command.arg(program).arg("--dir").arg(&installation.folder);
        // A second Ctrl-C must not end it half-way.
        command.process_group(0);
        if !command.output().is_ok_and(|output| output.status.success()) {
            return false;
        }
    }
    for copy in copies {
        let _ = std::fs::remove_file(copy);
    }
    true
}

/// Puts a node at another address in the gateway's file; false where none is at `from`.
pub(super) fn replace_in_gateway_file(
    folder: &Path,
    from: &str,
    to: &str,
) -> std::io::Result<bool> {
    let path = gateway_file(folder);
    let text = std::fs::read_to_string(&path)?;
    let (from, to) = (format!("address: {from}"), format!("address: {to}"));
    // The whole port, and not the beginning of a longer one.
    let is_whole = |end: &str| !end.starts_with(|next: char| next.is_ascii_digit());
    let whole = text.match_indices(&from).find_map(|(at, _)| {
        let (before, rest) = text.split_at(at);
        let after = rest.strip_prefix(&from)?;
        is_whole(after).then_some((before, after))
    });
    let Some((before, after)) = whole else {
        return Ok(false);
    };
    std::fs::write(&path, format!("{before}{to}{after}"))?;
    Ok(true)
}

fn note(folder: &Path) -> PathBuf {
    folder.join("run/drill.left")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn installation(folder: &Path) -> Installation {
        for name in ["config", "run"] {
            std::fs::create_dir(folder.join(name)).expect("folder");
        }
        Installation {
            program: "/nowhere/bingo".into(),
            folder: folder.to_owned(),
        }
    }

    #[test]
    fn all_is_taken_back_last_first_also_when_it_is_dropped() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let undo = Undo::default();
        for number in 1..=3 {
            let seen = Arc::clone(&seen);
            undo.push(move || seen.lock().expect("lock").push(number));
        }
        drop(undo);
        assert_eq!(*seen.lock().expect("lock"), [3, 2, 1]);
    }

    #[test]
    fn what_a_killed_drill_left_is_put_right_and_what_others_changed_since_stays() {
        let folder = tempfile::tempdir().expect("folder");
        let installation = installation(folder.path());
        let file = gateway_file(folder.path());
        let nodes = "nodes:\n- address: 127.0.0.1:12\n- address: 127.0.0.1:1\n";
        std::fs::write(&file, nodes).expect("write");
        let left = Left::Address {
            usual: "127.0.0.1:1".to_owned(),
            now: "127.0.0.1:9".to_owned(),
        };
        let undo = Undo::default();
        undo.leave(&installation, &left).expect("note");
        std::mem::forget(undo);
        let replaced = replace_in_gateway_file(folder.path(), "127.0.0.1:1", "127.0.0.1:9");
        assert!(replaced.expect("replace"));
        let mut scaled = std::fs::read_to_string(&file).expect("read");
        assert!(scaled.ends_with("12\n- address: 127.0.0.1:9\n"), "{scaled}");
        scaled.push_str("- address: 127.0.0.1:3\n");
        std::fs::write(&file, scaled).expect("write");
        put_right(&installation);
        let text = std::fs::read_to_string(&file).expect("read");
        assert_eq!(text, format!("{nodes}- address: 127.0.0.1:3\n"));
        // Nothing is left that the next drill could put "right".
        std::fs::write(&file, "- address: 127.0.0.1:9\n").expect("write");
        put_right(&installation);
        let text = std::fs::read_to_string(&file).expect("read");
        assert_eq!(text, "- address: 127.0.0.1:9\n");
    }

    #[test]
    fn a_file_that_a_killed_drill_left_is_removed() {
        let folder = tempfile::tempdir().expect("folder");
        let installation = installation(folder.path());
        let filler = folder.path().join("filler");
        let undo = Undo::default();
        undo.leave(&installation, &Left::File(filler.clone()))
            .expect("note");
        std::fs::write(&filler, "x").expect("write");
        std::mem::forget(undo);
        put_right(&installation);
        assert!(!filler.exists());
    }
}
