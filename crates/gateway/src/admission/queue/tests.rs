//! The queue alone, and two of them before simulated nodes of a fixed rate (no clock: a simulated
//! minute takes milliseconds, and always goes the same way).

use std::collections::VecDeque;

use super::*;

const BOUNDS: Bounds = Bounds {
    concurrent_max: 2,
    queue_max: 4,
    queue_timeout: Duration::from_secs(15),
};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A queue whose permits are all taken.
fn full(now: Instant) -> Queue<u32> {
    let mut queue = Queue::new(BOUNDS, now);
    assert!(queue.enter() && queue.enter() && !queue.enter());
    queue
}

#[test]
fn requests_go_on_in_the_order_in_which_they_came() {
    let now = Instant::now();
    let mut queue = full(now);
    for who in 1..=3 {
        assert!(queue.wait(now + ms(u64::from(who)), who).1.is_empty());
    }
    for who in 1..=3 {
        assert_eq!(queue.release(now + ms(100)), (Some(who), vec![]));
    }
    assert_eq!(queue.release(now + ms(100)), (None, vec![]));
    assert_eq!((queue.in_flight(), queue.queued()), (1, 0));
}

#[test]
fn nobody_overtakes_whoever_waits() {
    let now = Instant::now();
    let mut queue = full(now);
    queue.wait(now, 1);
    assert_eq!(queue.release(now).0, Some(1));
    queue.wait(now, 2);
    assert!(!queue.enter());
}

#[test]
fn a_queue_that_stands_while_others_are_served_serves_the_newest() {
    let now = Instant::now();
    let mut queue = full(now);
    for who in 1..=4 {
        queue.wait(now, who);
    }
    assert_eq!(queue.release(now + ms(199)).0, Some(1));
    assert_eq!(queue.release(now + ms(201)).0, Some(4));
    // It was empty once: the order of arrival is back.
    queue.release(now + ms(202));
    queue.release(now + ms(203));
    assert_eq!(queue.queued(), 0);
    queue.release(now + ms(204));
    assert!(queue.enter());
    queue.wait(now + ms(300), 5);
    queue.wait(now + ms(301), 6);
    assert_eq!(queue.release(now + ms(302)).0, Some(5));
}

#[test]
fn over_its_length_the_oldest_is_turned_away_and_the_rest_wait_a_moment_only() {
    let now = Instant::now();
    let mut queue = full(now);
    for who in 1..=4 {
        queue.wait(now + ms(u64::from(who)), who);
    }
    assert_eq!(queue.wait(now + ms(10), 5).1, [1]);
    assert_eq!(queue.release(now + ms(20)), (Some(5), vec![]));
    assert_eq!(queue.release(now + ms(255)), (Some(4), vec![2]));
    assert_eq!(queue.wait(now + ms(256), 6).1, [3]);
    assert_eq!(queue.queued(), 1);
}

#[test]
fn a_free_permit_is_never_left_idle_while_somebody_waits() {
    let now = Instant::now();
    let mut queue = full(now);
    for who in 1..=5 {
        queue.wait(now, who);
    }
    // Long answers: everybody has waited for longer than an overload allows.
    assert_eq!(queue.release(now + ms(900)), (Some(5), vec![2, 3]));
    assert_eq!(queue.release(now + ms(900)), (Some(4), vec![]));
}

#[test]
fn after_a_stall_the_oldest_goes_first_and_nobody_is_hurried() {
    let now = Instant::now();
    let mut queue = full(now);
    for who in 1..=4 {
        queue.wait(now + ms(u64::from(who)), who);
    }
    // Over its length in the middle of a stall: the oldest is lost, but the rest keep their time.
    assert_eq!(queue.wait(now + ms(5_000), 5).1, [1]);
    assert_eq!(queue.release(now + ms(9_000)), (Some(2), vec![]));
    assert_eq!(queue.release(now + ms(9_500)), (Some(3), vec![]));
}

#[test]
fn whoever_leaves_or_has_waited_its_time_is_not_served() {
    let now = Instant::now();
    let mut queue = full(now);
    let (first, _) = queue.wait(now, 1);
    let (second, _) = queue.wait(now, 2);
    let (third, _) = queue.wait(now, 3);
    queue.leave(first);
    assert!(queue.expire(second, now + ms(1)));
    assert_eq!(queue.release(now + ms(2)).0, Some(3));
    assert!(!queue.expire(third, now + ms(3)), "its turn had come");
}

#[test]
fn without_a_queue_the_request_itself_is_turned_away() {
    let now = Instant::now();
    let mut queue = full(now);
    queue.set_bounds(Bounds {
        queue_max: 0,
        ..BOUNDS
    });
    assert_eq!(queue.wait(now, 7).1, [7]);
}

#[test]
fn other_bounds_hold_for_what_comes_next() {
    let now = Instant::now();
    let mut queue = full(now);
    queue.wait(now, 1);
    queue.wait(now, 2);
    queue.set_bounds(Bounds {
        concurrent_max: 3,
        ..BOUNDS
    });
    assert_eq!((queue.admit(now), queue.admit(now)), (Some(1), None));
    queue.set_bounds(Bounds {
        concurrent_max: 1,
        ..BOUNDS
    });
    assert_eq!(queue.release(now).0, None);
    assert_eq!(queue.release(now).0, None);
    assert_eq!(queue.release(now).0, Some(2));
}

/// Two gateways before nodes that serve a fixed number of requests a second in order of arrival.
struct Simulation {
    start: Instant,
    now: Duration,
    gateways: Vec<Queue<Asked>>,
    /// At the nodes: when it was asked, and by which gateway.
    nodes: VecDeque<(Asked, usize)>,
    served: Vec<(Asked, Duration)>,
    shed: Vec<Asked>,
    waiting: VecDeque<(Ticket, usize, Asked)>,
}

type Asked = Duration;

impl Simulation {
    fn new(bounds: Bounds) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: Duration::ZERO,
            gateways: (0..2).map(|_| Queue::new(bounds, start)).collect(),
            nodes: VecDeque::new(),
            served: Vec::new(),
            shed: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Goes on to `until` with so many requests and answers a second, both evenly spread.
    fn run(&mut self, until: Duration, offered: u64, capacity: u64) {
        let begin = self.now;
        let (mut asked, mut answered) = (0, 0);
        while self.now < until {
            let micros = (self.now - begin).as_micros() as u64;
            while asked <= micros * offered / 1_000_000 {
                asked += 1;
                self.arrive((asked % 2) as usize);
            }
            while answered < micros * capacity / 1_000_000 {
                answered += 1;
                self.answer();
            }
            self.expire();
            self.now += Duration::from_micros(500);
        }
    }

    fn arrive(&mut self, gateway: usize) {
        let (now, asked) = (self.start + self.now, self.now);
        if self.gateways[gateway].enter() {
            self.nodes.push_back((asked, gateway));
            return;
        }
        let (ticket, away) = self.gateways[gateway].wait(now, asked);
        self.waiting.push_back((ticket, gateway, asked));
        self.shed.extend(away);
    }

    fn answer(&mut self) {
        let Some((asked, gateway)) = self.nodes.pop_front() else {
            return;
        };
        self.served.push((asked, self.now - asked));
        let (next, away) = self.gateways[gateway].release(self.start + self.now);
        self.nodes.extend(next.map(|asked| (asked, gateway)));
        self.shed.extend(away);
    }

    fn expire(&mut self) {
        while let Some((ticket, gateway, asked)) = self.waiting.front().copied()
            && self.now - asked >= SHIPPED.queue_timeout
        {
            self.waiting.pop_front();
            if self.gateways[gateway].expire(ticket, self.start + self.now) {
                self.shed.push(asked);
            }
        }
    }

    /// How long the requests took that were asked within a span; the slowest last.
    fn latencies(&self, from: Duration, to: Duration) -> Vec<Duration> {
        let asked_then = |(asked, _): &&(Asked, Duration)| (from..to).contains(asked);
        let mut took: Vec<_> = self
            .served
            .iter()
            .filter(asked_then)
            .map(|(_, took)| *took)
            .collect();
        took.sort_unstable();
        took
    }
}

const SHIPPED: Bounds = crate::admission::DEFAULT;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn ten_times_the_capacity_for_a_minute_costs_no_goodput_and_is_over_within_a_second() {
    let mut run = Simulation::new(SHIPPED);
    run.run(s(60), 2000, 200);
    let served = run.served.len();
    assert!(served >= 60 * 195, "{served} in 60 s");
    let in_time = run.served.iter().filter(|(_, took)| *took < s(1)).count();
    assert!(in_time >= 60 * 190, "{in_time} within a second");
    run.run(s(90), 120, 200);
    let after = run.latencies(s(61), s(90));
    assert_eq!(after.len(), 29 * 120, "all of them are served");
    assert!(after[after.len() - 1] < ms(400), "{:?}", after.last());
    assert!(run.shed.iter().all(|asked| *asked < s(60)));
}

#[test]
fn nothing_is_shed_at_nine_tenths_of_the_capacity_even_when_all_come_in_bursts() {
    let mut run = Simulation::new(SHIPPED);
    for second in 0..30 {
        // The 180 requests of a second within a tenth of it.
        run.run(s(second) + ms(100), 1800, 200);
        run.run(s(second + 1), 0, 200);
    }
    assert!(run.shed.is_empty(), "{:?}", run.shed);
    assert!(run.latencies(s(0), s(30)).len() >= 29 * 180);
}

#[test]
fn an_outage_of_ten_seconds_sheds_nothing_at_the_peak_rate_even_with_slow_nodes() {
    let mut run = Simulation::new(SHIPPED);
    run.run(s(5), 120, 200);
    run.run(s(15), 120, 0);
    run.run(s(45), 120, 200);
    run.run(s(46), 0, 200);
    assert!(run.shed.is_empty(), "{:?}", run.shed);
    let took = run.latencies(s(0), s(45));
    assert!(took.len() >= 45 * 120, "{}", took.len());
    assert!(took[took.len() - 1] < ms(12_000), "{:?}", took.last());
}

#[test]
fn an_outage_and_an_overload_together_end_as_an_overload() {
    let mut run = Simulation::new(SHIPPED);
    run.run(s(5), 2000, 0);
    let before = run.served.len();
    run.run(s(35), 2000, 200);
    assert!(run.served.len() - before >= 30 * 195);
    run.run(s(60), 120, 200);
    let after = run.latencies(s(36), s(60));
    assert!(after[after.len() - 1] < ms(400), "{:?}", after.last());
}
