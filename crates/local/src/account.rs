//! As whom the children run.

use chassis::Failure;
use private_postgres::Account;

/// The account of `--user`; without it the first of bingo, postgres, nobody when we are root, and
/// ourselves otherwise. PostgreSQL refuses to run as root, so root is refused here by name.
pub(crate) fn of(user: Option<&str>) -> Result<Account, Failure> {
    let Some(name) = user else {
        return Account::unprivileged_default().map_err(|error| {
            Failure::configuration(
                "choose the children's account",
                error,
                "name one with --user",
            )
        });
    };
    let attempted = format!("run the children as {name}");
    let account = Account::by_name(name).map_err(|error| {
        Failure::configuration(
            attempted.clone(),
            error,
            format!("useradd --system {name}, or choose another with --user"),
        )
    })?;
    let ourselves = rustix::process::geteuid();
    if account.uid == 0 {
        return Err(Failure::configuration(
            attempted,
            "no part of the service needs root, and PostgreSQL refuses it",
            "choose another account with --user",
        ));
    }
    if !ourselves.is_root() && account.uid != ourselves.as_raw() {
        return Err(Failure::configuration(
            attempted,
            "only root can start processes as somebody else",
            "run as root, or leave out --user",
        ));
    }
    Ok(account)
}
