//! The rules as a table: what happened when, what is done. Times in milliseconds.

use super::*;

const HALF: f64 = 0.5;

fn rules(kind: Kind) -> Rules {
    Rules {
        kind,
        restart: if kind == Kind::Job {
            Restart::OnFailure
        } else {
            Restart::Always
        },
        probed: kind != Kind::Job,
        notified: false,
        startup_timeout: Duration::from_secs(60),
        fall: 3,
        stop_timeout: Duration::from_secs(30),
    }
}

fn ms(milliseconds: u64) -> Moment {
    Duration::from_millis(milliseconds)
}

fn exit(code: i32) -> Event {
    Event::Exited(Ended {
        code: Some(code),
        name: format!("exit {code}"),
        line: None,
    })
}

fn round(outcome: Outcome) -> Event {
    Event::Probed(Round {
        late: Duration::ZERO,
        outcome,
    })
}

fn silent() -> Outcome {
    Outcome::Silent {
        why: "nothing within 200ms".to_owned(),
    }
}

fn bad() -> Outcome {
    Outcome::Bad {
        status: 500,
        body: "I feel bad".to_owned(),
    }
}

/// Started at 0, healthy at 100.
fn healthy(kind: Kind) -> Machine {
    let mut machine = Machine::new(rules(kind));
    assert_eq!(machine.on(ms(0), Event::Release, HALF), [Action::Start]);
    assert_eq!(machine.state(), ProcessState::Starting);
    machine.on(ms(100), round(Outcome::Good), HALF);
    assert_eq!(machine.state(), ProcessState::Healthy);
    machine
}

#[test]
fn the_first_exit_is_answered_at_once_and_later_ones_after_growing_pauses() {
    let mut machine = healthy(Kind::Service);
    assert_eq!(machine.on(ms(200), exit(2), 1.0), [Action::Start]);
    assert_eq!(machine.last_restart_reason(), Some("exit 2"));
    let mut now = ms(200);
    for expected in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        now += ms(10);
        let actions = machine.on(now, exit(2), 1.0);
        assert!(!actions.contains(&Action::Start), "{actions:?}");
        assert_eq!(machine.wake_at(), Some(now + ms(expected)));
        assert!(
            machine
                .on(now + ms(expected - 1), Event::Wake, 1.0)
                .is_empty()
        );
        now += ms(expected);
        assert_eq!(machine.on(now, Event::Wake, 1.0), [Action::Start]);
    }
    assert_eq!(machine.restarts(), 10);
}

#[test]
fn one_that_could_start_each_time_is_back_within_a_second() {
    let mut machine = healthy(Kind::Service);
    let mut now = ms(200);
    assert_eq!(machine.on(now, exit(2), 1.0), [Action::Start]);
    for (attempt, expected) in [100, 200, 400, 800, 1000, 1000, 1000].iter().enumerate() {
        now += ms(10);
        machine.on(now, round(Outcome::Good), 1.0);
        // What has turned sick was well once in this run, and counts alike.
        if attempt % 2 == 0 {
            machine.on(now, round(bad()), 1.0);
        }
        now += ms(10);
        machine.on(now, exit(2), 1.0);
        assert_eq!(machine.wake_at(), Some(now + ms(*expected)));
        now += ms(*expected);
        assert_eq!(machine.on(now, Event::Wake, 1.0), [Action::Start]);
    }
    now += ms(10);
    machine.on(now, exit(2), 1.0);
    assert_eq!(
        machine.wake_at(),
        Some(now + ms(10_000)),
        "it did not start, this time"
    );
}

#[test]
fn after_two_healthy_seconds_the_next_restart_is_at_once_again() {
    let mut machine = healthy(Kind::Service);
    machine.on(ms(200), exit(2), HALF);
    machine.on(ms(300), round(Outcome::Good), HALF);
    assert_eq!(machine.clone().on(ms(2_299), exit(2), HALF), []);
    assert_eq!(machine.on(ms(2_300), exit(2), HALF), [Action::Start]);
}

#[test]
fn five_quick_failures_alarm_once_and_show_unhealthy_while_trying_goes_on() {
    let mut machine = Machine::new(rules(Kind::Service));
    machine.on(ms(0), Event::Release, HALF);
    let mut alarms = 0;
    for attempt in 1..=8 {
        let now = Duration::from_secs(attempt * 100);
        let actions = machine.on(now, exit(1), HALF);
        alarms += usize::from(matches!(actions.first(), Some(Action::Alarm(_))));
        machine.on(now + Duration::from_secs(50), Event::Wake, HALF);
    }
    assert_eq!(alarms, 1);
    assert_eq!(machine.state(), ProcessState::Unhealthy);
    assert_eq!(machine.reason().as_deref(), Some("exit 1"));
    machine.on(Duration::from_secs(900), round(Outcome::Good), HALF);
    assert_eq!(machine.state(), ProcessState::Healthy);
}

#[test]
fn exit_64_is_not_restarted_and_keeps_its_reason() {
    let mut machine = healthy(Kind::Service);
    let ended = Ended {
        code: Some(64),
        name: "exit 64".to_owned(),
        line: Some("error: no such file".to_owned()),
    };
    assert_eq!(machine.on(ms(200), Event::Exited(ended), HALF), []);
    assert_eq!(machine.state(), ProcessState::Failed);
    assert_eq!(machine.reason().unwrap(), "exit 64: error: no such file");
    assert!(machine.is_over());
}

#[test]
fn three_silent_probes_kill_and_the_exit_that_follows_restarts() {
    let mut machine = healthy(Kind::Service);
    assert_eq!(machine.on(ms(550), round(silent()), HALF), []);
    assert_eq!(machine.on(ms(800), round(silent()), HALF), []);
    assert_eq!(machine.on(ms(1050), round(silent()), HALF), [Action::Kill]);
    assert_eq!(machine.state(), ProcessState::Unhealthy);
    let killed = Event::Exited(Ended {
        code: None,
        name: "signal SIGKILL".to_owned(),
        line: None,
    });
    assert_eq!(machine.on(ms(1060), killed, HALF), [Action::Start]);
    assert_eq!(
        machine.last_restart_reason(),
        Some("probe timeout: nothing within 200ms")
    );
}

#[test]
fn a_good_probe_between_failures_clears_them() {
    let mut machine = healthy(Kind::Service);
    for start in [1000, 2000, 3000] {
        assert_eq!(machine.on(ms(start), round(bad()), HALF), []);
        assert_eq!(machine.on(ms(start + 250), round(bad()), HALF), []);
        machine.on(ms(start + 500), round(Outcome::Good), HALF);
    }
    assert_eq!(machine.state(), ProcessState::Healthy);
}

#[test]
fn a_void_round_forgives_silence_but_no_500() {
    let late = |outcome| {
        Event::Probed(Round {
            late: ms(101),
            outcome,
        })
    };
    let mut machine = healthy(Kind::Service);
    for at in 1..20 {
        assert_eq!(machine.on(ms(at * 1000), late(silent()), HALF), []);
    }
    assert_eq!(machine.state(), ProcessState::Healthy);
    machine.on(ms(20_000), late(bad()), HALF);
    machine.on(ms(20_250), late(bad()), HALF);
    assert_eq!(machine.on(ms(20_500), late(bad()), HALF), [Action::Kill]);
    assert_eq!(machine.reason().unwrap(), "probe 500: I feel bad");
}

#[test]
fn a_draining_process_is_not_sick() {
    let mut machine = healthy(Kind::Service);
    for at in 1..50 {
        assert_eq!(machine.on(ms(at * 250), round(Outcome::Draining), HALF), []);
    }
    assert_eq!(machine.state(), ProcessState::Draining);
    machine.on(ms(20_000), round(Outcome::Good), HALF);
    assert_eq!(machine.state(), ProcessState::Healthy);
}

#[test]
fn failures_do_not_count_during_the_start_which_has_a_deadline_of_its_own() {
    let mut machine = Machine::new(rules(Kind::Service));
    machine.on(ms(0), Event::Release, HALF);
    for at in 1..100 {
        assert_eq!(machine.on(ms(at * 500), round(bad()), HALF), []);
    }
    assert_eq!(machine.wake_at(), Some(ms(60_000)));
    assert_eq!(machine.on(ms(60_000), Event::Wake, HALF), [Action::Kill]);
    let reason = machine.reason().unwrap();
    assert!(
        reason.starts_with("probe timeout: not healthy 60 s"),
        "{reason}"
    );
    assert!(reason.contains("I feel bad"), "{reason}");
}

#[test]
fn a_silent_postgres_is_reported_at_once_and_killed_after_thirty_seconds() {
    let mut machine = healthy(Kind::Postgres);
    machine.on(ms(450), round(silent()), HALF);
    machine.on(ms(700), round(silent()), HALF);
    let actions = machine.on(ms(950), round(silent()), HALF);
    assert!(
        matches!(actions.as_slice(), [Action::Alarm(_)]),
        "{actions:?}"
    );
    assert_eq!(machine.state(), ProcessState::Unhealthy);
    assert_eq!(machine.on(ms(10_000), round(silent()), HALF), []);
    assert_eq!(machine.wake_at(), Some(ms(30_450)));
    assert_eq!(machine.on(ms(30_450), Event::Wake, HALF), [Action::Kill]);
}

#[test]
fn a_postgres_that_answers_again_is_left_alone() {
    let mut machine = healthy(Kind::Postgres);
    for at in 0..20 {
        machine.on(ms(1000 + at * 1000), round(silent()), HALF);
    }
    machine.on(ms(25_000), round(Outcome::Good), HALF);
    assert_eq!(machine.state(), ProcessState::Healthy);
    assert_eq!(machine.wake_at(), None);
}

#[test]
fn a_job_is_there_when_it_exited_0_and_is_tried_again_otherwise() {
    let mut machine = Machine::new(rules(Kind::Job));
    machine.on(ms(0), Event::Release, HALF);
    assert!(!machine.is_there());
    assert_eq!(
        machine.wake_at(),
        None,
        "a job may take as long as it needs"
    );
    assert_eq!(machine.on(ms(500), exit(1), HALF), [Action::Start]);
    assert_eq!(machine.on(ms(900), exit(0), HALF), []);
    assert_eq!(machine.state(), ProcessState::Done);
    assert!(machine.is_there() && machine.is_over());
}

#[test]
fn a_process_that_is_never_restarted_ends_as_failed_or_done() {
    for (code, state) in [(0, ProcessState::Done), (1, ProcessState::Failed)] {
        let mut rules = rules(Kind::Service);
        rules.restart = Restart::Never;
        rules.probed = false;
        let mut machine = Machine::new(rules);
        machine.on(ms(0), Event::Release, HALF);
        assert_eq!(machine.state(), ProcessState::Healthy);
        assert_eq!(machine.on(ms(10), exit(code), HALF), []);
        assert_eq!(machine.state(), state);
    }
}

#[test]
fn a_stop_is_asked_for_and_enforced_after_its_timeout() {
    let mut machine = healthy(Kind::Service);
    assert_eq!(machine.on(ms(200), Event::Close, HALF), []);
    assert_eq!(machine.on(ms(200), Event::Stop, HALF), [Action::Stop]);
    assert_eq!(machine.state(), ProcessState::Draining);
    assert_eq!(machine.on(ms(30_199), Event::Wake, HALF), []);
    assert_eq!(machine.on(ms(30_200), Event::Wake, HALF), [Action::Kill]);
    machine.on(ms(30_210), exit(1), HALF);
    assert_eq!(machine.state(), ProcessState::Stopped);
}

#[test]
fn a_stop_at_once_kills_but_lets_postgres_quit_first() {
    let mut service = healthy(Kind::Service);
    assert_eq!(service.on(ms(200), Event::StopNow, HALF), [Action::Kill]);
    assert_eq!(service.on(ms(201), Event::StopNow, HALF), []);
    let mut postgres = healthy(Kind::Postgres);
    postgres.on(ms(200), Event::Stop, HALF);
    assert_eq!(postgres.on(ms(300), Event::StopNow, HALF), [Action::Quit]);
    assert_eq!(postgres.on(ms(6_300), Event::Wake, HALF), [Action::Kill]);
}

#[test]
fn nothing_is_started_once_all_is_being_stopped() {
    let mut paused = healthy(Kind::Service);
    paused.on(ms(200), exit(1), HALF);
    paused.on(ms(210), exit(1), HALF);
    paused.on(ms(220), Event::Close, HALF);
    assert_eq!(paused.state(), ProcessState::Stopped);
    let mut running = healthy(Kind::Service);
    running.on(ms(200), Event::Close, HALF);
    assert_eq!(running.on(ms(210), exit(1), HALF), []);
    assert_eq!(running.state(), ProcessState::Stopped);
    let mut sick = healthy(Kind::Service);
    for at in [300, 550, 800] {
        sick.on(ms(at), round(bad()), HALF);
    }
    sick.on(ms(810), Event::Close, HALF);
    assert_eq!(sick.on(ms(820), exit(1), HALF), []);
    assert_eq!(sick.state(), ProcessState::Stopped);
}

#[test]
fn the_operators_restart_drains_first_and_counts_as_no_failure() {
    let mut machine = healthy(Kind::Service);
    assert_eq!(
        machine.on(ms(200), Event::Restart("operator".to_owned()), HALF),
        [Action::Stop]
    );
    assert_eq!(machine.state(), ProcessState::Draining);
    assert_eq!(machine.on(ms(700), exit(0), HALF), [Action::Start]);
    assert_eq!(machine.last_restart_reason(), Some("operator"));
    assert_eq!(machine.on(ms(900), exit(1), HALF), [Action::Start]);
}

#[test]
fn the_operator_may_start_a_failed_process_again() {
    let mut machine = healthy(Kind::Service);
    machine.on(ms(200), exit(64), HALF);
    assert_eq!(
        machine.on(ms(300), Event::Restart("operator".to_owned()), HALF),
        [Action::Start]
    );
}

#[test]
fn a_start_that_cannot_succeed_fails_and_one_that_may_is_tried_again() {
    let failed = |permanent| Event::StartFailed {
        why: "cannot start".to_owned(),
        permanent,
    };
    let mut machine = Machine::new(rules(Kind::Service));
    machine.on(ms(0), Event::Release, HALF);
    assert_eq!(
        machine.clone().on(ms(1), failed(false), HALF),
        [Action::Start]
    );
    assert_eq!(machine.on(ms(1), failed(true), HALF), []);
    assert_eq!(machine.state(), ProcessState::Failed);
}

#[test]
fn a_killed_process_that_does_not_end_is_reported_and_given_up_when_stopping() {
    let mut machine = healthy(Kind::Service);
    machine.on(ms(200), Event::StopNow, HALF);
    assert_eq!(machine.on(ms(30_200), Event::Wake, HALF), []);
    assert_eq!(machine.state(), ProcessState::Failed);
    assert!(machine.reason().unwrap().contains("hangs in the kernel"));
}

#[test]
fn the_last_healthy_process_of_several_is_not_ended_by_choice() {
    use ProcessState::{Healthy, Starting, Unhealthy};
    assert!(may_end_by_choice(Healthy, &[Healthy, Starting]));
    assert!(!may_end_by_choice(Healthy, &[Starting, Unhealthy]));
    assert!(may_end_by_choice(Unhealthy, &[Starting]));
    assert!(
        may_end_by_choice(Healthy, &[]),
        "nothing could take its place"
    );
}

#[test]
fn one_that_tells_by_itself_is_healthy_only_after_it_told_and_was_probed() {
    let mut rules = rules(Kind::Service);
    rules.notified = true;
    let mut probed = Machine::new(rules.clone());
    probed.on(ms(0), Event::Release, HALF);
    probed.on(ms(10), round(Outcome::Good), HALF);
    assert_eq!(probed.state(), ProcessState::Starting);
    probed.on(ms(20), Event::Ready, HALF);
    assert_eq!(probed.state(), ProcessState::Starting);
    probed.on(ms(30), round(Outcome::Good), HALF);
    assert_eq!(probed.state(), ProcessState::Healthy);

    rules.probed = false;
    let mut unprobed = Machine::new(rules);
    unprobed.on(ms(0), Event::Release, HALF);
    assert_eq!(unprobed.wake_at(), Some(ms(60_000)), "it may never tell");
    unprobed.on(ms(20), Event::Ready, HALF);
    assert_eq!(unprobed.state(), ProcessState::Healthy);
}

#[test]
fn one_that_told_and_answers_badly_is_not_given_its_whole_start() {
    let mut rules = rules(Kind::Service);
    rules.notified = true;
    let fall = rules.fall;
    let mut machine = Machine::new(rules);
    let sick = || {
        round(Outcome::Bad {
            status: 500,
            body: "I feel bad".to_owned(),
        })
    };
    machine.on(ms(0), Event::Release, HALF);
    for _ in 0..10 {
        assert_eq!(machine.on(ms(5), sick(), HALF), [], "it has yet to tell");
    }
    machine.on(ms(10), Event::Ready, HALF);
    for _ in 1..fall {
        assert_eq!(machine.on(ms(20), sick(), HALF), []);
    }
    assert_eq!(machine.on(ms(30), sick(), HALF), [Action::Kill]);
    machine.on(ms(40), exit(137), HALF);
    let reason = Some("probe 500: I feel bad");
    assert_eq!(machine.last_restart_reason(), reason);
}

#[test]
fn deadlines_move_on_by_the_time_that_the_supervisor_stood_still() {
    let mut starting = Machine::new(rules(Kind::Service));
    starting.on(ms(0), Event::Release, HALF);
    starting.on(ms(70_000), Event::Stalled(ms(65_000)), HALF);
    assert_eq!(starting.on(ms(70_000), Event::Wake, HALF), []);
    assert_eq!(starting.wake_at(), Some(ms(125_000)));

    let mut silent_postgres = healthy(Kind::Postgres);
    silent_postgres.on(ms(450), round(silent()), HALF);
    silent_postgres.on(ms(60_000), Event::Stalled(ms(59_000)), HALF);
    assert_eq!(silent_postgres.on(ms(60_000), Event::Wake, HALF), []);

    let mut ending = healthy(Kind::Service);
    ending.on(ms(200), Event::Stop, HALF);
    ending.on(ms(90_000), Event::Stalled(ms(80_000)), HALF);
    assert_eq!(ending.on(ms(90_000), Event::Wake, HALF), []);
    assert_eq!(ending.wake_at(), Some(ms(110_200)));
}

#[test]
fn one_that_takes_too_much_memory_is_killed_even_while_it_drains() {
    let too_large = || Event::TooLarge("memory hard: 600 of 512 MiB".to_owned());
    let mut machine = healthy(Kind::Service);
    assert_eq!(machine.on(ms(200), too_large(), HALF), [Action::Kill]);
    assert_eq!(machine.on(ms(300), too_large(), HALF), []);
    assert_eq!(machine.on(ms(310), exit(1), HALF), [Action::Start]);
    let reason = Some("memory hard: 600 of 512 MiB");
    assert_eq!(machine.last_restart_reason(), reason);

    let mut draining = healthy(Kind::Service);
    draining.on(ms(200), Event::Stop, HALF);
    assert_eq!(draining.on(ms(300), too_large(), HALF), [Action::Kill]);
    draining.on(ms(310), exit(1), HALF);
    assert_eq!(draining.state(), ProcessState::Stopped);
}

#[test]
fn a_successor_is_not_tried_again_until_it_has_taken_over() {
    let old = healthy(Kind::Service);
    let mut fails = Machine::successor(&rules(Kind::Service));
    assert_eq!(fails.on(ms(1000), Event::Release, HALF), [Action::Start]);
    assert_eq!(fails.on(ms(1100), exit(1), HALF), []);
    assert!(fails.is_over() && !fails.is_there());

    let mut next = Machine::successor(&rules(Kind::Service));
    next.on(ms(1000), Event::Release, HALF);
    next.on(ms(1100), round(Outcome::Good), HALF);
    assert!(next.is_there());
    next.take_over(ms(1100), old, Restart::Always, ("age".to_owned(), true));
    assert_eq!(
        (next.restarts(), next.last_restart_reason()),
        (1, Some("age"))
    );
    assert_eq!(next.on(ms(1200), exit(1), HALF), [Action::Start]);
}

#[test]
fn a_successor_of_one_that_died_counts_the_death() {
    let mut old = healthy(Kind::Service);
    for at in [200, 300, 400] {
        old.on(ms(at), exit(1), HALF);
    }
    let mut next = Machine::successor(&rules(Kind::Service));
    next.on(ms(1000), Event::Release, HALF);
    next.take_over(ms(1100), old, Restart::Always, ("exit 1".to_owned(), false));
    assert_eq!(
        next.on(ms(1200), exit(1), HALF),
        [],
        "it waits like any other"
    );
}
