//! HTTP/2 judged from outside: more than a hundred cases, each named by its section of RFC 9113 or
//! RFC 7541, and the floods that brought servers down, played by a client of its own frames and
//! field blocks, because a library would refuse to send the half of them. Over TLS (ALPN `h2`) or
//! plain TCP with prior knowledge. A server fails a case when it does what the text forbids or does
//! not do what it demands; where the text says SHOULD or leaves a choice, it `differs`. Left out:
//! whatever a server of our kind does not do (push, tunnels, extended CONNECT).
//!
//! A target needs three things to answer: GET 200 with a body of more than ten bytes, POST 200, and
//! for one flood a GET whose answer is large.

mod cases;
mod connection;
mod floods;
mod frame;
mod hpack;
mod huffman;
mod must;
mod play;
mod script;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;

pub use frame::Code;
pub use tls::Tls;

/// The longest wait for any one thing that must come.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// Cases played at once; floods are played one by one.
const CASES_AT_ONCE: usize = 4;

/// The server that is judged.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    /// What the requests name, and over TLS the certificate: a host, with or without a port.
    pub authority: String,
    /// None: plain TCP.
    pub tls: Option<Tls>,
    pub get_path: String,
    /// A GET with a large answer.
    pub large_path: String,
    pub post_path: String,
    pub post_body: String,
    pub patience: Duration,
}

impl Target {
    /// With the paths of bingo's own contract.
    pub fn new(address: SocketAddr, authority: &str, tls: Option<Tls>) -> Self {
        Self {
            address,
            authority: authority.to_owned(),
            tls,
            get_path: "/".to_owned(),
            large_path: "/api/customer".to_owned(),
            post_path: "/operation".to_owned(),
            post_body: r#"{"operation": 1}"#.to_owned(),
            patience: PATIENCE,
        }
    }
}

/// What to play.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Only what has this in its name.
    pub only: Option<String>,
    pub cases: bool,
    pub floods: bool,
}

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Passed,
    /// A SHOULD, or a reading where the text leaves a choice, was not met; or an error had its effect
    /// under the general name PROTOCOL_ERROR instead of its own.
    Differs,
    Failed,
}

/// A case, what became of it, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub id: &'static str,
    pub says: &'static str,
    pub outcome: Outcome,
    pub reason: String,
    pub took: Duration,
}

/// Plays what was chosen, and judges each.
pub async fn run(target: &Target, choice: &Choice) -> Vec<Verdict> {
    let chosen = |id: &str| choice.only.as_deref().is_none_or(|part| id.contains(part));
    let mut verdicts = Vec::new();
    if choice.cases {
        let cases: Vec<&'static cases::Case> =
            cases::all().filter(|case| chosen(case.id)).collect();
        verdicts.extend(run_cases(target, cases).await);
    }
    if choice.floods {
        for flood in floods::FLOODS.iter().filter(|flood| chosen(flood.id)) {
            verdicts.push(play::flood(target, flood).await);
        }
    }
    verdicts
}

async fn run_cases(target: &Target, cases: Vec<&'static cases::Case>) -> Vec<Verdict> {
    let (cases, next) = (Arc::new(cases), Arc::new(AtomicUsize::new(0)));
    let mut players = JoinSet::new();
    for _ in 0..CASES_AT_ONCE {
        let (target, cases, next) = (target.clone(), Arc::clone(&cases), Arc::clone(&next));
        players.spawn(async move {
            let mut verdicts = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(case) = cases.get(at) else {
                    return verdicts;
                };
                verdicts.push((at, play::case(&target, case).await));
            }
        });
    }
    let mut verdicts: Vec<(usize, Verdict)> =
        players.join_all().await.into_iter().flatten().collect();
    verdicts.sort_by_key(|(at, _)| *at);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}

#[cfg(test)]
mod tests;
