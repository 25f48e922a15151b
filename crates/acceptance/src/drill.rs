//! Drills: a fault of the table, made again and again while all calls of the service run at a fixed
//! rate, and the judgement of what clients saw. Whatever happens, what was broken is put right
//! again. Left out: the whole judgement of an installation (contract, load and faults), and faults of
//! more than one thing at a time.

mod fault;
mod installation;
mod ledger;
mod proxy;
mod scenario;
mod undo;
mod verdict;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::Error;
use crate::http::Base;
use crate::load::{self, Ended, Ids, Mark, Mix, Plan, Progress, Witness};

pub use installation::Installation;
pub use scenario::Scenario;
pub use verdict::Finding;

use fault::{Breaker, Inflicted};
use installation::Convicted;
use ledger::{Found, Ledger};
use scenario::{Fault, Role};
use verdict::Seen;

/// All seven calls and both writes. Lists are rare: one of all sessions is half a second of two cores.
const MIX: &str = "movie=230,customer=230,session=230,operation=120,db_dummy=60,long_dummy=24,\
    list_movie=3,list_customer=2,list_session=1,post_session=60,delete_session=40";
/// Load before the first fault and after the last one.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(4);
/// The longest wait for an installation that is ready.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// How long and hard a drill is.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Requests a second.
    pub rps: f64,
    pub requests: u64,
    /// One fault instead of as many as there is time for, each at most this long.
    pub once_for: Option<Duration>,
    pub ids: Ids,
    pub connections_max: usize,
}

/// What became of a drill.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub name: String,
    pub about: String,
    /// Why it was not run, where it was not.
    pub left_out: Option<String>,
    /// Why its figures are worth nothing, where they are.
    pub void: Option<String>,
    /// What kept it from its end, where something did.
    pub error: Option<String>,
    /// How often the fault was made.
    pub faults: usize,
    pub findings: Vec<Finding>,
    pub load: Option<load::Report>,
}

impl Outcome {
    pub fn is_green(&self) -> bool {
        self.error.is_none() && self.findings.iter().all(|finding| finding.is_green)
    }
}

#[derive(Debug, Default)]
struct Records(Mutex<Vec<Ended>>);

impl Witness for Records {
    fn ended(&self, ended: &Ended) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(*ended);
    }
}

/// Runs one drill, until `stop` at most. Dropping the future puts right what was broken, and leaves the
/// sessions that were stored and what was convicted.
///
/// # Errors
/// [`Error::Installation`] where it is not there or not ready, before or afterwards; [`Error::Interrupted`]
/// after `stop`. Requests that fail are findings, and what fails on the way stands in the outcome.
pub async fn run(
    scenario: &Scenario,
    installation: &Installation,
    effort: &Effort,
    stop: impl Future<Output = ()>,
    progress: impl FnMut(Progress),
) -> Result<Outcome, Error> {
    let _alone = installation.lock()?;
    undo::put_right(installation);
    let status = installation.ready(READY_WITHIN).await?;
    let mut outcome = Outcome {
        name: scenario.name.clone(),
        about: scenario.about.clone(),
        left_out: Breaker::lacking(installation, &scenario.fault, &status).await,
        void: None,
        error: None,
        faults: 0,
        findings: Vec::new(),
        load: None,
    };
    if outcome.left_out.is_some() {
        return Ok(outcome);
    }
    let convicted = installation.convicted(&status.of(Role::Gateway)).await;
    let fault = effort.shortened(&scenario.fault);
    let mut breaker = Breaker::prepare(installation, &fault, &status).await?;
    let mark = Mark {
        movie: ledger::first_movie(&breaker.http).await?,
        first_micros: jiff::Timestamp::now().as_microsecond(),
    };
    let records = Arc::new(Records::default());
    let plan = effort.plan(&breaker.http, mark, records.clone())?;
    let broken = async {
        let overload = effort.overload(&breaker.http, &fault).await?;
        let faults = async {
            let inflicted = inflict_all(&mut breaker, scenario, effort).await;
            breaker.undo.run();
            inflicted
        };
        let (report, inflicted) = tokio::try_join!(load::run(&plan, progress), faults)?;
        Ok((overload, report, inflicted))
    };
    let broken = tokio::select! {
        broken = broken => broken,
        () = stop => Err(Error::Interrupted),
    };
    let found = tidy(breaker, &status, &convicted, mark).await;
    let (overload, report, inflicted) = match broken {
        Ok(broken) => broken,
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => {
            outcome.error = Some(crate::error::chain(&error));
            return found.map(|_| outcome).map_err(|_| error);
        }
    };
    let found = found?;
    let ended = std::mem::take(&mut *records.0.lock().unwrap_or_else(PoisonError::into_inner));
    let ledger = Ledger::of(ended.iter().filter_map(|one| one.wrote));
    let seen = Seen {
        acknowledged: ledger.acknowledged(),
        row_faults: ledger.faults(&found),
        ended,
        inflicted,
    };
    outcome.faults = seen.inflicted.len();
    outcome.findings.extend(overload);
    outcome.findings.extend(seen.judge(&scenario.bounds));
    outcome.void = report.void.clone();
    outcome.load = Some(report);
    Ok(outcome)
}

/// Leaves the installation as it was found: whole and ready, without what was convicted meanwhile (the next drill
/// sends much the same requests) and without the sessions that were stored, which it returns.
async fn tidy(
    mut breaker: Breaker<'_>,
    status: &installation::Status,
    convicted: &Convicted,
    mark: Mark,
) -> Result<Found, Error> {
    let (installation, gateways) = (breaker.installation, status.of(Role::Gateway));
    let proxy = breaker.proxy.take();
    drop(breaker);
    if proxy.is_some() {
        // Until the gateways have read their file again, what they send to the node goes through it.
        let _ = installation.reload(&gateways).await;
    }
    drop(proxy);
    installation.ready(READY_WITHIN).await?;
    installation.lift_new(&gateways, convicted).await?;
    let http = status.urls.http.clone().unwrap_or_default();
    let found = ledger::find(&http, mark).await?;
    ledger::clean(&http, &found).await;
    Ok(found)
}

async fn inflict_all(
    breaker: &mut Breaker<'_>,
    scenario: &Scenario,
    effort: &Effort,
) -> Result<Vec<Inflicted>, Error> {
    let last = Instant::now() + effort.duration().saturating_sub(AFTER);
    let mut all: Vec<Inflicted> = Vec::new();
    let mut next = Instant::now() + BEFORE;
    while all.is_empty() || next < last && effort.once_for.is_none() {
        tokio::time::sleep_until(next.into()).await;
        all.push(breaker.inflict().await?);
        next = Instant::now().max(next + scenario.every());
    }
    Ok(all)
}

impl Effort {
    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.requests as f64 / self.rps)
    }

    fn plan(&self, http: &str, mark: Mark, witness: Arc<dyn Witness>) -> Result<Plan, Error> {
        Ok(Plan {
            rps: self.rps,
            duration: self.duration(),
            mix: MIX.parse::<Mix>()?,
            ids: self.ids,
            connections_max: self.connections_max,
            mark: Some(mark),
            witness: Some(witness),
            ..Plan::new(Base::parse(http)?)
        })
    }

    fn shortened(&self, fault: &Fault) -> Fault {
        let mut fault = fault.clone();
        let limit = self
            .once_for
            .map_or(u64::MAX, |limit| limit.as_millis() as u64);
        match &mut fault {
            Fault::Signal { lasts_ms, .. }
            | Fault::Proxy { lasts_ms, .. }
            | Fault::FullLogs { lasts_ms }
            | Fault::Clock { lasts_ms, .. }
            | Fault::Overload { lasts_ms, .. } => *lasts_ms = (*lasts_ms).min(limit),
            Fault::Poison { .. }
            | Fault::Poisons { .. }
            | Fault::Command { .. }
            | Fault::Reload { .. }
            | Fault::Upgrade => {}
        }
        fault
    }

    /// The load beyond all capacity, before the usual one that must find everything as it was.
    async fn overload(&self, http: &str, fault: &Fault) -> Result<Option<Finding>, Error> {
        let Fault::Overload {
            rps,
            lasts_ms,
            goodput_min,
        } = fault
        else {
            return Ok(None);
        };
        let plan = Plan {
            rps: f64::from(*rps),
            duration: Duration::from_millis(*lasts_ms),
            mix: "operation".parse()?,
            connections_max: self.connections_max,
            ..Plan::new(Base::parse(http)?)
        };
        let report = load::run(&plan, |_| {}).await?;
        let void = report.void.as_deref().map(|why| format!("; void: {why}"));
        Ok(Some(Finding {
            bound: format!("right answers a second at {rps} asked ≥ {goodput_min}"),
            seen: format!("{:.1}{}", report.rps_achieved, void.unwrap_or_default()),
            is_green: report.rps_achieved >= f64::from(*goodput_min),
        }))
    }
}
