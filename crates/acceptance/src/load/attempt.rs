//! One request from its scheduled instant to its verdict: got right, or failed and how. Sent once.
//! The only thing done twice is taking a connection, when a kept-alive one turns out closed before
//! a byte of the request was written (hyper hands the unsent request back in that case and in no
//! other).

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use tokio::time::timeout_at;

use super::asked::{Answered, Asked, Created, Expect};
use super::pool::Pool;
use super::tally::{Class, Failure, Outcome, Tally};
use super::{Ended, Witness};
use crate::error::chain;
use crate::http::BODY_BYTES_MAX;

/// The longest body that is checked as a whole; only lists are longer.
const CHECKED_BYTES_MAX: usize = 64 * 1024;

/// What all requests of a run share.
pub(super) struct Attempt {
    pub(super) pool: Pool,
    pub(super) created: Created,
    pub(super) tally: Arc<Tally>,
    pub(super) timeout: Duration,
    pub(super) witness: Option<Arc<dyn Witness>>,
}

/// How far a request came, kept outside of it so that a timeout can tell.
struct Trace {
    stage: &'static str,
    node: Option<String>,
    /// On a connection that an earlier request had used.
    on_reused: bool,
    stored: Option<u64>,
}

impl Attempt {
    /// Sends one request now and records what became of it, counted from `scheduled`.
    pub(super) async fn make(&self, asked: Asked, scheduled: Instant) {
        let lag = scheduled.elapsed();
        let mut trace = Trace {
            stage: "waiting for a connection",
            node: None,
            on_reused: false,
            stored: None,
        };
        let deadline = (scheduled + self.timeout).into();
        let failure = match timeout_at(deadline, self.exchange(&asked, &mut trace)).await {
            Ok(Ok(())) => None,
            Ok(Err((class, detail))) => Some((class, detail)),
            Err(_) => Some((
                Class::Timeout,
                format!("not done within {:?}, still {}", self.timeout, trace.stage),
            )),
        };
        let latency = scheduled.elapsed();
        if let Some(witness) = &self.witness {
            witness.ended(&Ended {
                call: asked.call,
                scheduled,
                latency,
                is_right: failure.is_none(),
                is_broken: matches!(failure, Some((Class::Broken, _))),
                on_reused: trace.on_reused,
                wrote: asked.wrote(trace.stored, failure.is_none()),
            });
        }
        self.tally.record(Outcome {
            call: asked.call,
            scheduled,
            lag,
            latency,
            failure: failure.map(|(class, detail)| Failure {
                class,
                detail,
                node: trace.node,
            }),
        });
    }

    async fn exchange(&self, asked: &Asked, trace: &mut Trace) -> Result<(), (Class, String)> {
        let mut lease = self.pool.lease().await.map_err(connect)?;
        let mut request = self.request(asked);
        trace.stage = "waiting for the head of the answer";
        let answer = loop {
            trace.on_reused = lease.reused;
            let mut error = match lease.sender.try_send_request(request).await {
                Ok(answer) => break answer,
                Err(error) => error,
            };
            let unsent = error.take_message();
            let cause = chain(error.error());
            request = match unsent {
                Some(unsent) if lease.reused => unsent,
                Some(_) => return Err((Class::Broken, format!("before it was sent: {cause}"))),
                None => {
                    self.tally.broke_after_sending();
                    return Err((Class::Broken, format!("after it was sent: {cause}")));
                }
            };
            self.pool.replace(&mut lease).await.map_err(connect)?;
        };
        let (head, body) = answer.into_parts();
        let header = |name| {
            let value = head.headers.get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        trace.node = header("bingo-node");
        trace.stage = "reading the body";
        let status = head.status.as_u16();
        let as_list = asked.expect == Expect::Array && status == 200;
        let body = read(body, as_list).await.inspect_err(|(class, _)| {
            if *class == Class::Broken {
                self.tally.broke_after_sending();
            }
        })?;
        self.pool.give_back(lease);
        if status != asked.status() {
            let text = String::from_utf8_lossy(body.get(..300).unwrap_or(&body)).into_owned();
            return Err((Class::Status(status), text));
        }
        let location = header("location").unwrap_or_default();
        trace.stored = asked
            .check(&Answered { location, body }, &self.created)
            .map_err(|why| (Class::WrongBody, why))?;
        Ok(())
    }

    fn request(&self, asked: &Asked) -> Request<Full<Bytes>> {
        let body = asked.body.clone().unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = asked.method.clone();
        // Paths are made of letters and digits here, the authority was parsed as one: both are
        // always taken; were one not, the server would answer 404 or 400 and the report show it.
        *request.uri_mut() = asked.path.parse().unwrap_or_default();
        if let Ok(host) = self.pool.authority().parse() {
            request.headers_mut().insert("host", host);
        }
        if asked.body.is_some() {
            let json = hyper::header::HeaderValue::from_static("application/json");
            request.headers_mut().insert("content-type", json);
        }
        request
    }
}

fn connect(cause: String) -> (Class, String) {
    (Class::Connect, cause)
}

/// The whole body, or of a list its first and last byte.
async fn read(mut body: Incoming, as_list: bool) -> Result<Vec<u8>, (Class, String)> {
    let limit = if as_list {
        BODY_BYTES_MAX
    } else {
        CHECKED_BYTES_MAX
    };
    let mut bytes = 0;
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let cause = chain(&error);
            (
                Class::Broken,
                format!("after {bytes} bytes of the body: {cause}"),
            )
        })?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        bytes += data.len();
        if bytes > limit {
            return Err((Class::WrongBody, format!("longer than {limit} bytes")));
        }
        if !as_list {
            kept.extend_from_slice(data);
        } else if let (Some(first), Some(last)) = (data.first(), data.last()) {
            kept = vec![*kept.first().unwrap_or(first), *last];
        }
    }
    Ok(kept)
}
