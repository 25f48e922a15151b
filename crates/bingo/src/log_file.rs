//! The log file: the vendor's, where its folder is there, and whether one can be written. The vendor
//! panicked without its folder; ours logs to stderr alone then, and says at the start what it does.

use std::io::{Error, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chassis::Failure;
use private_postgres::Account;

/// Name of the vendor's log file in the folder that the e-mail gives.
const VENDOR_NAME: &str = "main.log";

/// The vendor's log file for an e-mail: where it is used, and what is to be told of it. Nothing where
/// its folder does not exist; a warning where the folder exists and the file cannot be written.
pub(crate) fn of_email(email: &str) -> (Option<PathBuf>, Option<Failure>) {
    let folder = node::log_folder_of(email);
    let missing =
        |error: Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    if folder.metadata().is_err_and(missing) {
        return (None, None);
    }
    let path = folder.join(VENDOR_NAME);
    match check(&path) {
        Ok(()) => (Some(path), None),
        Err(failure) => (None, Some(failure)),
    }
}

/// The vendor's log file for an e-mail, where its folder exists; whether a node may write it is the
/// node's to find out, since it is the node's user who may or may not.
pub(crate) fn expected(email: &str) -> Option<PathBuf> {
    let folder = node::log_folder_of(email);
    folder.is_dir().then(|| folder.join(VENDOR_NAME))
}

/// Opens a log file for append and closes it again. The failure (exit 64) names the folder, its
/// owner and the command that mends it.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    let opened = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path);
    let Err(error) = opened else { return Ok(()) };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let (why, help) = match error.kind() {
        ErrorKind::NotFound => (
            format!("its folder {} does not exist", folder.display()),
            format!("create it: mkdir -p {}", folder.display()),
        ),
        ErrorKind::PermissionDenied => refused(path),
        _ => (
            error.to_string(),
            "give it a folder that is writable".to_owned(),
        ),
    };
    let attempted = format!("open the log file {}", path.display());
    let help = format!("{help}, or choose another with --log-file");
    Err(Failure::configuration(attempted, why, help))
}

/// What stands in the way, whose it is, and who we are. It is the file itself, or the innermost of
/// its folders that we may look at.
fn refused(path: &Path) -> (String, String) {
    let us = Account::current().name;
    let found = path
        .ancestors()
        .find_map(|place| Some((place, place.metadata().ok()?)));
    let Some((place, metadata)) = found else {
        return ("permission denied".to_owned(), format!("let {us} write it"));
    };
    let why = format!(
        "{} belongs to {} with mode {:04o}, and this process runs as {us}",
        place.display(),
        Account::name_of(metadata.uid()),
        metadata.mode() & 0o7777,
    );
    (
        why,
        format!("let {us} write there: chown {us} {}", place.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_is_named_with_the_command_that_makes_it() {
        let failure = check(Path::new("/nonexistent/logs/main.log")).unwrap_err();
        let text = failure.to_string();
        assert!(
            text.contains("its folder /nonexistent/logs does not exist"),
            "{text}"
        );
        assert!(text.contains("mkdir -p /nonexistent/logs"), "{text}");
        assert_eq!(failure.exit, chassis::Exit::Configuration);
    }

    #[test]
    fn what_refuses_is_named_with_its_owner() {
        let (why, help) = refused(Path::new("/etc/main.log"));
        assert!(
            why.starts_with("/etc belongs to root with mode 0755"),
            "{why}"
        );
        assert!(help.contains("chown"), "{help}");
    }

    #[test]
    fn an_email_whose_folder_is_missing_logs_to_stderr_alone_without_a_word() {
        assert_eq!(of_email("nobody-has-this@example.invalid"), (None, None));
    }
}
