//! One request to a node, whoever wants to know: waits for its turn (`admission`), goes through the
//! exchange, and makes the answer ready for others. Used for a client's request and for what the
//! cache asks by itself.

use std::rc::Rc;
use std::time::Instant;

use http::{HeaderName, Response, Version, header, response};
use hyper::body::Incoming;

use crate::account::Flight;
use crate::admission::Permit;
use crate::body::NodeBody;
use crate::exchange::{Exchanged, exchange};
use crate::hop_by_hop;
use crate::live::Live;
use crate::outgoing::Outgoing;
use crate::problem::Refusal;
use crate::router::Route;
use crate::spool::Spool;
use crate::worker::Worker;

const BINGO_NODE: HeaderName = HeaderName::from_static("bingo-node");

/// A node's answer as the node gave it.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) answer: Response<Incoming>,
    pub(crate) flight: Flight,
    permit: Permit,
    spool: Option<Spool>,
    sent: Instant,
}

/// A node's answer, ready to be passed on.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) head: response::Parts,
    pub(crate) body: NodeBody,
    /// When the request's turn had come: it was sent to a node then or later.
    pub(crate) sent: Instant,
}

/// Asks a node.
pub(crate) async fn ask(
    worker: &Rc<Worker>,
    live: &Live,
    route: &Route,
    outgoing: &Outgoing,
) -> Result<Given, Refusal> {
    outgoing.journal.is_ready();
    let permit = if route.path == live.probe.path {
        Permit::none()
    } else {
        let admission = &worker.shared.admission;
        admission.enter(route.class, outgoing.deadline).await?
    };
    outgoing.journal.has_its_turn();
    let sent = Instant::now();
    let Exchanged {
        answer,
        flight,
        spool,
    } = exchange(worker, live, route, outgoing).await?;
    Ok(Given {
        answer,
        flight,
        permit,
        spool,
        sent,
    })
}

impl Given {
    /// Takes out what belongs to the connection to the node.
    pub(crate) fn prepare(self, live: &Live) -> Answered {
        let (mut head, body) = self.answer.into_parts();
        head.version = Version::HTTP_11;
        hop_by_hop::strip(&mut head.headers);
        // Where else a client may connect is for the gateway to say (RFC 7838).
        head.headers.remove(header::ALT_SVC);
        if live.expose_node {
            let label = self.flight.node().label.clone();
            head.headers.insert(BINGO_NODE, label);
        }
        let stall_timeout = live.limits.node_stall_timeout;
        Answered {
            head,
            body: NodeBody::new(body, self.flight, stall_timeout, self.permit, self.spool),
            sent: self.sent,
        }
    }
}
