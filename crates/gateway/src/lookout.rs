//! Looks ten times a second at what nodes answered, and takes out and lets back whom `outliers` says.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::outliers::Outliers;
use crate::worker::Shared;

/// How often. A node that fails is out after two of them at most.
const LOOK: Duration = Duration::from_millis(100);

/// Looks for ever.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut outliers = Outliers::default();
    let mut due = tokio::time::interval(LOOK);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let live = shared.live();
        let counted: Vec<_> = live
            .nodes
            .iter()
            .map(|node| (node.id, node.take_tallies()))
            .collect();
        let usable = |id| {
            let node = live.nodes.by_id(id);
            node.is_some_and(|node| node.state().is_usable())
        };
        let now = Instant::now().into_std();
        for (id, place) in outliers.look(&counted, usable, now) {
            if let Some(node) = live.nodes.by_id(id) {
                node.set_place(place, &shared.events);
            }
        }
    }
}
