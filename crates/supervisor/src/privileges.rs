//! The key `privileges` of a process, as it can be carried out: groups looked up, paths checked.
//! Groups are looked up in /etc/group alone, as users are in /etc/passwd.

use std::path::{Path, PathBuf};

use crate::config::{self, SystemCalls};
use crate::confine::{Confinement, Files, Identity};
use crate::plan::{Faults, User};

/// None where the process has no such key.
pub(crate) fn resolve(
    process: &config::Process,
    user: Option<&User>,
    key: &str,
    faults: &mut Faults,
) -> Option<Confinement> {
    let privileges = process.privileges.as_ref()?;
    let writable = privileges.writable.as_ref();
    let everything = vec![PathBuf::from("/")];
    let files = writable.map(|writable| Files {
        writable: writable.clone(),
        readable: privileges.readable.clone().unwrap_or(everything),
    });
    if writable.is_none() && privileges.readable.is_some() {
        let why = "it counts only with `writable`";
        faults.add(&format!("{key}.readable"), why, "add `writable: []`");
    }
    for path in files
        .iter()
        .flat_map(|f| f.writable.iter().chain(&f.readable))
    {
        if !path.is_absolute() {
            let why = format!("`{}` is no absolute path", path.display());
            faults.add(key, why, "write it from the root on");
        }
    }
    Some(Confinement {
        capabilities: true,
        identity: identity(&privileges.groups, user, &format!("{key}.groups"), faults),
        files,
        system_calls: privileges.system_calls == SystemCalls::Usual,
        limits: privileges.limits,
    })
}

fn identity(
    groups: &[String],
    user: Option<&User>,
    key: &str,
    faults: &mut Faults,
) -> Option<Identity> {
    if groups.is_empty() {
        return None;
    }
    let known = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let mut ids = Vec::new();
    for name in groups {
        match find_group(&known, name) {
            Some(id) => ids.push(id),
            None => {
                let why = format!("there is no group `{name}` in /etc/group");
                faults.add(key, why, "name one that exists");
            }
        }
    }
    let Some(user) = user else {
        let why = "only a process that gets another user gets other groups";
        faults.add(key, why, "name a `user`, and start as root");
        return None;
    };
    Some(Identity {
        uid: user.uid,
        gid: user.gid,
        groups: ids,
    })
}

/// group(5): name, password, id, members.
fn find_group(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Where the supervisor's own work on a file of a child's takes place.
pub(crate) fn of_work_on(file: &Path) -> Confinement {
    Confinement::of_work_in(file.parent().unwrap_or(Path::new("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn faults(text: &str) -> String {
        let config: Config = chassis::config::parse("example", text).unwrap();
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn all_faults_of_the_key_are_reported() {
        let text = faults(
            "processes: [{name: a, command: [x], privileges: {groups: [no-such], writable: [b]}}, \
             {name: c, command: [x], privileges: {readable: [/usr]}}]",
        );
        for expected in [
            "a: privileges: `b` is no absolute path",
            "there is no group `no-such`",
            "only a process that gets another user",
            "c: privileges.readable: it counts only with `writable`",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let text = "root:x:0:\nadm:x:4:syslog\nadmins:x:5:\n";
        assert_eq!(find_group(text, "adm"), Some(4));
        assert_eq!(find_group(text, "ad"), None);
    }
}
