//! Nodes that die of poison and are started again after a moment, as a supervisor does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{Reply, Seen, Upstream, answer, ok};

/// What all nodes of a test have been through together.
#[derive(Clone, Default)]
pub(crate) struct Ward {
    pub(crate) down: Arc<AtomicUsize>,
    pub(crate) down_most: Arc<AtomicUsize>,
}

/// One node.
pub(crate) struct Mortal {
    pub(crate) address: SocketAddr,
    deaths: Arc<AtomicUsize>,
    /// Poisons that it was sent.
    pub(crate) poisons: Arc<AtomicUsize>,
    /// Requests that were no poison.
    pub(crate) served: Arc<AtomicUsize>,
    keeper: AbortHandle,
}

impl Mortal {
    /// A body with `poison` kills it, one with `late poison` after half of this time, one with `sickness` makes it answer 500 to everything; it is back
    /// after this time. Anything else is answered 200 after a tenth of it.
    pub(crate) async fn start(ward: &Ward, back: Duration) -> Self {
        let (hurt, mut hurts) = mpsc::unbounded_channel();
        let sick = Arc::new(AtomicBool::new(false));
        let (deaths, served) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (is_sick, counted) = (Arc::clone(&sick), Arc::clone(&served));
        let poisons = Arc::<AtomicUsize>::default();
        let poisoned = Arc::clone(&poisons);
        let behaviour = move |seen: &Seen| {
            let text = String::from_utf8_lossy(&seen.body).into_owned();
            if text.contains("poison") {
                let (hurt, late) = (hurt.clone(), text.contains("late"));
                tokio::spawn(async move {
                    tokio::time::sleep(if late { back / 2 } else { Duration::ZERO }).await;
                    let _ = hurt.send(false);
                });
                poisoned.fetch_add(1, SeqCst);
                return Reply::Hang(Arc::default());
            }
            if text.contains("sickness") {
                is_sick.store(true, SeqCst);
                let _ = hurt.send(true);
            }
            if is_sick.load(SeqCst) {
                return Reply::Raw(answer("500 Internal Server Error", "", "I feel bad."));
            }
            counted.fetch_add(1, SeqCst);
            match ok("fine") {
                Reply::Raw(bytes) => Reply::After(back / 10, bytes),
                other => other,
            }
        };
        let mut upstream = Upstream::start(behaviour).await;
        let (address, ward, died) = (upstream.address, ward.clone(), Arc::clone(&deaths));
        let keeper = tokio::spawn(async move {
            while let Some(sickens) = hurts.recv().await {
                died.fetch_add(1, SeqCst);
                let down = ward.down.fetch_add(1, SeqCst) + 1;
                ward.down_most.fetch_max(down, SeqCst);
                if sickens {
                    upstream.answer_probes(answer("500 Internal Server Error", "", "I feel bad"));
                    tokio::time::sleep(back / 2).await;
                }
                upstream.kill();
                tokio::time::sleep(back).await;
                // What came before the death was the same death.
                while hurts.try_recv().is_ok() {}
                sick.store(false, SeqCst);
                upstream.answer_probes(answer("200 OK", "", "pong"));
                while !upstream.try_revive().await {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                ward.down.fetch_sub(1, SeqCst);
            }
        });
        Self {
            address,
            deaths,
            poisons,
            served,
            keeper: keeper.abort_handle(),
        }
    }

    pub(crate) fn deaths(&self) -> usize {
        self.deaths.load(SeqCst)
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}
