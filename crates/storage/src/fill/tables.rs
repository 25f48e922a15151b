//! The three tables, their columns, and what they are to have when they are done.
//! Source: contract.md section 4, performance.md "The lists".

/// A table of the contract.
#[derive(Debug)]
pub(super) struct Table {
    pub name: &'static str,
    pub columns: &'static [(&'static str, &'static str)],
    /// The name of its primary key and of that key's index.
    pub key: &'static str,
    pub sequence: &'static str,
    /// The index that its list is read from: its name, and what stands after `ON`.
    pub list_index: (&'static str, &'static str),
}

pub(super) const CUSTOMERS: Table = Table {
    name: "customers",
    columns: &[
        ("id", "integer"),
        ("name", "character varying"),
        ("surname", "character varying"),
        ("birthday", "date"),
        ("email", "character varying"),
    ],
    key: "customers_pkey",
    sequence: "customers_id_seq",
    list_index: (
        "customers_list",
        "customers (surname, name, birthday DESC, id DESC)",
    ),
};

pub(super) const MOVIES: Table = Table {
    name: "movies",
    columns: &[
        ("id", "integer"),
        ("name", "character varying"),
        ("year", "integer"),
        ("duration", "bigint"),
    ],
    key: "movies_pkey",
    sequence: "movies_id_seq",
    list_index: ("movies_list", "movies (year DESC, name, id DESC)"),
};

pub(super) const SESSIONS: Table = Table {
    name: "sessions",
    columns: &[
        ("id", "bigint"),
        ("start_time", "timestamp without time zone"),
        ("customer_id", "integer"),
        ("movie_id", "integer"),
    ],
    key: "sessions_pkey",
    sequence: "sessions_id_seq",
    list_index: (
        "sessions_list",
        "sessions (movie_id, customer_id, id DESC) INCLUDE (start_time)",
    ),
};

/// In the order in which they are reported.
pub(super) const TABLES: [&Table; 3] = [&CUSTOMERS, &MOVIES, &SESSIONS];

/// A foreign key of `sessions`.
#[derive(Debug)]
pub(super) struct ForeignKey {
    pub name: &'static str,
    pub column: &'static str,
    pub to: &'static Table,
}

pub(super) const FOREIGN_KEYS: [ForeignKey; 2] = [
    ForeignKey {
        name: "sessions_customer_id_fkey",
        column: "customer_id",
        to: &CUSTOMERS,
    },
    ForeignKey {
        name: "sessions_movie_id_fkey",
        column: "movie_id",
        to: &MOVIES,
    },
];
