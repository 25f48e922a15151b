//! The servers of the cluster as one: what is known of each, which of them is asked (decided in
//! `choice`), and waiting for one while none can be asked. `watch` puts in what it sees, every failed
//! query what it learned; whoever waits is told of every change.
//!
//! A server that stopped answering takes no new work. What runs there is broken off only once another
//! server can take it: where there is no other, a slow server is better than none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::PostgresCluster;
use crate::choice::{self, Choice, Rules, Seen, Sight, Standing, Written};
use crate::connect::Dialer;
use crate::error::{Attempt, Error};
use crate::observed::{HostObserved, Observed, PoolObserved, Role};
use crate::pool::{Class, HostState, Lease, NoLease, Pool};
use crate::queries::{Lists, Pauses, Points};
use crate::query_metrics::QueryMetrics;
use crate::writes::Writes;

/// All servers of the configuration.
pub(crate) struct Hosts {
    servers: Vec<Server>,
    rules: Rules,
    known: Mutex<Known>,
    view: watch::Sender<Arc<View>>,
    metrics: QueryMetrics,
}

/// One server and our connections to it.
pub(crate) struct Server {
    pub(crate) dialer: Dialer,
    /// Have a look now.
    pub(crate) wake: Notify,
    pools: Pools,
    state: HostState,
}

/// The connections to one server.
pub(crate) struct Pools {
    pub(crate) points: Pool<Points>,
    pub(crate) lists: Pool<Lists>,
    pub(crate) writes: Pool<Writes>,
    pub(crate) pauses: Pool<Pauses>,
}

/// Which servers will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Primary,
    Reader,
}

/// A connection and whose it is.
pub(crate) struct Lent<C: Class> {
    pub(crate) lease: Lease<C>,
    pub(crate) host: usize,
}

/// In the order of the configuration.
struct Known {
    sights: Vec<Sight>,
    /// What each server that cannot be asked answered last.
    answers: Vec<Option<Answer>>,
    written: Written,
    choice: Choice,
}

#[derive(Clone)]
struct Answer {
    text: String,
    remedy: String,
    /// It refuses us and will go on to: a wrong password, no such database.
    is_refusal: bool,
}

/// Follows what becomes known of the servers.
pub struct Looks(watch::Receiver<Arc<View>>);

impl Looks {
    /// Returns when there is something new and each server was looked at, or tried to be; false where
    /// there never will be.
    pub async fn next(&mut self) -> bool {
        loop {
            if self.0.changed().await.is_err() {
                return false;
            }
            if self.0.borrow_and_update().is_complete {
                return true;
            }
        }
    }
}

/// What was chosen last.
#[derive(Default)]
struct View {
    choice: Choice,
    lost: Vec<bool>,
    /// Every server refuses us: waiting will not help.
    is_hopeless: bool,
    /// Each server was looked at, or tried to be.
    is_complete: bool,
}

impl View {
    fn of(&self, need: Need) -> &[usize] {
        match need {
            Need::Primary => self.choice.primary.as_slice(),
            Need::Reader => &self.choice.readers,
        }
    }

    /// Reads, writes or both have nobody to ask.
    fn is_absent(&self) -> bool {
        self.is_complete && (self.choice.primary.is_none() || self.choice.readers.is_empty())
    }

    fn is_lost(&self, host: usize) -> bool {
        self.lost.get(host).copied().unwrap_or_default()
    }
}

impl Hosts {
    /// Connects to nothing yet. Errors: those of `Dialer::all`.
    pub(crate) fn new(cluster: &PostgresCluster) -> Result<Self, Error> {
        let servers = Dialer::all(cluster)?.into_iter().map(|dialer| {
            let state = HostState::new();
            Ok(Server {
                wake: Notify::new(),
                pools: Pools {
                    points: Pool::new(dialer.clone(), state.clone())?,
                    lists: Pool::new(dialer.clone(), state.clone())?,
                    writes: Pool::new(dialer.clone(), state.clone())?,
                    pauses: Pool::new(dialer.clone(), state.clone())?,
                },
                dialer,
                state,
            })
        });
        let servers = servers.collect::<Result<Vec<_>, Error>>()?;
        let known = Known {
            sights: vec![Sight::Unknown; servers.len()],
            answers: vec![None; servers.len()],
            written: Written::default(),
            choice: Choice::default(),
        };
        Ok(Self {
            servers,
            rules: Rules {
                use_closest_node: cluster.use_closest_node,
                max_replica_lag: cluster.max_replica_lag,
            },
            known: Mutex::new(known),
            view: watch::Sender::new(Arc::default()),
            metrics: QueryMetrics::new(),
        })
    }

    pub(crate) fn metrics(&self) -> &QueryMetrics {
        &self.metrics
    }

    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// A connection to the best server that will do. Waits until `deadline` for one that can be
    /// asked; then the error says what each server answered.
    pub(crate) async fn lease<C: Class>(
        &self,
        need: Need,
        deadline: Instant,
    ) -> Result<Lent<C>, Error> {
        let mut views = self.view.subscribe();
        loop {
            let view = views.borrow_and_update().clone();
            for host in view.of(need).iter().copied() {
                let Some(server) = self.servers.get(host) else {
                    continue;
                };
                let answer = tokio::select! {
                    answer = C::pool(&server.pools).lease(deadline) => answer,
                    () = self.replaced(host, need) => continue,
                };
                match answer {
                    Ok(lease) => return Ok(Lent { lease, host }),
                    Err(NoLease::Failed(error)) => return Err(error),
                    Err(NoLease::Unreachable(error)) => {
                        self.note(host, &error);
                        server.wake.notify_one();
                    }
                }
            }
            let next = tokio::time::timeout_at(deadline.into(), views.changed());
            if view.is_hopeless || next.await.is_err() {
                return Err(self.unreachable());
            }
        }
    }

    /// Returns once a server is lost while another one will do.
    pub(crate) async fn replaced(&self, host: usize, need: Need) {
        self.until(|view| {
            let others = view.of(need);
            view.is_lost(host) && !others.is_empty() && !others.contains(&host)
        })
        .await;
    }

    /// Returns at the deadline or, if the server can be asked then, once it is lost.
    pub(crate) async fn lost_at(&self, host: usize, deadline: Instant) {
        tokio::time::sleep_until(deadline.into()).await;
        self.until(|view| view.is_lost(host)).await;
    }

    pub(crate) fn primary(&self) -> Option<usize> {
        self.view.borrow().choice.primary
    }

    /// A connection to a server proved worthless: all are given up, and it is looked at anew before it
    /// is asked again. One of an earlier generation proves nothing of the server as it is now.
    pub(crate) fn lost(&self, host: usize, generation: Option<u64>, error: &Error) {
        let Some(server) = self.servers.get(host) else {
            return;
        };
        if generation == Some(server.state.generation()) {
            server.give_up_connections();
            server.wake.notify_one();
            self.put(host, Sight::Lost, Some(error));
        }
    }

    /// From now on statements are sent whole to a server that mixes up prepared ones.
    pub(crate) fn prepare_no_more(&self, host: usize) {
        if let Some(server) = self.servers.get(host) {
            server.state.prepare_no_more();
            server.give_up_connections();
        }
    }

    /// What a look saw.
    pub(crate) fn saw(&self, host: usize, seen: Result<Seen, Error>) {
        match seen {
            Ok(seen) => self.put(host, Sight::Seen(seen), None),
            Err(error) => self.put(host, Sight::Lost, Some(&error)),
        }
    }

    /// What was found out about each server, and what its pools do.
    pub(crate) fn observed(&self) -> Observed {
        let known = self.known();
        let servers = self.servers.iter().zip(&known.sights);
        let hosts = servers.map(|(server, sight)| {
            let seen = match sight {
                Sight::Seen(seen) => Some(seen),
                Sight::Unknown | Sight::Lost => None,
            };
            HostObserved {
                host: server.dialer.host().to_string(),
                role: match seen.map(|seen| seen.standing) {
                    Some(Standing::Primary { .. }) => Role::Primary,
                    Some(Standing::Replica { .. }) => Role::Replica,
                    None => Role::Away,
                },
                round_trip: seen.map(|seen| seen.round_trip),
                lag: seen.and_then(|seen| choice::lag(seen, &known.written)),
                pools: server.pools.observed(),
            }
        });
        Observed {
            hosts: hosts.collect(),
        }
    }

    /// Remembers what a server answered, whatever is known of it otherwise.
    fn note(&self, host: usize, error: &Error) {
        if let Some(answer) = self.known().answers.get_mut(host) {
            *answer = Some(Answer::new(error));
        }
    }

    fn put(&self, host: usize, sight: Sight, error: Option<&Error>) {
        let mut known = self.known();
        known.put(host, sight, error);
        known.choice = choice::choose(
            Instant::now(),
            &known.sights,
            &known.written,
            known.choice.primary,
            &self.rules,
        );
        let mut answers = known.answers.iter();
        let view = View {
            choice: known.choice.clone(),
            lost: known
                .sights
                .iter()
                .map(|sight| *sight == Sight::Lost)
                .collect(),
            is_hopeless: answers
                .all(|answer| answer.as_ref().is_some_and(|answer| answer.is_refusal)),
            is_complete: !known.sights.contains(&Sight::Unknown),
        };
        self.view.send_replace(Arc::new(view));
    }

    pub(crate) fn looks(&self) -> Looks {
        let mut views = self.view.subscribe();
        views.mark_changed();
        Looks(views)
    }

    /// Returns once reads, writes or both have nobody to ask.
    pub(crate) async fn absent(&self) {
        self.until(View::is_absent).await;
    }

    /// Returns once reads and writes have somebody to ask.
    pub(crate) async fn present(&self) {
        self.until(|view| !view.is_absent()).await;
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.view.borrow().is_absent()
    }

    pub(crate) fn has_reader(&self) -> bool {
        !self.view.borrow().choice.readers.is_empty()
    }

    /// Returns once each server was looked at, or tried to be.
    pub(crate) async fn looked_at(&self) {
        self.until(|view| view.is_complete).await;
    }

    /// What each server answered last that can be asked nothing; `None` where there is none.
    pub(crate) fn lost_ones(&self) -> Option<Error> {
        let attempts = self.attempts(|sight| *sight == Sight::Lost);
        (!attempts.is_empty()).then_some(Error::Unreachable { attempts })
    }

    /// What each server answered last.
    pub(crate) fn unreachable(&self) -> Error {
        Error::Unreachable {
            attempts: self.attempts(|_| true),
        }
    }

    fn attempts(&self, is_asked: impl Fn(&Sight) -> bool) -> Vec<Attempt> {
        let known = self.known();
        let answers = self.servers.iter().zip(&known.answers).zip(&known.sights);
        let answers = answers.filter(|(_, sight)| is_asked(sight));
        let attempts = answers.map(|((server, answer), sight)| Attempt {
            host: server.dialer.host().to_string(),
            remedy: answer
                .as_ref()
                .map_or(String::new(), |answer| answer.remedy.clone()),
            answer: match (answer, sight) {
                (Some(answer), _) => answer.text.clone(),
                (None, Sight::Unknown) => "not yet asked".to_owned(),
                (None, Sight::Lost) => "does not answer".to_owned(),
                (None, Sight::Seen(seen)) => match seen.standing {
                    Standing::Primary { .. } => "an older primary".to_owned(),
                    Standing::Replica { .. } => "is in recovery".to_owned(),
                },
            },
        });
        attempts.collect()
    }

    async fn until(&self, wanted: impl Fn(&View) -> bool) {
        let mut views = self.view.subscribe();
        // The sender is ours, so it cannot be gone.
        let _ = views.wait_for(|view| wanted(view)).await;
    }

    /// No holder of the lock can leave it half-changed.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn put(&mut self, host: usize, sight: Sight, error: Option<&Error>) {
        if let Sight::Seen(Seen {
            at,
            standing: Standing::Primary { written, .. },
            ..
        }) = sight
            && self.choice.primary.is_none_or(|primary| primary == host)
        {
            self.written.record(at, written);
        }
        if let Some(slot) = self.sights.get_mut(host) {
            *slot = sight;
        }
        if let Some(answer) = self.answers.get_mut(host) {
            *answer = error.map(Answer::new);
        }
    }
}

impl Answer {
    fn new(error: &Error) -> Self {
        Self {
            text: chassis::failure::chain(error),
            remedy: error.remedy(),
            is_refusal: error.is_refusal(),
        }
    }
}

impl Server {
    fn give_up_connections(&self) {
        self.state.end_generation();
        self.pools.points.close_idle();
        self.pools.lists.close_idle();
        self.pools.writes.close_idle();
        self.pools.pauses.close_idle();
    }
}

impl Pools {
    fn observed(&self) -> Vec<PoolObserved> {
        fn one<C: Class>(pool: &Pool<C>) -> PoolObserved {
            let status = pool.status();
            PoolObserved {
                class: C::NAME,
                connections_max: C::CONNECTIONS_MAX,
                connections: status.size,
                idle: status.available,
                waiting: status.waiting,
            }
        }
        vec![
            one(&self.points),
            one(&self.lists),
            one(&self.writes),
            one(&self.pauses),
        ]
    }
}
