//! Whether the children's account can reach a path. A child that runs as another user cannot pass a
//! folder of mode 0700 above its binary or its data; found out beforehand, that is one clear error
//! instead of a process that dies at once with "permission denied".

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use private_postgres::Account;

/// The first folder on the way to `path` (itself included, where it is one and exists) that the
/// account may not pass; `None` when it may pass all of them. Access control lists are not read.
pub(crate) fn first_closed(path: &Path, account: &Account) -> Option<PathBuf> {
    let real = existing_part(path);
    let mut components: Vec<&Path> = real.ancestors().collect();
    components.reverse();
    components
        .into_iter()
        .find(|folder| !passes(folder, account))
        .map(Path::to_owned)
}

/// The longest part of the path that exists, with symbolic links resolved.
fn existing_part(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|part| part.canonicalize().ok())
        .unwrap_or_else(|| PathBuf::from("/"))
}

fn passes(path: &Path, account: &Account) -> bool {
    const EXECUTE: u32 = 0o1;
    let Ok(metadata) = std::fs::metadata(path) else {
        return false;
    };
    if account.uid == 0 {
        return true;
    }
    let shift = if metadata.uid() == account.uid {
        6
    } else if metadata.gid() == account.gid {
        3
    } else {
        0
    };
    metadata.mode() >> shift & EXECUTE != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_closed_to_others_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        std::fs::create_dir_all(closed.join("deep")).unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(folder.path(), 0o755);
        mode(&closed, 0o700);
        let stranger = Account {
            name: "stranger".into(),
            uid: 54_321,
            gid: 54_321,
        };
        let found = first_closed(&closed.join("deep/not-yet/there"), &stranger);
        assert_eq!(found, Some(closed.canonicalize().unwrap()));
        mode(&closed, 0o711);
        assert_eq!(first_closed(&closed.join("deep"), &stranger), None);
    }
}
