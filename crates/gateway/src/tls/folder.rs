//! The folder that gateways share: files are replaced whole by rename(2), so a reader never sees
//! half of one, and whoever makes something holds a lock on the folder itself (flock(2)), so that one
//! makes and the others find it made. Left out: file systems without flock, such as some mounts over
//! the network.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chassis::{Exit, Failure};

/// More than any chain of certificates needs.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long another gateway may take to make what is missing.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Makes the folder itself where it is missing, not those above it.
    pub(super) fn create(&self) -> Result<(), Failure> {
        match DirBuilder::new().mode(0o755).create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(self.failed("make the folder", "", &error)),
            Ok(()) => Ok(()),
        }
    }

    /// The only one who makes something in this folder, until dropped. Waits a little for another.
    pub(super) fn lock(&self) -> Result<File, Failure> {
        let folder =
            File::open(&self.path).map_err(|error| self.failed("open the folder", "", &error))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match folder.try_lock() {
                Ok(()) => return Ok(folder),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Failure::run_time(
                        format!("lock the folder {}", self.path.display()),
                        "another process has held it too long",
                        "end the other gateway on this folder that hangs",
                    ));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(self.failed("lock the folder", "", &error));
                }
            }
        }
    }

    /// Tries for a lock of its own on a file of this name, held until dropped; `None` while another
    /// process has it.
    pub(crate) fn try_lock_file(&self, name: &str) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// `None` where there is no such file.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        match read_bounded(&self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", name, &error)),
            Ok(bytes) => Ok(Some(bytes)),
        }
    }

    /// Whole or not at all; the old content stays on any error. To be called under the lock.
    pub(super) fn write(&self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.path.join(name);
        let new = self.path.join(format!("{name}.new"));
        let written = (|| {
            // Removed first: `mode` counts only for a file that is created.
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&new)?;
            file.write_all(bytes)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            file.sync_all()?;
            std::fs::rename(&new, &path)
        })();
        written.map_err(|error| {
            // A left-over would only be removed by the next attempt.
            let _ = std::fs::remove_file(&new);
            self.failed("write", name, &error)
        })
    }

    /// A secret that others may read, after a copy or a restored backup, is taken back from them; what
    /// they have read they keep, so somebody is told.
    pub(super) fn close_to_others(&self, name: &str) {
        let path = self.path.join(name);
        if !is_open_to(&path, 0o077) {
            return;
        }
        let shown = path.display();
        match std::fs::set_permissions(&path, Permissions::from_mode(0o600)) {
            Ok(()) => tracing::warn!(
                file = %shown,
                "others could read this private key, and no longer can; remove it if any of them \
                 might have, then a new one is made"
            ),
            Err(error) => tracing::warn!(
                file = %shown,
                %error,
                "others may read this private key; take it from them with chmod 600"
            ),
        }
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Wrong rights or a wrong place are no better after a restart; a full disk may be.
    fn failed(&self, attempted: &str, name: &str, error: &io::Error) -> Failure {
        use io::ErrorKind::{
            InvalidData, InvalidInput, NotADirectory, NotFound, PermissionDenied,
            ReadOnlyFilesystem,
        };
        let exit = match error.kind() {
            PermissionDenied | NotFound | NotADirectory | ReadOnlyFilesystem | InvalidInput
            | InvalidData => Exit::Configuration,
            _ => Exit::Failed,
        };
        let path = match name {
            "" => self.path.clone(),
            name => self.path.join(name),
        };
        Failure::new(
            exit,
            format!("{attempted} {}", path.display()),
            error,
            "make the folder readable and writable for the account of the gateway, or name another \
             in tls.folder",
        )
    }
}

/// Whether a file is there and has any of these rights.
pub(super) fn is_open_to(path: &Path, rights: u32) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & rights != 0)
}

/// A regular file's content. A pipe would block, a device never end.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        let why = "it is no regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let why = format!("it has more than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_leaves_no_other() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().join("tls"));
        folder.create().unwrap();
        folder.create().unwrap();
        assert_eq!(folder.read("key").unwrap(), None);
        folder.write("key", 0o600, b"one").unwrap();
        folder.write("key", 0o600, b"two").unwrap();
        assert_eq!(folder.read("key").unwrap().unwrap(), b"two");
        let path = folder.path_of("key");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = std::fs::read_dir(place.path().join("tls")).unwrap();
        assert_eq!(files.count(), 1);
    }

    #[test]
    fn a_secret_that_others_may_read_is_taken_back() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().to_owned());
        folder.close_to_others("none");
        for mode in [0o644, 0o640, 0o604] {
            folder.write("key", mode, b"one").unwrap();
            assert!(is_open_to(&folder.path_of("key"), 0o077));
            folder.close_to_others("key");
            assert!(!is_open_to(&folder.path_of("key"), 0o077), "{mode:o}");
            assert_eq!(folder.read("key").unwrap().unwrap(), b"one");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_remedy() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().join("none/tls"));
        let failure = folder.create().unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
        let text = failure.to_string();
        assert!(text.contains("none/tls: No such file"), "{text}");
        assert!(text.contains("tls.folder"), "{text}");
        let folder = Folder::new(place.path().to_owned());
        std::fs::create_dir(place.path().join("ca.key")).unwrap();
        let text = folder.read("ca.key").unwrap_err().to_string();
        assert!(text.contains("no regular file"), "{text}");
        let large = File::create(place.path().join("large")).unwrap();
        large.set_len(FILE_BYTES_MAX + 1).unwrap();
        let text = folder.read("large").unwrap_err().to_string();
        assert!(text.contains("more than"), "{text}");
    }
}
