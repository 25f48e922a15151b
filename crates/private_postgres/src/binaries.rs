//! Where PostgreSQL's programs are. Distributions keep `initdb` and `postgres` out of PATH, in a
//! folder per version, so that several versions can be installed beside each other.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// The major versions that we know to work.
pub const OLDEST: u32 = 14;
pub const NEWEST: u32 = 18;

const VARIABLE: &str = "BINGO_POSTGRES_BIN";

/// A folder, what the names of the versions in it start with, and what follows.
type Place = (&'static str, &'static str, &'static str);

/// Debian's and Red Hat's.
const SYSTEM: [Place; 2] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
];

/// A folder that has both `initdb` and `postgres`, of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    pub folder: PathBuf,
    /// The major version, 14 to 18.
    pub version: u32,
    /// As `postgres --version` says it: `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    pub version_text: String,
}

impl Binaries {
    /// Searches, in this order: the explicit folder, the folder in `BINGO_POSTGRES_BIN`, PATH, and the
    /// folders of Debian and Red Hat, of which the newest version wins. The first two, where given,
    /// are the only place searched.
    pub fn find(explicit: Option<&Path>) -> Result<Self, Error> {
        let variable = std::env::var_os(VARIABLE).filter(|text| !text.is_empty());
        let named = explicit.map(Path::to_owned).or(variable.map(PathBuf::from));
        match named {
            Some(folder) => Self::first_of(&[folder], &[]),
            None => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                Self::first_of(&folders_of_path(&path), &SYSTEM)
            }
        }
    }

    /// The path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The first usable one of `ordered`, else the newest of `places`.
    fn first_of(ordered: &[PathBuf], places: &[Place]) -> Result<Self, Error> {
        let mut faults = Vec::new();
        let mut usable =
            |folder: &PathBuf| Self::at(folder).map_err(|fault| faults.extend(fault)).ok();
        let found = ordered.iter().find_map(&mut usable);
        let found = found.or_else(|| {
            system_folders(places)
                .iter()
                .filter_map(usable)
                .max_by_key(|one| one.version)
        });
        found.ok_or_else(|| Error::NoBinaries {
            searched: searched(ordered, places),
            why: match faults.is_empty() {
                true => "no folder has both initdb and postgres".into(),
                false => faults.join("; "),
            },
        })
    }

    /// `Err(None)`: nothing is there; `Err(Some)`: something is, but of no use.
    fn at(folder: &Path) -> Result<Self, Option<String>> {
        let initdb = folder.join("initdb").canonicalize().map_err(|_| None)?;
        // Some distributions link initdb alone into PATH: its real folder has the rest.
        let folder = initdb.parent().ok_or(None)?.to_owned();
        let postgres = folder.join("postgres");
        if !postgres.is_file() {
            return Err(Some(format!("{} has no postgres", folder.display())));
        }
        let told = |why: String| Some(format!("{}: {why}", postgres.display()));
        let output = Command::new(&postgres).arg("--version").output();
        let output = output.map_err(|error| told(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match major_version(&text) {
            Some(version @ OLDEST..=NEWEST) => Ok(Self {
                folder,
                version,
                version_text: text,
            }),
            Some(version) => Err(told(format!("version {version}"))),
            None => Err(told(format!("its version is not understood: `{text}`"))),
        }
    }
}

fn searched(ordered: &[PathBuf], places: &[Place]) -> Vec<String> {
    let named = ordered.iter().map(|folder| folder.display().to_string());
    let places = places
        .iter()
        .map(|(parent, prefix, rest)| format!("{parent}/{prefix}*/{rest}"));
    named.chain(places).collect()
}

fn folders_of_path(path: &OsStr) -> Vec<PathBuf> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .collect()
}

fn system_folders(places: &[Place]) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for (parent, prefix, rest) in places {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name
                .to_string_lossy()
                .strip_prefix(prefix)
                .is_some_and(starts_with_digit)
            {
                folders.push(entry.path().join(rest));
            }
        }
    }
    folders
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` is 15; `17beta1` is 17.
fn major_version(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    let end = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    version.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn fake(folder: &Path, version: &str) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("initdb"), "").unwrap();
        let postgres = folder.join("postgres");
        // The file is closed before it is run: a writer of our own would make it "busy".
        std::fs::write(
            &postgres,
            format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"),
        )
        .unwrap();
        std::fs::set_permissions(&postgres, PermissionsExt::from_mode(0o755)).unwrap();
        folder.to_owned()
    }

    #[test]
    fn versions_are_read_from_every_spelling() {
        let major = |rest: &str| major_version(&format!("postgres (PostgreSQL) {rest}"));
        assert_eq!(major("15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("17beta1"), Some(17));
        assert_eq!(major("18"), Some(18));
        assert_eq!(major("devel"), None);
        assert_eq!(major_version("initdb: no"), None);
    }

    #[test]
    fn path_goes_first_and_of_the_system_folders_the_newest_that_we_know() {
        let root = tempfile::tempdir().unwrap();
        for version in ["13.1", "14.2", "17.3", "19.0"] {
            fake(&root.path().join(version).join("bin"), version);
        }
        std::fs::create_dir(root.path().join("not-a-version")).unwrap();
        // A place is known when we are compiled; a test's may stay until the process ends.
        let parent: &'static str = root.path().to_str().unwrap().to_owned().leak();
        let places = [(parent, "", "bin")];
        assert_eq!(system_folders(&places).len(), 4);
        assert_eq!(Binaries::first_of(&[], &places).unwrap().version, 17);
        let path = root.path().join("path");
        std::fs::create_dir(&path).unwrap();
        symlink(root.path().join("14.2/bin/initdb"), path.join("initdb")).unwrap();
        let linked = Binaries::first_of(&[path], &places).unwrap();
        assert_eq!(linked.version, 14);
        assert!(linked.folder.ends_with("14.2/bin"), "{linked:?}");
    }

    #[test]
    fn nothing_usable_is_an_error_that_names_what_was_searched_and_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        let old = fake(&root.path().join("old"), "9.6");
        let error = Binaries::find(Some(&old)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("version 9"), "{text}");
        assert!(text.contains(old.to_str().unwrap()), "{text}");
        assert!(error.remedy().contains("apt-get install postgresql"));
        let nowhere = Binaries::first_of(&[], &[("/nonexistent", "", "bin")]).unwrap_err();
        assert!(
            nowhere.to_string().ends_with("searched /nonexistent/*/bin"),
            "{nowhere}"
        );
    }

    #[test]
    fn the_installed_one_is_found() {
        let found = Binaries::find(None).unwrap();
        assert!((OLDEST..=NEWEST).contains(&found.version));
        assert!(found.program("postgres").is_file() && found.program("initdb").is_file());
    }
}
