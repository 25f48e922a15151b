//! A node's life: serve, and end in order (architecture.md "How a process lives").

use std::net::TcpListener;

use chassis::{Failure, Shutdown};

use crate::app::App;
use crate::config::Config;
use crate::router;
use crate::server::Server;

/// The listening sockets of a node.
#[derive(Debug)]
pub struct Sockets {
    /// Where clients are served.
    pub api: TcpListener,
    /// Where `/metrics` and `/health` are served.
    pub admin: Option<TcpListener>,
    /// `api` was handed down by a parent that keeps it open: at the end others accept in our place
    /// at once, so no probe needs to be told first.
    pub inherited: bool,
}

/// Serves until `shutdown` is requested, then drains and returns. Never waits for the database.
/// Fails at once on a configuration that cannot be used (exit 64), and on nothing later.
pub async fn run(config: Config, sockets: Sockets, shutdown: Shutdown) -> Result<(), Failure> {
    let app = App::new(config)?;
    let mut server = Server::new(app.clone(), router::api(app.clone()), sockets.api)?;
    let admin = match sockets.admin {
        Some(listener) => Some(Server::new(
            app.clone(),
            router::admin(app.clone()),
            listener,
        )?),
        None => None,
    };
    let admin = async {
        match admin {
            Some(mut server) => server.accept_until(std::future::pending()).await,
            None => std::future::pending().await,
        }
    };
    let life = async {
        app.faults.start();
        chassis::notify::ready();
        server.accept_until(shutdown.requested()).await;

        app.drain();
        chassis::notify::stopping();
        if !sockets.inherited {
            let delay = tokio::time::sleep(app.config.drain_delay);
            server.accept_until(delay).await;
        }
        let broken_off = server.finish(app.config.drain_deadline).await;
        if broken_off > 0 {
            tracing::warn!(
                broken_off,
                "connections were broken off at the drain deadline"
            );
        }
    };
    let watchdog = tokio::spawn(chassis::notify::watchdog());
    // The admin listener answers to the last moment; dropping it ends it.
    tokio::select! {
        () = life => {}
        () = admin => {}
    }
    watchdog.abort();
    Ok(())
}
