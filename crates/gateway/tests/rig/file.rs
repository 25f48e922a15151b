//! A gateway that runs on a file, with a token for its admin API: what an operator has in hand.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Answer, Client, Gateway};

pub(crate) const TOKEN: &str = "correct-horse";

/// A gateway, its file and its token.
pub(crate) struct OnFile {
    pub(crate) gateway: Gateway,
    folder: tempfile::TempDir,
}

impl OnFile {
    /// In front of these nodes (names and addresses), with these lines of YAML for the rest.
    pub(crate) fn start(nodes: &[(&str, SocketAddr)], rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        let token = folder.path().join("token");
        std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
        std::fs::write(&file, text(&token, nodes, rest)).unwrap();
        let config = gateway::Valid::read(&file).unwrap();
        Self {
            gateway: Gateway::run(config),
            folder,
        }
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.yaml")
    }

    /// Writes another file in the place of the old one, as an editor does.
    pub(crate) fn write(&self, nodes: &[(&str, SocketAddr)], rest: &str) {
        self.write_text(&text(&self.token_file(), nodes, rest));
    }

    pub(crate) fn write_text(&self, text: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, self.file()).unwrap();
    }

    /// Another gateway on the same file.
    pub(crate) fn another(&self) -> Gateway {
        Gateway::run(gateway::Valid::read(&self.file()).unwrap())
    }

    /// Asks for a reload over the admin API.
    pub(crate) async fn reload(&self) -> Answer {
        self.change("POST", "/api/v1/reload", "").await
    }

    /// Sets a node's state; `body` is JSON.
    pub(crate) async fn set(&self, node: &str, body: &str) -> Answer {
        let path = format!("/api/v1/nodes/{node}/state");
        self.change("PUT", &path, body).await
    }

    pub(crate) async fn change(&self, method: &str, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        let mut admin = Client::connect(self.gateway.admin).await;
        let headers = [("authorization", bearer.as_str())];
        admin.send(method, path, &headers, body).await.unwrap()
    }

    /// The status page of the admin listener.
    pub(crate) async fn status(&self) -> serde_json::Value {
        let mut admin = Client::connect(self.gateway.admin).await;
        let answer = admin.get("/api/v1/status").await;
        serde_json::from_slice(&answer.body).unwrap()
    }
}

fn text(token: &std::path::Path, nodes: &[(&str, SocketAddr)], rest: &str) -> String {
    let nodes: String = nodes
        .iter()
        .map(|(name, address)| format!("- {{name: {name}, address: '{address}'}}\n"))
        .collect();
    format!(
        "listen: [{{address: '127.0.0.1:1'}}]\n\
         admin: {{listen: '127.0.0.1:2', token_file: {}, state_file: {}}}\n\
         nodes:\n{nodes}{rest}",
        token.display(),
        token.with_file_name("state.json").display()
    )
}
