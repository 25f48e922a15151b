//! Secrets of an installation: made once, kept in files of mode 0600, never in an argument list, an
//! environment or a log.

use std::path::Path;

use chassis::Failure;
use private_postgres::Account;

use crate::layout::{Layout, own, write_file};

/// The secrets that `up` needs itself.
#[derive(Clone)]
pub(crate) struct Secrets {
    pub superuser_password: String,
    pub service_password: String,
    /// One of them was missing, so that a database that is there has another one.
    pub(crate) are_new: bool,
}

/// Reads the installation's secrets and makes those that are missing.
pub(crate) fn prepare(layout: &Layout, account: &Account) -> Result<Secrets, Failure> {
    let paths = [layout.superuser_password(), layout.service_password()];
    let are_new = paths.iter().any(|path| !path.exists());
    let superuser_password = read_or_make(&layout.superuser_password(), None)?;
    let service_password = read_or_make(&layout.service_password(), Some(account))?;
    read_or_make(&layout.admin_token(), Some(account))?;
    Ok(Secrets {
        superuser_password,
        service_password,
        are_new,
    })
}

/// Writes the password of an existing database where the nodes read it.
pub(crate) fn write_existing_password(
    layout: &Layout,
    account: &Account,
    password: &str,
) -> Result<(), Failure> {
    let path = layout.existing_password();
    write_file(&path, 0o600, password)
        .and_then(|()| own(&path, account))
        .map_err(|error| failed(&path, &error))
}

/// Writes libpq's password file (PostgreSQL documentation, "The Password File").
pub(crate) fn write_pgpass(
    layout: &Layout,
    account: &Account,
    port: u16,
    secrets: &Secrets,
) -> Result<(), Failure> {
    let line = |user: &str, password: &str| format!("*:{port}:*:{user}:{password}\n");
    let text = line("bingo", &secrets.service_password);
    let path = layout.pgpass();
    write_file(&path, 0o600, &text)
        .and_then(|()| own(&path, account))
        .map_err(|error| failed(&path, &error))
}

fn read_or_make(path: &Path, account: Option<&Account>) -> Result<String, Failure> {
    match std::fs::read_to_string(path) {
        Ok(secret) if !secret.trim().is_empty() => {
            // The account may be another one than when the file was made.
            if let Some(account) = account {
                own(path, account).map_err(|error| failed(path, &error))?;
            }
            return Ok(secret.trim().to_owned());
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(path, &error));
        }
        _ => {}
    }
    let secret = random_hex().map_err(|error| failed(path, &error))?;
    write_file(path, 0o600, &secret).map_err(|error| failed(path, &error))?;
    if let Some(account) = account {
        own(path, account).map_err(|error| failed(path, &error))?;
    }
    Ok(secret)
}

/// 192 random bits from the kernel (getrandom(2)), as hexadecimal digits: no character of it needs
/// quoting anywhere.
fn random_hex() -> std::io::Result<String> {
    let mut bytes = [0_u8; 24];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if filled != bytes.len() {
        return Err(std::io::Error::other(
            "the kernel gave too few random bytes",
        ));
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::configuration(
        format!("keep a secret in {}", path.display()),
        error,
        "make the folder writable for this user, or choose another with --dir",
    )
}
