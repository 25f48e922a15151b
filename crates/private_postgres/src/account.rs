//! The account that PostgreSQL's programs run as. PostgreSQL refuses to run as root, so a caller that
//! is root has to name another one; nobody else can switch, and runs them as itself.

use nix::unistd::{Group, Uid, User};

use crate::Error;

/// Who may stand in for root, best first.
const UNPRIVILEGED: [&str; 3] = ["bingo", "postgres", "nobody"];

/// A user of this machine with its primary group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// Looks a name up (getpwnam_r, so NSS is asked and not only /etc/passwd).
    pub fn by_name(name: &str) -> Result<Self, Error> {
        match User::from_name(name) {
            Ok(Some(user)) => Ok(Self::from(user)),
            Ok(None) => Err(no_account(name, "there is none")),
            Err(error) => Err(no_account(name, error.desc())),
        }
    }

    /// The name of a user id, or the number where the user database has none.
    pub fn name_of(uid: u32) -> String {
        match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => user.name,
            _ => uid.to_string(),
        }
    }

    /// The account of this process. Without an entry in the user database the name is the number.
    pub fn current() -> Self {
        let uid = Uid::effective();
        match User::from_uid(uid) {
            Ok(Some(user)) => Self::from(user),
            _ => Self {
                name: uid.to_string(),
                uid: uid.as_raw(),
                gid: nix::unistd::Gid::effective().as_raw(),
            },
        }
    }

    /// For root the first existing one of bingo, postgres, nobody; for anybody else itself.
    pub fn unprivileged_default() -> Result<Self, Error> {
        if !Uid::effective().is_root() {
            return Ok(Self::current());
        }
        let found = UNPRIVILEGED
            .iter()
            .find_map(|name| Self::by_name(name).ok());
        found.ok_or_else(|| no_account(&UNPRIVILEGED.join("`, `"), "none of them exists"))
    }

    /// True if a child has to change its user to run as this account. Only root can.
    pub fn must_switch(&self) -> bool {
        Uid::effective().is_root() && self.uid != 0
    }

    /// The group's name, or its number.
    pub fn group_name(&self) -> String {
        match Group::from_gid(self.gid.into()) {
            Ok(Some(group)) => group.name,
            _ => self.gid.to_string(),
        }
    }
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        }
    }
}

fn no_account(name: &str, why: &str) -> Error {
    Error::NoAccount {
        name: name.into(),
        why: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_an_unknown_name_is_an_error_that_names_it() {
        let root = Account::by_name("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(!root.must_switch());
        let error = Account::by_name("no-such-user").unwrap_err().to_string();
        assert!(error.contains("no-such-user"), "{error}");
    }

    #[test]
    fn the_default_account_is_never_root() {
        assert_ne!(Account::unprivileged_default().unwrap().uid, 0);
    }
}
