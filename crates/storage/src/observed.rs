//! What a process knows of its database at a moment, for metrics and status pages.

use std::time::Duration;

/// The hosts in the order of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub hosts: Vec<HostObserved>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostObserved {
    /// `address:port`, or the path of a Unix socket.
    pub host: String,
    pub role: Role,
    /// Of a trivial query, smoothed; `None` while it does not answer.
    pub round_trip: Option<Duration>,
    /// Behind the primary's last known position; zero for a primary, `None` where it is not known.
    pub lag: Option<Duration>,
    pub pools: Vec<PoolObserved>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Primary,
    Replica,
    /// It does not answer, or refuses us.
    Away,
}

/// The connections of one class of work to one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolObserved {
    /// `points`, `lists`, `writes` or `db_dummy`.
    pub class: &'static str,
    pub connections_max: usize,
    pub connections: usize,
    pub idle: usize,
    /// Pieces of work that wait for a connection.
    pub waiting: usize,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Primary, Self::Replica, Self::Away];

    /// The label's value: `primary`, `replica` or `away`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Away => "away",
        }
    }
}
