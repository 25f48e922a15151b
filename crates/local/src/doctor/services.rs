//! Rows about what else is on the machine: PostgreSQL's binaries, other servers, busy ports.

use std::path::Path;

use private_postgres::Binaries;

use super::{Check, Subject};
use crate::ports;

pub(super) fn postgres_binaries(subject: &Subject<'_>) -> Check {
    let name = "PostgreSQL";
    if let Some(url) = &subject.options.postgres_url {
        return Check::ok(name, format!("not needed: {url} is used"));
    }
    match Binaries::find(subject.options.postgres_bin.as_deref().map(Path::new)) {
        Ok(binaries) => Check::ok(
            name,
            format!(
                "version {} in {}",
                binaries.version,
                binaries.folder.display()
            ),
        ),
        Err(error) => Check::failed(name, error.to_string(), error.remedy()),
    }
}

pub(super) fn other_postgres(subject: &Subject<'_>) -> Check {
    let own = subject.layout.postgres();
    let own = own.to_string_lossy();
    let others: Vec<String> = ports::running_postgres()
        .into_iter()
        .filter(|server| !server.command.contains(own.as_ref()))
        .map(|server| server.to_string())
        .collect();
    if others.is_empty() {
        Check::ok("other servers", "no other PostgreSQL runs here")
    } else {
        let found = format!(
            "left alone, ours has a port of its own: {}",
            others.join(", ")
        );
        Check::ok("other servers", found)
    }
}

pub(super) fn ports(subject: &Subject<'_>) -> Vec<Check> {
    let options = subject.options;
    let wanted = [
        ("port http", "--http-port", options.http_port),
        ("port admin", "--admin-port", options.admin_port),
    ];
    wanted
        .into_iter()
        .map(
            |(name, flag, port)| match ports::busy(&options.bind, port) {
                _ if subject.running => {
                    Check::ok(name, format!("{port}, held by this installation"))
                }
                None => Check::ok(name, format!("{port} is free")),
                Some((address, holder)) => {
                    let holder =
                        holder.map_or("another user's process".to_owned(), |h| h.to_string());
                    Check::failed(
                        name,
                        format!("{address} is taken by {holder}"),
                        format!("end that process, or choose another port with {flag}"),
                    )
                }
            },
        )
        .collect()
}
