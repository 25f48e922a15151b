//! What a probe's answer, or the word of the process itself that it serves, means for it.

use super::{Action, Kind, LATE, Machine, Moment, Outcome, Phase, Round, SILENT_POSTGRES, running};

impl Machine {
    pub(super) fn probed(&mut self, now: Moment, round: Round) -> Vec<Action> {
        let late = round.late > LATE;
        match round.outcome {
            Outcome::Good => {
                let counts = matches!(
                    self.phase,
                    Phase::Starting { told: true, .. } | Phase::Running { .. }
                );
                if counts {
                    self.healthy(now);
                }
                Vec::new()
            }
            Outcome::Draining => {
                if let Phase::Running { draining, .. } = &mut self.phase {
                    *draining = true;
                }
                Vec::new()
            }
            Outcome::Bad { status, body } => {
                let text = if body.is_empty() {
                    format!("probe {status}")
                } else {
                    format!("probe {status}: {body}")
                };
                self.failed_probe(now, text, true)
            }
            Outcome::Silent { .. } if late => Vec::new(),
            Outcome::Silent { why } => {
                self.failed_probe(now, format!("probe timeout: {why}"), false)
            }
        }
    }

    fn healthy(&mut self, now: Moment) {
        self.healthy_since.get_or_insert(now);
        self.served = true;
        self.forgive(now);
        self.phase = running();
    }

    pub(super) fn ready(&mut self, now: Moment) -> Vec<Action> {
        match &mut self.phase {
            Phase::Starting { .. } if !self.rules.probed => self.healthy(now),
            Phase::Starting { told, .. } => {
                *told = true;
                self.served = true;
            }
            _ => {}
        }
        Vec::new()
    }

    /// `is_sick`: it answered, and badly.
    fn failed_probe(&mut self, now: Moment, text: String, is_sick: bool) -> Vec<Action> {
        match &mut self.phase {
            Phase::Starting {
                last, told, sick, ..
            } => {
                // One that has said that it serves has started: it may turn sick before it was ever seen
                // well, by a request that waited for it.
                let counts = is_sick && *told && self.rules.notified;
                *sick = if counts { sick.saturating_add(1) } else { 0 };
                if *sick >= self.rules.fall.max(1) {
                    return self.kill_sick(now, text);
                }
                *last = Some(text);
                Vec::new()
            }
            Phase::Running {
                failures,
                failing_since,
                why,
                draining,
            } => {
                *failures = failures.saturating_add(1);
                failing_since.get_or_insert(now);
                why.clone_from(&text);
                *draining = false;
                let since = failing_since.unwrap_or(now);
                self.healthy_since = None;
                if *failures < self.rules.fall {
                    return Vec::new();
                }
                if self.rules.kind != Kind::Postgres || now >= since + SILENT_POSTGRES {
                    return self.kill_sick(now, text);
                }
                if *failures == self.rules.fall {
                    return vec![Action::Alarm(format!("does not answer: {text}"))];
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}
