//! A node's life: serve, and end in order (architecture.md "How a process lives").

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use chassis::{Failure, Shutdown};

use crate::app::App;
use crate::config::Config;
use crate::server::Server;
use crate::{database_events, router};

/// How long the end of a node waits for the disk that takes its events.
const FLUSH_MAX: Duration = Duration::from_millis(200);

/// Where a node listens.
pub struct Sockets<Open> {
    /// Opens the listener for clients, when it is time: a node that starts slowly, on purpose, must
    /// refuse until then.
    pub api: Open,
    /// Where `/metrics` and `/health` are served, from the start to the very end.
    pub admin: Option<TcpListener>,
}

/// The listener for clients.
#[derive(Debug)]
pub struct Api {
    pub listener: TcpListener,
    /// It was handed down by a parent that keeps it open: at the end others accept in our place
    /// at once, so no probe needs to be told first.
    pub inherited: bool,
}

/// Serves until `shutdown` is requested, then drains and returns. Never waits for the database.
/// Fails at once on a configuration that cannot be used (exit 64) or a listener that cannot be opened,
/// and on nothing later.
pub async fn run<Open>(
    config: Config,
    sockets: Sockets<Open>,
    shutdown: Shutdown,
) -> Result<(), Failure>
where
    Open: FnOnce() -> Result<Api, Failure>,
{
    let app = App::new(config)?;
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
    let watchdog = tokio::spawn(chassis::notify::watchdog());
    let changes = tokio::spawn(database_events::tell(app.clone()));
    // The admin listener answers to the last moment; dropping it ends it.
    let result = tokio::select! {
        result = live(&app, sockets.api, &shutdown) => result,
        () = admin => Ok(()),
    };
    watchdog.abort();
    changes.abort();
    app.events.flush(FLUSH_MAX);
    result
}

async fn live<Open>(app: &Arc<App>, open: Open, shutdown: &Shutdown) -> Result<(), Failure>
where
    Open: FnOnce() -> Result<Api, Failure>,
{
    app.faults.start();
    tokio::select! {
        started = app.faults.slow_start() => started?,
        () = shutdown.requested() => return Ok(()),
    }
    let Api {
        listener,
        inherited,
    } = open()?;
    let mut server = Server::new(app.clone(), router::api(app.clone()), listener)?;
    app.serve();
    chassis::notify::ready();
    server.accept_until(shutdown.requested()).await;

    app.drain();
    chassis::notify::stopping();
    if !inherited {
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
    Ok(())
}
