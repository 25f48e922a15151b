//! What puts things right again. Each fault leaves here how it is taken back *before* it is made, and
//! dropping this takes all of it back, last first: at the end, after an error, and when the drill is
//! interrupted. What a SIGKILL of the drill itself leaves is mended by the next drill (the gateway's
//! file) or by the supervisor (frozen processes).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::installation::gateway_file;
use crate::error::Error;

type Step = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct Undo(Mutex<Vec<Step>>);

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
}

impl Drop for Undo {
    fn drop(&mut self) {
        self.run();
    }
}

/// The gateway's file with one text replaced; put back when undone, and by the next drill where this
/// one was killed.
pub(super) fn change_gateway_file(
    folder: &Path,
    undo: &Undo,
    change: impl FnOnce(&str) -> Option<String>,
) -> Result<(), Error> {
    let path = gateway_file(folder);
    let failed = |why: String| Error::Installation {
        folder: folder.to_owned(),
        attempted: "change config/gateway.yaml".to_owned(),
        why,
    };
    let text = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    let changed = change(&text).ok_or_else(|| failed("the node is not in it".to_owned()))?;
    let kept = kept_file(folder);
    std::fs::write(&kept, &text).map_err(|error| failed(error.to_string()))?;
    let folder = folder.to_owned();
    undo.push(move || put_back(&folder));
    std::fs::write(&path, changed).map_err(|error| failed(error.to_string()))
}

/// Puts the gateway's file back where a drill left it changed.
pub(super) fn put_back(folder: &Path) {
    let kept = kept_file(folder);
    if let Ok(text) = std::fs::read_to_string(&kept)
        && std::fs::write(gateway_file(folder), text).is_ok()
    {
        let _ = std::fs::remove_file(kept);
    }
}

fn kept_file(folder: &Path) -> PathBuf {
    folder.join("config/gateway.yaml.before-drill")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

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
    fn a_file_that_a_killed_drill_left_is_put_back() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("config")).expect("folder");
        std::fs::write(gateway_file(folder.path()), "address: a").expect("write");
        let undo = Undo::default();
        change_gateway_file(folder.path(), &undo, |text| Some(text.replace('a', "b")))
            .expect("change");
        std::mem::forget(undo);
        put_back(folder.path());
        let text = std::fs::read_to_string(gateway_file(folder.path())).expect("read");
        assert_eq!(text, "address: a");
        assert!(!kept_file(folder.path()).exists());
    }
}
