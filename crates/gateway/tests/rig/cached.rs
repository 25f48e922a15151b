//! A gateway with a cached route, and a node whose answers are told apart.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::{Answer, Gateway, Reply, Upstream, answer};

pub(crate) const FRESH: &str = "cache-control: public, max-age=60\r\n";

/// A gateway of two threads with `/cached` (these rules) and `/plain`.
pub(crate) fn config(rules: &str) -> String {
    format!(
        "
threads: 2
probe: {{interval: 20ms}}
cache: {{bytes_max: 128KiB, entry_bytes_max: 16KiB}}
routes:
- {{methods: [GET, POST], path: /cached, deadline: 2s, retry: never, cache: {{{rules}}}}}
- {{methods: [GET], path: '/cached/{{any}}', deadline: 2s, cache: {{{rules}}}}}
- {{methods: [GET], path: /plain, deadline: 2s}}
"
    )
}

pub(crate) const MINUTE: &str = "ttl_max: 60s, refresh_ahead: 20s";

/// A node that counts: each answer is another, with these fields.
pub(crate) async fn counting(headers: &'static str) -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::start(move |_| {
        let number = count.fetch_add(1, SeqCst);
        Reply::Raw(answer("200 OK", headers, &format!("answer {number}")))
    })
    .await
}

pub(crate) async fn counting_and_gateway(headers: &'static str) -> (Upstream, Gateway) {
    let node = counting(headers).await;
    let gateway = Gateway::start(&[&node], &config(MINUTE));
    (node, gateway)
}

pub(crate) async fn get(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut client = gateway.client().await;
    client.send("GET", path, headers, "").await.unwrap()
}
