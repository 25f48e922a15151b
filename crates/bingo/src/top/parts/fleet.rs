//! What serves, and what it stands on: nodes, gateways, processes, databases, machines; each with its
//! state in a word, since when, and why. Pure.

use super::Maker;
use super::cells::{counted, joined, known, measured, others, state, tally, used};
use crate::top::figures::{NOTHING, UNKNOWN, bytes, per_second, percent, plural};
use crate::top::fit::Part;
use crate::top::ink::{Kind, cut};
use crate::top::picture::{Database, Host, Node, Process};
use crate::top::table::{Cell, Column, Side, column};

/// What a node was asked is shown of the last seconds, as the rest of the traffic.
const NOW_SECONDS: usize = 10;

impl Maker<'_> {
    pub(super) fn nodes(&self) -> Part {
        const COLUMNS: [Column; 7] = [
            column("Node", Side::Left, 0),
            column("State", Side::Left, 0),
            column("Since", Side::Left, 2),
            column("In flight", Side::Right, 4),
            column("req/s", Side::Right, 3),
            column("Failed", Side::Right, 5),
            column("Why", Side::Rest, 1),
        ];
        let nodes = &self.picture.nodes;
        let row = |node: &Node| {
            let (requests, failed, seconds) = self.seen.history.of_node(&node.name, NOW_SECONDS);
            vec![
                node.name.as_str().into(),
                state(&node.state),
                self.since(&node.since),
                node.in_flight.to_string().into(),
                per_second(requests, seconds as f64).into(),
                counted(percent(failed, requests), failed > 0.0),
                joined([node.reason.as_str(), &others(&node.others_say)]).into(),
            ]
        };
        let rows: Vec<Vec<Cell>> = nodes.iter().map(row).collect();
        let short = tally(nodes.iter().map(|node| node.state.as_str()));
        self.table("Nodes", short, &COLUMNS, &rows, 6, 1)
    }

    pub(super) fn gateways(&self) -> Part {
        const COLUMNS: [Column; 6] = [
            column("Gateway", Side::Left, 0),
            column("State", Side::Left, 0),
            column("Since", Side::Left, 2),
            column("Open", Side::Right, 3),
            column("Connections", Side::Right, 4),
            column("Why", Side::Rest, 1),
        ];
        let gateways = &self.picture.gateways;
        let rows = gateways.iter().map(|gateway| {
            vec![
                gateway.name.as_str().into(),
                state(&gateway.state),
                self.since(&gateway.since),
                known(gateway.active_requests),
                known(gateway.connections),
                gateway.reason.as_str().into(),
            ]
        });
        let rows: Vec<Vec<Cell>> = rows.collect();
        let short = tally(gateways.iter().map(|gateway| gateway.state.as_str()));
        let is_well = gateways.iter().all(|one| one.state == "answers");
        let least = if is_well { 1 } else { 3 };
        self.table("Gateways", short, &COLUMNS, &rows, least, 4)
    }

    pub(super) fn processes(&self) -> Part {
        const COLUMNS: [Column; 6] = [
            column("Process", Side::Left, 0),
            column("State", Side::Left, 0),
            column("Since", Side::Left, 3),
            column("Memory", Side::Right, 2),
            column("Restarts", Side::Right, 4),
            column("Last restart", Side::Rest, 1),
        ];
        let processes = &self.picture.processes;
        if let Some(why) = &processes.unknown {
            let text = format!("Processes  {UNKNOWN}: {why}");
            let text = cut(&text, self.width);
            return self.one_line(self.ink.line(text, Kind::Warning), 5);
        }
        let row = |process: &Process| {
            let memory = process.pid.map(|_| bytes(process.rss_bytes));
            vec![
                process.name.as_str().into(),
                state(&process.state),
                self.since(&process.since),
                memory.unwrap_or(NOTHING.to_owned()).into(),
                process.restarts.to_string().into(),
                joined([process.reason.as_str(), &process.last_restart_reason]).into(),
            ]
        };
        let list = &processes.list;
        let rows: Vec<Vec<Cell>> = list.iter().map(row).collect();
        let restarts = list.iter().map(|process| process.restarts).sum::<u64>();
        let restarts = plural(restarts as usize, "restart", "restarts");
        let states = tally(list.iter().map(|process| process.state.as_str()));
        let short = format!("{states}, {restarts}");
        let is_well = |one: &Process| matches!(one.state.as_str(), "healthy" | "done");
        let least = if list.iter().all(is_well) { 1 } else { 3 };
        self.table("Processes", short, &COLUMNS, &rows, least, 6)
    }

    pub(super) fn databases(&self) -> Part {
        const COLUMNS: [Column; 8] = [
            column("Database", Side::Left, 0),
            column("Role", Side::Left, 0),
            column("Since", Side::Left, 3),
            column("Lag", Side::Right, 4),
            column("Round trip", Side::Right, 5),
            column("Busy", Side::Right, 6),
            column("Waiting", Side::Right, 2),
            column("Why", Side::Rest, 1),
        ];
        let databases = &self.picture.databases;
        if databases.is_empty() {
            let text = format!("Database  {UNKNOWN}: no node that answers tells of one");
            let text = cut(&text, self.width);
            return self.one_line(self.ink.line(text, Kind::Quiet), 3);
        }
        let row = |host: &Database| {
            vec![
                host.host.as_str().into(),
                state(&host.role),
                self.since(&host.since),
                measured(host.lag_seconds),
                measured(host.round_trip_seconds),
                host.busy_connections.to_string().into(),
                host.waiting.to_string().into(),
                others(&host.others_say).into(),
            ]
        };
        let rows: Vec<Vec<Cell>> = databases.iter().map(row).collect();
        let each = databases
            .iter()
            .map(|host| format!("{} {}", host.host, host.role));
        let short = each.collect::<Vec<_>>().join(", ");
        let is_well = |host: &Database| host.role != "away" && host.others_say.is_empty();
        let least = if databases.iter().all(is_well) { 1 } else { 3 };
        self.table("Database", short, &COLUMNS, &rows, least, 3)
    }

    pub(super) fn machines(&self) -> Part {
        const COLUMNS: [Column; 4] = [
            column("Machine", Side::Left, 0),
            column("Processors busy", Side::Left, 0),
            column("Memory used", Side::Left, 1),
            column("Disk used", Side::Left, 2),
        ];
        let busy = |host: &Host| match host.busy_percent {
            Some(percent) => format!("{percent:.0} % of {}", host.processors),
            None => UNKNOWN.to_owned(),
        };
        let memory = |host: &Host| used(host.memory_bytes, host.memory_available_bytes);
        let disk = |host: &Host| used(host.disk_bytes, host.disk_available_bytes);
        let hosts = &self.picture.hosts;
        let row = |host: &Host| {
            let name = host.name.as_str();
            vec![
                name.into(),
                busy(host).into(),
                memory(host).into(),
                disk(host).into(),
            ]
        };
        let rows: Vec<Vec<Cell>> = hosts.iter().map(row).collect();
        let short = hosts.first().map(|host| {
            let (busy, memory, disk) = (busy(host), memory(host), disk(host));
            format!("processors {busy}, memory {memory}, disk {disk}")
        });
        self.table("Machine", short.unwrap_or_default(), &COLUMNS, &rows, 1, 7)
    }
}
