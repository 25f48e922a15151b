//! Suspects by hand: node 1 is lost with some requests on it, and comes back.

use super::*;

const TERMS: Terms = Terms {
    suspect_wait: Duration::from_secs(2),
    quarantine: Duration::from_secs(600),
};

/// Of the time of a request that has come just now.
const LEFT: Duration = Duration::from_secs(20);

fn who(number: u128) -> Fingerprint {
    Fingerprint::parse(&format!("{number:032x}")).unwrap()
}

fn charge() -> Charge {
    Charge {
        method: "POST".to_owned(),
        target: "/operation".to_owned(),
        node: "node-1".to_owned(),
        loss: Loss::Crash,
    }
}

/// Suspects 1 to `count` of node 1, accused now.
fn accused(count: u128, safe: bool, now: Instant) -> Suspects<u8> {
    let mut suspects = Suspects::default();
    for number in 1..=count {
        let accused = suspects.accuse(who(number), 1, safe, charge(), now);
        assert_eq!(accused, Accused::New);
    }
    suspects
}

fn ask(suspects: &mut Suspects<u8>, number: u128, now: Instant, back: bool) -> Standing<u8> {
    suspects.standing(who(number), TERMS, now, LEFT, !back, |_| back)
}

#[test]
fn a_suspect_waits_for_its_node_and_runs_there_alone() {
    let now = Instant::now();
    let mut suspects = accused(2, false, now);
    assert_eq!(ask(&mut suspects, 1, now, false), Standing::Wait);
    assert_eq!(ask(&mut suspects, 9, now, false), Standing::Free);
    assert_eq!(ask(&mut suspects, 1, now, true), Standing::Trial(1));
    assert_eq!(ask(&mut suspects, 2, now, true), Standing::Wait);
    // Another request of the same fingerprint waits for the verdict.
    assert_eq!(ask(&mut suspects, 1, now, true), Standing::Wait);
    let verdict = suspects.ended(who(1), Ended::Survived, TERMS, now);
    assert_eq!(verdict, Verdict::Acquitted);
    assert_eq!(ask(&mut suspects, 1, now, true), Standing::Free);
    assert_eq!(ask(&mut suspects, 2, now, true), Standing::Trial(1));
    suspects.ended(who(2), Ended::Survived, TERMS, now);
    assert!(suspects.is_calm());
}

#[test]
fn who_kills_its_node_alone_is_convicted_until_the_term_ends_or_it_is_lifted() {
    let now = Instant::now();
    for lifted in [false, true] {
        let mut suspects = accused(1, false, now);
        ask(&mut suspects, 1, now, true);
        let verdict = suspects.ended(who(1), Ended::Lost(Loss::Crash), TERMS, now);
        assert_eq!(verdict, Verdict::Convicted);
        let later = now + Duration::from_secs(599);
        assert_eq!(ask(&mut suspects, 1, later, true), Standing::Convicted);
        let mut end = now + Duration::from_secs(600);
        if lifted {
            assert!(suspects.lift(who(1)));
            assert!(!suspects.lift(who(1)));
            end = later;
        }
        assert_eq!(ask(&mut suspects, 1, end, true), Standing::Free);
        suspects.sweep(end);
        assert!(suspects.is_calm());
    }
}

#[test]
fn who_loses_its_node_in_another_way_than_before_is_tried_again() {
    let now = Instant::now();
    let mut suspects = accused(1, false, now);
    for (loss, verdict) in [
        (Loss::Hang, Verdict::Open),
        (Loss::Crash, Verdict::Open),
        (Loss::Crash, Verdict::Convicted),
    ] {
        assert_eq!(ask(&mut suspects, 1, now, true), Standing::Trial(1));
        let ended = Ended::Lost(loss);
        assert_eq!(suspects.ended(who(1), ended, TERMS, now), verdict);
    }
}

#[test]
fn a_poison_among_many_is_found_with_few_deaths_and_nobody_else_is_convicted() {
    for count in [1, 2, 16, 17, 40, 200] {
        for poison in [1, count / 2 + 1, count] {
            let mut now = Instant::now();
            let mut suspects = accused(count, false, now);
            let mut deaths = 0;
            while !suspects.suspects.is_empty() {
                now += Duration::from_millis(10);
                let mut tried = Vec::new();
                // Everybody asks; whoever is let in runs to the end.
                for number in 1..=count {
                    if ask(&mut suspects, number, now, true) == Standing::Trial(1) {
                        tried.push(number);
                    }
                }
                let dies = tried.contains(&poison);
                deaths += u32::from(dies);
                assert!(!tried.is_empty());
                for number in tried {
                    let how = if dies {
                        Ended::Lost(Loss::Crash)
                    } else {
                        Ended::Survived
                    };
                    suspects.ended(who(number), how, TERMS, now);
                }
            }
            let convicted: Vec<_> = suspects.convicted().map(|(who, _)| who).collect();
            assert_eq!(convicted, [who(poison)], "{count} suspects");
            let halves = u32::try_from(count.div_ceil(16))
                .unwrap()
                .next_power_of_two();
            assert!(deaths <= 2 + halves.ilog2(), "{count}: {deaths}");
        }
    }
}

#[test]
fn without_its_node_a_suspect_goes_elsewhere_after_a_while_one_at_a_time_and_a_write_as_late_as_it_can()
 {
    let now = Instant::now();
    let later = now + TERMS.suspect_wait;
    let mut suspects = accused(2, true, now);
    let early = later - Duration::from_millis(1);
    assert_eq!(ask(&mut suspects, 1, early, false), Standing::Wait);
    assert_eq!(ask(&mut suspects, 1, later, false), Standing::Elsewhere(1));
    assert_eq!(ask(&mut suspects, 2, later, false), Standing::Wait);
    assert_eq!(
        suspects.ended(who(1), Ended::Lost(Loss::Crash), TERMS, later),
        Verdict::Convicted
    );
    assert_eq!(ask(&mut suspects, 2, later, false), Standing::Elsewhere(1));
    assert_eq!(
        suspects.ended(who(2), Ended::Survived, TERMS, later),
        Verdict::Acquitted
    );
    let mut writes = accused(1, false, now);
    assert_eq!(ask(&mut writes, 1, later, false), Standing::Wait);
    let mut ask = |left| writes.standing(who(1), TERMS, later, left, true, |_| false);
    assert_eq!(ask(WRITE_LEFT + Duration::from_millis(1)), Standing::Wait);
    assert_eq!(ask(WRITE_LEFT), Standing::Elsewhere(1));
}

#[test]
fn a_trial_that_was_withdrawn_leaves_its_place_to_others() {
    let now = Instant::now();
    let mut suspects = accused(2, false, now);
    ask(&mut suspects, 1, now, true);
    assert_eq!(
        suspects.ended(who(1), Ended::Withdrawn, TERMS, now),
        Verdict::Open
    );
    assert_eq!(ask(&mut suspects, 2, now, true), Standing::Trial(1));
    suspects.ended(who(2), Ended::Survived, TERMS, now);
    assert_eq!(ask(&mut suspects, 1, now, true), Standing::Trial(1));
}

#[test]
fn the_second_hang_makes_a_suspect() {
    let now = Instant::now();
    let mut suspects = Suspects::<u8>::default();
    assert!(!suspects.hung(who(1), TERMS, now));
    assert!(!suspects.hung(who(2), TERMS, now));
    assert!(suspects.hung(who(1), TERMS, now));
    assert!(!suspects.hung(who(2), TERMS, now + TERMS.quarantine));
}

#[test]
fn whom_another_gateway_suspects_waits_and_whom_it_convicts_is_refused() {
    let now = Instant::now();
    let mut suspects = Suspects::<u8>::default();
    let until = now + Duration::from_secs(5);
    let conviction = Conviction {
        until,
        charge: charge(),
    };
    suspects.agree([(who(1), conviction)].into(), [(who(2), until)].into());
    assert_eq!(ask(&mut suspects, 1, now, true), Standing::Convicted);
    assert_eq!(ask(&mut suspects, 2, now, true), Standing::Wait);
    assert_eq!(ask(&mut suspects, 2, until, true), Standing::Free);
    suspects.agree(BTreeMap::new(), BTreeMap::new());
    assert!(suspects.is_calm());
}

#[test]
fn whom_two_gateways_suspect_is_not_tried_while_a_node_is_missing() {
    let now = Instant::now();
    let mut suspects = accused(2, false, now);
    let until = now + Duration::from_secs(60);
    suspects.agree(BTreeMap::new(), [(who(1), until)].into());
    let mut ask = |number, now, missing| {
        suspects.standing(who(number), TERMS, now, LEFT, missing, |node| node == 1)
    };
    assert_eq!(ask(1, now, true), Standing::Wait);
    assert_eq!(ask(2, now, true), Standing::Trial(1));
    let later = now + MISSING_WAIT;
    suspects.ended(who(2), Ended::Survived, TERMS, now);
    let mut ask =
        |now, missing| suspects.standing(who(1), TERMS, now, LEFT, missing, |node| node == 1);
    assert_eq!(ask(later - Duration::from_millis(1), true), Standing::Wait);
    assert_eq!(ask(later, true), Standing::Trial(1));
    suspects.ended(who(1), Ended::Withdrawn, TERMS, now);
    let mut ask =
        |now, missing| suspects.standing(who(1), TERMS, now, LEFT, missing, |node| node == 1);
    assert_eq!(ask(now, false), Standing::Trial(1));
}

#[test]
fn suspects_and_convictions_are_bounded() {
    let now = Instant::now();
    let mut suspects = accused(SUSPECTS_MAX as u128, false, now);
    let full = suspects.accuse(who(0), 1, false, charge(), now);
    assert_eq!(full, Accused::Full);
    for number in 1..=SUSPECTS_MAX as u128 + 5 {
        suspects.accuse(who(number), 1, false, charge(), now);
        // The others are gone.
        let now = now + Duration::from_secs(2);
        assert_eq!(ask(&mut suspects, number, now, true), Standing::Trial(1));
        suspects.ended(who(number), Ended::Lost(Loss::Crash), TERMS, now);
    }
    assert_eq!(suspects.convicted().count(), CONVICTIONS_MAX);
    assert!(suspects.is_full());
}

#[test]
fn a_suspect_whose_node_was_removed_is_free_again() {
    let now = Instant::now();
    let mut suspects = accused(2, false, now);
    suspects.clear_of_removed(|_| true);
    assert_eq!(suspects.suspected().count(), 2);
    suspects.clear_of_removed(|_| false);
    assert!(suspects.is_calm());
    assert_eq!(ask(&mut suspects, 1, now, false), Standing::Free);
}

#[test]
fn a_suspect_for_whom_nobody_asks_keeps_nobody_waiting_at_other_gateways() {
    let now = Instant::now();
    let mut suspects = accused(1, true, now);
    let awaited = |suspects: &Suspects<u8>, now| suspects.awaited(now).collect::<Vec<_>>();
    assert_eq!(awaited(&suspects, now), [who(1)]);
    let later = now + PRESENT;
    assert_eq!(awaited(&suspects, later), []);
    assert_eq!(suspects.suspected().count(), 1, "it is one still");
    assert_eq!(ask(&mut suspects, 1, later, true), Standing::Trial(1));
    let tried_for_long = later + PRESENT * 5;
    assert_eq!(awaited(&suspects, tried_for_long), [who(1)]);
}

#[test]
fn the_suspicion_of_another_gateway_can_be_lifted_here() {
    let now = Instant::now();
    let mut suspects = Suspects::<u8>::default();
    let until = now + Duration::from_secs(5);
    suspects.agree(BTreeMap::new(), [(who(2), until)].into());
    assert!(suspects.lift(who(2)));
    assert!(!suspects.lift(who(2)));
    assert_eq!(ask(&mut suspects, 2, now, true), Standing::Free);
}
