//! The simulated world: time, messages, clients; and what is checked of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use http::Method;

use super::Chance;
use super::gateway::Gateway;
use super::node::{Condition, Node};
use crate::fingerprint::Fingerprint;
use crate::retry::Failure;

/// A simulated run ends then; what began ends after it.
const END_MS: u64 = 15_000;
pub(super) const DEADLINE_MS: u64 = 10_000;
pub(super) const GATEWAYS: usize = 2;

/// What is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Get,
    /// A write with an `Idempotency-Key`.
    Keyed,
    /// One without, which must not be sent again.
    Plain,
    /// It kills whoever begins it.
    Poison,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) gateway: usize,
    pub(super) kind: Kind,
    pub(super) who: Fingerprint,
    pub(super) begun: u64,
    pub(super) answer: Option<u16>,
    pub(super) applied: u32,
}

/// One attempt of a request on a node.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) request: usize,
    pub(super) node: usize,
    pub(super) trusted: bool,
    pub(super) begun: u64,
    /// The gateway waits for it.
    pub(super) open: bool,
    /// The node has it.
    pub(super) held: bool,
    /// And works on it.
    pub(super) working: bool,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Begin(usize),
    /// A request that waits asks again.
    Again(usize),
    /// A request for whose repetition there was no budget asks again.
    Decide(usize, Failure),
    Reach(usize),
    Work(usize, u32),
    /// The head of an answer, good or 500.
    Answer(usize, bool),
    /// A connection was refused, or broke.
    Broken(usize, bool),
    /// A gateway looks at an attempt that it waits for.
    Look(usize),
    Probe(usize, usize),
    /// Of a gateway and a node: how it was when it was asked.
    Probed(usize, usize, u8),
    Fault(usize),
    /// A fault ends: node, its life.
    Mend(usize, u32),
    Start(usize),
    /// What a gateway wrote is read by the others.
    Share(usize),
}

/// What a seed stands for.
#[derive(Debug)]
pub(super) struct Plan {
    chance: Chance,
    nodes: usize,
    trouble: Trouble,
}

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nodes crash, freeze, sicken, get slow and are cut off.
    Faults,
    /// Clients send poison.
    Poison,
    Both,
}

impl Plan {
    pub(super) fn of(seed: u64, trouble: Trouble) -> Self {
        let mut chance = Chance::new(seed);
        let nodes = chance.between(2, 4) as usize;
        Self {
            chance,
            nodes,
            trouble,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Count {
    pub(super) requests: usize,
    pub(super) deaths: usize,
    pub(super) repeated: usize,
    pub(super) convicted: usize,
    pub(super) acquitted: usize,
    /// What was refused although it is no poison.
    pub(super) unlucky: usize,
}

impl Count {
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.deaths += other.deaths;
        self.repeated += other.repeated;
        self.convicted += other.convicted;
        self.acquitted += other.acquitted;
        self.unlucky += other.unlucky;
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: u64,
    pub(super) chance: Chance,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) requests: Vec<Request>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) gateways: Vec<Gateway>,
    /// The gateway whose turn it is to try somebody.
    pub(super) turn: Option<usize>,
    /// What gateways write for each other, by gateway.
    pub(super) book: BTreeMap<usize, Vec<Fingerprint>>,
    pub(super) count: Count,
    pub(super) wrong: Vec<String>,
    /// What was tried on a node that had a fault of its own meanwhile.
    pub(super) unlucky: BTreeSet<Fingerprint>,
    /// Tells what happens: one seed is replayed.
    tells: bool,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let nodes = (0..plan.nodes).map(|_| Node {
            condition: Condition::Up,
            life: 0,
            killed_by: None,
        });
        let mut world = Self {
            start: Instant::now(),
            now: 0,
            chance: plan.chance,
            queue: BinaryHeap::new(),
            sequence: 0,
            nodes: nodes.collect(),
            requests: Vec::new(),
            attempts: Vec::new(),
            gateways: (0..GATEWAYS).map(|_| Gateway::new(plan.nodes)).collect(),
            turn: None,
            book: BTreeMap::new(),
            count: Count::default(),
            wrong: Vec::new(),
            unlucky: BTreeSet::new(),
            tells: std::env::var_os("BINGO_SIMULATION_SEED").is_some(),
        };
        world.clients(plan.trouble);
        for gateway in 0..GATEWAYS {
            for node in 0..world.nodes.len() {
                let at = world.chance.between(0, 100);
                world.at(at, Event::Probe(gateway, node));
            }
        }
        let mut at = 1_000;
        while plan.trouble != Trouble::Poison && at < END_MS - 2_000 {
            let node = world.chance.between(0, world.nodes.len() as u64) as usize;
            world.at(at, Event::Fault(node));
            at += world.chance.between(1_500, 4_000);
        }
        world
    }

    /// Two hundred requests a second through all gateways, and two poisons, each sent several times.
    fn clients(&mut self, trouble: Trouble) {
        let mut at = 0;
        while at < END_MS {
            let kind = match self.chance.between(0, 10) {
                0..6 => Kind::Get,
                6..9 => Kind::Keyed,
                _ => Kind::Plain,
            };
            // GETs are often the same, writes hardly ever.
            let body = match kind {
                Kind::Get => self.chance.between(0, 200),
                _ => self.chance.next(),
            };
            let gateway = self.chance.between(0, GATEWAYS as u64) as usize;
            self.client(at, gateway, kind, body);
            at += self.chance.between(0, 10);
        }
        let poisons = if trouble == Trouble::Faults { 0 } else { 2 };
        for _ in 0..poisons {
            let (body, begun) = (self.chance.next(), self.chance.between(2_000, END_MS));
            for number in 0..6 {
                let late = self.chance.between(0, 2) * self.chance.between(0, 2_000);
                self.client(begun + late, number % GATEWAYS, Kind::Poison, body);
            }
        }
    }

    fn client(&mut self, at: u64, gateway: usize, kind: Kind, body: u64) {
        let method = if kind == Kind::Get {
            Method::GET
        } else {
            Method::POST
        };
        let who = Fingerprint::of(&method, "/", &body.to_le_bytes());
        self.requests.push(Request {
            gateway,
            kind,
            who,
            begun: at,
            answer: None,
            applied: 0,
        });
        self.at(at, Event::Begin(self.requests.len() - 1));
    }

    pub(super) fn run(&mut self) {
        while let Some(Reverse((at, _, event))) = self.queue.pop() {
            self.now = at;
            if at > END_MS + DEADLINE_MS + 5_000 {
                break;
            }
            self.happen(event);
        }
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence, event)));
    }

    /// For whoever replays a seed.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{:6} {}", self.now, what());
        }
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    /// A message's time on its way.
    pub(super) fn delay(&mut self) -> u64 {
        match self.chance.between(0, 50) {
            0 => self.chance.between(2, 30),
            _ => self.chance.between(0, 2),
        }
    }

    /// Sends a request to a node.
    pub(super) fn send(&mut self, request: usize, node: usize, trusted: bool) -> usize {
        self.attempts.push(Attempt {
            request,
            node,
            trusted,
            begun: self.now,
            open: true,
            held: false,
            working: false,
        });
        let attempt = self.attempts.len() - 1;
        let delay = self.delay();
        self.after(delay, Event::Reach(attempt));
        self.after(50, Event::Look(attempt));
        attempt
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Begin(request) => {
                self.begin(request);
                self.go(request);
            }
            Event::Again(request) => self.go(request),
            Event::Reach(attempt) => self.reach(attempt),
            Event::Work(attempt, life) => self.work(attempt, life),
            Event::Answer(attempt, well) => {
                let node = self.attempts[attempt].node;
                match self.nodes[node].condition {
                    // TCP sends it again until it comes.
                    Condition::Cut => self.after(20, event),
                    _ => self.answered(attempt, well),
                }
            }
            Event::Broken(attempt, refused) => self.broken(attempt, refused),
            Event::Look(attempt) => self.look(attempt),
            Event::Decide(request, failure) => self.decide(request, failure),
            Event::Probe(gateway, node) => self.probe(gateway, node),
            Event::Probed(gateway, node, found) => self.probed(gateway, node, found),
            Event::Fault(node) => self.fault(node),
            Event::Mend(node, life) => {
                if self.nodes[node].life == life && self.nodes[node].condition != Condition::Down {
                    self.thaw(node);
                }
            }
            Event::Start(node) => {
                self.tell(|| format!("n{node} starts"));
                self.nodes[node].condition = Condition::Up;
                self.nodes[node].killed_by = None;
            }
            Event::Share(gateway) => self.share(gateway),
        }
    }

    pub(super) fn judge(mut self) -> Result<Count, String> {
        let mut refused = BTreeSet::new();
        for (number, request) in self.requests.iter().enumerate() {
            let (kind, answer) = (request.kind, request.answer);
            let unlucky = answer == Some(422) && self.unlucky.contains(&request.who);
            if unlucky && kind != Kind::Poison {
                refused.insert(request.who);
            }
            let fine = match kind {
                Kind::Get | Kind::Keyed => answer == Some(200),
                Kind::Plain => matches!(answer, Some(200 | 500 | 502)),
                Kind::Poison => matches!(answer, Some(422 | 500 | 502 | 504)),
            };
            let fine = fine || unlucky;
            if !fine {
                let begun = request.begun;
                let text = format!("request {number} ({kind:?}) of {begun} ms ended in {answer:?}");
                self.wrong.push(text);
            }
            let missing = kind == Kind::Keyed && request.applied == 0 && !unlucky;
            if request.applied > 1 || missing {
                let text = format!(
                    "request {number} ({kind:?}) was done {} times",
                    request.applied
                );
                self.wrong.push(text);
            }
        }
        self.count.unlucky = refused.len();
        self.count.requests = self.requests.len();
        let allowed = self.requests.len() / 5 + GATEWAYS * (100 + 10 * 30);
        if self.count.repeated > allowed {
            self.wrong.push(format!("{} repeated", self.count.repeated));
        }
        match self.wrong.is_empty() {
            true => Ok(self.count),
            false => Err(self
                .wrong
                .iter()
                .take(5)
                .cloned()
                .collect::<Vec<_>>()
                .join("; ")),
        }
    }
}
