//! The gateway brings its own runtimes; the command calls it from inside another one.

mod rig;

use rig::{Client, Upstream, eventually, ok};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_runs_and_ends_inside_a_blocking_section_of_another_runtime() {
    let node = Upstream::start(|_| ok("fine")).await;
    let text = format!(
        "listen: [{{address: '127.0.0.1:1'}}]\nnodes: [{{name: a, address: '{}'}}]\nroutes: [{{methods: [GET], path: /}}]\n",
        node.address
    );
    let config: gateway::Config = chassis::config::parse("test", &text).unwrap();
    let config = config.validate().unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let kind = gateway::Kind::Http;
    let listener = gateway::Listener { socket, kind };
    let shutdown = chassis::Shutdown::new();
    let switch = shutdown.clone();
    let running = tokio::spawn(async move {
        tokio::task::block_in_place(|| gateway::run(config, vec![listener], vec![], vec![], switch))
    });
    let answer = eventually("it serves", async || {
        Some(Client::connect(address).await.get("/").await)
    });
    assert_eq!(answer.await.text(), "fine");
    shutdown.request();
    running.await.unwrap().unwrap();
}
