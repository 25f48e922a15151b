//! The prober: asks every node how it is, each over a connection of its own, one prober per process.
//! What an answer means is decided in `ejection`. After each change of the configuration it begins
//! with nodes that are new and ends with those that are gone or in maintenance.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::ejection::{Probed, Wanted, judge};
use crate::nodes::{Node, NodeId};
use crate::valid::ValidProbe;
use crate::worker::Shared;

/// A longer answer to a probe is a bad one.
const ANSWER_BYTES_MAX: usize = 4096;

type Connection = SendRequest<Empty<Bytes>>;

/// Probes all nodes for ever.
pub(crate) async fn watch_all(shared: Arc<Shared>) {
    let mut tasks: HashMap<NodeId, Watch> = HashMap::new();
    loop {
        let live = shared.live();
        let probed = |node: &&Arc<Node>| node.wanted() != Wanted::Maintenance;
        tasks.retain(|id, watch| {
            let mut nodes = live.nodes.iter().filter(probed);
            watch.settings == live.probe && nodes.any(|node| node.id == *id)
        });
        for node in live.nodes.iter().filter(probed) {
            tasks.entry(node.id).or_insert_with(|| Watch {
                settings: live.probe.clone(),
                task: tokio::spawn(watch(
                    Arc::clone(&shared),
                    Arc::clone(node),
                    live.probe.clone(),
                )),
            });
        }
        drop(live);
        shared.nodes_changed.notified().await;
    }
}

/// The probing of one node; ends, with its connection, when this is dropped.
struct Watch {
    settings: ValidProbe,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One probe beside the others, for a request that wants to know what became of its node. Over a
/// connection of its own: an open one may be that of a process that is gone.
pub(crate) async fn once(node: &Node, probe: &ValidProbe) -> Probed {
    let asking = async { ask(node, &probe.path, &mut None).await };
    tokio::time::timeout(probe.timeout, asking)
        .await
        .unwrap_or(Probed::TimedOut)
}

/// Probes one node for ever.
async fn watch(shared: Arc<Shared>, node: Arc<Node>, probe: ValidProbe) {
    let mut connection = None;
    let mut due = Instant::now();
    loop {
        tokio::time::sleep_until(due).await;
        let late = due.elapsed();
        let answers = node.answers();
        let give_up = Instant::now() + probe.timeout;
        let asking = ask(&node, &probe.path, &mut connection);
        let (probed, late) = match tokio::time::timeout_at(give_up, asking).await {
            Ok(probed) => (probed, late),
            Err(_) => (Probed::TimedOut, late.max(give_up.elapsed())),
        };
        if !matches!(probed, Probed::Good | Probed::Draining | Probed::BadStatus) {
            connection = None;
        }
        if let Some(event) = judge(probed, late, node.answers() != answers) {
            shared.learn(&node, event);
        }
        due = (due + probe.interval).max(Instant::now());
    }
}

async fn ask(node: &Node, path: &str, connection: &mut Option<Connection>) -> Probed {
    if let Some(open) = connection
        && (open.is_closed() || open.ready().await.is_err())
    {
        *connection = None;
    }
    let open = match connection {
        Some(open) => open,
        None => match connect(node).await {
            Some(new) => connection.insert(new),
            None => return Probed::Unreachable,
        },
    };
    let request = Request::get(path)
        .header(header::HOST, host(node))
        .header(
            header::USER_AGENT,
            HeaderValue::from_static(chassis::PROBE_AGENT),
        )
        .body(Empty::new());
    let Ok(request) = request else {
        return Probed::BadStatus;
    };
    match open.send_request(request).await {
        Ok(answer) => {
            let status = answer.status();
            let state = answer.headers().get("bingo-state");
            let draining = state.is_some_and(|state| state == "draining");
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
            match body.collect().await {
                // Busy is not sick: it is at work, and may take up to a limit of its own.
                Ok(_) if matches!(status, StatusCode::OK | StatusCode::TOO_MANY_REQUESTS) => {
                    Probed::Good
                }
                Ok(_) if draining => Probed::Draining,
                Ok(_) => Probed::BadStatus,
                Err(_) => Probed::Unreachable,
            }
        }
        Err(error) => {
            tracing::debug!(node = node.name, %error, "probe failed");
            Probed::Unreachable
        }
    }
}

async fn connect(node: &Node) -> Option<Connection> {
    let stream = TcpStream::connect(&node.address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(async move {
        // The prober sees the error as the end of its request.
        let _ = connection.await;
    });
    Some(sender)
}

fn host(node: &Node) -> HeaderValue {
    HeaderValue::from_str(&node.address).unwrap_or(HeaderValue::from_static("node"))
}
