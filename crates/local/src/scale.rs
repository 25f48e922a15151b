//! `bingo up --nodes N` over a running installation: nodes are added or taken away and no request
//! fails. New nodes run and are healthy before a gateway hears of them; those that go are forgotten by
//! every gateway and idle before they are stopped. Each step looks at what is there, not at what an
//! earlier call intended, so one that was interrupted is finished, or undone, by the next.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use chassis::{Exit, Failure, Shutdown};
use serde_json::Value;
use supervisor::control::Client;
use supervisor::{ControlError, ProcessState, Status};

use crate::database::{self, Database};
use crate::exec::Exec;
use crate::generate::{self, Ports, Subject};
use crate::layout::{Layout, write_file};
use crate::options::Options;
use crate::status::{self, Record};
use crate::{account, ask, down, ports};

mod gateways;

const POLL: Duration = Duration::from_millis(50);
/// How long nodes that no gateway uses any more may take to finish what they have. Longer than the
/// longest deadline of a route; then they are stopped, which drains them once more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(25);
/// How long a node may take to end: the stop of its process (30 s) and some.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

const ATTEMPTED: &str = "change the number of nodes";

/// Brings the running installation to `options.nodes` nodes; nothing to do when it has them.
pub(crate) fn to(
    layout: &Layout,
    options: &Options,
    timeout: Duration,
    json: bool,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let _lock = down::lock(layout);
    let Some(record) = Record::read(layout) else {
        return Ok(()); // Ended meanwhile; the caller sees that too.
    };
    let mut scale = Scale {
        layout,
        record,
        client: Client::new(layout.control_socket()),
        timeout,
        json,
        shutdown,
    };
    scale.run(options.nodes)
}

struct Scale<'a> {
    layout: &'a Layout,
    record: Record,
    client: Client,
    timeout: Duration,
    json: bool,
    shutdown: &'a Shutdown,
}

impl Scale<'_> {
    fn run(&mut self, wanted: u16) -> Result<(), Failure> {
        let running = self.running()?;
        let recorded = self.record.options.nodes;
        let names: Vec<String> = (1..=wanted).map(name).collect();
        let is_there = running.iter().copied().eq(1..=wanted);
        if recorded == wanted && is_there && gateways::listed(self.layout) == names {
            return Ok(());
        }
        let missing: Vec<u16> = (1..=wanted).filter(|n| !running.contains(n)).collect();
        let loss = self.record.options.exec.as_ref().and_then(Exec::loss);
        if let Some(loss) = loss.filter(|_| wanted > 1) {
            return Err(Failure::configuration(ATTEMPTED, loss, "give --nodes 1"));
        }
        if !missing.is_empty() {
            database::has_room(self.layout, wanted)?;
        }
        self.say(&format!("changing from {recorded} to {wanted} nodes"));
        let highest = running.last().copied().unwrap_or(0).max(wanted);
        let grown = self.grow(&missing, highest).and_then(|()| {
            // Those that an interrupted call started no gateway has used yet.
            let is_new = |number: &u16| *number > recorded || missing.contains(number);
            let new: Vec<u16> = (1..=wanted).filter(is_new).collect();
            self.revive(&new)?;
            self.wait_healthy(&new)?;
            gateways::route_to(self.layout, &self.record.ports, wanted, self.shutdown)
        });
        if let Err(failure) = grown {
            if wanted > recorded {
                self.undo(recorded);
            }
            return Err(failure);
        }
        self.say(&format!("the gateways use {wanted} nodes"));
        self.shrink(&running, wanted)?;
        self.record(wanted)
    }

    /// The numbers of the nodes that the supervisor has, in order.
    fn running(&self) -> Result<Vec<u16>, Failure> {
        let status = self.status()?;
        let nodes = status.processes.iter().filter(|p| p.role == "node");
        let mut numbers: Vec<u16> = nodes.filter_map(|node| number(&node.name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Starts those that are missing. Their ports are recorded first, so that whoever comes after a
    /// crash knows where they are.
    fn grow(&mut self, missing: &[u16], highest: u16) -> Result<(), Failure> {
        if missing.is_empty() {
            return Ok(());
        }
        choose_ports(self.layout, &mut self.record.ports, missing, highest)?;
        self.write_record()?;
        self.supervise(highest, missing)
    }

    /// Starts again what an interrupted call started and what failed for good since.
    fn revive(&self, nodes: &[u16]) -> Result<(), Failure> {
        let status = self.status()?;
        let nodes = nodes
            .iter()
            .filter_map(|number| status.process(&name(*number)));
        for node in nodes.filter(|node| node.state == ProcessState::Failed) {
            self.client.restart(&node.name).map_err(refused)?;
        }
        Ok(())
    }

    /// Waits until these are healthy; fails as soon as one of them will never be.
    fn wait_healthy(&self, nodes: &[u16]) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut told = String::new();
        loop {
            let status = self.status()?;
            let late: Vec<_> = nodes
                .iter()
                .filter_map(|number| status.process(&name(*number)))
                .filter(|node| node.state != ProcessState::Healthy)
                .collect();
            let Some(first) = late.first() else {
                return Ok(());
            };
            let line = status::one_line(first);
            if first.state == ProcessState::Failed || Instant::now() >= deadline {
                let log = self.layout.logs().join(format!("{}.log", first.name));
                let help = format!("read {}", log.display());
                return Err(Failure::run_time(ATTEMPTED, line, help));
            }
            if line != told {
                self.say(&format!("waiting: {line}"));
                told = line;
            }
            self.pause()?;
        }
    }

    /// Ends the nodes above `wanted`, once they are idle, and removes their files.
    fn shrink(&self, running: &[u16], wanted: u16) -> Result<(), Failure> {
        let extra: Vec<u16> = running.iter().copied().filter(|n| *n > wanted).collect();
        if extra.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + IDLE_TIMEOUT;
        while extra.iter().any(|number| !self.is_idle(*number)) && Instant::now() < deadline {
            self.pause()?;
        }
        self.supervise(wanted, &[])?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.running()?.iter().any(|number| *number > wanted) {
            if Instant::now() >= deadline {
                let why = "a node that is no longer used does not end";
                return Err(Failure::run_time(ATTEMPTED, why, "bingo status"));
            }
            self.pause()?;
        }
        for number in extra {
            let layout = self.layout;
            for path in [layout.node_config(number), layout.exec_config(number)] {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(self.unwritable(error));
                    }
                    _ => {}
                }
            }
            self.say(&format!("{} ended", name(number)));
        }
        Ok(())
    }

    /// After a failed growth: what was there before, as far as that goes. What does not go is left to
    /// the next call, which looks at what is there.
    fn undo(&mut self, before: u16) {
        self.say(&format!("going back to {before} nodes"));
        // Asked to stop or not, this much must be done.
        let never = Shutdown::default();
        let undone = gateways::route_to(self.layout, &self.record.ports, before, &never)
            .and_then(|()| self.running())
            .and_then(|running| {
                let scale = Scale {
                    layout: self.layout,
                    record: self.record.clone(),
                    client: self.client.clone(),
                    timeout: self.timeout,
                    json: self.json,
                    shutdown: &never,
                };
                scale.shrink(&running, before)
            })
            .and_then(|()| self.record(before));
        if let Err(failure) = undone {
            self.say(&format!("{failure}\nthe next `bingo up` cleans up"));
        }
    }

    /// Whether the node answers nobody just now, by its own count. One that does not say is not asked
    /// again: it is stopped, which drains it.
    fn is_idle(&self, number: u16) -> bool {
        let index = usize::from(number) - 1;
        let Some(port) = self.record.ports.node_admins.get(index) else {
            return true;
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        ask::get(address, "/metrics").map_or(true, |answer| active_requests(&answer.body) == 0)
    }

    /// Writes `supervisor.yaml` with `count` nodes, the files of the new ones first, and has it taken
    /// over. The entries of those that stay are left as they are written: they must not change.
    fn supervise(&self, count: u16, new: &[u16]) -> Result<(), Failure> {
        let path = self.layout.supervisor_config();
        let mut config = supervisor::Config::read(&path)?;
        let entries = self.entries(new, &config)?;
        config
            .processes
            .retain(|process| number(&process.name).is_none_or(|number| number <= count));
        let last = config.processes.iter().rposition(|p| p.role == "node");
        let at = last.map_or(config.processes.len(), |at| at + 1);
        let known: Vec<String> = config.processes.iter().map(|p| p.name.clone()).collect();
        let entries = entries.into_iter().filter(|new| !known.contains(&new.name));
        config.processes.splice(at..at, entries);
        generate::write(&path, &chassis::config::to_yaml(&config)?)?;
        self.client.reload().map(drop).map_err(refused)
    }

    /// The supervisor's entries of new nodes; their configuration files are written on the way.
    fn entries(
        &self,
        new: &[u16],
        config: &supervisor::Config,
    ) -> Result<Vec<supervisor::config::Process>, Failure> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let unreadable = |why: &str| {
            let help = "bingo down, then bingo up";
            Failure::configuration("read what the running nodes were started with", why, help)
        };
        let first = config.processes.iter().find(|p| p.name == name(1));
        let binary = first.and_then(|node| node.command.first());
        let binary = binary.ok_or_else(|| unreadable("supervisor.yaml has no node-1"))?;
        let text = std::fs::read_to_string(self.layout.node_config(1));
        let text = text.map_err(|error| unreadable(&format!("node-1.yaml: {error}")))?;
        let mut file: Value = chassis::config::from_yaml("node-1.yaml", &text)?;
        let cluster = file.get_mut("postgres_cluster").map(Value::take);
        let cluster = cluster.ok_or_else(|| unreadable("node-1.yaml has no postgres_cluster"))?;
        let database = Database {
            private: None, // It runs; only where it is matters here.
            cluster,
            url: self.record.postgres_url.clone(),
        };
        let account = account::of(self.record.options.user.as_deref())?;
        let subject = Subject {
            layout: self.layout,
            options: &self.record.options,
            ports: &self.record.ports,
            account: &account,
            database: &database,
            binary: binary.as_ref(),
            node_log: self.record.node_log.as_deref(),
        };
        let entries = new.iter().map(|number| {
            generate::write_node(&subject, *number)?;
            let entry = generate::node_process(&subject, *number);
            serde_json::from_value(entry).map_err(|error| unreadable(&error.to_string()))
        });
        entries.collect()
    }

    /// The installation has `count` nodes from now on.
    fn record(&mut self, count: u16) -> Result<(), Failure> {
        self.record.ports.nodes.truncate(count.into());
        self.record.ports.node_admins.truncate(count.into());
        self.record.options.nodes = count;
        self.write_record()
    }

    fn write_record(&self) -> Result<(), Failure> {
        let text = chassis::config::to_yaml(&self.record)?;
        write_file(&self.layout.installation(), 0o644, &text)
            .map_err(|error| self.unwritable(error))
    }

    fn status(&self) -> Result<Status, Failure> {
        self.client.status().map_err(refused)
    }

    fn pause(&self) -> Result<(), Failure> {
        if self.shutdown.is_requested() {
            return Err(interrupted());
        }
        std::thread::sleep(POLL);
        Ok(())
    }

    fn say(&self, text: &str) {
        if !self.json {
            eprintln!("{text}");
        }
    }

    fn unwritable(&self, error: io::Error) -> Failure {
        let attempted = format!("write in {}", self.layout.config().display());
        Failure::run_time(
            attempted,
            error,
            "run as the user who started the installation",
        )
    }
}

fn name(number: u16) -> String {
    format!("node-{number}")
}

fn number(name: &str) -> Option<u16> {
    name.strip_prefix("node-")?.parse().ok()
}

/// Ports for nodes up to `highest`: those that run keep theirs, and so do those whose ports are still
/// free; the others get new ones.
fn choose_ports(
    layout: &Layout,
    ports: &mut Ports,
    missing: &[u16],
    highest: u16,
) -> Result<(), Failure> {
    let mut taken = vec![ports.postgres, ports.supervisor_metrics];
    taken.extend(
        [&ports.nodes, &ports.node_admins, &ports.gateway_admins]
            .into_iter()
            .flatten(),
    );
    let fresh = ports::choose(layout.root(), 2 * usize::from(highest), &taken)?;
    let mut fresh = fresh.into_iter();
    for list in [&mut ports.nodes, &mut ports.node_admins] {
        for number in 1..=highest {
            let index = usize::from(number) - 1;
            match list.get_mut(index) {
                None => list.extend(fresh.next()),
                Some(port) if missing.contains(&number) && !is_free(*port) => {
                    *port = fresh.next().unwrap_or(*port);
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

fn is_free(port: u16) -> bool {
    ports::is_free(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// The sum of `http_server_active_requests` (Prometheus' text format: `name{labels} value`).
fn active_requests(metrics: &str) -> u64 {
    let values = metrics
        .lines()
        .filter(|line| line.starts_with("http_server_active_requests"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

fn refused(error: ControlError) -> Failure {
    let why = chassis::failure::chain(&error);
    Failure::run_time(
        ATTEMPTED,
        why,
        "bingo status; the next `bingo up` finishes or undoes it",
    )
}

fn interrupted() -> Failure {
    Failure::new(
        Exit::Interrupted,
        ATTEMPTED,
        "interrupted",
        "the next `bingo up` finishes or undoes it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Ports {
        Ports {
            postgres: 1,
            nodes: vec![11, 12],
            node_admins: vec![21, 22],
            supervisor_metrics: 9,
            gateway_admins: vec![31, 32],
        }
    }

    #[test]
    fn new_nodes_get_ports_of_their_own_and_the_others_keep_theirs() {
        let mut ports = example();
        let layout = Layout::new("/srv/one".into());
        choose_ports(&layout, &mut ports, &[3, 4], 4).unwrap();
        assert_eq!(
            (&ports.nodes[..2], &ports.node_admins[..2]),
            (&[11, 12][..], &[21, 22][..])
        );
        let mut all: Vec<u16> = ports
            .nodes
            .iter()
            .chain(&ports.node_admins)
            .copied()
            .collect();
        assert_eq!(all.len(), 8);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8, "{ports:?}");
    }

    #[test]
    fn a_port_left_by_an_interrupted_call_is_used_again_unless_somebody_took_it() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = held.local_addr().unwrap().port();
        let mut ports = example();
        let layout = Layout::new("/srv/one".into());
        let free = ports::choose(layout.root(), 1, &[]).unwrap()[0];
        ports.nodes.push(free);
        ports.node_admins.push(busy);
        choose_ports(&layout, &mut ports, &[3], 3).unwrap();
        assert_eq!(ports.nodes[2], free);
        assert_ne!(ports.node_admins[2], busy);
    }

    #[test]
    fn requests_in_flight_are_read_from_a_nodes_own_figures() {
        let text = "# TYPE http_server_active_requests gauge\n\
                    http_server_active_requests 3\nhttp_server_active_requests{a=\"b c\"} 2\n";
        assert_eq!(active_requests(text), 5);
        assert_eq!(active_requests(""), 0);
    }
}
