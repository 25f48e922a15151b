//! Says in the log that the database is away: at once, again now and then while it lasts, and when it
//! is back; and once, at the start, that one server of several is. Requests say so too, but only once their patience is over, and none may come.
//!
//! One place for the whole process: each failed look or query saying it would be a line every 200 ms.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hosts::Hosts;

/// Between two lines about it, whatever happens meanwhile. Too low: a flapping server fills the log;
/// too high: a second absence goes unsaid for so long.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Until the task is ended.
pub(crate) async fn tell_of_absence(hosts: Arc<Hosts>) {
    hosts.looked_at().await;
    if !hosts.is_absent()
        && let Some(lost) = hosts.lost_ones()
    {
        let error = chassis::failure::chain(&lost);
        let help = lost.remedy();
        tracing::warn!(%error, help, "a server of the cluster does not answer; the others serve");
    }
    loop {
        hosts.absent().await;
        let since = Instant::now();
        let mut told = warn(&hosts);
        while tokio::time::timeout(TELL_INTERVAL, hosts.present())
            .await
            .is_err()
        {
            told = warn(&hosts);
        }
        let after = since.elapsed().as_secs_f64();
        tracing::info!(after, "the database can be asked again");
        tokio::time::sleep_until((told + TELL_INTERVAL).into()).await;
    }
}

/// Names each server, its answer and what to do; returns when that was.
fn warn(hosts: &Hosts) -> Instant {
    let unreachable = hosts.unreachable();
    let error = chassis::failure::chain(&unreachable);
    let help = unreachable.remedy();
    match hosts.has_reader() {
        true => {
            tracing::warn!(%error, help, "the database has no primary: writes wait, then get 503");
        }
        false => tracing::warn!(%error, help, "the database is away: requests wait, then get 503"),
    }
    Instant::now()
}
