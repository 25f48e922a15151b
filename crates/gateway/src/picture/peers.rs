//! The other gateways: each is asked once a second what it served and how it is. A peer that does not
//! answer is shown with when it last did; what it served meanwhile comes when it answers again, as far
//! as it remembers (ten minutes).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Picture;
use super::ask;
use super::config::Peer;
use super::own::Own;
use crate::history::{Told, Whole};

/// Ten minutes of every endpoint are about 2 MiB.
const REPORT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Seconds that are asked for again: while a gateway is replaced, its predecessor and its successor
/// answer in turns, each with seconds of its own.
const AGAIN_SECONDS: u64 = 30;
/// A day of every endpoint.
const HISTORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a gateway tells its peers: `GET /api/v1/gateway?after=SECOND`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) gateway: Own,
    pub(crate) told: Told,
}

/// A peer, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    pub(crate) peer: Peer,
    /// Why it did not answer just now.
    pub(crate) silent: Option<String>,
    /// RFC 3339: its last answer; empty: none yet.
    pub(crate) answered: String,
    /// What it said last.
    pub(crate) own: Option<Own>,
    /// The last time that it answered it was this very gateway.
    pub(crate) is_self: bool,
    /// The last second of its history that was asked for.
    last: u64,
}

impl Known {
    fn new(peer: Peer) -> Self {
        Self {
            peer,
            silent: None,
            answered: String::new(),
            own: None,
            is_self: false,
            last: 0,
        }
    }
}

/// The peers of the configuration, those that stay with what is known of them.
pub(crate) fn known(peers: &[Peer], before: Vec<Known>) -> Vec<Known> {
    let mut before = before;
    let of = |peer: &Peer| {
        let at = before.iter().position(|known| known.peer == *peer);
        at.map_or_else(|| Known::new(peer.clone()), |at| before.swap_remove(at))
    };
    peers.iter().map(of).collect()
}

/// Asks all peers, at once, and takes over what they served.
pub(crate) async fn ask_all(picture: &Arc<Picture>, known: &mut [Known], run: &str, now: &str) {
    let mut asked = JoinSet::new();
    for (index, one) in known.iter().enumerate() {
        let authority = one.peer.authority.clone();
        let after = one.last.saturating_sub(AGAIN_SECONDS);
        asked.spawn(async move { (index, report(&authority, after).await) });
    }
    while let Some(answered) = asked.join_next().await {
        let Ok((index, answer)) = answered else {
            continue;
        };
        let Some(one) = known.get_mut(index) else {
            continue;
        };
        match answer {
            Ok(report) => {
                let mut history = picture.history();
                if report.gateway.run != run {
                    history.include(&report.gateway.run, &report.told);
                }
                one.is_self = report.gateway.run == run;
                one.last = history.last_of(&report.gateway.run);
                one.silent = None;
                now.clone_into(&mut one.answered);
                one.own = Some(report.gateway);
            }
            Err(why) => {
                // Another run begins its own account.
                one.last = 0;
                one.silent = Some(why);
            }
        }
    }
}

async fn report(authority: &str, after: u64) -> Result<Report, String> {
    let path = format!("/api/v1/gateway?after={after}");
    let bytes = ask::get(authority, &path, REPORT_BYTES_MAX, ask::TIMEOUT).await?;
    serde_json::from_slice(&bytes).map_err(|error| format!("its answer is not understood: {error}"))
}

/// Takes over the whole history of the first peer that answers.
pub(crate) async fn adopt(picture: &Arc<Picture>, peers: &[Peer]) {
    for peer in peers {
        let path = "/api/v1/gateway/history";
        let bytes = ask::get(&peer.authority, path, HISTORY_BYTES_MAX, ask::TIMEOUT).await;
        let Ok(bytes) = bytes else {
            continue;
        };
        let picture = Arc::clone(picture);
        // A day is megabytes: not on the thread that probes nodes.
        let adopting = tokio::task::spawn_blocking(move || {
            let whole: Option<Whole> = serde_json::from_slice(&bytes).ok();
            let is_known = whole.as_ref().is_some_and(|whole| !whole.is_empty());
            if let Some(whole) = whole.filter(|_| is_known) {
                picture.history().adopt(&whole);
            }
            is_known
        });
        if adopting.await.unwrap_or_default() {
            return;
        }
    }
}
