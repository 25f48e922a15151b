//! Judges a drill: what was seen, beside the bounds of its file. Pure, so that each bound can be shown
//! to be able to fail.

use std::time::{Duration, Instant};

use super::fault::Inflicted;
use super::scenario::{Bounds, Excused};
use crate::load::{Call, Ended};

/// One bound and what was seen.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    pub bound: String,
    pub seen: String,
    pub is_green: bool,
}

/// What a drill saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) ended: Vec<Ended>,
    pub(super) inflicted: Vec<Inflicted>,
    /// What became of the rows.
    pub(super) acknowledged: usize,
    pub(super) row_faults: Vec<String>,
}

impl Seen {
    pub(super) fn judge(&self, bounds: &Bounds) -> Vec<Finding> {
        let mut findings = vec![self.failures(bounds), self.rows()];
        findings.extend(bounds.back_ms.map(|limit| self.back(limit)));
        findings.extend(bounds.by_id_p99_ms.map(|limit| self.by_id(limit)));
        findings.extend(self.poisons());
        findings
    }

    /// Where several were sent at once.
    fn poisons(&self) -> Option<Finding> {
        let all = || self.inflicted.iter().filter_map(|fault| fault.poisons);
        let (sent, refused) = all().fold((0, 0), |(sent, refused), one| {
            (sent + one.sent, refused + one.refused)
        });
        (sent > 0).then(|| Finding {
            bound: "every poison is refused afterwards".to_owned(),
            seen: format!("{refused} of {sent}"),
            is_green: refused == sent,
        })
    }

    fn failures(&self, bounds: &Bounds) -> Finding {
        let failed = self.ended.iter().filter(|ended| !ended.is_right);
        let (excused, failed): (Vec<&Ended>, Vec<&Ended>) = failed
            .partition(|ended| bounds.excused == Excused::Accepted && self.was_accepted(ended));
        let count = failed.len() as u64;
        let of = self.ended.len();
        let excused = match excused.len() {
            0 => String::new(),
            some => format!(", and {some} that the broken gateway had accepted"),
        };
        Finding {
            bound: format!("failed requests ≤ {}", bounds.failed_max),
            seen: format!("{count} of {of}{excused}"),
            is_green: count <= bounds.failed_max && !self.ended.is_empty(),
        }
    }

    /// It broke, on a connection from before the fault or begun before it, while it was there.
    fn was_accepted(&self, ended: &Ended) -> bool {
        let end = ended.scheduled + ended.latency;
        ended.is_broken
            && self.inflicted.iter().any(|fault| {
                let is_of_then = ended.on_reused || ended.scheduled <= fault.at;
                is_of_then && end >= fault.at && ended.scheduled <= fault.over
            })
    }

    fn rows(&self) -> Finding {
        Finding {
            bound: "every acknowledged write is there, once".to_owned(),
            seen: match self.row_faults.first() {
                None => format!("{} of {}", self.acknowledged, self.acknowledged),
                Some(first) => format!("{} are not: {first}", self.row_faults.len()),
            },
            is_green: self.row_faults.is_empty() && self.acknowledged > 0,
        }
    }

    fn back(&self, limit_ms: u64) -> Finding {
        let returned = self.inflicted.iter().filter(|fault| fault.is_return);
        let slowest = returned.map(|fault| fault.over - fault.at).max();
        Finding {
            bound: format!("back after ≤ {limit_ms} ms"),
            seen: slowest.map_or("nothing came back".to_owned(), |slowest| {
                format!(
                    "{} ms at most, of {}",
                    slowest.as_millis(),
                    self.inflicted.len()
                )
            }),
            is_green: slowest.is_some_and(|slowest| slowest <= Duration::from_millis(limit_ms)),
        }
    }

    fn by_id(&self, limit_ms: u64) -> Finding {
        let is_by_id = |call| matches!(call, Call::Movie | Call::Customer | Call::Session);
        let is_during = |at: Instant| {
            let mut faults = self.inflicted.iter();
            faults.any(|fault| (fault.at..=fault.over).contains(&at))
        };
        let asked = self.ended.iter();
        let asked = asked.filter(|one| is_by_id(one.call) && is_during(one.scheduled));
        let mut latencies: Vec<Duration> = asked.map(|one| one.latency).collect();
        latencies.sort_unstable();
        let place = (latencies.len() * 99).div_ceil(100).saturating_sub(1);
        let seen = latencies.get(place);
        Finding {
            bound: format!("99 % of the calls by id meanwhile ≤ {limit_ms} ms"),
            seen: seen.map_or("none was made".to_owned(), |seen| {
                format!("{:.1} ms, of {}", seen.as_secs_f64() * 1e3, latencies.len())
            }),
            is_green: seen.is_some_and(|seen| *seen <= Duration::from_millis(limit_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::fault::Poisons;

    const BOUNDS: Bounds = Bounds {
        failed_max: 0,
        excused: Excused::Nothing,
        back_ms: Some(500),
        by_id_p99_ms: Some(50),
    };

    fn ended(scheduled: Instant, latency_ms: u64, is_right: bool) -> Ended {
        Ended {
            call: Call::Movie,
            scheduled,
            latency: Duration::from_millis(latency_ms),
            is_right,
            is_broken: !is_right,
            on_reused: false,
            wrote: None,
        }
    }

    /// One fault of 400 ms, with a right request in it.
    fn good() -> Seen {
        let at = Instant::now();
        Seen {
            ended: vec![ended(at + Duration::from_millis(100), 5, true)],
            inflicted: vec![Inflicted {
                at,
                over: at + Duration::from_millis(400),
                is_return: true,
                poisons: None,
            }],
            acknowledged: 1,
            row_faults: Vec::new(),
        }
    }

    fn reds(seen: &Seen, bounds: &Bounds) -> String {
        let findings = seen.judge(bounds).into_iter();
        let red = findings.filter(|finding| !finding.is_green);
        red.map(|finding| finding.bound)
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn a_good_run_is_green() {
        assert_eq!(reds(&good(), &BOUNDS), "");
    }

    #[test]
    fn each_bound_can_be_red() {
        let mut seen = good();
        let at = seen.inflicted[0].at;
        seen.ended
            .push(ended(at + Duration::from_millis(200), 60, false));
        assert_eq!(
            reds(&seen, &BOUNDS),
            "failed requests ≤ 0; 99 % of the calls by id meanwhile ≤ 50 ms"
        );
        let mut seen = good();
        seen.inflicted[0].over += Duration::from_millis(101);
        assert_eq!(reds(&seen, &BOUNDS), "back after ≤ 500 ms");
        let mut seen = good();
        seen.row_faults.push("session 1 is lost".to_owned());
        assert_eq!(
            reds(&seen, &BOUNDS),
            "every acknowledged write is there, once"
        );
        let mut seen = good();
        let poisons = |refused| Some(Poisons { sent: 2, refused });
        seen.inflicted[0].poisons = poisons(2);
        assert_eq!(reds(&seen, &BOUNDS), "");
        seen.inflicted[0].poisons = poisons(1);
        assert_eq!(reds(&seen, &BOUNDS), "every poison is refused afterwards");
    }

    #[test]
    fn a_run_without_a_request_a_write_or_a_return_is_not_green() {
        let seen = Seen::default();
        assert_eq!(
            seen.judge(&BOUNDS)
                .iter()
                .filter(|one| one.is_green)
                .count(),
            0
        );
    }

    #[test]
    fn only_what_the_broken_gateway_had_accepted_is_excused() {
        let bounds = Bounds {
            excused: Excused::Accepted,
            by_id_p99_ms: None,
            ..BOUNDS
        };
        let mut seen = good();
        let at = seen.inflicted[0].at;
        let new = ended(at + Duration::from_millis(10), 1, false);
        seen.ended.push(Ended {
            on_reused: true,
            ..new
        });
        assert_eq!(reds(&seen, &bounds), "");
        seen.ended.push(new);
        assert_eq!(reds(&seen, &bounds), "failed requests ≤ 0");
    }
}
