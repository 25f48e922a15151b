//! What happens to the database, for the file of events: servers that go away, come back, are promoted.
//! Each node tells what it sees itself; two that disagree say something of the network between.

use std::collections::BTreeMap;
use std::sync::Arc;

use storage::{Observed, Role};

use crate::app::App;

/// Until the task is ended.
pub(crate) async fn tell(app: Arc<App>) {
    let mut looks = app.storage.looks();
    let mut known = Known::default();
    while looks.next().await {
        for change in known.see(&app.storage.observed()) {
            app.events.tell(change.kind, &change.host, change.reason);
        }
    }
}

/// What was last seen of each server.
#[derive(Debug, Default)]
struct Known(BTreeMap<String, Server>);

#[derive(Debug, Default)]
struct Server {
    /// None: it was never seen.
    role: Option<Role>,
    is_away: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Change {
    kind: &'static str,
    host: String,
    reason: &'static str,
}

impl Known {
    /// What is other than it was.
    fn see(&mut self, observed: &Observed) -> Vec<Change> {
        let mut changes = Vec::new();
        for seen in &observed.hosts {
            let server = self.0.entry(seen.host.clone()).or_default();
            if let Some((kind, reason)) = server.see(seen.role) {
                changes.push(Change {
                    kind,
                    host: seen.host.clone(),
                    reason,
                });
            }
        }
        changes
    }
}

impl Server {
    fn see(&mut self, role: Role) -> Option<(&'static str, &'static str)> {
        if role == Role::Away {
            let was_there = !std::mem::replace(&mut self.is_away, true);
            let was = match self.role {
                Some(Role::Primary) => "it was the primary",
                Some(_) => "it was a replica",
                None => "it has not answered since the start",
            };
            return was_there.then_some(("database_away", was));
        }
        let was_away = std::mem::take(&mut self.is_away);
        let before = self.role.replace(role);
        match (before, role) {
            (Some(Role::Replica), Role::Primary) => Some(("promoted", "it was a replica")),
            (Some(Role::Primary), Role::Replica) => Some(("demoted", "it was the primary")),
            (_, Role::Primary) if was_away => Some(("database_back", "it is the primary")),
            (_, _) if was_away => Some(("database_back", "it is a replica")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use storage::HostObserved;

    use super::*;

    #[test]
    fn a_failover_is_told_as_away_promoted_and_back() {
        let mut known = Known::default();
        let mut see = |roles: [Role; 2]| -> Vec<String> {
            let hosts = ["a", "b"].into_iter().zip(roles);
            let hosts = hosts.map(|(host, role)| HostObserved {
                host: host.to_owned(),
                role,
                round_trip: None,
                lag: None,
                pools: Vec::new(),
            });
            let changes = known.see(&Observed {
                hosts: hosts.collect(),
            });
            let texts = changes.into_iter();
            texts
                .map(|change| format!("{} {}", change.host, change.kind))
                .collect()
        };
        use Role::{Away, Primary, Replica};
        assert_eq!(see([Primary, Away]), ["b database_away"]);
        assert_eq!(see([Primary, Replica]), ["b database_back"]);
        assert_eq!(see([Primary, Replica]), [""; 0]);
        assert_eq!(see([Away, Replica]), ["a database_away"]);
        assert_eq!(see([Away, Primary]), ["b promoted"]);
        assert_eq!(see([Replica, Primary]), ["a demoted"]);
        assert_eq!(see([Away, Primary]), ["a database_away"]);
        assert_eq!(see([Replica, Primary]), ["a database_back"]);
    }
}
