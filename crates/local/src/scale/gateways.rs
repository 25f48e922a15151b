//! Telling the gateways which nodes there are: the list in `gateway.yaml`, and a word to each gateway
//! until it shows the new list. Only the list is exchanged: what the operator changed in that file by
//! hand stays.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use chassis::{Failure, Shutdown};
use serde_json::{Value, json};

use super::{POLL, interrupted};
use crate::ask;
use crate::generate::{self, Ports};
use crate::layout::{Layout, write_file};

/// A gateway that restarts just now reads the new file when it is back; one that missed the word
/// looks at the file every second.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How often those that do not show the new list yet are told again.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Writes the first `count` nodes into `gateway.yaml` and waits until every gateway routes to these
/// and no others. Exit 64 with the gateways' own words where they refuse the file.
pub(super) fn route_to(
    layout: &Layout,
    ports: &Ports,
    count: u16,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let nodes = generate::gateway_nodes(ports, count);
    write(layout, &nodes)?;
    let token = std::fs::read_to_string(layout.admin_token()).unwrap_or_default();
    let deadline = Instant::now() + TIMEOUT;
    let mut tell_at = Instant::now();
    loop {
        let late: Vec<u16> = ports
            .gateway_admins
            .iter()
            .copied()
            .filter(|port| !shows(*port, &nodes))
            .collect();
        if late.is_empty() {
            return Ok(());
        }
        if shutdown.is_requested() {
            return Err(interrupted());
        }
        if Instant::now() >= deadline {
            let gateways: Vec<String> = late.iter().map(|port| admin(*port).to_string()).collect();
            let why = format!("not taken over by the gateways at {}", gateways.join(", "));
            let help = format!("see their logs in {}", layout.logs().display());
            return Err(Failure::run_time(
                "tell the gateways their nodes",
                why,
                help,
            ));
        }
        if Instant::now() >= tell_at {
            tell_at = Instant::now() + TELL_EVERY;
            for port in &late {
                tell(*port, token.trim())?;
            }
        }
        std::thread::sleep(POLL);
    }
}

/// The names of the nodes in `gateway.yaml`.
pub(super) fn listed(layout: &Layout) -> Vec<String> {
    let text = std::fs::read_to_string(layout.gateway_config()).unwrap_or_default();
    let config: Value = chassis::config::from_yaml("gateway.yaml", &text).unwrap_or_default();
    let nodes = config.get("nodes").and_then(Value::as_array);
    let names = nodes
        .into_iter()
        .flatten()
        .filter_map(|node| node.get("name"));
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn write(layout: &Layout, nodes: &[Value]) -> Result<(), Failure> {
    let path = layout.gateway_config();
    let attempted = format!("write the nodes into {}", path.display());
    let failed = |error: io::Error| {
        let help = "run as the user who started the installation";
        Failure::run_time(attempted.clone(), error, help)
    };
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let list = chassis::config::to_yaml(&json!({ "nodes": nodes }))?;
    let Some(text) = with_list(&text, &list) else {
        let why = "it has no line that begins with `nodes:`";
        let help = "write its nodes as a list below such a line";
        return Err(Failure::configuration(attempted, why, help));
    };
    write_file(&path, 0o644, &text).map_err(failed)
}

/// `text` with its block `nodes:` exchanged for `list`. The block ends where the next key or its
/// comment begins, at the left margin.
fn with_list(text: &str, list: &str) -> Option<String> {
    let begin = if text.starts_with("nodes:") {
        0
    } else {
        text.find("\nnodes:")? + 1
    };
    let (before, block) = text.split_at(begin);
    let first = block.find('\n').map_or(block.len(), |at| at + 1);
    let mut end = first;
    for line in block.get(first..)?.split_inclusive('\n') {
        if line.starts_with(|c: char| c.is_ascii_alphabetic() || c == '#' || c == '"') {
            break;
        }
        end += line.len();
    }
    let rest = block.get(end..)?;
    let gap = if rest.is_empty() { "" } else { "\n" };
    Some(format!("{before}{}\n{gap}{rest}", list.trim_end()))
}

fn admin(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Asks a gateway to read its file anew. Only its refusal is a failure: it may be restarting, and an
/// older one knows no reload; both are waited for.
fn tell(port: u16, token: &str) -> Result<(), Failure> {
    match ask::post(admin(port), "/api/v1/reload", token) {
        Ok(answer) if answer.status == 409 => Err(Failure::configuration(
            "tell the gateways their nodes",
            format!("refused: {}", answer.body.trim()),
            "mend config/gateway.yaml, then run this again",
        )),
        _ => Ok(()),
    }
}

/// Whether the gateway's status lists exactly these nodes.
fn shows(port: u16, nodes: &[Value]) -> bool {
    let Ok(answer) = ask::get(admin(port), "/api/v1/status") else {
        return false;
    };
    let status: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let identity = |node: &Value| {
        let text = |key: &str| node.get(key).and_then(Value::as_str).map(str::to_owned);
        (text("name"), text("address"))
    };
    let shown = status.get("nodes").and_then(Value::as_array);
    shown.is_some_and(|shown| shown.iter().map(identity).eq(nodes.iter().map(identity)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_list_of_nodes_is_exchanged() {
        let list = "nodes:\n- name: c\n  address: x\n";
        let cases = [
            (
                "a: 1\nnodes:\n- name: a\n  address: y\n\nprobe: # mine\n  path: /x\n",
                "a: 1\nnodes:\n- name: c\n  address: x\n\nprobe: # mine\n  path: /x\n",
            ),
            (
                "nodes:\n  - name: a\n\n  # said of b\n  - name: b\n# said of probe\nprobe: {}\n",
                "nodes:\n- name: c\n  address: x\n\n# said of probe\nprobe: {}\n",
            ),
            (
                "a: 1\nnodes: []\n",
                "a: 1\nnodes:\n- name: c\n  address: x\n",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(with_list(text, list).as_deref(), Some(expected));
        }
        assert_eq!(with_list("a: 1\n", list), None);
    }
}
