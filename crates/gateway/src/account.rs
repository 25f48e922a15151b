//! What is settled when a request ends, however it ends: the request's own record (metrics), and the
//! flight on a node (in flight, latency, the connection back into its pool). Both settle on drop, so
//! no path can forget it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::metrics::RequestLabels;
use http::HeaderValue;

use crate::access_log::{Ended, Journal, Terms, Written};
use crate::config::Class;
use crate::ejection::{Event, Reason};
use crate::metrics::Outcome;
use crate::nodes::Node;
use crate::pool::Link;
use crate::router::Route;
use crate::worker::Worker;

/// Status recorded for a request whose client went away before an answer (nginx's custom).
const CLIENT_CLOSED: u16 = 499;

/// One request from its head to the end of its answer's body.
#[derive(Debug)]
pub(crate) struct Record {
    worker: Rc<Worker>,
    started: Instant,
    method: &'static str,
    version: &'static str,
    status: Cell<u16>,
    seen: Seen,
    pub(crate) journal: Rc<Journal>,
}

/// What is known of a request when it begins.
#[derive(Debug)]
pub(crate) struct Seen {
    /// A template.
    pub(crate) route: &'static str,
    /// It is for the probes' path, and not recorded at all.
    pub(crate) is_probe: bool,
    pub(crate) request_id: HeaderValue,
    pub(crate) access_log: Terms,
}

impl Record {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        started: Instant,
        method: &http::Method,
        version: http::Version,
        seen: Seen,
    ) -> Self {
        worker.shared.metrics.http.active.inc();
        Self {
            worker: Rc::clone(worker),
            started,
            method: chassis::metrics::method_label(method.as_str()),
            version: match version {
                http::Version::HTTP_09 | http::Version::HTTP_10 => "1.0",
                http::Version::HTTP_11 => "1.1",
                http::Version::HTTP_2 => "2",
                _ => "3",
            },
            status: Cell::new(CLIENT_CLOSED),
            seen,
            journal: Rc::default(),
        }
    }

    pub(crate) fn answered(&self, status: http::StatusCode) {
        self.status.set(status.as_u16());
        self.journal.has_its_head();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let shared = &self.worker.shared;
        shared.metrics.http.active.dec();
        if self.seen.is_probe {
            return;
        }
        let labels = RequestLabels {
            http_route: self.seen.route,
            http_request_method: self.method,
            http_response_status_code: self.status.get(),
            network_protocol_version: self.version,
        };
        let seconds = self.started.elapsed().as_secs_f64();
        shared.metrics.http.observe(&labels, seconds);
        let (endpoint, status) = ((self.method, self.seen.route), self.status.get());
        shared
            .traffic
            .count(endpoint, status, self.version, seconds);
        self.log();
    }
}

impl Record {
    fn log(&self) {
        let ended = Ended {
            request_id: self.seen.request_id.to_str().unwrap_or_default(),
            method: self.method,
            route: self.seen.route,
            protocol: self.version,
            status: self.status.get(),
            started: self.started,
        };
        let shared = &self.worker.shared;
        let (terms, random) = (self.seen.access_log, self.worker.random());
        let written = ended.write(&self.journal, terms, &shared.lines, random, Instant::now());
        if written == Written::TooMany {
            shared.metrics.limit_hit("access_log_lines_per_second_max");
        }
    }
}

/// One attempt on one node, from the choice of the node to the end of the answer's body.
#[derive(Debug)]
pub(crate) struct Flight {
    worker: Rc<Worker>,
    node: Arc<Node>,
    class: Class,
    /// The number of its route.
    route: usize,
    started: Instant,
    /// The answer is a 5xx: a failure in the eyes of the balancer.
    failed: bool,
    link: Option<Link>,
    /// Its node was in rotation when it began.
    trusted: bool,
    settled: bool,
    journal: Option<Rc<Journal>>,
}

/// What a request may have done to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The node said that it is ending.
    Nothing,
    /// It was out of rotation already, and took the request all the same: it was alive.
    Death,
    All,
}

impl Flight {
    /// Counts a request in on a node.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        node: &Arc<Node>,
        route: &Route,
        now: Instant,
    ) -> Self {
        node.begin(now);
        Self {
            worker: Rc::clone(worker),
            node: Arc::clone(node),
            class: route.class,
            route: route.number,
            started: now,
            failed: false,
            link: None,
            trusted: node.state().is_usable(),
            settled: false,
            journal: None,
        }
    }

    /// How it ends is to be noted there.
    pub(crate) fn noted_in(&mut self, journal: &Rc<Journal>) {
        self.journal = Some(Rc::clone(journal));
    }

    /// The node that it is on.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// The node itself, for longer than the flight.
    pub(crate) fn own_node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// What the request may be to blame for if the node is lost.
    pub(crate) fn blame(&self) -> Blame {
        if self.node.ends_by_choice() {
            Blame::Nothing
        } else if self.trusted {
            Blame::All
        } else {
            Blame::Death
        }
    }

    /// What its node has is lost, as far as one can tell.
    pub(crate) fn is_lost(&self) -> bool {
        self.node.is_lost()
    }

    /// The head of an answer came over `link`.
    pub(crate) fn answered(&mut self, link: Link, status: http::StatusCode) {
        self.link = Some(link);
        self.failed = status.is_server_error();
        self.node.answered();
    }

    /// The answer was read to its end: the connection can carry another.
    pub(crate) fn completed(&mut self) {
        if !self.settled {
            let outcome = if self.failed {
                Outcome::Answered5xx
            } else {
                Outcome::Answered
            };
            let now = Instant::now();
            self.measure(self.failed, now);
            if let Some(link) = self.link.take() {
                self.worker.pool.put(&self.node, link, now);
            }
            self.settle(outcome);
        }
    }

    /// The node switched protocols and the spliced connection has ended: how long it lived says
    /// nothing about the node.
    pub(crate) fn ended_upgrade(&mut self) {
        self.settle(Outcome::Answered);
    }

    /// The node said that it is draining, or could not be reached: nothing to measure.
    pub(crate) fn never_sent(&mut self, event: Option<Event>) {
        self.learn(event);
        self.settle(Outcome::NeverSent);
    }

    /// The connection broke after the request was sent.
    pub(crate) fn no_answer(&mut self) {
        self.fail(Outcome::NoAnswer);
        self.learn(Some(Event::Broken {
            reason: Reason::Broken,
        }));
    }

    /// The answer was a 5xx, and a probe says the same of the node.
    pub(crate) fn unhealthy(&mut self, probed: Event) {
        self.fail(Outcome::Answered5xx);
        self.learn(Some(probed));
    }

    /// The node answered 429: it has done nothing, and is given less from now on.
    pub(crate) fn refused(&mut self, retry_after: Option<Duration>) {
        self.node.refused(retry_after, Instant::now());
        self.settle(Outcome::Refused);
    }

    /// The answer is passed on to nobody.
    pub(crate) fn unwanted(&mut self) {
        self.fail(Outcome::Answered5xx);
    }

    /// The request's time ran out on this node.
    pub(crate) fn out_of_time(&mut self) {
        self.fail(Outcome::OutOfTime);
    }

    /// The answer's body has no end: its connection broke, or its node is lost. That alone takes no node
    /// out, for a node that is well breaks off an answer that it cannot end, or that nobody takes.
    pub(crate) fn broken(&mut self) {
        self.fail(Outcome::BodyBroken);
    }

    /// The node fell silent in the middle of an answer's body; whether it is out is for its probe.
    pub(crate) fn stalled(&mut self) {
        self.worker.shared.metrics.limit_hit("node_stall_timeout");
        self.fail(Outcome::BodyBroken);
    }

    fn fail(&mut self, outcome: Outcome) {
        self.measure(true, Instant::now());
        self.settle(outcome);
    }

    fn measure(&self, failed: bool, now: Instant) {
        let took = now.saturating_duration_since(self.started);
        self.node
            .measured(self.class, took.as_secs_f32(), failed, now);
        self.node.metrics.took(took.as_secs_f64());
    }

    fn learn(&self, event: Option<Event>) {
        if let Some(event) = event {
            self.worker.shared.learn(&self.node, event);
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        if self.settled {
            return;
        }
        self.settled = true;
        // Dropping the connection closes it: it is in the middle of something, or used up.
        self.link = None;
        self.node.end();
        match outcome {
            Outcome::Answered => self.node.tally(self.route, true),
            Outcome::Answered5xx | Outcome::NoAnswer | Outcome::BodyBroken | Outcome::OutOfTime => {
                self.node.tally(self.route, false);
            }
            Outcome::NeverSent | Outcome::Cancelled | Outcome::Refused => {}
        }
        self.node.metrics.attempted(outcome);
        if let Some(journal) = self.journal.take() {
            journal.attempted(&self.node, outcome, self.started.elapsed());
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Nobody settled it: the client went away, or another node was faster.
        if !self.settled {
            self.node.waited(self.class, self.started, Instant::now());
        }
        self.settle(Outcome::Cancelled);
    }
}
