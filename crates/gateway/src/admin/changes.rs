//! What the admin API changes: the state that an operator wants of a node, and the configuration.
//! Whether the caller may was checked before.

use std::time::{Duration, Instant};

use http::{StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Context, json_answer, problem, problem_with, status, whole};
use crate::ejection::Wanted;
use crate::fingerprint::Fingerprint;
use crate::reload::Cause;
use crate::worker::{NotSet, Shared};

const BODY_BYTES_MAX: usize = 4096;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of `PUT /api/v1/nodes/{name}/state`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeState {
    state: Wanted,
    /// Also if no other node is in rotation.
    #[serde(default)]
    force: bool,
}

pub(super) async fn set_state(shared: &Shared, name: &str, body: Incoming) -> Answer {
    let state: NodeState = match read(shared, body).await {
        Ok(state) => state,
        Err(refusal) => return refusal,
    };
    match shared.want(name, state.state, state.force) {
        Ok(set) => {
            let mut answer = status::node(&set.node, Instant::now());
            let last = "no other node is in rotation: requests wait, and fail at their deadline";
            let untold = set.untold.map(|error| {
                format!("this gateway alone knows of it, until it ends: admin.state_file: {error}")
            });
            let warning = untold.or(set.last.then(|| last.to_owned()));
            if let (Some(warning), Some(members)) = (warning, answer.as_object_mut()) {
                members.insert("warning".to_owned(), json!(warning));
            }
            json_answer(StatusCode::OK, &answer)
        }
        Err(NotSet::Unknown) => {
            let detail = "the configuration has no node of this name; /api/v1/status lists them";
            problem(StatusCode::NOT_FOUND, "no-such-node", detail)
        }
        Err(NotSet::Last) => {
            let detail = "no other node is in rotation, so that nobody would answer; bring another \
                          one in first, or add \"force\":true";
            problem(StatusCode::CONFLICT, "last-node", detail)
        }
    }
}

/// Takes a conviction back, or a suspicion.
pub(super) fn lift(shared: &Shared, who: &str) -> Answer {
    let who = Fingerprint::parse(who);
    if who.is_some_and(|who| shared.quarantine.lift(shared, who)) {
        let mut answer = whole(StatusCode::NO_CONTENT, "text/plain", String::new());
        answer.headers_mut().remove(header::CONTENT_TYPE);
        return answer;
    }
    let detail = "nobody with this fingerprint is convicted or suspected; /api/v1/quarantine lists \
                  who is";
    problem(StatusCode::NOT_FOUND, "not-quarantined", detail)
}

pub(super) async fn reload(context: &Context) -> Answer {
    // In a task of its own: a caller that goes away must not end it half-way.
    let reloader = std::sync::Arc::clone(&context.reloader);
    let reloading = tokio::spawn(async move { reloader.reload(Cause::Api).await });
    match reloading.await {
        Ok(Ok(())) => json_answer(StatusCode::OK, &json!({"reloaded": true})),
        Ok(Err(faults)) => {
            let detail = "the file has faults; the configuration in use stays";
            let body = json!({"faults": faults});
            problem_with(StatusCode::CONFLICT, "configuration-refused", detail, body)
        }
        Err(error) => {
            tracing::error!(%error, "a reload broke off");
            let detail = "the reload broke off; see the gateway's log";
            problem(StatusCode::INTERNAL_SERVER_ERROR, "reload-broken", detail)
        }
    }
}

/// A bounded JSON body.
async fn read<T: for<'de> Deserialize<'de>>(shared: &Shared, body: Incoming) -> Result<T, Answer> {
    let whole = Limited::new(body, BODY_BYTES_MAX).collect();
    let Ok(whole) = tokio::time::timeout(BODY_TIMEOUT, whole).await else {
        shared.metrics.limit_hit("admin_body_timeout");
        let detail = "the body did not arrive in time";
        let status = StatusCode::REQUEST_TIMEOUT;
        return Err(problem(status, "request-timeout", detail));
    };
    let bytes = match whole {
        Ok(whole) => whole.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            shared.metrics.limit_hit("admin_body_bytes_max");
            let detail = format!("the body is longer than {BODY_BYTES_MAX} bytes");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(problem(status, "body-too-large", &detail));
        }
        Err(_) => {
            let detail = "the body was broken off";
            return Err(problem(StatusCode::BAD_REQUEST, "bad-request", detail));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let detail = format!(
            "the body is not what is taken here: {error}; send {{\"state\":\"active\"}}, \
             \"draining\" or \"maintenance\""
        );
        problem(StatusCode::BAD_REQUEST, "bad-request", &detail)
    })
}
