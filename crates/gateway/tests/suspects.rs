//! Poisonous requests: what they cost, who is refused for them, and that nobody else is.

mod rig;

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use rig::file::OnFile;
use rig::mortal::{Mortal, Ward};
use rig::{Answer, Client, Gateway, eventually};
use tokio::task::JoinSet;

const ROUTES: &str = "
probe: {interval: 20ms, timeout: 100ms}
routes:
- {methods: [GET, POST], path: /always, deadline: 10s, retry: always}
- {methods: [GET, POST], path: /never, deadline: 10s, retry: never}
";
const BACK: Duration = Duration::from_millis(200);

struct Service {
    one: Mortal,
    two: Mortal,
    ward: Ward,
    on_file: OnFile,
}

impl Service {
    async fn start() -> Self {
        let ward = Ward::default();
        let one = Mortal::start(&ward, BACK).await;
        let two = Mortal::start(&ward, BACK).await;
        let nodes = [("node-1", one.address), ("node-2", two.address)];
        let on_file = OnFile::start(&nodes, ROUTES);
        on_file.gateway.node_is("node-1", "healthy").await;
        on_file.gateway.node_is("node-2", "healthy").await;
        Self {
            one,
            two,
            ward,
            on_file,
        }
    }

    fn deaths(&self) -> usize {
        self.one.deaths() + self.two.deaths()
    }

    fn down_most(&self) -> usize {
        self.ward.down_most.load(SeqCst)
    }

    async fn quarantine(&self, gateway: &Gateway) -> serde_json::Value {
        let mut admin = Client::connect(gateway.admin).await;
        let answer = admin.get("/api/v1/quarantine").await;
        serde_json::from_slice(&answer.body).unwrap()
    }
}

/// The answers to these bodies, sent at the same time, each over a connection of its own.
async fn all_at_once(gateways: &[&Gateway], path: &'static str, bodies: &[String]) -> Vec<Answer> {
    let mut asked = JoinSet::new();
    for (at, body) in bodies.iter().enumerate() {
        let mut client = gateways[at % gateways.len()].client().await;
        let body = body.clone();
        asked.spawn(async move { client.post(path, &body).await });
    }
    asked.join_all().await
}

fn is_refused(answer: &Answer) {
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.text().contains("/problems/quarantined"));
    assert_eq!(
        answer.header("proxy-status"),
        "bingo; error=http_request_denied"
    );
}

#[tokio::test]
async fn a_poison_costs_one_node_two_deaths_and_is_then_refused_at_once() {
    let service = Service::start().await;
    let mut client = service.on_file.gateway.client().await;
    is_refused(&client.post("/always", "poison").await);
    assert_eq!((service.deaths(), service.down_most()), (2, 1));
    assert_eq!(service.one.deaths() % 2, 0, "one node alone");
    let begin = Instant::now();
    for _ in 0..20 {
        is_refused(&client.post("/always", "poison").await);
    }
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(client.post("/always", "food").await.status, 200);
    assert_eq!(service.deaths(), 2);
    let gateway = &service.on_file.gateway;
    for series in [
        "bingo_quarantine{state=\"convicted\"}",
        "bingo_verdicts_total{verdict=\"convicted\"}",
        "bingo_suspects_total{reason=\"crash\"}",
    ] {
        assert_eq!(gateway.metric(series).await, 1.0, "{series}");
    }
}

#[tokio::test]
async fn a_poison_whose_client_leaves_before_it_kills_is_found_all_the_same() {
    let service = Service::start().await;
    let poisons = || service.one.poisons.load(SeqCst) + service.two.poisons.load(SeqCst);
    let gateway = &service.on_file.gateway;
    for round in 1..=2 {
        let mut client = gateway.client().await;
        let asked = tokio::spawn(async move { client.post("/always", "late poison").await });
        eventually("a node has it", async || (poisons() == round).then_some(())).await;
        asked.abort();
        eventually("the node has died of it and is back", async || {
            let up = service.ward.down.load(SeqCst) == 0;
            (service.deaths() == round && up).then_some(())
        })
        .await;
        gateway.node_is("node-1", "healthy").await;
        gateway.node_is("node-2", "healthy").await;
    }
    let mut client = gateway.client().await;
    is_refused(&client.post("/always", "late poison").await);
    assert_eq!((service.deaths(), service.down_most()), (2, 1));
}

#[tokio::test]
async fn whoever_is_on_the_node_when_it_dies_is_served_and_nobody_else_is_convicted() {
    let service = Service::start().await;
    let mut bodies: Vec<String> = (0..30).map(|number| format!("food {number}")).collect();
    bodies.insert(10, "poison".to_owned());
    let answers = all_at_once(&[&service.on_file.gateway], "/always", &bodies).await;
    let refused = answers.iter().filter(|answer| answer.status == 422).count();
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((served, refused), (30, 1));
    // The first, a batch at most, and alone.
    assert!(service.deaths() <= 3, "{}", service.deaths());
    assert_eq!(service.down_most(), 1);
}

#[tokio::test]
async fn a_flood_of_one_poison_ends_with_its_conviction_and_never_takes_both_nodes() {
    let service = Service::start().await;
    let bodies = vec!["poison".to_owned(); 40];
    for answer in all_at_once(&[&service.on_file.gateway], "/always", &bodies).await {
        is_refused(&answer);
    }
    assert_eq!((service.deaths(), service.down_most()), (2, 1));
}

#[tokio::test]
async fn one_poison_through_two_gateways_at_once_never_takes_both_nodes() {
    let service = Service::start().await;
    let other = service.on_file.another();
    other.node_is("node-1", "healthy").await;
    other.node_is("node-2", "healthy").await;
    let gateways = [&service.on_file.gateway, &other];
    let bodies = vec!["poison".to_owned(); 10];
    for answer in all_at_once(&gateways, "/always", &bodies).await {
        is_refused(&answer);
    }
    // Two restarts for each gateway at most; sharing makes it two in all.
    assert!(service.deaths() <= 4, "{}", service.deaths());
    assert_eq!(service.down_most(), 1);
}

#[tokio::test]
async fn a_conviction_is_known_to_other_gateways_at_once_and_survives_a_restart_until_it_is_lifted()
{
    let service = Service::start().await;
    let other = service.on_file.another();
    other.node_is("node-2", "healthy").await;
    is_refused(
        &service
            .on_file
            .gateway
            .client()
            .await
            .post("/always", "poison")
            .await,
    );
    let begin = Instant::now();
    is_refused(&other.client().await.post("/always", "poison").await);
    assert_eq!(service.deaths(), 2, "refused without a trial");
    assert!(begin.elapsed() < Duration::from_secs(1));
    let restarted = service.on_file.another();
    let list = eventually("the restarted gateway knows it", async || {
        let list = service.quarantine(&restarted).await;
        (list["convicted"].as_array()?.len() == 1).then_some(list)
    })
    .await;
    let convict = &list["convicted"][0];
    assert_eq!(
        (&convict["method"], &convict["target"]),
        (&"POST".into(), &"/always".into())
    );
    let path = format!(
        "/api/v1/quarantine/{}",
        convict["fingerprint"].as_str().unwrap()
    );
    let lifted = service.on_file.change("DELETE", &path, "").await;
    assert_eq!(lifted.status, 204, "{}", lifted.text());
    assert_eq!(
        service.on_file.change("DELETE", &path, "").await.status,
        404
    );
    for gateway in [&other, &restarted] {
        eventually("it is lifted everywhere", async || {
            let list = service.quarantine(gateway).await;
            list["convicted"].as_array()?.is_empty().then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn to_lift_a_conviction_takes_the_token() {
    let service = Service::start().await;
    let mut admin = Client::connect(service.on_file.gateway.admin).await;
    let path = format!("/api/v1/quarantine/{}", "0".repeat(32));
    let refused = admin.send("DELETE", &path, &[], "").await.unwrap();
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn what_turns_a_node_sick_is_tried_on_it_and_convicted_and_others_are_served() {
    let service = Service::start().await;
    let mut bodies: Vec<String> = (0..10).map(|number| format!("food {number}")).collect();
    bodies.push("sickness".to_owned());
    let answers = all_at_once(&[&service.on_file.gateway], "/always", &bodies).await;
    let refused = answers.iter().filter(|answer| answer.status == 422).count();
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((served, refused), (10, 1));
    assert_eq!((service.deaths(), service.down_most()), (2, 1));
    let series = "bingo_suspects_total{reason=\"unhealthy\"}";
    assert!(service.on_file.gateway.metric(series).await >= 1.0);
}

#[tokio::test]
async fn nobody_is_convicted_for_a_node_that_another_gateways_trial_made_sick() {
    let service = Service::start().await;
    let other = service.on_file.another();
    other.node_is("node-1", "healthy").await;
    other.node_is("node-2", "healthy").await;
    let gateways = [&service.on_file.gateway, &other];
    for round in 0..6 {
        let mut bodies: Vec<String> = (0..40)
            .map(|number| format!("food {round} {number}"))
            .collect();
        bodies.insert(9, format!("sickness {round}"));
        let answers = all_at_once(&gateways, "/always", &bodies).await;
        let refused = answers.iter().filter(|answer| answer.status == 422);
        assert_eq!(refused.count(), 1, "round {round}");
        for gateway in gateways {
            gateway.node_is("node-1", "healthy").await;
            gateway.node_is("node-2", "healthy").await;
        }
    }
    assert_eq!(service.down_most(), 1);
}

#[tokio::test]
async fn what_was_answered_well_before_is_innocent_and_goes_to_the_other_node_at_once() {
    let service = Service::start().await;
    let gateway = &service.on_file.gateway;
    // Known for a second.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1200) {
        assert_eq!(
            gateway.client().await.post("/always", "often").await.status,
            200
        );
    }
    let mut bodies = vec!["often".to_owned(); 20];
    bodies.push("poison".to_owned());
    let answers = all_at_once(&[gateway], "/always", &bodies).await;
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 200).count(),
        20
    );
    assert_eq!(service.deaths(), 2);
    assert!(
        gateway
            .metric("bingo_verdicts_total{verdict=\"innocent\"}")
            .await
            >= 1.0
    );
    assert_eq!(
        gateway
            .metric("bingo_verdicts_total{verdict=\"acquitted\"}")
            .await,
        0.0
    );
}

#[tokio::test]
async fn a_poison_that_must_not_be_repeated_fails_once_and_is_tried_when_it_comes_again() {
    let service = Service::start().await;
    let mut client = service.on_file.gateway.client().await;
    assert_eq!(client.post("/never", "poison").await.status, 502);
    is_refused(&{
        let first = client.post("/never", "poison").await;
        // Its trial is its one attempt; who comes after that is refused.
        assert!(first.status == 502 || first.status == 422);
        client.post("/never", "poison").await
    });
    assert_eq!((service.deaths(), service.down_most()), (2, 1));
}
