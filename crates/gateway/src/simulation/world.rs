//! The simulated world: time, messages, nodes, clients, faults; and what is checked of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use http::Method;

use super::Chance;
use super::gateway::Gateway;
use crate::fingerprint::Fingerprint;

/// A simulated run ends then; what began ends after it.
const END_MS: u64 = 15_000;
pub(super) const DEADLINE_MS: u64 = 10_000;
pub(super) const GATEWAYS: usize = 2;
/// Within this time of a death the other gateway knows who is suspected.
const NEWS_MS: u64 = 100;

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
    applied: u32,
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
    held: bool,
    /// And works on it.
    working: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Up,
    Down,
    Frozen,
    Sick,
    Slow,
    /// Nothing comes in or goes out.
    Cut,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) condition: Condition,
    /// Changes with each start.
    life: u32,
    /// The poison, the gateway that it came through, and when.
    killed_by: Option<(Fingerprint, usize, u64)>,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Begin(usize),
    /// A request that waits asks again.
    Again(usize),
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
}

impl Count {
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.deaths += other.deaths;
        self.repeated += other.repeated;
        self.convicted += other.convicted;
        self.acquitted += other.acquitted;
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
    wrong: Vec<String>,
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
        };
        world.clients(plan.trouble);
        for gateway in 0..GATEWAYS {
            for node in 0..world.nodes.len() {
                let at = world.chance.between(0, 100);
                world.at(at, Event::Probe(gateway, node));
            }
        }
        let mut at = 1_000;
        while plan.trouble == Trouble::Faults && at < END_MS - 2_000 {
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
        let poisons = if trouble == Trouble::Poison { 2 } else { 0 };
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
            Event::Probe(gateway, node) => self.probe(gateway, node),
            Event::Probed(gateway, node, found) => self.probed(gateway, node, found),
            Event::Fault(node) => self.fault(node),
            Event::Mend(node, life) => {
                if self.nodes[node].life == life && self.nodes[node].condition != Condition::Down {
                    self.thaw(node);
                }
            }
            Event::Start(node) => {
                self.nodes[node].condition = Condition::Up;
                self.nodes[node].killed_by = None;
            }
            Event::Share(gateway) => self.share(gateway),
        }
    }

    fn reach(&mut self, attempt: usize) {
        let node = self.attempts[attempt].node;
        let (condition, life) = (self.nodes[node].condition, self.nodes[node].life);
        let delay = self.delay();
        match condition {
            Condition::Down => self.after(delay, Event::Broken(attempt, true)),
            Condition::Frozen | Condition::Cut => self.attempts[attempt].held = true,
            Condition::Up | Condition::Sick | Condition::Slow => {
                self.attempts[attempt].held = true;
                let who = self.attempts[attempt].request;
                if self.requests[who].kind == Kind::Poison && condition != Condition::Sick {
                    // What a frozen node was sent it does when it thaws, whoever has given it up: the
                    // one death that no gateway can prevent.
                    match self.attempts[attempt].open {
                        true => self.poisoned(node, who),
                        false => self.crash(node),
                    }
                    return;
                }
                self.attempts[attempt].working = true;
                let slow = if condition == Condition::Slow { 100 } else { 1 };
                let work = self.chance.between(1, 10) * slow;
                self.after(work, Event::Work(attempt, life));
            }
        }
    }

    /// The node has done its work.
    fn work(&mut self, attempt: usize, life: u32) {
        let node = self.attempts[attempt].node;
        if self.nodes[node].life != life || self.nodes[node].condition == Condition::Down {
            return;
        }
        if self.nodes[node].condition == Condition::Frozen {
            return self.after(20, Event::Work(attempt, life));
        }
        self.attempts[attempt].held = false;
        let sick = self.nodes[node].condition == Condition::Sick;
        let request = &mut self.requests[self.attempts[attempt].request];
        if !sick {
            match request.kind {
                // The key is stored with the effect.
                Kind::Keyed => request.applied = 1,
                Kind::Plain => request.applied += 1,
                Kind::Get | Kind::Poison => {}
            }
        }
        let delay = self.delay();
        self.after(delay, Event::Answer(attempt, !sick));
    }

    fn poisoned(&mut self, node: usize, request: usize) {
        let Request { who, gateway, .. } = self.requests[request];
        let now = self.now;
        // Two gateways that see different nodes in rotation at the same moment cannot know of each other.
        let wrong = |(poison, via, at): (Fingerprint, usize, u64)| {
            poison == who && (via == gateway || now - at > NEWS_MS)
        };
        let mut others = self.nodes.iter().enumerate();
        if others.any(|(other, one)| other != node && one.killed_by.is_some_and(wrong)) {
            let text = format!("{now} ms: one poison has two nodes down");
            self.wrong.push(text);
        }
        self.nodes[node].killed_by = Some((who, gateway, now));
        self.crash(node);
    }

    fn crash(&mut self, node: usize) {
        self.count.deaths += 1;
        self.nodes[node].life += 1;
        self.nodes[node].condition = Condition::Down;
        for attempt in 0..self.attempts.len() {
            if self.attempts[attempt].node == node && self.attempts[attempt].held {
                self.attempts[attempt].held = false;
                let delay = self.delay();
                self.after(delay, Event::Broken(attempt, false));
            }
        }
        // Now and then it is one that starts slowly.
        let start = match self.chance.between(0, 5) {
            0 => self.chance.between(2_500, 4_000),
            _ => self.chance.between(30, 300),
        };
        self.after(start, Event::Start(node));
    }

    /// One node at a time has a fault of its own, so that another one is well.
    fn fault(&mut self, node: usize) {
        if self.nodes.iter().any(|one| one.condition != Condition::Up) {
            return self.after(50, Event::Fault(node));
        }
        let life = self.nodes[node].life;
        let (condition, lasts) = match self.chance.between(0, 5) {
            0 => return self.crash(node),
            1 => (Condition::Frozen, self.chance.between(100, 1_000)),
            2 => (Condition::Sick, self.chance.between(300, 1_000)),
            3 => (Condition::Slow, self.chance.between(500, 3_000)),
            _ => (Condition::Cut, self.chance.between(100, 2_000)),
        };
        self.nodes[node].condition = condition;
        self.after(lasts, Event::Mend(node, life));
    }

    /// A fault ends. A sick node is killed and started again; what was sent meanwhile comes now.
    fn thaw(&mut self, node: usize) {
        let before = self.nodes[node].condition;
        if before == Condition::Sick {
            return self.crash(node);
        }
        self.nodes[node].condition = Condition::Up;
        if matches!(before, Condition::Frozen | Condition::Cut) {
            for attempt in 0..self.attempts.len() {
                let one = &self.attempts[attempt];
                if one.node == node && one.held && !one.working {
                    self.after(0, Event::Reach(attempt));
                }
            }
        }
    }

    pub(super) fn judge(mut self) -> Result<Count, String> {
        for (number, request) in self.requests.iter().enumerate() {
            let (kind, answer) = (request.kind, request.answer);
            let fine = match kind {
                Kind::Get | Kind::Keyed => answer == Some(200),
                Kind::Plain => matches!(answer, Some(200 | 500 | 502)),
                Kind::Poison => matches!(answer, Some(422 | 500 | 502 | 504)),
            };
            if !fine {
                let begun = request.begun;
                let text = format!("request {number} ({kind:?}) of {begun} ms ended in {answer:?}");
                self.wrong.push(text);
            }
            if request.applied > 1 || (kind == Kind::Keyed && request.applied == 0) {
                let text = format!(
                    "request {number} ({kind:?}) was done {} times",
                    request.applied
                );
                self.wrong.push(text);
            }
        }
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
