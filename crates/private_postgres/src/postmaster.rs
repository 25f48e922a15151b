//! What `postmaster.pid` in a data folder tells: who serves it, and whether it takes connections yet.
//! Source: PostgreSQL, `src/include/utils/pidfile.h`; `pg_ctl --wait` reads the same lines.

use std::path::Path;

const STATUS_LINE: usize = 7;

/// The pid in the first line; `None` without the file.
pub(crate) fn recorded_pid(data: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// True once the last line says `ready`.
pub(crate) fn is_ready(data: &Path) -> bool {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    text.lines()
        .nth(STATUS_LINE)
        .is_some_and(|line| line.trim() == "ready")
}

/// True if `pid` is a process named `postgres` that works in this data folder. Where the folder may
/// not be read (another user's process), the name alone decides.
pub(crate) fn serves(pid: i32, data: &Path) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim() != "postgres" {
        return false;
    }
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd"));
    match (folder, data.canonicalize()) {
        (Ok(folder), Ok(data)) => folder == data,
        _ => true,
    }
}

/// True if any process at all works in this data folder, such as a backend that outlived its server.
pub(crate) fn is_inhabited(data: &Path) -> bool {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .any(|pid: i32| serves(pid, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_ready_in_the_status_line_is_ready() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join("postmaster.pid"), text);
        assert!(!is_ready(folder.path()));
        assert_eq!(recorded_pid(folder.path()), None);
        write("17\n/data\n1700000000\n5432\n/run\n127.0.0.1\n  5432001  1\nstarting\n").unwrap();
        assert!(!is_ready(folder.path()));
        write("17\n/data\n1700000000\n5432\n/run\n127.0.0.1\n  5432001  1\nready   \n").unwrap();
        assert!(is_ready(folder.path()));
        assert_eq!(recorded_pid(folder.path()), Some(17));
    }

    #[test]
    fn a_process_of_another_name_serves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let this = i32::try_from(std::process::id()).unwrap();
        assert!(!serves(this, folder.path()));
        assert!(!is_inhabited(folder.path()));
    }
}
