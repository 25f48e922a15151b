//! The SQL that `postgres --single` reads from stdin to make roles and database of a new data folder.

use crate::Error;

/// The role that the service logs in as, and the database that it owns.
#[derive(Clone)]
pub struct Role {
    pub name: String,
    pub password: String,
    pub database: String,
}

/// One statement a line: `postgres --single` ends a statement at the end of its line.
pub(crate) fn role_statements(
    version: u32,
    superuser_password: &str,
    service: &Role,
) -> Result<String, Error> {
    let role = identifier(&service.name)?;
    let database = identifier(&service.database)?;
    let mut lines = vec![
        format!(
            "ALTER ROLE postgres PASSWORD {}",
            literal(superuser_password)?
        ),
        format!(
            "CREATE ROLE {role} LOGIN PASSWORD {}",
            literal(&service.password)?
        ),
        format!("CREATE DATABASE {database} OWNER {role}"),
    ];
    if version >= 15 {
        // The fill ends with CHECKPOINT. Version 14 keeps that to superusers.
        lines.push(format!("GRANT pg_checkpoint TO {role}"));
    }
    Ok(lines.join("\n") + "\n")
}

/// New passwords for roles that are there.
pub(crate) fn password_statements(
    superuser_password: &str,
    service: &Role,
) -> Result<String, Error> {
    let superuser = literal(superuser_password)?;
    let role = identifier(&service.name)?;
    let password = literal(&service.password)?;
    Ok(format!(
        "ALTER ROLE postgres PASSWORD {superuser}\nALTER ROLE {role} PASSWORD {password}\n"
    ))
}

fn identifier(name: &str) -> Result<String, Error> {
    Ok(format!("\"{}\"", one_line(name)?.replace('"', "\"\"")))
}

fn literal(text: &str) -> Result<String, Error> {
    Ok(format!("'{}'", one_line(text)?.replace('\'', "''")))
}

fn one_line(text: &str) -> Result<&str, Error> {
    match text.contains(['\n', '\r', '\0', '\\']) {
        false => Ok(text),
        true => Err(Error::Program {
            program: "postgres --single".into(),
            account: "the server".into(),
            why: "a name or password has a line break, zero or backslash in it".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Role {
        Role {
            name: "bingo".into(),
            password: "it's".into(),
            database: "bingo".into(),
        }
    }

    #[test]
    fn names_and_passwords_are_quoted_and_never_break_the_line() {
        let sql = role_statements(15, "a'b", &service()).unwrap();
        assert!(
            sql.contains("ALTER ROLE postgres PASSWORD 'a''b'\n"),
            "{sql}"
        );
        assert!(
            sql.contains("CREATE ROLE \"bingo\" LOGIN PASSWORD 'it''s'\n"),
            "{sql}"
        );
        assert!(sql.contains("GRANT pg_checkpoint"));
        assert!(
            !role_statements(14, "x", &service())
                .unwrap()
                .contains("pg_checkpoint")
        );
        assert!(role_statements(15, "a\nb", &service()).is_err());
    }
}
