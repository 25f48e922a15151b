//! How the machine of a successor comes to be that of the process: until it has taken over it is not
//! tried again, and from then on it counts what its predecessor counted.

use super::{Ended, Machine, Moment, Phase, Rules, Then};
use crate::config::Restart;

impl Machine {
    /// The machine of a process that is to take another's place: it is not tried again when it ends
    /// before that.
    pub(crate) fn successor(rules: &Rules) -> Self {
        Self::new(Rules {
            restart: Restart::Never,
            ..rules.clone()
        })
    }

    /// Goes by other rules from its next start on.
    pub(crate) fn follow(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Takes the place of `old`, and with it what is known of it; `restart` counts from now on. `reason` is why; `chosen` where
    /// somebody chose it, and the old one did not just end.
    pub(crate) fn take_over(
        &mut self,
        now: Moment,
        mut old: Self,
        restart: Restart,
        (reason, chosen): (String, bool),
    ) {
        self.rules.restart = restart;
        if !chosen {
            old.forgive(now);
            old.quick = old.quick.saturating_add(1);
        }
        self.quick = old.quick;
        self.restarts = old.restarts.saturating_add(1);
        self.causes = old.causes;
        self.causes.count(&reason);
        self.last_reason = Some(reason);
        self.closing = old.closing;
    }

    /// Why it ended: what we ended it for, else how it ended.
    pub(crate) fn why_ended(&self, ended: &Ended) -> String {
        match &self.phase {
            Phase::Ending {
                then: Then::Restart { reason, .. },
                ..
            } => reason.clone(),
            _ => ended.reason(),
        }
    }
}
